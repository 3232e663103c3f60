"""Losses at work: learning to write chains, and to score them.

`descore.model` comes first, since it makes torchvision importable before transformers' Trainer asks for it."""

import descore.model  # noqa: F401
