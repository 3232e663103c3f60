"""Write a trained model in the precision of its run. Knows weights; knows nothing of how the model was trained."""

import shutil
from pathlib import Path

import torch

from descore.model.adapters import is_adapter
from descore.model.descore_model import DescoreModel

CARD_FILE = "README.md"


def save_trained(model: DescoreModel, folder: Path, *, precision: torch.dtype, card: str | None = None) -> None:
    """Write the checkpoint directory, its weights in `precision`, adapters in float32; with a model card, if given.

    The directory is there when all of it is. The model in memory takes on that precision."""
    for name, weight in model.backbone.named_parameters():
        weight.data = weight.data.float() if is_adapter(name) else weight.data.to(precision)
    aside = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    if card is not None:
        (aside / CARD_FILE).write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
