"""Write a trained model in the precision of its run. Knows weights; knows nothing of how the model was trained."""

from pathlib import Path

import torch

from descore.model.adapters import is_adapter
from descore.model.descore_model import DescoreModel


def save_trained(model: DescoreModel, folder: Path, *, precision: torch.dtype) -> None:
    """Write the checkpoint directory, its weights in `precision`, adapters in float32.

    The model in memory takes on that precision."""
    for name, weight in model.backbone.named_parameters():
        weight.data = weight.data.float() if is_adapter(name) else weight.data.to(precision)
    model.save_pretrained(folder)
