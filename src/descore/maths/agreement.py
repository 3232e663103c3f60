"""How well rewards agree with preferences: pure functions of arrays.

Shapes: B pairs."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAccuracy:
    """The share of decided pairs that the rewards order as people do."""

    value: float
    """0 to 1; nan without a decided pair."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Decided pairs."""


def pair_accuracy(
    margin_B: NDArray[np.floating], preference_B: NDArray[np.integer], *, level: float = 0.95
) -> PairAccuracy:
    """Accuracy without ties, with Wilson's interval (Wilson 1927) for independent pairs.

    margin: reward of a minus reward of b. preference: 1 for a, -1 for b, 0 for a tie, which is left out. Equal rewards
    of a decided pair count as wrong: the model did not decide."""
    decided_B = preference_B != 0
    n = int(decided_B.sum())
    if n == 0:
        return PairAccuracy(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    p = float((np.sign(margin_B[decided_B]) == preference_B[decided_B]).mean())
    z = {0.9: 1.6448536, 0.95: 1.9599640, 0.99: 2.5758293}[level]
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return PairAccuracy(value=p, low=centre - half, high=centre + half, n=n)


def preference_probability(reward_a: float, reward_b: float) -> float:
    """That a is preferred to b: sigmoid(reward_a - reward_b) (Bradley & Terry 1952), in a form that never overflows."""
    return 0.5 + 0.5 * math.tanh((reward_a - reward_b) / 2)
