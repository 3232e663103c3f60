"""A lesson before clips are described: which texts mean much the same, and how near each is to a picture.

What a text means is what MiniLM says, a sentence encoder that was trained on a billion pairs of sentences: the model's
own prompts have few words, and ImageNet's labels alone name a thousand things. The text stands over a picture. From the
model's state behind both, linear maps, which are discarded, predict the text's vector, that of what the picture's
labels mean, and how near the two are. Clips would teach the same, of one text in the time of eight pictures.

Shapes in names: B texts of a batch, F features, D width of a sentence's vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from descore.model.modeling import DescoreModel
from descore.types import Clip
from experiments.grow_tiny.meanings import MEANING
from experiments.grow_tiny.optimizer import MuonAndAdamW
from experiments.grow_tiny.texts import Texts
from experiments.grow_tiny.views import RealClips
from experiments.grow_tiny.vision import Curve, Learning, learn

FRAMES, SHOWN = 4, 2
"""Frames that are read of a clip, and those of them that are shown: one visual step."""
_SEED, _LEAST_VARIANCE = 4211, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A text over a picture."""

    text: str
    vector_D: Tensor
    """Of the text."""
    picture: Clip
    meaning_D: Tensor
    """Of the picture's labels."""


@dataclass(frozen=True, kw_only=True)
class Readings(Dataset):  # type: ignore[type-arg]
    """Random texts over random pictures, numbers `start` to `size` - 1."""

    texts: Texts
    real_clips: RealClips
    size: int
    side: int
    """A picture has at most the pixels of a square with this edge."""
    start: int = 0

    def __len__(self) -> int:
        return self.size - self.start

    def __getitem__(self, index: int) -> Reading:
        rng, real = np.random.default_rng([_SEED, self.start + index]), self.real_clips
        window = real.examples.sources.window("train", rng=rng, pixels=self.side**2, frames=FRAMES)
        clip = window.finished()
        clip = replace(clip, frames=clip.frames[:SHOWN], times=clip.times[:SHOWN])
        meaning_D = real.meanings.of_places(real.teacher.features(clip.frames[:1]).probability_NL)
        text, vector_D = self.texts.random(rng, near_D=meaning_D)
        return Reading(text=text, vector_D=vector_D, picture=clip, meaning_D=meaning_D)


def collate_readings(items: Sequence[Reading], *, model: DescoreModel) -> dict[str, Any]:
    """A batch: the texts over their pictures, and the vectors of both."""
    inputs = model.chat.lay_out_prompts([item.picture for item in items], [item.text for item in items])
    vectors = {"text_BD": [item.vector_D for item in items], "picture_BD": [item.meaning_D for item in items]}
    return {"inputs": inputs, **{name: torch.stack(rows) for name, rows in vectors.items()}}


class ReadHeads(nn.Module):
    """Linear maps of states: to the vectors of text and picture, and to how near they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.ModuleDict({name: nn.Linear(width, MEANING) for name in ("text", "picture")})
        self.nearness = nn.Linear(width, 1)

    def forward(self, state_BF: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """1 less the cosine to each vector, and the mean square of what the nearness is off by in units of its
        deviation in the batch."""
        losses = {
            name: 1 - functional.cosine_similarity(to_vector(state_BF).float(), batch[f"{name}_BD"]).mean()
            for name, to_vector in self.vectors.items()
        }
        near_B = (batch["text_BD"] * batch["picture_BD"]).sum(dim=1)
        off_B = self.nearness(state_BF)[:, 0].float() - near_B
        losses["nearness"] = off_B.square().mean() / near_B.var().clamp(min=_LEAST_VARIANCE)
        loss = torch.stack(list(losses.values())).sum()
        return loss, {name: value.item() for name, value in {"loss": loss, **losses}.items()}


def read(
    model: DescoreModel,
    readings: Readings,
    out: Path,
    *,
    batch: int,
    optimizer: Callable[[nn.Module], MuonAndAdamW],
) -> Curve:
    """Train the model on the texts; a stopped lesson resumes. Returns the curve."""
    head = ReadHeads(model.query.shape[0])
    perceive = partial(prompt_states, model)
    learning = Learning(model.backbone, head, optimizer(head), perceive, name="backbone")
    return learn(learning, readings, partial(collate_readings, model=model), out / "read.pt", batch=batch)


def prompt_states(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The states behind the prompts (B, F), where a chain would begin."""
    return model.hidden(batch["inputs"])[:, -1], {}
