"""Collators: examples with chains, or pairs with labels, become batches of tensors.

Shapes: B examples or pairs, R = 2 B sequences (all a, then all b), T tokens, K named dimensions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descore.model.chat import Chat
from descore.types import Clip, Mark

MISSING = -128
"""What stands in an array of `PREFERENCE_SIGN`s where nobody gave a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """A clip and the prompt that it was generated from, with a reference chain and marks where there are any."""

    clip: Clip
    prompt: str
    chain: str | None = None
    marks: Mapping[str, Mark] | None = None
    """One for each of DIMENSIONS."""


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An example with a video that cannot be read."""

    table: str
    line: int
    video: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChainCollator:
    """B examples with chains → inputs without the query, with `chain_mask`.

    Unreadable examples are left out, and listed under the key `unreadable` if there are any; a batch of nothing else
    has no inputs, and a `chain_mask` of no rows."""

    chat: Chat

    def __call__(self, examples: Sequence[TrainingExample | Unreadable]) -> dict[str, Any]:
        """Inputs of whole sequences."""
        readable, unreadable = split_unreadable(examples)
        inputs = self._lay_out(readable) if readable else {"chain_mask": torch.zeros(0, 0, dtype=torch.bool)}
        return {**inputs, "unreadable": unreadable} if unreadable else inputs

    def _lay_out(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        prompts = self.chat.lay_out_prompts([e.clip for e in examples], [e.prompt for e in examples])
        chains = [self.chat.encode_chain(e.chain) for e in examples if e.chain is not None]
        assert len(chains) == len(examples), "an example without a chain has nothing to learn to write"
        return dict(self.chat.lay_out_chains(prompts, chains, query=False))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingPair:
    """Two clips of one prompt, and people's labels."""

    a: TrainingExample
    b: TrainingExample
    preference_K: NDArray[np.int8]
    """1 for a, -1 for b, 0 for a tie, MISSING without a label."""
    rating_a_K: NDArray[np.float32] | None = None
    """Higher is better; nan without a rating. None: no ratings at all."""
    rating_b_K: NDArray[np.float32] | None = None
    number: int
    """The pair's place in its data set: with seed and epoch, it decides whether its chains drop out."""
    epoch: int = 0
    """In which pass over the data set it is shown."""


def preference_labels(pairs: Sequence[TrainingPair]) -> tuple[Tensor, Tensor]:
    """Preferences (B, K), 1 for a, -1 for b, 0 for a tie or without a label; and whether there is a label (B, K)."""
    preference_BK = torch.from_numpy(np.stack([p.preference_K for p in pairs]).astype(np.int64))
    labelled_BK = preference_BK != MISSING
    return preference_BK.masked_fill(~labelled_BK, 0), labelled_BK


def split_unreadable(items: Sequence[_Item | Unreadable]) -> tuple[list[_Item], list[Unreadable]]:
    """The items that can be read, and those that cannot."""
    unreadable = [item for item in items if isinstance(item, Unreadable)]
    return [item for item in items if not isinstance(item, Unreadable)], unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingScale:
    """Mean and standard deviation of ratings, by which they are standardized: one number for each dimension."""

    mean_K: tuple[float, ...]
    std_K: tuple[float, ...]


def chains_drop(seed: int, epoch: int, number: int, *, chain_drop: float) -> bool:
    """Whether the random mask of stage 1 takes the chains of a pair: with probability `chain_drop`, drawn from
    (seed, epoch, number) alone, so that neither batches, workers, processes nor a restart change it."""
    return bool(np.random.default_rng([seed, epoch, number]).random() < chain_drop)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCollator:
    """B pairs → inputs of R sequences with the query, and their labels:

        preference (B, K)   1 for a, -1 for b, 0 for a tie or where there is no label
        labelled   (B, K)   whether there is one
        rating     (R, K)   float32, nan where there is none
        dropped    (B)      whether the pair is without its chains

    Both chains of a pair drop out together, by `chains_drop`; a pair that lacks a chain is without both in any case.
    To evaluate with the chains given, let `chain_drop` be 0; without them, as for the discriminative baseline, 1.

    Unreadable pairs are left out, and listed under the key `unreadable` if there are any; a batch of nothing else has
    no inputs, and a `chain_mask` and labels of no rows."""

    chat: Chat
    chain_drop: float
    """Probability, from 0 to 1."""
    seed: int
    rating_scale: RatingScale | None = None
    """Ratings are standardized by it. None: they stay as they are."""

    def __call__(self, pairs: Sequence[TrainingPair | Unreadable]) -> dict[str, Any]:
        """Inputs of whole sequences, and the labels."""
        readable, unreadable = split_unreadable(pairs)
        batch = {**self._lay_out(readable), **self._labels(readable)} if readable else _empty_batch()
        return {**batch, "unreadable": unreadable} if unreadable else batch

    def _lay_out(self, pairs: Sequence[TrainingPair]) -> dict[str, Any]:
        both = [p.a for p in pairs] + [p.b for p in pairs]
        dropped = [self._drops(p) for p in pairs]
        chains = [
            self.chat.no_thinking if drop or e.chain is None else self.chat.encode_chain(e.chain)
            for e, drop in zip(both, dropped * 2, strict=True)
        ]
        prompts = self.chat.lay_out_prompts([e.clip for e in both], [e.prompt for e in both])
        inputs = self.chat.lay_out_chains(prompts, chains)
        # The next-token loss on a dropped chain would teach the model to end its turn at once.
        inputs["chain_mask"] &= ~torch.tensor(dropped * 2)[:, None]
        return {**inputs, "dropped": torch.tensor(dropped)}

    def _drops(self, pair: TrainingPair) -> bool:
        lacks = pair.a.chain is None or pair.b.chain is None
        return lacks or chains_drop(self.seed, pair.epoch, pair.number, chain_drop=self.chain_drop)

    def _labels(self, pairs: Sequence[TrainingPair]) -> dict[str, Tensor]:
        preference_BK, labelled_BK = preference_labels(pairs)
        ratings = [p.rating_a_K for p in pairs] + [p.rating_b_K for p in pairs]
        unrated_K = np.full(preference_BK.shape[1], np.nan, dtype=np.float32)
        rating_RK = np.stack([unrated_K if r is None else r for r in ratings])
        if self.rating_scale:
            rating_RK = (rating_RK - np.array(self.rating_scale.mean_K)) / np.array(self.rating_scale.std_K)
        return {
            "preference": preference_BK,
            "labelled": labelled_BK,
            "rating": torch.from_numpy(rating_RK).float(),
        }


def _empty_batch() -> dict[str, Any]:
    """A batch of no pair. One column goes with any number of dimensions."""
    none = torch.zeros(0, 1)
    return {
        "chain_mask": torch.zeros(0, 0, dtype=torch.bool),
        "preference": none.long(),
        "labelled": none.bool(),
        "rating": none,
        "dropped": torch.zeros(0, dtype=torch.bool),
    }
