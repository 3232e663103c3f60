"""What sampled chains are worth: each part of the rollout reward, and their weighted sum.

In: the chains of all clips of some pairs, as they were written. Out: the same with their parts. Rules alone decide, and
a function of the user's. Knows texts, marks and preferences; knows nothing of models, advantages or losses.

Shapes: B pairs, C = 2 B clips (all a, then all b), G chains for each, K named dimensions."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from descore.data.chat import Tokens
from descore.errors import AnswerError, ConfigError
from descore.rubric import read_answer
from descore.training.collate import MISSING, Shown, TrainingPair
from descore.training.rl.config import Opponents, RewardsConfig, RlConfig
from descore.types import DIMENSIONS, Mark, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutWeights:
    """What the parts of a rollout reward weigh. The defaults are DeScore's (arXiv 2605.05922)."""

    quality: float = 0.7
    format: float = 0.1
    length: float = 0.2
    correctness: float = 0.0
    """Of the pair; for generative judges, whose answer is their reward. It needs both clips: `rate` leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """A chain's parts, each from 0 to 1, and their sum."""

    quality: float | None
    """None without reference marks."""
    format: float
    length: float
    total: float | None
    """The weighted sum of the three; None without reference marks, since such a chain cannot be told from others."""


def rate(
    chain_text: str,
    tokens: int,
    *,
    reference: Mapping[str, Mark] | None,
    weights: RolloutWeights,
    none_below: int,
    full_from: int,
) -> Rated:
    """The rollout reward of one chain. tokens: its length, the end of turn included; the others as in the parts."""
    verdict = _read(chain_text)
    form, length = float(verdict is not None), length_reward(tokens, none_below=none_below, full_from=full_from)
    if reference is None:
        return Rated(quality=None, format=form, length=length, total=None)
    hit = quality(verdict, reference)
    total = weights.quality * hit + weights.format * form + weights.length * length
    return Rated(quality=hit, format=form, length=length, total=total)


def quality(verdict: Verdict | None, reference_marks: Mapping[str, Mark]) -> float:
    """The share of the five marks that equal the reference; "N/A" is a mark too. Without a verdict it is 0.

    reference_marks: one for each of DIMENSIONS."""
    if verdict is None:
        return 0.0
    return sum(verdict.marks[name] == reference_marks[name] for name in DIMENSIONS) / len(DIMENSIONS)


def format_ok(chain_text: str) -> bool:
    """Whether the chain has an answer that can be read: see `rubric.read_answer` for all that it asks."""
    return _read(chain_text) is not None


def length_reward(tokens: int, *, none_below: int = 500, full_from: int = 2000) -> float:
    """0 up to `none_below` tokens, 1 from `full_from` on, a straight line between. The defaults are DeScore's."""
    assert none_below < full_from, f"none_below is {none_below}, full_from {full_from}; between them it rises"
    return min(max((tokens - none_below) / (full_from - none_below), 0.0), 1.0)


def correctness(overall_a: float, overall_b: float, preference: int) -> float:
    """Whether two overall scores order a pair as people do: 1 if they do, 0 if the other way round, 0.5 if only one of
    the two, scores or people, says tie.

    preference: 1 for a, -1 for b, 0 for a tie."""
    said = (overall_a > overall_b) - (overall_a < overall_b)
    return 1 - abs(said - preference) / 2


def _read(chain_text: str) -> Verdict | None:
    try:
        return read_answer(chain_text)
    except AnswerError:
        return None


Function = Callable[[str, str, Mapping[str, Mark] | None], float]
"""A user's own part of the rollout reward: from a chain's text, the prompt and the reference marks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """A sampled chain and what it is worth."""

    tokens: Tokens
    """Ids, the end of turn included."""
    text: str
    """Without the end of turn."""
    truncated: bool
    """It reached the limit and was ended from outside."""
    verdict: Verdict | None
    """None if its answer cannot be read."""
    reward_K: Tensor
    """The clip's reward behind this chain, (K,), float32, on the CPU; in the generative paradigm the overall score, nan
    if there is none."""
    parts: Mapping[str, float]
    """By name, the parts of the rollout reward that are known."""
    rollout_reward: float | None
    """Their weighted sum; None where the chain cannot be told from others: then nothing is learned from it but the
    reward."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A chain before it is rated."""

    tokens: Tokens
    """Ids, the end of turn included."""
    text: str
    """Without the end of turn."""
    truncated: bool
    """It reached the limit and was ended from outside."""
    reward_K: Tensor
    """What the head says behind it, (K,), float32, on the CPU; a generative model has no head, and K is 0."""

    @property
    def verdict(self) -> Verdict | None:
        """What its answer says; None if that cannot be read."""
        try:
            return read_answer(self.text)
        except AnswerError:
            return None


def load_function(name: str | None) -> Function | None:
    """The function that a config names as module:function, the module an installed one or a file of the working
    directory. ConfigError if there is none."""
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    _look_here()
    with _faults_named(f"{module} cannot be imported"):
        found = getattr(import_module(module), attribute, None)
    if not callable(found):
        raise ConfigError(f"rewards.function: {module} has no function {attribute!r}; expected module:function")
    return cast(Function, found)


def _look_here() -> None:
    """Let modules be found in the working directory, as `python -m` lets them and a console script does not: behind all
    others, so that a file there takes the place of nothing that is installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


@contextmanager
def _faults_named(what: str) -> Iterator[None]:
    """A fault of the user's code is one of the config that names it."""
    try:
        yield
    except Exception as fault:  # it is not our code, and may raise anything
        told = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
        raise ConfigError(f"rewards.function: {what}: {told}") from fault


def _plain(said: Any) -> Any:  # noqa: ANN401  # whatever a user's function returns
    """A scalar of numpy or torch as the number that it is."""
    return said.item() if isinstance(said, np.generic | np.ndarray | Tensor) and said.ndim == 0 else said


def rate_groups(
    written: Sequence[Sequence[Written]],
    pairs: Sequence[TrainingPair],
    *,
    config: RlConfig,
    function: Function | None,
) -> tuple[tuple[Chain, ...], ...]:
    """C groups of chains with their parts. The opponents of a pair's one clip are the chains of its other.

    function: the user's own part, of `load_function`; ConfigError if it fails or returns no number."""
    groups = []
    for clip, group in enumerate(written):
        pair, is_b = pairs[clip % len(pairs)], clip >= len(pairs)
        judge = _Judge(
            config=config, function=function, shown=pair.b if is_b else pair.a, preference=_side_of(pair, is_b)
        )
        others = written[(clip + len(pairs)) % len(written)]
        groups.append(tuple(judge.rated(g, chain, others) for g, chain in enumerate(group)))
    return tuple(groups)


def _side_of(pair: TrainingPair, is_b: bool) -> int | None:
    """Whether people prefer this clip of a pair (1), the other (-1) or neither (0); None where nobody said. A written
    score is one number, so it is held against the first dimension alone."""
    preference = int(pair.preference_K[0])
    if preference == MISSING:
        return None
    return -preference if is_b else preference


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Rates the chains of one clip."""

    config: RlConfig
    function: Function | None
    shown: Shown
    preference: int | None

    def rated(self, g: int, written: Written, others: Sequence[Written]) -> Chain:
        """`others`: the group of the pair's other clip."""
        generative = self.config.paradigm == "generative"
        parts = {name: value for name, value in self._parts(g, written, others).items() if value is not None}
        # Without what tells it from others, a chain would be worth its form and length alone.
        telling = "correctness" if generative and self.preference is not None else "quality"
        return Chain(
            tokens=written.tokens,
            text=written.text,
            truncated=written.truncated,
            verdict=written.verdict,
            reward_K=_overall(written) if generative else written.reward_K,
            parts=parts,
            rollout_reward=_total(parts, self.config.rewards) if telling in parts else None,
        )

    def _parts(self, g: int, written: Written, others: Sequence[Written]) -> dict[str, float | None]:
        rewards = self.config.rewards
        rule = rate(
            written.text,
            len(written.tokens),
            reference=self.shown.marks,
            weights=RolloutWeights(quality=rewards.quality, format=rewards.format, length=rewards.length),
            none_below=rewards.length_none_below,
            full_from=rewards.length_full_from,
        )
        parts = {"quality": rule.quality, "format": rule.format, "length": rule.length}
        if self.config.paradigm == "generative" and self.preference is not None:
            against = _opponents(others, g, self.config.loss.opponents)
            parts["correctness"] = _correct(written, against, self.preference)
        if self.function is not None:
            parts["function"] = self._asked(written)
        return parts

    def _asked(self, written: Written) -> float:
        """What the user's function says; ConfigError if that is no finite number."""
        assert self.function is not None
        with _faults_named(f"{self.config.rewards.function} failed"):
            said = _plain(self.function(written.text, self.shown.prompt, self.shown.marks))
        if isinstance(said, bool) or not isinstance(said, Real) or not math.isfinite(said):
            raise ConfigError(f"rewards.function: {self.config.rewards.function} returned {said!r}; expected a number")
        return float(said)


def _total(parts: Mapping[str, float], rewards: RewardsConfig) -> float:
    weights = rewards.weights
    return sum(weights[name] * value for name, value in parts.items())


def _opponents(others: Sequence[Written], g: int, opponents: Opponents) -> list[float]:
    """The overall scores that a chain's own is held against."""
    held = [others[g]] if opponents == "matched" else others
    return [other.verdict.overall for other in held if other.verdict is not None]


def _correct(written: Written, others: Sequence[float], preference: int) -> float | None:
    """How often, of its opponents, the chain's score is in people's order; 0 without a score, None without an
    opponent that has one."""
    if written.verdict is None:
        return 0.0
    overall = written.verdict.overall
    found = [correctness(overall, other, preference) for other in others]
    return sum(found) / len(found) if found else None


def _overall(written: Written) -> Tensor:
    return torch.tensor([math.nan if written.verdict is None else written.verdict.overall])
