"""Pure functions with their papers; they know tensors, and nothing of models or files."""
