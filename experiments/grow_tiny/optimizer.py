"""Muon for the matrices inside, AdamW for all else, behind one face.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each step of a matrix equally long in all
directions: what is rare in the gradient, such as the difference of two shapes, is learned beside what is common."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

BETAS, MOMENTUM, WEIGHT_DECAY = (0.9, 0.98), 0.95, 0.05

_INSIDE = ("_proj.", ".linear", ".attn.")


def is_inside(name: str, weight: nn.Parameter) -> bool:
    """Whether a weight is the matrix of a linear layer of a block: no embedding, no position, no output."""
    return weight.ndim == 2 and any(part in name for part in _INSIDE)


class MuonAndAdamW(torch.optim.Optimizer):
    """Each group is {"params": [...], "lr": ...}; the first groups are matrices."""

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        super().__init__([*map(dict, matrices), *map(dict, others)], {})
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(others, betas=BETAS, weight_decay=WEIGHT_DECAY),
        )
        self._show_groups()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401, ARG002
        """Both."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # torch's own signature
        """Both."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._show_groups()

    def _show_groups(self) -> None:
        """Whoever sets a learning rate sets it in the parts' own groups."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def split(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside, and all else."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, weight in named:
        (matrices if is_inside(name, weight) else others).append(weight)
    return matrices, others
