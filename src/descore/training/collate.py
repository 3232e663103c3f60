"""Records become batches: written examples for learning to write chains, pairs for learning to score.

Knows records and the token layout; knows nothing of models or losses.

Shapes: B examples or pairs, R = 2 B sequences (all a, then all b), T tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from descore.data.chat import Chat
from descore.types import Clip


class Written(Protocol):
    """A clip with its prompt and a chain."""

    @property
    def clip(self) -> Clip:
        """The clip."""

    @property
    def prompt(self) -> str:
        """What it was generated from."""

    @property
    def chain(self) -> str:
        """What a good judge writes about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An example whose video cannot be read."""

    table: str
    line: int
    video: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChainCollator:
    """B written examples → inputs without the query, with `chain_mask`.

    Examples that are unreadable are left out, and come under the key `unreadable` if there are any; a batch of nothing
    else has no inputs, and a `chain_mask` of no rows."""

    chat: Chat

    def __call__(self, examples: Sequence[Written | Unreadable]) -> dict[str, Any]:
        """Inputs of whole sequences."""
        lost = [e for e in examples if isinstance(e, Unreadable)]
        there = [e for e in examples if not isinstance(e, Unreadable)]
        inputs = self._lay_out(there) if there else {"chain_mask": torch.zeros(0, 0, dtype=torch.bool)}
        return {**inputs, "unreadable": lost} if lost else inputs

    def _lay_out(self, examples: Sequence[Written]) -> dict[str, Any]:
        prompts = self.chat.lay_out_prompts([e.clip for e in examples], [e.prompt for e in examples])
        chains = [self.chat.encode_chain(e.chain) for e in examples]
        return dict(self.chat.lay_out_chains(prompts, chains, query=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPair:
    """Two written examples of one prompt, and which of them is preferred."""

    a: Written
    b: Written
    preference: int
    """1 for a, -1 for b, 0 for a tie."""
    number: int
    """The pair's place in its data set: with the seed, it decides whether its chains drop out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCollator:
    """B pairs → inputs of 2 B sequences with the query, and `preference` (B).

    Both chains of a pair drop out together with probability `chain_drop` (the random mask of stage 1), drawn from
    (seed, pair), so that neither workers nor a restart change it."""

    chat: Chat
    chain_drop: float
    seed: int

    def __call__(self, pairs: Sequence[WrittenPair]) -> dict[str, Any]:
        """Inputs of whole sequences, and the preferences."""
        both: list[Written] = [p.a for p in pairs] + [p.b for p in pairs]
        dropped = [np.random.default_rng([self.seed, p.number]).random() < self.chain_drop for p in pairs]
        chains = [
            self.chat.no_thinking if drop else self.chat.encode_chain(e.chain)
            for e, drop in zip(both, dropped * 2, strict=True)
        ]
        prompts = self.chat.lay_out_prompts([e.clip for e in both], [e.prompt for e in both])
        inputs = self.chat.lay_out_chains(prompts, chains)
        # A dropped chain is not one to imitate: the next-token loss would teach the model to end its turn at once.
        inputs["chain_mask"] &= ~torch.tensor(dropped * 2)[:, None]
        return {**inputs, "preference": torch.tensor([p.preference for p in pairs])}
