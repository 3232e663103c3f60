"""Chains that were sampled in training as one page of HTML: what each says, what it is worth and why.

In: the records of a run's chains.jsonl. Out: the page, the same letters for the same records. A pure function, as
`page` is; all text of records is untrusted. Knows records; knows nothing of models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from descore.report.mistakes import short_path
from descore.report.page import fill
from descore.report.text import MARK_WORDS
from descore.types import DIMENSIONS

MOST = 40
"""Pairs that are shown, the last: a page stays readable however long a run is."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideView:
    """A clip and its group of chains."""

    letter: str
    video: str
    preferred: bool
    reference_marks: Mapping[str, int | None] | None
    chains: tuple[Record, ...]
    """The best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """A pair as a step showed it."""

    step: int
    prompt: str
    tie: bool
    sides: tuple[SideView, ...]


def render_chains(records: Sequence[Record], *, title: str, weights: Mapping[str, float] | None = None) -> str:
    """The page. records: lines of chains.jsonl in their order; of chains that a resumed run wrote again, the last
    count. title: what the run is called. weights: by part, what it weighs in a chain's worth, where that is known."""
    views = pair_views(records)
    parts = dict.fromkeys(part for record in records for part in record["parts"])
    return fill(
        "chains.html.j2",
        generator="descore train rl",
        title=title,
        views=views[: -MOST - 1 : -1],
        hidden=len(views) > MOST,
        parts=tuple(parts),
        weights=weights or {},
        dimensions=DIMENSIONS,
        mark_words=MARK_WORDS,
    )


def pair_views(records: Sequence[Record]) -> list[PairView]:
    """The pairs in the order of their steps, each with all its chains."""
    last = {(r["step"], r["pair"], r["side"], r["sample"]): r for r in records}
    by_pair: dict[tuple[int, int], dict[str, list[Record]]] = {}
    for step, pair, side, _ in sorted(last):
        by_pair.setdefault((step, pair), {}).setdefault(side, [])
    for (step, pair, side, _), record in last.items():
        by_pair[step, pair][side].append(record)
    return [_view(step, sides) for (step, _), sides in by_pair.items()]


def _view(step: int, sides: Mapping[str, Sequence[Record]]) -> PairView:
    first = next(iter(sides.values()))[0]
    return PairView(
        step=step,
        prompt=first["prompt"],
        tie=first["preference"] == "tie",
        sides=tuple(_side(letter, chains) for letter, chains in sides.items()),
    )


def _side(letter: str, chains: Sequence[Record]) -> SideView:
    first = chains[0]
    return SideView(
        letter=letter,
        video=short_path(first["video"]),
        preferred=first["preference"] == letter,
        reference_marks=first["reference_marks"],
        chains=tuple(sorted(chains, key=_worth, reverse=True)),
    )


def _worth(record: Record) -> float:
    worth: float | None = record["rollout_reward"]
    return float("-inf") if worth is None else worth
