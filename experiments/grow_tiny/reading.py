"""A lesson before clips are described: prompts that mean much the same are brought near each other.

How near two texts are is what MiniLM says, a sentence encoder that was trained on a billion pairs of sentences: the
model's own prompts have few words, and ImageNet's labels alone name a thousand things. The model's state behind a
prompt over no clip goes through a linear map, which is discarded, and the cosines of a batch are fitted.

Shapes in names: B texts of a batch, F features, D width of a sentence's vector."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from descore.model.modeling import DescoreModel
from experiments.grow_tiny.lessons import NO_CLIP
from experiments.grow_tiny.meanings import MEANING
from experiments.grow_tiny.optimizer import MuonAndAdamW
from experiments.grow_tiny.texts import Readings
from experiments.grow_tiny.vision import Curve, Learning, learn


def collate_readings(items: Sequence[tuple[str, Tensor]], *, model: DescoreModel) -> dict[str, Any]:
    """A batch: the prompts over no clip, and the cosines of their vectors."""
    vector_BD = torch.stack([vector_D for _, vector_D in items])
    inputs = model.chat.lay_out_prompts([NO_CLIP] * len(items), [text for text, _ in items])
    return {"inputs": inputs, "cosine_BB": vector_BD @ vector_BD.T}


class CosineHead(nn.Module):
    """A linear map under which the cosines of states are fitted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, MEANING)

    def forward(self, state_BF: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean square of what the cosines of two different texts are off by, and beside it that of their mean."""
        other_BB = ~torch.eye(len(state_BF), dtype=torch.bool)
        target = batch["cosine_BB"][other_BB]
        loss = self.cosines(state_BF)[other_BB].sub(target).square().mean()
        return 10 * loss, {"loss": loss.item(), "of_mean": target.var().item()}

    def cosines(self, state_BF: Tensor) -> Tensor:
        """(B, B): of the states under the map."""
        mapped_BD = functional.normalize(self.map(state_BF).float(), dim=1)
        return mapped_BD @ mapped_BD.T


def read(
    model: DescoreModel,
    readings: Readings,
    out: Path,
    *,
    batch: int,
    optimizer: Callable[[nn.Module], MuonAndAdamW],
) -> Curve:
    """Train the model on the texts; a stopped lesson resumes. Returns the curve."""
    head = CosineHead(model.query.shape[0])
    perceive = partial(prompt_states, model)
    learning = Learning(model.backbone, head, optimizer(head), perceive, name="backbone")
    return learn(learning, readings, partial(collate_readings, model=model), out / "read.pt", batch=batch)


def prompt_states(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The states behind the prompts (B, F), where a chain would begin."""
    return model.hidden(batch["inputs"])[:, -1], {}
