"""Reward models that others have released: their checkpoints, read into ours, and the scores in what they write."""
