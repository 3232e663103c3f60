"""One optimizer: Muon for the matrices of the blocks, AdamW for all other weights.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each step of a matrix equally long in all
directions: what is rare in the gradient, such as the difference of two shapes, is learned beside what is common."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

BETAS, MOMENTUM, WEIGHT_DECAY = (0.9, 0.98), 0.95, 0.05

_BLOCK_LAYERS = ("_proj.", ".linear", ".attn.")


def is_block_matrix(name: str, weight: nn.Parameter) -> bool:
    """Whether a weight is the matrix of a linear layer of a block: not an embedding, a position or an output."""
    return weight.ndim == 2 and any(part in name for part in _BLOCK_LAYERS)


class MuonAndAdamW(torch.optim.Optimizer):
    """Parameter groups are {"params": [...], "lr": ...}; those of `matrices` come first."""

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        super().__init__([*map(dict, matrices), *map(dict, others)], {})
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(others, betas=BETAS, weight_decay=WEIGHT_DECAY),
        )
        self._show_groups()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401, ARG002
        """Step both optimizers."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # torch's own signature
        """Zero the gradients of both."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._show_groups()

    def _show_groups(self) -> None:
        """Share the parts' groups, so that a learning rate that is set here is set there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def split_weights(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Block matrices, and all other weights."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, weight in named:
        (matrices if is_block_matrix(name, weight) else others).append(weight)
    return matrices, others
