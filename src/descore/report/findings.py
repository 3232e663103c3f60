"""Figures of a page that no run has stored.

In: named runs. Out: accuracy over difference, the effect of thinking, the worst mistakes with both clips, and the mean
rewards of each generator.

Shapes: B pairs."""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from descore.evaluation.results import (
    Margins,
    PairedDifference,
    key_of,
    margins_of,
    paired_difference,
    reward_of,
    right_of,
)
from descore.report.tables import NamedRun
from descore.report.text import partial_warning
from descore.rubric import unknown_of
from descore.stats.agreement import MarginBin, accuracy_by_margin
from descore.stats.bootstrap import Figure, Floats
from descore.types import PRIMARY, Mark, Pair, RatedClip

_PARTS = 4  # columns of accuracy over difference
_ORDINALS = ("1st", "2nd", "3rd", "4th")
_LONGEST_CHAIN = 6000  # letters
_ANSWER = "<answer>"


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
class ModelDifference:
    """A run's accuracy minus that of the first run of its benchmark, on the pairs of one label."""

    run: NamedRun
    first: NamedRun
    label: str
    difference: PairedDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A decided pair that a run ordered against people."""

    run: NamedRun
    pair: Pair
    label: str
    size: float
    """How far the rewards are apart the wrong way, in standard deviations of the run's margins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeSide:
    """One clip of a mistake."""

    letter: str
    video: str
    source: str | None
    preferred: bool
    image: str | None
    """A data URI of its frames, if they were kept."""
    reward: float
    overall: float | None
    ratings: Mapping[str, float]
    marks: Mapping[str, Mark] | None
    unknown: tuple[str, ...]
    """Dimensions without a mark since they cannot be known."""
    true_marks: Mapping[str, Mark] | None
    chain: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeView:
    """A mistake with its two sides."""

    mistake: Mistake
    sides: tuple[MistakeSide, MistakeSide]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFigures:
    """Ratings and rewards of one generator's clips on one benchmark."""

    name: str
    clips: int
    ratings: Mapping[str, float]
    """People's mean rating by label, where there are any."""
    rewards: tuple[float, ...]
    """Mean reward by run, in standard deviations from the mean of all the run's clips; nan without a scored clip."""


def rewards(named: NamedRun) -> Floats:
    """The mean reward of each clip, in order; nan without a score."""
    run = named.run
    values = [(run.records.get(key_of(clip)) or {}).get("reward") for clip in run.clips]
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def by_difference(named: NamedRun, label: str) -> ByDifference | None:
    """Accuracy over the difference of people's ratings; where no pair has two ratings, over the run's own margin. None
    where there are no decided pairs."""
    margins = margins_of(label, named.run.pairs, named.run.records)
    rating = {key_of(clip): clip.ratings.get(label, math.nan) for clip in named.run.clips}
    apart_B = np.array(
        [
            rating.get((p.video_a, p.prompt), math.nan) - rating.get((p.video_b, p.prompt), math.nan)
            for p in margins.pairs
        ]
    )
    rated = bool(np.isfinite(apart_B).any())
    difference_B = apart_B if rated else margins.margin_B
    parts = accuracy_by_margin(difference_B, margins.margin_B, margins.preference_B, margins.group_B, bins=_PARTS)
    if not parts:
        return None
    return ByDifference(
        kind="ratings" if rated else "margin",
        names=tuple(_range(part) for part in parts) if rated else _ORDINALS[: len(parts)],
        figures=tuple(part.figure for part in parts),
    )


def thinking_effect(on: NamedRun, off: NamedRun, label: str) -> ThinkingEffect | None:
    """The effect of thinking on the decided pairs. None where the two runs judged different pairs, or scored none."""
    if on.run.pairs != off.run.pairs:
        return None
    thinking, direct = (margins_of(label, named.run.pairs, named.run.records) for named in (on, off))
    right_B = right_of(thinking)
    change_B = right_B - right_of(direct)
    if np.isnan(change_B).all():
        return None
    same_B, difference = change_B == 0, paired_difference(thinking, direct)
    return ThinkingEffect(
        on=on,
        off=off,
        label=label,
        both_right=int((same_B & (right_B == 1)).sum()),
        helped=difference.gained,
        hurt=difference.lost,
        both_wrong=int((same_B & (right_B == 0)).sum()),
        net=difference.accuracy,
        flips=tuple(_flips(thinking, direct, change_B)),
    )


def model_differences(runs: Sequence[NamedRun]) -> list[ModelDifference]:
    """Each run of a benchmark against the first one, label after label. A run of other pairs is left out, and one
    without a pair that both scored."""
    first, *others = runs
    labels = list(first.run.results["labels"])
    own = {label: margins_of(label, first.run.pairs, first.run.records) for label in labels}
    differences = [
        ModelDifference(
            run=named,
            first=first,
            label=label,
            difference=paired_difference(margins_of(label, named.run.pairs, named.run.records), own[label]),
        )
        for label in labels
        for named in others
        if named.run.pairs == first.run.pairs
    ]
    return [one for one in differences if one.difference.accuracy.n]


def worst_mistakes(runs: Sequence[NamedRun], *, limit: int) -> list[Mistake]:
    """Each run's worst in turn, up to `limit`; no pair of a benchmark is listed twice."""
    chosen: dict[tuple[str, str, str, str], Mistake] = {}
    for turn in zip_longest(*(_mistakes(named) for named in runs)):
        for mistake in turn:
            if mistake is not None and len(chosen) < limit:
                pair = mistake.pair
                chosen.setdefault((mistake.run.benchmark, pair.prompt, pair.video_a, pair.video_b), mistake)
    return list(chosen.values())


def all_flips(effects: Sequence[ThinkingEffect], *, limit: int) -> list[tuple[ThinkingEffect, Flip]]:
    """Pairs that thinking changed, one of each effect in turn; a pair of several labels is there once."""
    chosen: dict[tuple[str, ...], tuple[ThinkingEffect, Flip]] = {}
    for turn in zip_longest(*(effect.flips for effect in effects)):
        for effect, flip in zip(effects, turn, strict=True):
            if flip is not None and len(chosen) < limit:
                chosen.setdefault((effect.on.name, flip.prompt, *sorted((flip.preferred, flip.other))), (effect, flip))
    return list(chosen.values())


def mistake_view(mistake: Mistake) -> MistakeView:
    """A mistake with the records of both clips."""
    pair = mistake.pair
    preference = pair.preference[mistake.label]
    sides = [_side(mistake, letter, video, preference) for letter, video in (("a", pair.video_a), ("b", pair.video_b))]
    return MistakeView(mistake=mistake, sides=(sides[0], sides[1]))


def short_path(video: str) -> str:
    """A file's name with its folder's, which often says what made it."""
    return "/".join(PurePath(video).parts[-2:]) or video


def by_generator(runs: Sequence[NamedRun]) -> list[GeneratorFigures]:
    """Figures of each generator on the clips of one benchmark, best reward of the first run first."""
    clips: dict[str, list[RatedClip]] = {}
    for clip in {key_of(clip): clip for named in runs for clip in named.run.clips}.values():
        if clip.source is not None:
            clips.setdefault(clip.source, []).append(clip)
    standardized = [_standardized_rewards(named) for named in runs]
    figures = [
        GeneratorFigures(
            name=name,
            clips=len(own),
            ratings=_mean_ratings(own),
            rewards=tuple(_mean(run.get(key_of(clip), math.nan) for clip in own) for run in standardized),
        )
        for name, own in clips.items()
    ]
    return sorted(figures, key=lambda generator: -np.nan_to_num(generator.rewards[0], nan=-math.inf))


def _range(part: MarginBin) -> str:
    low, high = f"{part.low:.2g}", f"{part.high:.2g}"
    return low if low == high else f"{low}–{high}"


def _flips(on: Margins, off: Margins, change_B: Floats) -> Iterator[Flip]:
    margin_on_B, margin_off_B = (_standard(run.margin_B) * run.preference_B for run in (on, off))
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
    """The mistakes that the run keeps frames of, worst first."""
    run = named.run
    return [
        Mistake(run=named, pair=run.pairs[worst["pair"]], label=worst["label"], size=abs(worst["margin"]))
        for worst in run.results["worst"]
    ]


def _standardized_rewards(named: NamedRun) -> dict[tuple[str, str], float]:
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


def _side(mistake: Mistake, letter: str, video: str, preference: str) -> MistakeSide:
    run, key = mistake.run.run, (video, mistake.pair.prompt)
    index = next((index for index, clip in enumerate(run.clips) if key_of(clip) == key), None)
    clip = None if index is None else run.clips[index]
    record = run.records[key]
    frames = None if index is None else run.frames.get(index)
    return MistakeSide(
        letter=letter,
        video=short_path(video),
        source=mistake.pair.source_a if letter == "a" else mistake.pair.source_b,
        preferred=preference == letter,
        image=None if frames is None else f"data:image/jpeg;base64,{base64.b64encode(frames).decode()}",
        reward=reward_of(record, mistake.label),
        overall=record["overall"],
        ratings={} if clip is None else clip.ratings,
        marks=record["marks"],
        unknown=_unknown(record),
        true_marks=None if clip is None else clip.marks,
        chain=_chain_text(record),
        warnings=_warnings(record),
    )


def _chain_text(record: Mapping[str, Any]) -> str:
    """The chain without its answer; an answer that could not be parsed stays."""
    text = record["thinking"] or ""
    start = text.rfind(_ANSWER, 0, max(text.rfind("</answer>"), 0))
    if record["marks"] is not None and start >= 0:
        text = text[:start]
    text = text.strip()
    more = len(text) - _LONGEST_CHAIN
    return text if more <= 0 else f"{text[:_LONGEST_CHAIN]} … ({more:,} more letters)"


def _unknown(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a run's record, which says so itself or, if it is of an older version, in its chain."""
    if record.get("unknown") is not None:
        return tuple(record["unknown"])
    return unknown_of(record["thinking"] or "", record["marks"] or {})


def _warnings(record: Mapping[str, Any]) -> tuple[str, ...]:
    cut_off = ["The thinking was cut off."] if record["truncated"] else []
    no_marks = ["No marks could be read."] if record["thinking"] and record["marks"] is None else []
    unknown, overall = _unknown(record), record["overall"]
    partial = overall is not None and not PRIMARY.isdisjoint(unknown)
    return (*cut_off, *no_marks, *([f"{partial_warning(overall, unknown)}."] if partial else []))
