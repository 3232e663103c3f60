"""What the model is shown, lesson by lesson: numbered data sets of drawn clips and real footage.

Each item is a function of its lesson and number alone, made when it is asked for by a worker that reads ahead."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from descore.training.collate import SIGN, TrainingPair, Written
from descore.types import Clip, Preference
from descore.world.footage import Footage
from descore.world.footage_telling import footage_example, footage_pair
from descore.world.splits import Split, example, pair
from descore.world.truth import prefer

SIDE = 128
"""Pixels along each edge of a drawn frame; of real footage, as many pixels in all."""

REAL_EVERY = 5
"""One item in so many is real footage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A clip, its prompt and what is to be learned to write about it."""

    clip: Clip
    prompt: str
    chain: str


@dataclass(frozen=True)
class Lesson(Dataset):  # type: ignore[type-arg]
    """Items `start` to `start` + `size` - 1 of what `make` makes from (number, progress from 0 to 1)."""

    make: Callable[[int, float], Written | TrainingPair]
    size: int
    start: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Written | TrainingPair:
        return self.make(self.start + index, index / self.size)


@dataclass(frozen=True)
class Look:
    """To describe, before anything is judged: the chain's first paragraph alone. Every second prompt tells nothing; the
    others mislead in three attributes of four, so that copying them does not pay. Scenes are simple at first."""

    footage: Footage

    def __call__(self, number: int, progress: float) -> Told:
        """One clip and what is to be seen in it."""
        if number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=SIDE**2)
        else:
            variety, informed = min(1.0, 0.3 + 1.4 * progress), number % 2 == 0
            shown = example(Split.TRAIN, number, size=(SIDE, SIDE), variety=variety, p_differs=0.75, informed=informed)
        return Told(clip=shown.clip, prompt=shown.prompt, chain=shown.chain.partition("\n")[0])


@dataclass(frozen=True)
class Judge:
    """To write whole chains. Of drawn clips, one half differs from the prompt in every second attribute, the other as
    generators slip."""

    footage: Footage

    def __call__(self, number: int, progress: float) -> Told:  # noqa: ARG002  # the same from first to last
        """One clip and its whole chain."""
        if number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=SIDE**2)
        else:
            shown = example(Split.TRAIN, number, size=(SIDE, SIDE), p_differs=0.5 if number % 2 else None)
        return Told(clip=shown.clip, prompt=shown.prompt, chain=shown.chain)


@dataclass(frozen=True)
class Prefer:
    """Pairs with chains. Of real footage, every second pair is two scenes in unlike condition: what is filmed must not
    count."""

    footage: Footage

    def __call__(self, number: int, progress: float) -> TrainingPair:  # noqa: ARG002
        """One pair."""
        if number % REAL_EVERY:
            drawn = pair(Split.TRAIN, number, size=(SIDE, SIDE))
            return preferred(drawn.a, drawn.b, drawn.preference, number=number)
        if number // REAL_EVERY % 2:
            same = footage_pair(self.footage, "train", number, pixels=SIDE**2)
            return preferred(same.a, same.b, same.preference, number=number)
        a, b = (footage_example(self.footage, "train", 2 * number + side, pixels=SIDE**2) for side in (0, 1))
        other = Told(clip=b.clip, prompt=a.prompt, chain=b.chain)
        return preferred(a, other, prefer(a.verdict, b.verdict), number=number)


def preferred(a: Written, b: Written, preference: Preference, *, number: int) -> TrainingPair:
    """Two clips of one prompt, of which one is preferred over all, or neither."""
    return TrainingPair(a=a, b=b, preference_K=np.array([SIGN[preference]], dtype=np.int8), number=number)
