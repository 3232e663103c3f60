"""What a small text-to-video generator becomes under a reward, measured by a judge that has no part in it."""

import descore.model  # noqa: F401  # torchvision, before diffusers imports transformers
