"""Texts that the model is to understand: prompts of clips, and what things are called.

Shapes in names: N texts, D width of a sentence's vector."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from descore.synthetic.splits import Split, plan_example
from experiments.footage.cutouts import CutOuts
from experiments.generated.words import Words
from experiments.grow_tiny.meanings import Embed

NEAR = 40
"""Of some 2,500 texts, those that mean much the same as one."""
DRAWN_TEXTS = 1000
"""Prompts of drawn clips among the texts."""
FORMS = ("{a}", "a video of {a}", "a photo of {a}", "{a} outdoors", "two of {a}", "{a} in motion", "close-up of {a}")


def texts_to_read(words: Words, cut_outs: CutOuts, labels: Sequence[str]) -> list[str]:
    """Prompts of training, of drawn clips, and such that name labels' and cut-outs' things."""
    made = prompts_for([*labels, *(row.name for row in cut_outs.rows["train"])])
    drawn = (plan_example(Split.TRAIN, number, loose=number % 2 == 0).prompt for number in range(DRAWN_TEXTS))
    return list(dict.fromkeys([*words.prompts["train"], *made, *drawn]))


def prompts_for(things: Iterable[str]) -> Iterator[str]:
    """A prompt for each of these things, in forms by turns."""
    return (FORMS[number % len(FORMS)].format(a=_with_article(thing)) for number, thing in enumerate(things))


def _with_article(name: str) -> str:
    low = name.lower()
    return low if low.startswith(("a ", "an ")) else f"{'an' if low[0] in 'aeiou' else 'a'} {low}"


def vectors_of(texts: Sequence[str], embed: Embed, path: Path, *, at_once: int = 64) -> Tensor:
    """(N, D): the texts' vectors, from the file if it has as many rows."""
    if path.exists() and len(vectors := torch.from_numpy(np.load(path))) == len(texts):
        return vectors
    parts = [embed(texts[first : first + at_once]) for first in range(0, len(texts), at_once)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, torch.cat(parts).numpy())
    return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts with their vectors."""

    texts: Sequence[str]
    vector_ND: Tensor

    def random(self, rng: np.random.Generator, *, near_D: Tensor) -> tuple[str, Tensor]:
        """A text and its vector; every second time one of the NEAR that are nearest to that vector."""
        count = len(self.texts)
        options_N = (self.vector_ND @ near_D).topk(min(NEAR, count)).indices if rng.random() < 0.5 else range(count)
        chosen = int(options_N[int(rng.integers(len(options_N)))])
        return self.texts[chosen], self.vector_ND[chosen]
