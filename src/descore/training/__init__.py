"""Losses at work: learning to write chains, and to score them."""
