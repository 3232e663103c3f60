"""What choosing the best of N by a reward gives, from M clips of each prompt: expected reward and truth against N.

All subsets of N of the M clips count alike, as in Nakano et al. 2021 (WebGPT, appendix): with the clips in the order of
their reward, the i-th of M is the best of a random N with probability C(i - 1, N - 1) / C(M, N). Clips of equal reward
share theirs.

Shapes: M clips of a prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descore.evaluation.records import to_plain
from descore.stats.bootstrap import Figure, bootstrap_mean

Numbers = NDArray[np.float64]

TRUTH = "truth"
"""Name of the judge's overall."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """The clips of one prompt and one seed of generation."""

    prompt: str
    seed: int
    values: Mapping[str, Numbers]
    """By name of a reward, of TRUTH and of the judge's parts, a number (M) for each clip; nan where there is none."""


def chosen_weights(reward_M: Numbers, count: int) -> Numbers:
    """(M): the probability of each clip to be chosen from `count` random ones of the M. A clip without a reward is
    chosen only where none has one."""
    order_M = np.argsort(np.where(np.isnan(reward_M), -np.inf, reward_M), kind="stable")
    total = len(reward_M)
    weight_M = np.empty(total)
    weight_M[order_M] = [comb(place, count - 1) / comb(total, count) for place in range(total)]
    ranked_M = np.where(np.isnan(reward_M), -np.inf, reward_M)
    for value in np.unique(ranked_M):
        same_M = ranked_M == value
        weight_M[same_M] = weight_M[same_M].mean()
    return weight_M


def best_of(group: Group, *, by: str, count: int, value: str) -> float:
    """Expected value of the clip that is chosen by a reward from `count` clips of a group."""
    value_M = group.values[value]
    weight_M = chosen_weights(group.values[by], count)
    known_M = ~np.isnan(value_M)
    return float((weight_M * value_M)[known_M].sum() / weight_M[known_M].sum()) if weight_M[known_M].sum() else np.nan


def curve(groups: Sequence[Group], *, by: str, value: str, counts: Sequence[int]) -> list[dict[str, Any]]:
    """For each N, the mean of the chosen clips' value, and its change against a single clip. Intervals resample
    prompts, each with its groups of all seeds."""
    prompt_G = np.asarray([group.prompt for group in groups], np.str_)
    single_G = np.asarray([best_of(group, by=by, count=1, value=value) for group in groups])
    rows = []
    for count in counts:
        chosen_G = np.asarray([best_of(group, by=by, count=count, value=value) for group in groups])
        rows.append(
            {
                "n": count,
                "mean": to_plain(bootstrap_mean(chosen_G, prompt_G)),
                "gain": to_plain(bootstrap_mean(chosen_G - single_G, prompt_G)),
                "by_seed": _by_seed(groups, chosen_G),
            }
        )
    return rows


def ahead(groups: Sequence[Group], *, first: str, second: str, count: int) -> Figure:
    """How much better in truth the best of N by one reward is than by another, prompt by prompt."""
    prompt_G = np.asarray([group.prompt for group in groups], np.str_)
    sides = [[best_of(group, by=by, count=count, value=TRUTH) for group in groups] for by in (first, second)]
    return bootstrap_mean(np.subtract(*map(np.asarray, sides)), prompt_G)


def ordered(groups: Sequence[Group], *, by: str, value: str) -> Figure:
    """Share of the pairs of clips of a prompt and seed that a reward orders as the value does: all pairs whose values
    differ, equal rewards half. A pair without one of the rewards is left out, and so is a group without any pair."""
    shares, prompts = list[float](), list[str]()
    for group in groups:
        reward_MM = np.sign(np.subtract.outer(group.values[by], group.values[by]))
        value_MM = np.sign(np.subtract.outer(group.values[value], group.values[value]))
        known_MM = ~np.isnan(reward_MM) & ~np.isnan(value_MM) & (value_MM != 0)
        if known_MM.any():
            shares.append(float((1 + reward_MM * value_MM)[known_MM].mean() / 2))
            prompts.append(group.prompt)
    return bootstrap_mean(np.asarray(shares), np.asarray(prompts, np.str_))


def peak(rows: Sequence[Mapping[str, Any]]) -> int:
    """The N of the largest mean."""
    return int(max(rows, key=lambda row: row["mean"]["value"])["n"])


def _by_seed(groups: Sequence[Group], value_G: Numbers) -> dict[str, float]:
    seeds = np.asarray([group.seed for group in groups])
    return {str(seed): float(value_G[seeds == seed].mean()) for seed in np.unique(seeds)}
