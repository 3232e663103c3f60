"""Write a trained model as a directory that `DescoreModel.from_pretrained` and transformers open, adapters included.

In: a model. Out: a directory. Knows files; knows nothing of how the model was trained."""

import shutil
from pathlib import Path

import torch

from descore.model.adapters import has_adapters, is_adapter, write_what_they_stand_beside
from descore.model.descore_model import DescoreModel


def save_trained(model: DescoreModel, folder: Path, *, precision: torch.dtype) -> None:
    """Write the checkpoint directory, its weights in `precision`, adapters in float32. It is written aside and then put
    in place; the model in memory takes on that precision."""
    for name, weight in model.backbone.named_parameters():
        weight.data = weight.data.float() if is_adapter(name) else weight.data.to(precision)
    aside = folder.with_name(folder.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    if has_adapters(model.backbone):
        write_what_they_stand_beside(model.backbone, aside)
    aside.rename(folder)
