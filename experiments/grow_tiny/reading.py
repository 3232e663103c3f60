"""A lesson before clips are described: which texts mean much the same, and how near each is to a picture.

How near two texts are is what MiniLM says, a sentence encoder that was trained on a billion pairs of sentences: the
model's own prompts have few words, and ImageNet's labels alone name a thousand things. The model's state behind a text
goes through a linear map, which is discarded, and the cosines of a batch are fitted. The text stands over a picture:
what another map makes of the same state is how near the text is to what the picture's labels mean. Clips would teach
the same, of one text in the time of eight pictures.

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
_SEED = 4211


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A text over a picture."""

    text: str
    vector_D: Tensor
    """Of the text."""
    picture: Clip
    nearness: float
    """Of the text's vector to what the picture's labels mean."""


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
        meaning_D = real.meanings.of_clip(real.teacher.features(clip.frames[:1]).probability_NL)
        text, vector_D = self.texts.random(rng, near_D=meaning_D)
        return Reading(text=text, vector_D=vector_D, picture=clip, nearness=float(meaning_D @ vector_D))


def collate_readings(items: Sequence[Reading], *, model: DescoreModel) -> dict[str, Any]:
    """A batch: the texts over their pictures, the cosines of the texts' vectors, and each one's nearness."""
    vector_BD = torch.stack([item.vector_D for item in items])
    inputs = model.chat.lay_out_prompts([item.picture for item in items], [item.text for item in items])
    nearness_B = torch.tensor([item.nearness for item in items])
    return {"inputs": inputs, "cosine_BB": vector_BD @ vector_BD.T, "nearness_B": nearness_B}


class ReadHeads(nn.Module):
    """Linear maps of states: under one the cosines of texts are fitted, under the other nearness to pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map, self.nearness = nn.Linear(width, MEANING), nn.Linear(width, 1)

    def forward(self, state_BF: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean squares of what the cosines of two different texts, and the texts' nearness, are off by, and beside
        these what their means would be off by."""
        other_BB = ~torch.eye(len(state_BF), dtype=torch.bool)
        cosine, near_B = batch["cosine_BB"][other_BB], batch["nearness_B"]
        of_texts = self.cosines(state_BF)[other_BB].sub(cosine).square().mean()
        to_picture = self.nearness(state_BF)[:, 0].float().sub(near_B).square().mean()
        losses = {"texts": of_texts.item(), "texts_mean": cosine.var().item()}
        losses |= {"picture": to_picture.item(), "picture_mean": near_B.var().item()}
        return 10 * of_texts + 20 * to_picture, losses

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
    head = ReadHeads(model.query.shape[0])
    perceive = partial(prompt_states, model)
    learning = Learning(model.backbone, head, optimizer(head), perceive, name="backbone")
    return learn(learning, readings, partial(collate_readings, model=model), out / "read.pt", batch=batch)


def prompt_states(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The states behind the prompts (B, F), where a chain would begin."""
    return model.hidden(batch["inputs"])[:, -1], {}
