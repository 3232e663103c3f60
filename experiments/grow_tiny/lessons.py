"""The data sets of the lessons in writing and preferring: numbered items of drawn clips and real footage.

Each item is a function of its lesson and number alone, made on demand by a worker that reads ahead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from descore.model.chat import Chat
from descore.synthetic.splits import Example, Split, draw_example, draw_pair, plan_example
from descore.synthetic.truth import true_preference
from descore.training.collate import ChainCollator, TrainingExample, TrainingPair
from descore.types import PREFERENCE_SIGN, Clip, Preference
from experiments.footage.clips import Footage
from experiments.footage.examples import FootageExample, footage_contrast, footage_example, footage_pair
from experiments.generated.examples import Examples, GeneratedExample, training_pair
from experiments.generated.harms import HARMS
from experiments.generated.things import THINGS, Shown
from experiments.generated.truth import AppliedHarm, Request
from experiments.generated.truth import Truth as GeneratedTruth
from experiments.generated.words import NOTHING, Words

SIDE = 128
"""Pixels along each edge of a drawn frame; a frame of real footage has at most as many pixels."""

REAL_EVERY = 2
"""One clip in so many is real: generated, or footage."""
OLD_EVERY = 3
"""One real clip in so many is footage as its benchmark has it; the others are harmed as generators' clips are."""

NO_CLIP = Clip(
    frames=np.full((2, 32, 32, 3), 128, np.uint8),
    times=(0.0, 0.25),
    source="nothing",
    source_fps=4.0,
    source_size=(32, 32),
    source_frames=2,
    duration=0.5,
)
"""Grey, and one visual token long: stands for the clip where a description is given in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainItem(TrainingExample):
    """A clip, its prompt, and the chain to learn."""

    given: str = ""
    """The beginning of the chain, which has no loss."""


@dataclass(frozen=True)
class Lesson(Dataset):  # type: ignore[type-arg]
    """Items `start` to `start` + `size` - 1 of `make`, which takes a number and the progress from 0 to 1."""

    make: Callable[[int, float], TrainingExample | TrainingPair]
    size: int
    start: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TrainingExample | TrainingPair:
        return self.make(self.start + index, index / self.size)


def generated_texts(words: Words, count: int) -> Iterator[str]:
    """Prompts of generated clips, and chains as they are judged by, for training a tokenizer."""
    rng, prompts = np.random.default_rng(0), (*words.prompts["train"], *NOTHING)
    for number in range(count):
        prompt, thing = prompts[number % len(prompts)], list(THINGS)[number % len(THINGS)]
        strength, name = float(rng.random()), list(HARMS)[number % len(HARMS)]
        shown = Shown(things=(thing,), by_prompt=True) if number % 3 else None
        harms = (AppliedHarm(name=name, strength=strength),)
        yield prompt
        yield GeneratedTruth(shown=shown, request=Request.of(prompt), harms=harms).chain()


def compare(number: int) -> ChainItem:
    """A comparison without a clip: the description is given in words, and the rest of the chain is learned. Every
    second prompt is loose."""
    planned = plan_example(Split.TRAIN, number, p_differs=_p_differs(number), loose=number % 2 == 0)
    description, newline, _ = planned.chain.partition("\n")
    return ChainItem(clip=NO_CLIP, prompt=planned.prompt, chain=planned.chain, given=description + newline)


def _p_differs(number: int) -> float | None:
    """Half of the drawn clips differ from the prompt in every second attribute, half as their generators do."""
    return 0.5 if number % 4 < 2 else None


@dataclass(frozen=True)
class Judge:
    """Whole chains; every second batch has comparisons alone. Without clips in between, a model unlearns to look."""

    examples: Examples
    footage: Footage
    batch: int

    def __call__(self, number: int, progress: float) -> ChainItem:  # noqa: ARG002  # the same from first to last
        """A clip, or none, and its whole chain."""
        if number // self.batch % 2:
            return compare(number)
        shown: Example | FootageExample | GeneratedExample
        if number % REAL_EVERY == 0 and number // REAL_EVERY % OLD_EVERY:
            shown = self.examples.example(number)
        elif number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=SIDE**2)
        else:
            loose = number % 8 > 4
            shown = draw_example(Split.TRAIN, number, size=(SIDE, SIDE), p_differs=_p_differs(number), loose=loose)
        return ChainItem(clip=shown.clip, prompt=shown.prompt, chain=shown.chain)


@dataclass(frozen=True, slots=True)
class ChainItemCollator:
    """ChainCollator without loss on the given beginnings of chains."""

    chat: Chat

    def __call__(self, items: Sequence[ChainItem]) -> dict[str, Any]:
        """A batch."""
        inputs = ChainCollator(self.chat)(items)
        for mask_T, item in zip(inputs["chain_mask"], items, strict=True):
            given = len(self.chat.encode_chain(item.given)) - 1  # less its end of turn
            mask_T[mask_T.nonzero()[:given, 0]] = False
        return inputs


@dataclass(frozen=True)
class Prefer:
    """Pairs with chains. Of the old pairs of real footage, two in three show one clip twice, half of these in states
    that may have the same words; the third shows two scenes in different states, so that the scene must not count."""

    examples: Examples
    footage: Footage

    def __call__(self, number: int, progress: float) -> TrainingPair:  # noqa: ARG002
        """A pair."""
        if number % REAL_EVERY:
            drawn = draw_pair(Split.TRAIN, number, size=(SIDE, SIDE))
            return preferred(drawn.a, drawn.b, drawn.preference, number=number)
        if number // REAL_EVERY % OLD_EVERY:
            return training_pair(self.examples.pair(number), number=number)
        if kind := number // (REAL_EVERY * OLD_EVERY) % 3:
            same = (
                footage_contrast(self.footage, number, pixels=SIDE**2)
                if kind == 1
                else footage_pair(self.footage, "train", number, pixels=SIDE**2)
            )
            return preferred(same.a, same.b, same.preference, number=number)
        a, b = (footage_example(self.footage, "train", 2 * number + side, pixels=SIDE**2) for side in (0, 1))
        return preferred(a, replace(b, prompt=a.prompt), true_preference(a.verdict, b.verdict), number=number)


def preferred(
    a: Example | FootageExample, b: Example | FootageExample, preference: Preference, *, number: int
) -> TrainingPair:
    """A training pair with a preference on the overall."""
    sides = [TrainingExample(clip=side.clip, prompt=side.prompt, chain=side.chain) for side in (a, b)]
    return TrainingPair(
        a=sides[0],
        b=sides[1],
        preference_K=np.array([PREFERENCE_SIGN[preference]], dtype=np.int8),
        number=number,
    )
