"""What the model is shown, lesson by lesson: numbered data sets of drawn clips and real footage.

Each item is a function of its lesson and number alone, made when it is asked for by a worker that reads ahead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from descore.data.chat import Chat
from descore.synthetic.splits import Split, draw_example, draw_pair, plan_example
from descore.synthetic.truth import true_preference
from descore.training.collate import ChainCollator, TrainingPair, Written
from descore.types import PREFERENCE_SIGN, Clip, Preference
from experiments.footage.clips import Footage
from experiments.footage.examples import footage_contrast, footage_example, footage_pair

SIDE = 128
"""Pixels along each edge of a drawn frame; of real footage, as many pixels in all."""

REAL_EVERY = 2
"""One clip in so many is real footage."""

NO_CLIP = Clip(
    frames=np.full((2, 32, 32, 3), 128, np.uint8),
    times=(0.0, 0.25),
    source="nothing",
    source_fps=4.0,
    source_size=(32, 32),
    source_frames=2,
    duration=0.5,
)
"""Grey, and one visual token long: what is compared by its words needs no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A clip, its prompt and what is to be learned to write about it."""

    clip: Clip
    prompt: str
    chain: str
    given: str = ""
    """How the chain begins; this part is read, and not learned to write."""


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
            variety, informed = min(1.0, 0.3 + 1.4 * progress), number % (2 * REAL_EVERY) < REAL_EVERY
            shown = draw_example(
                Split.TRAIN, number, size=(SIDE, SIDE), variety=variety, p_differs=0.75, informed=informed
            )
        return Told(clip=shown.clip, prompt=shown.prompt, chain=shown.chain.partition("\n")[0])


def compare(number: int) -> Told:
    """No clip: what is to be seen is given in words, and what that means for the prompt is to be learned. Every second
    prompt is loosely put."""
    planned = plan_example(Split.TRAIN, number, p_differs=_p_differs(number), loose=number % 2 == 0)
    seen, line, _ = planned.chain.partition("\n")
    return Told(clip=NO_CLIP, prompt=planned.prompt, chain=planned.chain, given=seen + line)


def _p_differs(number: int) -> float | None:
    """Of drawn clips, one half differs from the prompt in every second attribute, the other as generators slip."""
    return 0.5 if number % 4 < 2 else None


@dataclass(frozen=True)
class Judge:
    """To write whole chains; in every second batch, to compare alone. With no clips in between, it forgets to look."""

    footage: Footage
    batch: int

    def __call__(self, number: int, progress: float) -> Told:  # noqa: ARG002  # the same from first to last
        """One clip, or none, and its whole chain."""
        if number // self.batch % 2:
            return compare(number)
        if number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=SIDE**2)
        else:
            loose = number % 8 > 4
            shown = draw_example(Split.TRAIN, number, size=(SIDE, SIDE), p_differs=_p_differs(number), loose=loose)
        return Told(clip=shown.clip, prompt=shown.prompt, chain=shown.chain)


@dataclass(frozen=True, slots=True)
class ToldCollator:
    """As ChainCollator, but that the given beginnings of chains have no loss."""

    chat: Chat

    def __call__(self, items: Sequence[Told]) -> dict[str, Any]:
        """A batch."""
        inputs = ChainCollator(self.chat)(items)
        for mask_T, item in zip(inputs["chain_mask"], items, strict=True):
            given = len(self.chat.encode_chain(item.given)) - 1  # less its end of turn
            mask_T[mask_T.nonzero()[:given, 0]] = False
        return inputs


@dataclass(frozen=True)
class Prefer:
    """Pairs with chains. Of real footage, two pairs in three are one clip in two states, half of these in states that
    words may not tell apart; the third is two scenes in unlike condition: what is filmed must not count."""

    footage: Footage

    def __call__(self, number: int, progress: float) -> TrainingPair:  # noqa: ARG002
        """One pair."""
        if number % REAL_EVERY:
            drawn = draw_pair(Split.TRAIN, number, size=(SIDE, SIDE))
            return preferred(drawn.a, drawn.b, drawn.preference, number=number)
        if kind := number // REAL_EVERY % 3:
            same = (
                footage_contrast(self.footage, number, pixels=SIDE**2)
                if kind == 1
                else footage_pair(self.footage, "train", number, pixels=SIDE**2)
            )
            return preferred(same.a, same.b, same.preference, number=number)
        a, b = (footage_example(self.footage, "train", 2 * number + side, pixels=SIDE**2) for side in (0, 1))
        other = Told(clip=b.clip, prompt=a.prompt, chain=b.chain)
        return preferred(a, other, true_preference(a.verdict, b.verdict), number=number)


def preferred(a: Written, b: Written, preference: Preference, *, number: int) -> TrainingPair:
    """Two clips of one prompt, of which one is preferred over all, or neither."""
    return TrainingPair(a=a, b=b, preference_K=np.array([PREFERENCE_SIGN[preference]], dtype=np.int8), number=number)
