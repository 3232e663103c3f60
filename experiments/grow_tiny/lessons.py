"""The data sets of the lessons in writing and preferring: numbered items of drawn clips and real footage.

Each item is a function of its lesson and number alone, made on demand by a worker that reads ahead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from descore.model.chat import Chat
from descore.synthetic.splits import Example, Split, plan_example, plan_pair
from descore.synthetic.truth import true_preference
from descore.training.collate import ChainCollator, PairCollator, TrainingExample, TrainingPair
from descore.types import PREFERENCE_SIGN, Clip, Preference
from experiments.footage.clips import Footage
from experiments.footage.examples import FootageExample, footage_contrast, footage_example, footage_pair
from experiments.generated.examples import Examples, GeneratedExample, training_pair
from experiments.generated.harms import HARMS
from experiments.generated.things import THINGS, Shown
from experiments.generated.truth import AppliedHarm, Request
from experiments.generated.truth import Truth as GeneratedTruth
from experiments.generated.words import NOTHING, Words
from experiments.grow_tiny.drawn import P_FILE, SIDE, draw
from experiments.grow_tiny.own_chains import OwnChains

COMPARED_EVERY = 3
"""One batch in so many has comparisons alone, to judge."""
REAL_EVERY = 2
"""One clip in so many is real, to judge: generated, or footage."""
DRAWN_EVERY = 3
"""One pair in so many is drawn, to prefer."""
OLD_EVERY = 3
"""One real clip in so many is footage as its benchmark has it; the others are harmed as generators' clips are."""
P_OWN_CHAINS = 0.5
"""Share of real pairs that have the chains which the model writes itself."""
FILES_BY = 0.5
"""Share of judge over which drawn clips come to be shown as of files: to tell fast from slow is learned at one rate
first."""
_OWN_SEED = 4213

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
    """Whole chains; every third batch has comparisons alone. Without clips in between, a model unlearns to look."""

    examples: Examples
    footage: Footage
    batch: int

    def __call__(self, number: int, progress: float) -> ChainItem:
        """A clip, or none, and its whole chain."""
        if not (number // self.batch + 1) % COMPARED_EVERY:
            return compare(number)
        shown: Example | FootageExample | GeneratedExample
        if number % REAL_EVERY == 0 and number // REAL_EVERY % OLD_EVERY:
            shown = self.examples.example(number)
        elif number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=SIDE**2)
        else:
            planned = plan_example(Split.TRAIN, number, p_differs=_p_differs(number), loose=number % 8 > 4)
            shown = draw(planned, number=number, p_file=P_FILE * min(1.0, progress / FILES_BY))
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


@dataclass(frozen=True, slots=True)
class PreferCollator:
    """Pairs, without loss on chains that are given."""

    pairs: PairCollator

    def __call__(self, items: Sequence[TrainingPair]) -> dict[str, Any]:
        """A batch."""
        batch = self.pairs(items)
        sides = [item.a for item in items] + [item.b for item in items]
        given = [isinstance(side, ChainItem) and bool(side.given) for side in sides]
        batch["chain_mask"] &= ~torch.tensor(given)[:, None]
        return batch


@dataclass(frozen=True)
class Prefer:
    """Pairs with chains. Of the old pairs of real footage, two in three show one clip twice, half of these in states
    that may have the same words; the third shows two scenes in different states, so that the scene must not count."""

    examples: Examples
    footage: Footage
    own_chains: OwnChains = field(default_factory=dict)
    """Chains that stand in the place of the true ones, without loss."""

    def __call__(self, number: int, progress: float) -> TrainingPair:  # noqa: ARG002
        """A pair."""
        pair = self.true_pair(number)
        if number not in self.own_chains:
            return pair
        a, b = (
            ChainItem(clip=side.clip, prompt=side.prompt, chain=chain, given=chain)
            for side, chain in zip((pair.a, pair.b), self.own_chains[number], strict=True)
        )
        return replace(pair, a=a, b=b)

    def true_pair(self, number: int) -> TrainingPair:
        """A pair with its true chains."""
        if not number % DRAWN_EVERY:
            plans = plan_pair(Split.TRAIN, number)
            a, b = (draw(plan, number=number) for plan in (plans.a, plans.b))
            return preferred(a, b, plans.preference, number=number)
        if number // DRAWN_EVERY % OLD_EVERY:
            return training_pair(self.examples.pair(number), number=number)
        if kind := number // (DRAWN_EVERY * OLD_EVERY) % 3:
            same = (
                footage_contrast(self.footage, number, pixels=SIDE**2)
                if kind == 1
                else footage_pair(self.footage, "train", number, pixels=SIDE**2)
            )
            return preferred(same.a, same.b, same.preference, number=number)
        first, other = (footage_example(self.footage, "train", 2 * number + side, pixels=SIDE**2) for side in (0, 1))
        preference = true_preference(first.verdict, other.verdict)
        return preferred(first, replace(other, prompt=first.prompt), preference, number=number)


def has_own_chains(number: int) -> bool:
    """Whether a pair is to have the model's chains: half of the real ones."""
    return number % DRAWN_EVERY > 0 and np.random.default_rng([_OWN_SEED, number]).random() < P_OWN_CHAINS


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
