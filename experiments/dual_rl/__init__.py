"""What stage 2, dual-objective reinforcement learning, buys."""
