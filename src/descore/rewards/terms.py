"""What a reward is made of: the head's rewards, normalized, and what the chains say and how they ended.

In: a clip's Score. Out: numbers by name, which weights add up. A running mean and deviation, with its state.

Shapes: B clips."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal, TypeAlias

from descore.errors import ConfigError
from descore.model.checkpoint import CheckpointSettings
from descore.types import DIMENSIONS, Score

Normalize: TypeAlias = Literal["checkpoint", "running", "none"]
"""By the checkpoint's mean and deviation, by those of the rewards so far, or not at all."""

NORMALIZATIONS: tuple[Normalize, ...] = ("checkpoint", "running", "none")

REWARD, MARKS, LENGTH, TRUNCATED = "reward", "marks", "length", "truncated"
MARK_TERMS = {f"{MARKS}.{name}": name for name in DIMENSIONS}
"""The mark of each of DIMENSIONS by its term's name."""


class RunningMoments:
    """Mean and deviation of the rewards so far, of each named dimension, in one pass (Welford 1962)."""

    def __init__(self, dimensions: Sequence[str]) -> None:
        self.count = 0
        self.mean = dict.fromkeys(dimensions, 0.0)
        self.squares = dict.fromkeys(dimensions, 0.0)
        """Sums of squared distances from the mean."""

    def add(self, rewards: Mapping[str, float]) -> None:
        """Count one clip's rewards."""
        self.count += 1
        for name, value in rewards.items():
            apart = value - self.mean[name]
            self.mean[name] += apart / self.count
            self.squares[name] += apart * (value - self.mean[name])

    def std(self, name: str) -> float:
        """The sample deviation of a dimension; 1 while there is none, with fewer than two clips or equal ones."""
        variance = self.squares[name] / (self.count - 1) if self.count > 1 else 0.0
        return math.sqrt(variance) or 1.0

    def state_dict(self) -> dict[str, object]:
        """Plain numbers, for a trainer's checkpoint."""
        return {"count": self.count, "mean": dict(self.mean), "squares": dict(self.squares)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a state. ConfigError for one of other dimensions."""
        count, mean, squares = (state.get(key) for key in ("count", "mean", "squares"))
        names = set(self.mean)
        fits = isinstance(mean, Mapping) and isinstance(squares, Mapping) and {*mean} == {*squares} == names
        if not (fits and isinstance(count, int)):
            raise ConfigError(f"a state of {state!r}; expected count, mean and squares of {', '.join(sorted(names))}")
        assert isinstance(mean, Mapping)
        assert isinstance(squares, Mapping)
        self.count = count
        self.mean = {name: float(mean[name]) for name in self.mean}
        self.squares = {name: float(squares[name]) for name in self.squares}


def known_terms(settings: CheckpointSettings, *, thinks: bool) -> tuple[str, ...]:
    """The names of the terms of a checkpoint's scores. Without chains there is nothing but rewards."""
    of_chains = (MARKS, *MARK_TERMS, LENGTH, TRUNCATED) if thinks else ()
    return tuple(dict.fromkeys((REWARD, *settings.dimensions, *of_chains)))


def check_normalization(normalize: str, settings: CheckpointSettings) -> None:
    """ConfigError for an unknown normalization, or one that the checkpoint has no numbers for."""
    if normalize not in NORMALIZATIONS:
        raise ConfigError(f"normalize is {normalize!r}, expected one of {', '.join(NORMALIZATIONS)}")
    if normalize == "checkpoint" and settings.reward_mean is None:
        raise ConfigError("the checkpoint stores no mean and deviation; write normalize='running' or 'none'")


def terms_of(score: Score, *, moments: Mapping[str, tuple[float, float]], limit: int) -> dict[str, float]:
    """The terms of one score, each the mean over its chains.

    moments: mean and deviation of each dimension. limit: tokens that a chain may have, the unit of `length`.
    A mark is +1 if right, 0 if partly, -1 if wrong; one that the prompt does not ask for is NaN, and `marks` is the
    mean of the others. Without a chain that ends in an answer all marks are NaN."""
    standard = {name: (value - moments[name][0]) / moments[name][1] for name, value in score.rewards.items()}
    chains = score.completions
    verdicts = [chain.verdict for chain in chains if chain.verdict is not None]
    by_mark = {
        term: [float(mark - 1) for v in verdicts if (mark := v.marks.get(name)) is not None]
        for term, name in MARK_TERMS.items()
    }
    return {
        **standard,
        REWARD: fmean(standard.values()),
        MARKS: _mean([value for values in by_mark.values() for value in values]),
        **{term: _mean(values) for term, values in by_mark.items()},
        LENGTH: fmean(chain.num_tokens for chain in chains) / limit,
        TRUNCATED: fmean(chain.truncated for chain in chains),
    }


def weighted(terms: Mapping[str, float], weights: Mapping[str, float], *, has_answer: bool) -> float:
    """The weighted sum. A mark that the prompt does not ask for adds nothing, which is as good as partly; any other
    term that is not known leaves no reward: NaN."""
    return math.fsum(
        weight * (0.0 if has_answer and name in MARK_TERMS and math.isnan(terms[name]) else terms[name])
        for name, weight in weights.items()
        if weight
    )


def check_terms(terms: Mapping[str, object]) -> None:
    """ConfigError for terms that are not callables by name."""
    if not isinstance(terms, Mapping) or not all(isinstance(name, str) for name in terms):
        raise ConfigError(f"terms is {terms!r}, expected callables by name, such as {{'mine': mine}}")
    for name, term in terms.items():
        if not callable(term):
            raise ConfigError(f"the term {name} is {term!r}, expected a callable")


def check_weights(weights: Mapping[str, float], *, known: Iterable[str]) -> None:
    """ConfigError for a weight of an unknown term, or one that is no finite number."""
    names = tuple(known)
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights is {weights!r}, expected numbers by name, such as {{'reward': 1}}")
    for name, weight in weights.items():
        if name not in names:
            raise ConfigError(f"weights has {name!r}; expected some of {', '.join(names)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(f"the weight of {name} is {weight!r}, expected a finite number")
    if not any(weights.values()):
        raise ConfigError("all weights are 0; give one of them another, such as weights={'reward': 1}")


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
