"""Chains of thought for training: asked of a teacher, filtered by what people say, and written as a table."""
