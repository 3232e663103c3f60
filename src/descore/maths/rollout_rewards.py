"""What a sampled chain is worth in stage 2: a rollout reward of rules, not to be confused with the video's reward.

In: a chain's text, its length, the true marks of its clip. Out: numbers from 0 to 1, and their weighted sum.
Knows answers and marks; knows nothing of tokens, models or groups."""

from collections.abc import Mapping
from dataclasses import dataclass

from descore.errors import AnswerError
from descore.rubric import read_answer
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
