"""The drawn world: short clips drawn from a seed whose truth is known."""
