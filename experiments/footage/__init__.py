"""Real footage out of packages, sound and degraded: a store of frames, and examples and pairs made from it."""
