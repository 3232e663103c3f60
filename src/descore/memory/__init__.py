"""The memory that a model takes, computed from its config: to score, and in each stage of training."""
