"""The model as it was before the first update, to hold the learning one against: the policy that KL is measured from,
and the rewards that it gave.

Where nothing but adapters, query and head learn, it is the learning model with its adapters switched off and the first
query and head put in place, which costs no memory. Where a part learns in full, it is a copy. Knows a model and what of
it learns; knows nothing of losses."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from descore.model.modeling import DescoreModel, has_adapters
from descore.training.config import TrainableConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceModel:
    """To be made before anything was learned, or read from a checkpoint."""

    copied: DescoreModel | None
    """None: the learning model serves, as `activated` leaves it."""
    query: Tensor
    head: Tensor

    @classmethod
    def of(cls, model: DescoreModel, trainable: TrainableConfig) -> "ReferenceModel":
        """Keep what the model is now; its adapters, if it has any, still add nothing."""
        copied = copy.deepcopy(model).requires_grad_(False) if "full" in trainable.backbone_modes.values() else None
        return cls(copied=copied, query=model.query.detach().clone(), head=model.head.weight.detach().clone())

    @contextmanager
    def activated(self, model: DescoreModel) -> Iterator[DescoreModel]:
        """Within it, the model that was. Nothing may be learned there."""
        if self.copied is not None:
            yield self.copied.to(model.device).train(model.training)
            return
        with _without_adapters(model), _rows(model, query=self.query, head=self.head):
            yield model


@contextmanager
def _without_adapters(model: DescoreModel) -> Iterator[None]:
    there = has_adapters(model.backbone)
    if there:
        model.backbone.disable_adapters()
    try:
        yield
    finally:
        if there:
            model.backbone.enable_adapters()


@contextmanager
def _rows(model: DescoreModel, *, query: Tensor, head: Tensor) -> Iterator[None]:
    rows = (model.query, model.head.weight)
    learned = [row.data for row in rows]
    with torch.no_grad():
        for row, first in zip(rows, (query, head), strict=True):
            row.data = first.to(row.device)
    try:
        yield
    finally:
        for row, data in zip(rows, learned, strict=True):
            row.data = data
