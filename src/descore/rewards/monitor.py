"""What moves from step to step of a training: the rewards, their spread, the chains, and signs that the reward is
gamed.

In: the `Rewards` of a step, all at once or call by call. Out: a flat mapping of floats for any logger.

Shapes: N clips of a step."""

import math
import threading
import warnings
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from descore.errors import ConfigError, DescoreWarning
from descore.rewards.function import Rewards
from descore.stats.bootstrap import Floats
from descore.types import Completion, Mark, Score

PREFIX = "descore/"
"""What the keys of a report begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningLimits:
    """From where on a figure is a warning. A limit of infinity is never reached; 0 is no `narrower`."""

    least_clips: int = 8
    """Clips with a reward below which a step warns of nothing."""
    least_steps: int = 4
    """Earlier steps below which nothing is compared with them."""
    failed: float = 0.1
    """Share of clips without a reward."""
    truncated: float = 0.2
    """Share of chains that were cut at their limit."""
    repeated: float = 0.5
    """Share of chains that are another one of the step word for word."""
    undecided: float = 0.5
    """Share of groups whose clips all have the same reward: they teach nothing."""
    narrower: float = 0.25
    """Factor of the spread within groups to its mean over the earlier steps, below which it has collapsed."""
    not_applicable: float = 0.25
    """Rise of the share of N/A marks over its mean in the earlier steps."""
    distance: float = 2.0
    """Distance of the rewards to those of the earlier steps, in deviations of these."""


@dataclass(frozen=True, slots=True)
class _Chain:
    tokens: int
    truncated: bool
    text: int | None  # a hash; None without thinking
    marks: tuple[Mark, ...] | None  # None without an answer


@dataclass(frozen=True, slots=True)
class _Clip:
    reward: float
    raw: float
    terms: Mapping[str, float]
    clamped: bool
    group: Hashable
    chains: tuple[_Chain, ...]


class RewardMonitor:
    """Reports of the steps of a training. It may be fed from several threads.

    `update(rewards)` is one whole step. A step of several calls is collected with `add` and ended with `report`."""

    def __init__(self, *, window: int = 20, limits: WarningLimits | None = None) -> None:
        """window: the earlier steps that a step is compared with."""
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ConfigError(f"window is {window!r}, expected 1 or more steps")
        self.window, self.limits = window, limits or WarningLimits()
        self._steps: deque[tuple[list[float], dict[str, float]]] = deque(maxlen=window)
        self._warned: set[str] = set()
        self._clips: list[_Clip] = []
        self._lock = threading.Lock()

    def update(self, rewards: Rewards, *, groups: Sequence[Hashable] | None = None) -> dict[str, float]:
        """Count the rewards and end the step: see `add` and `report`."""
        with self._lock:
            self._clips += _clips(rewards, groups)
            report, texts = self._end_step()
        _warn(texts)
        return report

    def add(self, rewards: Rewards, *, groups: Sequence[Hashable] | None = None) -> None:
        """Count rewards of the step that is going on. groups: what the clips of one group share, one for each clip; by
        default their prompt."""
        with self._lock:
            self._clips += _clips(rewards, groups)

    def report(self) -> dict[str, float]:
        """End the step: its figures by name, as docs/rewards.md lists them. A figure that has no value, such as the
        marks of a model that does not think, is left out. A step without clips reports that, and is not remembered.

        DescoreWarning, once of each kind, where a figure passes its limit."""
        with self._lock:
            report, texts = self._end_step()
        _warn(texts)
        return report

    def state_dict(self) -> dict[str, Any]:
        """What a trainer saves to go on with, as plain values: the earlier steps, and which warnings there were. Clips
        of a step that has not ended are not part of it."""
        with self._lock:
            steps = [{"rewards": list(rewards), "report": dict(report)} for rewards, report in self._steps]
            return {"steps": steps, "warned": sorted(self._warned)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. ConfigError for what is none."""
        try:
            steps = [
                (
                    [float(reward) for reward in step["rewards"]],
                    {str(name): float(value) for name, value in step["report"].items()},
                )
                for step in state["steps"]
            ]
            warned = {str(kind) for kind in state["warned"]}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(
                f"a state of {state!r:.80}; expected that of RewardMonitor.state_dict: steps and warned"
            ) from None
        with self._lock:
            self._steps, self._warned, self._clips = deque(steps, maxlen=self.window), warned, []

    def _end_step(self) -> tuple[dict[str, float], list[str]]:
        """The report and the texts of its warnings. The lock is held."""
        clips, self._clips = self._clips, []
        earlier = [reward for rewards, _ in self._steps for reward in rewards]
        rewards = [clip.reward for clip in clips if math.isfinite(clip.reward)]
        figures = {
            "clips": float(len(clips)),
            "failed": _share(not math.isfinite(clip.reward) for clip in clips),
            "clamped": _share(clip.clamped for clip in clips),
            **_of_rewards(clips),
            **_of_groups(clips),
            **_of_chains([chain for clip in clips for chain in clip.chains]),
            "distance": distance_to(earlier, rewards),
        }
        report = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        texts = self._new_warnings(report, clips) if len(rewards) >= self.limits.least_clips else []
        if rewards:
            self._steps.append((rewards, report))
        return {PREFIX + name: value for name, value in report.items()}, texts

    def _new_warnings(self, report: Mapping[str, float], clips: Sequence[_Clip]) -> list[str]:
        signs = {**_over_limits(report, self.limits), **self._changes(report)}
        marks = [chain.marks for clip in clips for chain in clip.chains if chain.marks is not None]
        if len(marks) >= self.limits.least_clips and len(set(marks)) == 1:
            signs["marks"] = f"all {len(marks)} answers of the step have the same marks; read some of the chains"
        new = {kind: text for kind, text in signs.items() if kind not in self._warned}
        self._warned |= set(new)
        return list(new.values())

    def _changes(self, report: Mapping[str, float]) -> dict[str, str]:
        """Warnings by comparison with the earlier steps."""
        limits, signs = self.limits, dict[str, str]()
        if len(self._steps) < limits.least_steps:
            return signs
        spread, usual = report.get("std_within"), self._usual("std_within")
        if spread is not None and usual and spread < limits.narrower * usual:
            signs["std_within"] = (
                f"rewards within groups spread by {spread:.3g}, after {usual:.3g} in earlier steps; the generator may "
                "make the same clip again and again"
            )
        share, usual = report.get("not_applicable"), self._usual("not_applicable")
        if share is not None and usual is not None and share > usual + limits.not_applicable:
            signs["not_applicable"] = f"{share:.0%} of the marks are N/A, after {usual:.0%}; read some of the chains"
        if report.get("distance", 0.0) > limits.distance:
            signs["distance"] = (
                f"the rewards are {report['distance']:.2g} deviations away from those of the last {len(self._steps)} "
                "steps; look at clips of this step before you go on"
            )
        return signs

    def _usual(self, name: str) -> float | None:
        values = [report[name] for _, report in self._steps if name in report]
        return fmean(values) if values else None


def distance_to(earlier: Sequence[float], rewards: Sequence[float]) -> float:
    """The Wasserstein-1 distance of the rewards to earlier ones, in population deviations of these (Kantorovich 1942):
    how far a reward has to go, on average, for one distribution to become the other. NaN where one of them is empty or
    the earlier rewards are all equal."""
    from scipy.stats import wasserstein_distance

    if not len(rewards) or not len(earlier) or min(earlier) == max(earlier):
        return math.nan
    return float(wasserstein_distance(earlier, rewards)) / float(np.std(earlier))


def variance_split(reward_N: Floats, groups: Sequence[Hashable]) -> tuple[float, float]:
    """Population variance of the rewards within groups and between their means, each group weighted by its clips: they
    add up to the variance of all (the law of total variance)."""
    by_group: dict[Hashable, list[float]] = {}
    for reward, group in zip(reward_N.tolist(), groups, strict=True):
        by_group.setdefault(group, []).append(reward)
    within = sum(len(values) * _variance(values) for values in by_group.values()) / len(reward_N)
    return within, _variance([mean for values in by_group.values() for mean in [fmean(values)] * len(values)])


def _variance(values: Sequence[float]) -> float:
    """Of equal values 0, without rounding."""
    return 0.0 if min(values) == max(values) else float(np.var(values))


def _clips(rewards: Rewards, groups: Sequence[Hashable] | None) -> list[_Clip]:
    if groups is not None and len(groups) != len(rewards):
        raise ConfigError(f"{len(rewards)} rewards, but {len(groups)} in groups; expected one for each")
    columns = {name: column.tolist() for name, column in rewards.terms.items()}
    values, raw, clamped = rewards.rewards.tolist(), rewards.raw.tolist(), rewards.clamped.tolist()
    return [
        _Clip(
            reward=values[index],
            raw=raw[index],
            terms={name: column[index] for name, column in columns.items()},
            clamped=clamped[index] > 0,
            group=groups[index] if groups is not None else score.prompt if isinstance(score, Score) else None,
            chains=tuple(map(_chain, score.completions)) if isinstance(score, Score) else (),
        )
        for index, score in enumerate(rewards.scores)
    ]


def _chain(completion: Completion) -> _Chain:
    verdict = completion.verdict
    return _Chain(
        tokens=completion.num_tokens,
        truncated=completion.truncated,
        text=hash(completion.text) if completion.text else None,
        marks=None if verdict is None else tuple(verdict.marks.values()),
    )


def _of_rewards(clips: Sequence[_Clip]) -> dict[str, float]:
    """Of the rewards that are known, and the mean of each term."""
    reward_N = np.asarray([clip.reward for clip in clips if math.isfinite(clip.reward)], np.float64)
    names = dict.fromkeys(name for clip in clips for name in clip.terms)
    means = {f"term/{name}": _known_mean(clip.terms[name] for clip in clips if name in clip.terms) for name in names}
    if not len(reward_N):
        return means
    return {
        "reward_mean": float(reward_N.mean()),
        "reward_std": float(reward_N.std()),
        "reward_min": float(reward_N.min()),
        "reward_max": float(reward_N.max()),
        "raw_mean": _known_mean(clip.raw for clip in clips),
        **means,
    }


def _of_groups(clips: Sequence[_Clip]) -> dict[str, float]:
    """Of the groups with two rewards or more."""
    by_group: dict[Hashable, list[float]] = {}
    for clip in clips:
        if math.isfinite(clip.reward):
            by_group.setdefault(clip.group, []).append(clip.reward)
    several = {group: values for group, values in by_group.items() if len(values) > 1}
    if not several:
        return {}
    reward_N = np.asarray([value for values in several.values() for value in values], np.float64)
    within, between = variance_split(reward_N, [group for group, values in several.items() for _ in values])
    return {
        "groups": float(len(several)),
        "std_within": math.sqrt(within),
        "std_between": math.sqrt(between),
        "within_share": within / (within + between) if within + between > 0 else math.nan,
        "undecided_groups": _share(min(values) == max(values) for values in several.values()),
    }


def _of_chains(chains: Sequence[_Chain]) -> dict[str, float]:
    """Of the chains that are not empty, and of their answers."""
    written = [chain for chain in chains if chain.text is not None]
    if not written:
        return {}
    marks = [mark for chain in written for mark in chain.marks or ()]
    return {
        "chain_tokens": fmean(chain.tokens for chain in written),
        "truncated": _share(chain.truncated for chain in written),
        "no_answer": _share(chain.marks is None for chain in written),
        "not_applicable": _share(mark is None for mark in marks),
        "repeated_chains": 1 - len({chain.text for chain in written}) / len(written),
    }


def _over_limits(report: Mapping[str, float], limits: WarningLimits) -> dict[str, str]:
    """Warnings of shares that are too large whatever the earlier steps were."""
    rows = (
        ("failed", limits.failed, "of the clips have no reward; read their errors"),
        ("truncated", limits.truncated, "of the chains were cut at their limit; raise max_chain_tokens, or read some"),
        ("repeated_chains", limits.repeated, "of the chains repeat another one word for word"),
        ("undecided_groups", limits.undecided, "of the groups have equal rewards only, and teach nothing"),
    )
    return {name: f"{report[name]:.0%} {text}" for name, limit, text in rows if report.get(name, 0.0) > limit}


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        warnings.warn(text, DescoreWarning, stacklevel=3)


def _share(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return fmean(listed) if listed else math.nan


def _known_mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan
