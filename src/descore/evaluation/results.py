"""The statistics of a run: a pure function of its labels and records.

In: rated clips, pairs, and the last record of each clip. Out: the object of results.json, plain values only, with None
for an unknown number. A clip without a score counts as failed in every figure.

Shapes: B pairs, N clips."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descore.evaluation.records import to_plain, without_bad_reward
from descore.stats.agreement import (
    accuracy_with_tie_margin,
    accuracy_with_ties,
    accuracy_with_ties_compatible,
    accuracy_without_ties,
    measure_calibration,
    share,
)
from descore.stats.bootstrap import Figure, Floats, bootstrap_mean
from descore.stats.correlation import correlations
from descore.stats.uncertainty import SpreadValue, difference_error, spread_value
from descore.types import DIMENSIONS, PREFERENCE_SIGN, Pair, RatedClip, preference_probability

ClipKey = tuple[str, str]
"""A clip's video and prompt."""
Records = Mapping[ClipKey, Mapping[str, Any]]

LEAST_CLIPS = 5
"""Clips of a perturbation below which a stress test concludes nothing."""

WORST = 12
"""Mistakes that are listed at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Margins:
    """The pairs of one label, as arrays."""

    pairs: Sequence[Pair]
    margin_B: NDArray[np.float64]
    """Reward of a minus reward of b; nan where one of the two has no score."""
    preference_B: NDArray[np.int64]
    """1 a, -1 b, 0 a tie."""
    group_B: NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """One judge's accuracy on decided pairs minus another one's, pair by pair: a pair that is hard for one is often
    hard for the other, so the interval is narrower than those of the two suggest."""

    accuracy: Figure
    """Pairs that one of them did not score have failed."""
    gained: int
    """Pairs that only the one judge orders as people do."""
    lost: int
    """Pairs that only the other one does."""


def results_of(
    clips: Sequence[RatedClip], pairs: Sequence[Pair], records: Records, *, tie_margin: float | None = None
) -> dict[str, Any]:
    """All figures of a run. tie_margin: also count ties by this fixed margin, in units of the reward.

    scored, of: clips with a score, and clips; failures: the others, with their `error`; truncated: chains that were cut
    at the limit; unreadable: chains without a verdict; partial_overall: verdicts that leave out the subject or the
    dynamics, which cannot be known; left_out: a generative model's chains without an answer, beside others that have
    one; seconds: the total time. Per label in `labels`, the agreement with people, and with several chains the worth of
    their `spread` (see `SpreadValue`); per dimension in `marks`, how often the written mark is the true one; by_source,
    by_aspect; and `worst`: the decided pairs whose order is most wrong, `margin` in root mean squares of the label's
    margins."""
    records = {key: without_bad_reward(dict(record)) for key, record in records.items()}
    counted = [records[key_of(clip)] for clip in clips if key_of(clip) in records]
    scored = [record for record in counted if record["reward"] is not None]
    margins = {label: margins_of(label, pairs, records) for label in labels_of(clips, pairs)}
    return to_plain(  # type: ignore[no-any-return]
        {
            "scored": len(scored),
            "of": len(clips),
            "failures": _failures(clips, records),
            "truncated": sum(bool(record.get("truncated")) for record in scored),
            "unreadable": sum(record.get("thinking") is not None and record.get("marks") is None for record in scored),
            "partial_overall": sum(bool(record.get("partial_overall")) for record in scored),
            "left_out": sum(record.get("left_out") or 0 for record in scored),
            "seconds": sum(record.get("seconds") or 0.0 for record in counted),
            "labels": {
                label: _agreement(label, own, clips, records, tie_margin=tie_margin) for label, own in margins.items()
            },
            "marks": _marks(clips, records),
            "by_source": _by_source(clips, records),
            "by_aspect": {label: by for label, own in margins.items() if (by := _by_aspect(own))},
            "worst": _worst(pairs, margins),
        }
    )


def key_of(clip: RatedClip) -> ClipKey:
    """The key of a clip's record."""
    return clip.video, clip.prompt


def labels_of(clips: Sequence[RatedClip], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Every label of the pairs and clips, in the order of their first occurrence."""
    return tuple(dict.fromkeys(chain(*(pair.preference for pair in pairs), *(clip.ratings for clip in clips))))


def reward_name(label: str, records: Records) -> str | None:
    """Which reward stands for a label: the named dimension of its name, or else the mean of all; None if there is no
    score at all."""
    names: Mapping[str, float] | None = next((r["rewards"] for r in records.values() if r.get("rewards")), None)
    if names is None:
        return next(("reward" for r in records.values() if r["reward"] is not None), None)
    return label if label in names else " + ".join(names)


def reward_of(record: Mapping[str, Any] | None, label: str) -> float:
    """The reward that stands for a label; nan without a score."""
    if record is None or record["reward"] is None:
        return float("nan")
    reward: float = (record.get("rewards") or {}).get(label, record["reward"])
    return reward


def margins_of(label: str, pairs: Sequence[Pair], records: Records) -> Margins:
    """The pairs of a label."""
    chosen = [pair for pair in pairs if label in pair.preference]
    a, b = (
        [reward_of(records.get((video, pair.prompt)), label) for pair, video in each]
        for each in (((p, p.video_a) for p in chosen), ((p, p.video_b) for p in chosen))
    )
    return Margins(
        pairs=chosen,
        margin_B=np.asarray(a, np.float64) - np.asarray(b, np.float64),
        preference_B=np.asarray([PREFERENCE_SIGN[pair.preference[label]] for pair in chosen], np.int64),
        group_B=np.asarray([pair.group for pair in chosen], np.str_),
    )


def right_of(margins: Margins) -> Floats:
    """By pair 1 where a decided one is ordered as people do, 0 where not, nan for a tie or a missing score."""
    right_B = (np.sign(margins.margin_B) == margins.preference_B).astype(np.float64)
    return np.where((margins.preference_B == 0) | np.isnan(margins.margin_B), np.nan, right_B)


def paired_difference(margins: Margins, other: Margins) -> PairedDifference:
    """Of two judges on the same pairs."""
    decided_B = margins.preference_B != 0
    change_B = (right_of(margins) - right_of(other))[decided_B]
    return PairedDifference(
        accuracy=bootstrap_mean(change_B, margins.group_B[decided_B]),
        gained=int((change_B == 1).sum()),
        lost=int((change_B == -1).sum()),
    )


def _failures(clips: Sequence[RatedClip], records: Records) -> list[dict[str, str]]:
    failures = []
    for clip in clips:
        record = records.get(key_of(clip))
        if record is None or record["reward"] is None:
            error = "never tried" if record is None else record["error"]
            failures.append({"video": clip.video, "prompt": clip.prompt, "error": error})
    return failures


def _agreement(
    label: str, margins: Margins, clips: Sequence[RatedClip], records: Records, *, tie_margin: float | None
) -> dict[str, Any]:
    margin_B, preference_B, group_B = margins.margin_B, margins.preference_B, margins.group_B
    probability_B = np.asarray([preference_probability(margin, 0.0) for margin in margin_B], np.float64)
    return {
        "reward": reward_name(label, records),
        "accuracy": accuracy_without_ties(margin_B, preference_B, group_B),
        "with_ties": accuracy_with_ties(margin_B, preference_B, group_B),
        "with_ties_held_out": accuracy_with_ties(margin_B, preference_B, group_B, held_out=True),
        "with_tie_margin": None
        if tie_margin is None
        else accuracy_with_tie_margin(margin_B, preference_B, group_B, tie_margin=tie_margin),
        "compatible": accuracy_with_ties_compatible(margin_B, preference_B),
        "calibration": measure_calibration(probability_B, preference_B, group_B),
        "correlation": _correlation(label, clips, records),
        "spread": _spread(label, margins, records),
    }


def _spread(label: str, margins: Margins, records: Records) -> SpreadValue | None:
    """What the spread of several chains is worth; None for a single one. A named dimension beside others has no spread
    in the records, which hold that of their mean."""
    sides = [
        [records.get((video, pair.prompt)) or {} for pair, video in each]
        for each in (((p, p.video_a) for p in margins.pairs), ((p, p.video_b) for p in margins.pairs))
    ]
    if any(label in (record.get("rewards") or {}) and len(record["rewards"]) > 1 for side in sides for record in side):
        return None
    (std_a_B, chains_a_B), (std_b_B, chains_b_B) = (
        (
            np.asarray([math.nan if r.get("std") is None else r["std"] for r in side], np.float64),
            np.asarray([r.get("samples") or 1 for r in side], np.int64),
        )
        for side in sides
    )
    error_B, freedom_B = difference_error(std_a_B, chains_a_B, std_b_B, chains_b_B)
    known_B = np.where((chains_a_B > 1) | (chains_b_B > 1), error_B, np.nan)  # records of old runs count no chains
    return spread_value(margins.margin_B, known_B, freedom_B, margins.preference_B, margins.group_B)


def _correlation(label: str, clips: Sequence[RatedClip], records: Records) -> dict[str, Any] | None:
    rated = [clip for clip in clips if label in clip.ratings]
    if not rated:
        return None
    reward_N = np.asarray([reward_of(records.get(key_of(clip)), label) for clip in rated])
    rating_N = np.asarray([clip.ratings[label] for clip in rated], np.float64)
    group_N = np.asarray([clip.group for clip in rated], np.str_)
    return {
        "all": correlations(reward_N, rating_N, group_N, within=False),
        "within": correlations(reward_N, rating_N, group_N, within=True),
    }


def _marks(clips: Sequence[RatedClip], records: Records) -> dict[str, Any] | None:
    """The share of right marks among the clips whose true marks are known; a chain without a verdict has failed.
    "asked" counts only the dimensions that the prompt asks for: N/A follows from the prompt. None if no chains."""
    known = [clip for clip in clips if clip.marks is not None]
    if not any((records.get(key_of(clip)) or {}).get("thinking") for clip in known):
        return None
    hits = {name: np.asarray([_hit(clip, name, records) for clip in known]) for name in DIMENSIONS}
    asked = {
        name: np.asarray([clip.marks is not None and clip.marks[name] is not None for clip in known]) for name in hits
    }
    group_N = np.asarray([clip.group for clip in known], np.str_)
    pooled_N = np.concatenate(list(hits.values()))
    pooled_group_N, asked_N = np.tile(group_N, len(hits)), np.concatenate(list(asked.values()))
    return {
        **{name: share(hit_N, group_N) for name, hit_N in hits.items()},
        "all": share(pooled_N, pooled_group_N),
        "asked": share(pooled_N[asked_N], pooled_group_N[asked_N]),
    }


def _hit(clip: RatedClip, name: str, records: Records) -> float:
    marks = (records.get(key_of(clip)) or {}).get("marks")
    if marks is None or clip.marks is None:
        return float("nan")
    return float(marks[name] == clip.marks[name])


def _by_source(clips: Sequence[RatedClip], records: Records) -> dict[str, Any]:
    by_source = {}
    for source in sorted({clip.source for clip in clips if clip.source is not None}):
        own = [clip for clip in clips if clip.source == source]
        rewards = [r["reward"] for clip in own if (r := records.get(key_of(clip))) and r["reward"] is not None]
        by_source[source] = {
            "reward": fmean(rewards) if rewards else None,
            "n": len(rewards),
            "failed": len(own) - len(rewards),
            "ratings": {
                label: fmean(clip.ratings[label] for clip in own if label in clip.ratings)
                for label in labels_of(own, ())
            },
        }
    return by_source


def _by_aspect(margins: Margins) -> dict[str, Any]:
    aspect_B = np.asarray([pair.aspect or "" for pair in margins.pairs], np.str_)
    return {
        str(aspect): accuracy_without_ties(
            margins.margin_B[aspect_B == aspect],
            margins.preference_B[aspect_B == aspect],
            margins.group_B[aspect_B == aspect],
        )
        for aspect in np.unique(aspect_B[aspect_B != ""])
    }


def _worst(pairs: Sequence[Pair], margins: Mapping[str, Margins]) -> list[dict[str, Any]]:
    """Each pair once, under the label where it is most wrong."""
    index_of = {id(pair): index for index, pair in enumerate(pairs)}
    worst: dict[int, dict[str, Any]] = {}
    for label, own in margins.items():
        # About 0, not about their mean: which clip is called a is arbitrary.
        spread = math.sqrt(np.nan_to_num(own.margin_B**2).sum() / max(1, np.isfinite(own.margin_B).sum())) or 1.0
        for pair, margin, preference in zip(own.pairs, own.margin_B, own.preference_B, strict=True):
            index, wrong = index_of[id(pair)], -margin * preference / spread
            if wrong > worst.get(index, {"wrong": 0.0})["wrong"]:
                worst[index] = {"pair": index, "label": label, "margin": float(margin / spread), "wrong": wrong}
    ranked = sorted(worst.values(), key=lambda mistake: -mistake["wrong"])[:WORST]
    return [{key: value for key, value in mistake.items() if key != "wrong"} for mistake in ranked]
