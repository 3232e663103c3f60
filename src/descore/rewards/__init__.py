"""The model as a reward: tables in bulk, best of N, preference pairs, and a plug for each trainer."""
