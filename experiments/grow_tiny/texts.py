"""Texts that the model is to understand: prompts of clips, and what things are called.

Shapes in names: N texts, D width of a sentence's vector."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from descore.io import atomic_path, make_directory
from descore.synthetic.prompts import with_article
from descore.synthetic.splits import Split, plan_example
from experiments.footage.cutouts import CutOuts
from experiments.generated.things import PLACES, THINGS
from experiments.generated.words import Words
from experiments.grow_tiny.meanings import Embed, in_parts

NEAR = 60
"""Of some 8,000 texts, those that mean much the same as one."""
COMPOSED_TEXTS, DRAWN_TEXTS = 5000, 200
"""Sentences about things, and prompts of drawn clips, among the texts."""
FORMS = ("{a}", "a video of {a}", "a photo of {a}", "close-up of {a}", "footage of {a}", "{a}, 4k", "film of {a}")
ACTIONS = (
    *("running", "walking", "sleeping", "standing", "jumping", "flying", "swimming", "dancing", "eating", "playing"),
    *("moving slowly", "turning around", "floating", "burning", "falling", "spinning", "looking at the camera"),
)
STYLES = (
    *("highly detailed", "cinematic", "in slow motion", "oil painting", "cartoon style", "at night", "at sunset"),
    *("black and white", "aerial view", "in the rain", "in winter", "realistic", "animation style", "camera pans left"),
)
_P_ACTION, _P_PLACE, _P_STYLE, _P_SECOND = 0.5, 0.5, 0.35, 0.2
_SEED = 4212


def texts_to_read(words: Words, cut_outs: CutOuts, labels: Sequence[str]) -> list[str]:
    """Prompts of training, of drawn clips, and such that name labels' and cut-outs' things, alone and in sentences."""
    named = [*labels, *(row.name for row in cut_outs.rows["train"])]
    things = [*named, *(word for words_of_class in THINGS.values() for word in words_of_class.split())]
    composed = (composed_text(things, np.random.default_rng([_SEED, number])) for number in range(COMPOSED_TEXTS))
    drawn = (plan_example(Split.TRAIN, number, loose=number % 2 == 0).prompt for number in range(DRAWN_TEXTS))
    return list(dict.fromkeys([*words.prompts["train"], *prompts_for(named), *composed, *drawn]))


def prompts_for(things: Iterable[str]) -> Iterator[str]:
    """A prompt for each of these things, in forms by turns."""
    return (FORMS[number % len(FORMS)].format(a=_one_of(thing)) for number, thing in enumerate(things))


def composed_text(things: Sequence[str], rng: np.random.Generator) -> str:
    """A sentence of one or two things, what they do, where, and in which style; each but the first may be missing."""

    def one(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    subject = " and ".join(_one_of(one(things)) for _ in range(1 + (rng.random() < _P_SECOND)))
    action = f" {one(ACTIONS)}" if rng.random() < _P_ACTION else ""
    place = f" {one(('in', 'on', 'near'))} the {one(sorted(PLACES))}" if rng.random() < _P_PLACE else ""
    style = f", {one(STYLES)}" if rng.random() < _P_STYLE else ""
    return one(FORMS).format(a=f"{subject}{action}{place}{style}")


def _one_of(name: str) -> str:
    low = name.lower()
    return low if low.startswith(("a ", "an ")) else with_article(low)


def vectors_of(texts: Sequence[str], embed: Embed, path: Path, *, at_once: int = 64) -> Tensor:
    """(N, D): the texts' vectors, from the file if it has those of the same texts."""
    known = {"texts": sha256("\n".join(texts).encode()).hexdigest()}
    if path.exists():
        with safe_open(path, "pt") as kept:
            if kept.metadata() == known:
                vector_ND: Tensor = kept.get_tensor("vectors")
                return vector_ND
    vector_ND = in_parts(embed, texts, at_once=at_once)
    make_directory(path.parent)
    with atomic_path(path) as partial:
        save_file({"vectors": vector_ND}, partial, metadata=known)
    return vector_ND


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
