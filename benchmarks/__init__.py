"""Measurements of speed and memory: our way beside another on the same work; RECORD.md holds the results."""
