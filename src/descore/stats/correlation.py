"""Correlate rewards with people's ratings: Spearman, Kendall and Pearson, over all clips and within prompts.

In: a reward, a rating and a group for each clip. Out: a figure per coefficient. A reward is nan if the clip has no
score; such a clip is counted as failed and left out.

The values are SciPy's. The bootstrap computes each coefficient a thousand times, in a form that takes counts instead of
repeated clips; the tests compare the two.
Keywords `resamples`, `level`, `seed`: see `bootstrap_interval`. Shapes: N clips, G groups, R resamples, V values."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from descore.stats.bootstrap import (
    Figure,
    Floats,
    Labels,
    Resampling,
    Statistic,
    bootstrap_interval,
    bootstrap_mean,
    number_groups,
)

Coefficient = Literal["spearman", "kendall", "pearson"]

_Counts = NDArray[np.float64]

_BLOCK = 1 << 20
"""Signs of pairs of clips that are in memory at a time."""


def correlations(
    reward_N: Floats, rating_N: Floats, group_N: Labels, *, within: bool, **resampling: Unpack[Resampling]
) -> dict[Coefficient, Figure]:
    """Spearman's rho, Kendall's tau-b and Pearson's r, each with its interval.

    within=False: over all clips. within=True: in each group, and then the mean over groups, each with equal weight;
    groups with fewer than two distinct rewards or ratings have no coefficient and are left out, and n counts the clips
    of the others. Clips without a rating (nan) are left out and not counted. If all rewards or all ratings are equal
    the value is nan."""
    rated_N = ~np.isnan(rating_N)
    scored_N = rated_N & ~np.isnan(reward_N)
    kept = reward_N[scored_N], rating_N[scored_N], group_N[scored_N]
    failed = int(rated_N.sum() - scored_N.sum())
    figures = (_within if within else _over_all)(*kept, **resampling)
    return {name: replace(figure, failed=failed) for name, figure in figures.items()}


def _over_all(
    reward_N: Floats, rating_N: Floats, group_N: Labels, **resampling: Unpack[Resampling]
) -> dict[Coefficient, Figure]:
    index_N, groups = number_groups(group_N)
    figures: dict[Coefficient, Figure] = {}
    for name, coefficient in _SCIPY.items():
        value, low, high = coefficient(reward_N, rating_N), math.nan, math.nan
        if not math.isnan(value):
            low, high = bootstrap_interval(
                _RESAMPLED[name](reward_N, rating_N, index_N), groups, items=len(reward_N), **resampling
            )
        figures[name] = Figure(value=value, low=low, high=high, n=len(reward_N), failed=0, groups=groups)
    return figures


def _within(
    reward_N: Floats, rating_N: Floats, group_N: Labels, **resampling: Unpack[Resampling]
) -> dict[Coefficient, Figure]:
    index_N, groups = number_groups(group_N)
    members = np.split(np.argsort(index_N, kind="stable"), np.bincount(index_N, minlength=groups).cumsum()[:-1])
    members = [rows for rows in members if _varies(reward_N[rows]) and _varies(rating_N[rows])]
    figures: dict[Coefficient, Figure] = {}
    for name, coefficient in _SCIPY.items():
        value_G = np.array([coefficient(reward_N[rows], rating_N[rows]) for rows in members])
        figures[name] = replace(
            bootstrap_mean(value_G, np.arange(len(members)), **resampling), n=sum(map(len, members))
        )
    return figures


def _varies(value_N: Floats) -> bool:
    return len(value_N) > 1 and bool(value_N.min() < value_N.max())


def _scipys(coefficient: Callable[..., tuple[float, float]]) -> Callable[[Floats, Floats], float]:
    """A function that returns SciPy's coefficient, or nan without a warning where it is not defined."""

    def value(x_N: Floats, y_N: Floats) -> float:
        if not (_varies(x_N) and _varies(y_N)):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            return float(coefficient(x_N, y_N)[0])

    return value


_SCIPY: Mapping[Coefficient, Callable[[Floats, Floats], float]] = {
    "spearman": _scipys(stats.spearmanr),
    "kendall": _scipys(stats.kendalltau),
    "pearson": _scipys(stats.pearsonr),
}


class _Runs:
    """The runs of equal values of one variable, in sorted order."""

    def __init__(self, x_N: Floats) -> None:
        self.order_N = np.argsort(x_N, kind="stable")
        _, self.run_N, size_V = np.unique(x_N, return_inverse=True, return_counts=True)
        self.start_V = np.concatenate([[0], size_V.cumsum()[:-1]])

    def counts(self, count_RN: _Counts) -> _Counts:
        """(R, V): how many clips have each value."""
        count_RV: _Counts = np.add.reduceat(count_RN[:, self.order_N], self.start_V, axis=1)
        return count_RV

    def ranks(self, count_RN: _Counts) -> _Counts:
        """(R, N): the mean rank of the copies of each clip and of those tied with it."""
        count_RV = self.counts(count_RN)
        return (count_RV.cumsum(axis=1) - (count_RV - 1) / 2)[:, self.run_N]


def _pearson_of(count_RN: _Counts, x_RN: Floats, y_RN: Floats) -> Floats:
    """(R,): Pearson's r of clips repeated by their counts; nan where one variable does not vary."""
    n_R1 = count_RN.sum(axis=1, keepdims=True)
    x_RN = x_RN - (count_RN * x_RN).sum(axis=1, keepdims=True) / n_R1
    y_RN = y_RN - (count_RN * y_RN).sum(axis=1, keepdims=True) / n_R1
    xy_R, xx_R, yy_R = ((count_RN * a * b).sum(axis=1) for a, b in ((x_RN, y_RN), (x_RN, x_RN), (y_RN, y_RN)))
    return np.asarray(xy_R / np.sqrt(xx_R * yy_R))


def _resampled_pearson(x_N: Floats, y_N: Floats, index_N: NDArray[np.intp]) -> Statistic:
    runs = _Runs(x_N), _Runs(y_N)

    def pearson(count_RG: _Counts) -> Floats:
        count_RN = count_RG[:, index_N]
        # The mean of equal numbers may be off by a rounding error, so that they would seem to vary.
        varies_R = np.all([(run.counts(count_RN) > 0).sum(axis=1) > 1 for run in runs], axis=0)
        return np.where(varies_R, _pearson_of(count_RN, x_N, y_N), np.nan)

    return pearson


def _resampled_spearman(x_N: Floats, y_N: Floats, index_N: NDArray[np.intp]) -> Statistic:
    x, y = _Runs(x_N), _Runs(y_N)

    def spearman(count_RG: _Counts) -> Floats:
        count_RN = count_RG[:, index_N]
        return _pearson_of(count_RN, x.ranks(count_RN), y.ranks(count_RN))

    return spearman


def _resampled_kendall(x_N: Floats, y_N: Floats, index_N: NDArray[np.intp]) -> Statistic:
    """tau-b = sum of sign(x_i - x_j) sign(y_i - y_j) / sqrt(pairs not tied in x · pairs not tied in y) (Kendall 1945).

    The sum is a quadratic form in the counts of groups, so the pairs of clips are compared only once."""
    x, y, concordance_GG = _Runs(x_N), _Runs(y_N), _concordance(x_N, y_N, index_N)

    def kendall(count_RG: _Counts) -> Floats:
        count_RN = count_RG[:, index_N]
        sum_R = ((count_RG @ concordance_GG) * count_RG).sum(axis=1)
        all_R = count_RN.sum(axis=1) ** 2
        untied_R = [all_R - (run.counts(count_RN) ** 2).sum(axis=1) for run in (x, y)]
        return np.asarray(sum_R / np.sqrt(untied_R[0] * untied_R[1]))

    return kendall


def _concordance(x_N: Floats, y_N: Floats, index_N: NDArray[np.intp]) -> NDArray[np.float64]:
    """(G, G): concordant minus discordant pairs of clips, one of each group."""
    order_N = np.argsort(index_N, kind="stable")
    x_N, y_N, index_N = x_N[order_N], y_N[order_N], index_N[order_N]
    start_G = np.flatnonzero(np.diff(index_N, prepend=-1))
    sum_GG = np.zeros((len(start_G), len(start_G)))
    step = max(1, _BLOCK // len(x_N))
    for rows in (slice(i, i + step) for i in range(0, len(x_N), step)):
        agree = np.sign(x_N[rows, None] - x_N) * np.sign(y_N[rows, None] - y_N)
        np.add.at(sum_GG, index_N[rows], np.add.reduceat(agree, start_G, axis=1))
    return sum_GG


_RESAMPLED: Mapping[Coefficient, Callable[[Floats, Floats, NDArray[np.intp]], Statistic]] = {
    "spearman": _resampled_spearman,
    "kendall": _resampled_kendall,
    "pearson": _resampled_pearson,
}
