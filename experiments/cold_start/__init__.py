"""What the random mask of the cold start buys and costs."""
