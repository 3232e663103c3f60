"""Stage 2: dual-objective reinforcement learning."""
