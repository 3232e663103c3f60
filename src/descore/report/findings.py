"""What a page shows beyond the stored statistics, computed anew from records.

In: named runs. Out: frozen findings: accuracy over difference, what thinking changed, the worst mistakes, figures of
each generator. Pure functions. Shapes: B pairs. Knows nothing of markup."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from descore.evaluation.results import Margins, key_of, margins_of
from descore.report.naming import NamedRun
from descore.stats.agreement import MarginBin, accuracy_by_margin
from descore.stats.bootstrap import Figure, mean
from descore.types import Pair, RatedClip

Floats = NDArray[np.float64]

_PARTS = 4  # columns of accuracy over difference
_ORDINALS = ("1st", "2nd", "3rd", "4th")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByDifference:
    """One run's accuracy, the pairs divided into parts of like size by how far apart their clips are."""

    kind: Literal["ratings", "margin"]
    """Apart in people's ratings, or, where nobody rated, in the run's own rewards."""
    names: tuple[str, ...]
    """Of the parts, the smallest differences first."""
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A pair that is right with thinking and wrong without, or the other way round."""

    prompt: str
    preferred: str
    """The video that people prefer."""
    other: str
    margin_off: float
    """Reward of the preferred clip minus that of the other, in standard deviations of the run's margins."""
    margin_on: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingEffect:
    """The same model on the same decided pairs, with thinking and without (McNemar 1947)."""

    on: NamedRun
    off: NamedRun
    label: str
    both_right: int
    helped: int
    """Right only with thinking."""
    hurt: int
    """Right only without."""
    both_wrong: int
    net: Figure
    """Accuracy with thinking minus accuracy without."""
    flips: tuple[Flip, ...]
    """Helped and hurt in turn, those first whose margin moved furthest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A decided pair that a run ordered against people."""

    by: NamedRun
    pair: Pair
    label: str
    size: float
    """How far the rewards are apart the wrong way, in standard deviations of the run's margins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one generator's clips got on one benchmark."""

    name: str
    clips: int
    ratings: Mapping[str, float]
    """People's mean rating by label, where there are any."""
    rewards: tuple[float, ...]
    """Mean reward by run, in standard deviations from the mean of all the run's clips; nan without a scored clip."""


def rewards(named: NamedRun) -> Floats:
    """The mean reward of each clip, in order; nan without a score."""
    run = named.run
    found = [(run.records.get(key_of(clip)) or {}).get("reward") for clip in run.clips]
    return np.array([math.nan if value is None else value for value in found], dtype=np.float64)


def by_difference(named: NamedRun, label: str) -> ByDifference | None:
    """Accuracy over the difference of people's ratings; where no pair has two ratings, over the run's own margin. None
    where there are no decided pairs."""
    seen = margins_of(label, named.run.pairs, named.run.records)
    rating = {key_of(clip): clip.ratings.get(label, math.nan) for clip in named.run.clips}
    apart_B = np.array(
        [rating.get((p.video_a, p.prompt), math.nan) - rating.get((p.video_b, p.prompt), math.nan) for p in seen.pairs]
    )
    rated = bool(np.isfinite(apart_B).any())
    difference_B = apart_B if rated else seen.margin_B
    parts = accuracy_by_margin(difference_B, seen.margin_B, seen.preference_B, seen.group_B, bins=_PARTS)
    if not parts:
        return None
    return ByDifference(
        kind="ratings" if rated else "margin",
        names=tuple(_range(part) for part in parts) if rated else _ORDINALS[: len(parts)],
        figures=tuple(part.figure for part in parts),
    )


def thinking_effect(on: NamedRun, off: NamedRun, label: str) -> ThinkingEffect | None:
    """What thinking changed on the decided pairs. None where the two runs judged different pairs, or scored none."""
    if on.run.pairs != off.run.pairs:
        return None
    with_it, without = (margins_of(label, named.run.pairs, named.run.records) for named in (on, off))
    right_B, decided_B = _right(with_it), with_it.preference_B != 0
    change_B = right_B - _right(without)
    if np.isnan(change_B).all():
        return None
    same_B = change_B == 0
    return ThinkingEffect(
        on=on,
        off=off,
        label=label,
        both_right=int((same_B & (right_B == 1)).sum()),
        helped=int((change_B == 1).sum()),
        hurt=int((change_B == -1).sum()),
        both_wrong=int((same_B & (right_B == 0)).sum()),
        net=mean(change_B[decided_B], with_it.group_B[decided_B]),
        flips=tuple(_flips(with_it, without, change_B)),
    )


def worst_mistakes(runs: Sequence[NamedRun], *, most: int) -> list[Mistake]:
    """Each run's worst in turn, until there are `most`; no pair of a benchmark is shown twice."""
    chosen: dict[tuple[str, str, str, str], Mistake] = {}
    for turn in zip_longest(*(_mistakes(named) for named in runs)):
        for mistake in turn:
            if mistake is not None and len(chosen) < most:
                pair = mistake.pair
                chosen.setdefault((mistake.by.benchmark, pair.prompt, pair.video_a, pair.video_b), mistake)
    return list(chosen.values())


def sources(runs: Sequence[NamedRun]) -> list[Source]:
    """Figures of each generator on the clips of one benchmark, best reward of the first run first."""
    clips: dict[str, list[RatedClip]] = {}
    for clip in {key_of(clip): clip for named in runs for clip in named.run.clips}.values():
        if clip.source is not None:
            clips.setdefault(clip.source, []).append(clip)
    standing = [_standing(named) for named in runs]
    found = [
        Source(
            name=name,
            clips=len(made),
            ratings=_mean_ratings(made),
            rewards=tuple(_mean(place.get(key_of(clip), math.nan) for clip in made) for place in standing),
        )
        for name, made in clips.items()
    ]
    return sorted(found, key=lambda source: -np.nan_to_num(source.rewards[0], nan=-math.inf))


def _right(seen: Margins) -> Floats:
    """1 where a decided pair is ordered as people do, 0 where not, nan for a tie or a missing score."""
    right_B = (np.sign(seen.margin_B) == seen.preference_B).astype(np.float64)
    return np.where((seen.preference_B == 0) | np.isnan(seen.margin_B), np.nan, right_B)


def _range(part: MarginBin) -> str:
    low, high = f"{part.low:.2g}", f"{part.high:.2g}"
    return low if low == high else f"{low}–{high}"


def _flips(on: Margins, off: Margins, change_B: Floats) -> Iterator[Flip]:
    margin_on_B, margin_off_B = (_standard(seen.margin_B) * seen.preference_B for seen in (on, off))
    moved_B = np.abs(margin_on_B - margin_off_B)
    order = sorted(np.flatnonzero(np.abs(change_B) == 1).tolist(), key=lambda b: (-moved_B[b], b))
    helped, hurt = ([b for b in order if change_B[b] == sign] for sign in (1, -1))
    for b in (b for both in zip_longest(helped, hurt) for b in both if b is not None):
        pair = on.pairs[b]
        videos = (pair.video_a, pair.video_b) if on.preference_B[b] > 0 else (pair.video_b, pair.video_a)
        yield Flip(
            prompt=pair.prompt,
            preferred=videos[0],
            other=videos[1],
            margin_off=float(margin_off_B[b]),
            margin_on=float(margin_on_B[b]),
        )


def _mistakes(named: NamedRun) -> list[Mistake]:
    """Those that the run keeps frames of, worst first."""
    run = named.run
    return [
        Mistake(by=named, pair=run.pairs[worst["pair"]], label=worst["label"], size=abs(worst["margin"]))
        for worst in run.results["worst"]
    ]


def _standing(named: NamedRun) -> dict[tuple[str, str], float]:
    """Each clip's reward, in standard deviations from the mean of all."""
    values = rewards(named)
    known = values[np.isfinite(values)]
    standard = _standard(values - known.mean() if known.size else values)
    return {key_of(clip): float(z) for clip, z in zip(named.run.clips, standard, strict=True)}


def _standard(values: Floats) -> Floats:
    """In standard deviations; as they are where nothing differs."""
    known = values[np.isfinite(values)]
    deviation = float(known.std()) if known.size else 0.0
    return values / deviation if deviation > 0 else values


def _mean_ratings(clips: Sequence[RatedClip]) -> dict[str, float]:
    labels = dict.fromkeys(label for clip in clips for label in clip.ratings)
    return {label: _mean(clip.ratings.get(label, math.nan) for clip in clips) for label in labels}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
