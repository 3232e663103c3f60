"""Chains that were sampled in training as one page of HTML, with their rollout rewards and the parts of these.

In: the records of a run's chains.jsonl. Out: the page, the same text for the same records. All text of records is
untrusted and is escaped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from descore.report.findings import short_path
from descore.report.page import fill
from descore.rubric import unknown_of
from descore.types import DIMENSIONS

MAX_CHAIN_PAIRS = 40
"""Pairs on a page, the newest of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsOfClip:
    """A clip and its group of chains."""

    letter: str
    video: str
    preferred: bool
    reference_marks: Mapping[str, int | None] | None
    chains: tuple[Mapping[str, Any], ...]
    """The best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsOfPair:
    """A pair of one training step."""

    step: int
    prompt: str
    tie: bool
    sides: tuple[ChainsOfClip, ...]


def render_chains(
    records: Sequence[Mapping[str, Any]], *, title: str, weights: Mapping[str, float] | None = None
) -> str:
    """The page. records: lines of chains.jsonl in their order; a resumed run may write a chain again, and then the last
    record counts. title: the run's name. weights: by part, its weight in the rollout reward, where that is known."""
    pairs = pairs_of_chains(records)
    parts = dict.fromkeys(part for record in records for part in record["parts"])
    return fill(
        "chains.html.j2",
        generator="descore train rl",
        title=title,
        pairs=pairs[: -MAX_CHAIN_PAIRS - 1 : -1],
        hidden=len(pairs) > MAX_CHAIN_PAIRS,
        parts=tuple(parts),
        weights=weights or {},
        dimensions=DIMENSIONS,
        unknown_of=unknown_of,
    )


def pairs_of_chains(records: Sequence[Mapping[str, Any]]) -> list[ChainsOfPair]:
    """The pairs in the order of their steps, each with all its chains."""
    last = {(r["step"], r["pair"], r["side"], r["sample"]): r for r in records}
    by_pair: dict[tuple[int, int], dict[str, list[Mapping[str, Any]]]] = {}
    for step, pair, side, _ in sorted(last):
        by_pair.setdefault((step, pair), {}).setdefault(side, [])
    for (step, pair, side, _), record in last.items():
        by_pair[step, pair][side].append(record)
    return [_pair(step, sides) for (step, _), sides in by_pair.items()]


def _pair(step: int, sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> ChainsOfPair:
    first = next(iter(sides.values()))[0]
    return ChainsOfPair(
        step=step,
        prompt=first["prompt"],
        tie=first["preference"] == "tie",
        sides=tuple(_side(letter, chains) for letter, chains in sides.items()),
    )


def _side(letter: str, chains: Sequence[Mapping[str, Any]]) -> ChainsOfClip:
    first = chains[0]
    return ChainsOfClip(
        letter=letter,
        video=short_path(first["video"]),
        preferred=first["preference"] == letter,
        reference_marks=first["reference_marks"],
        chains=tuple(sorted(chains, key=_rollout_reward, reverse=True)),
    )


def _rollout_reward(record: Mapping[str, Any]) -> float:
    reward: float | None = record["rollout_reward"]
    return float("-inf") if reward is None else reward
