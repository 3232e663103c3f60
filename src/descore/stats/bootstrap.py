"""The cluster bootstrap: percentile intervals from resampling whole groups.

In: numbers per item with the group of each, or a statistic of counts per group. Out: a `Figure`, or an interval.
Pairs of one prompt are not independent, so prompts are drawn with replacement, each with all its pairs (Davison &
Hinkley 1997, section 3.8; Field & Welsh 2007).

Shapes: N items (pairs or clips; I are those of two sides, N and M), G groups, R resamples."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Labels = NDArray[Any]
"""Of groups: integers or strings."""
Statistic = Callable[[NDArray[np.float64]], Floats]
"""From (R, G), how often each resample holds each group, to (R,), a value for each."""

_BLOCK = 1 << 18
"""Numbers that a statistic works on at a time: 2 MiB an array, so that its few arrays stay in the cache."""


class Resampling(TypedDict, total=False):
    """The keywords of functions that compute intervals; `bootstrap_interval` has the defaults."""

    resamples: int
    """Times that the groups are drawn."""
    level: float
    """The interval's coverage, between 0 and 1."""
    seed: int
    """Equal seeds give equal intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number with its interval and the counts behind it."""

    value: float
    """nan where n is 0."""
    low: float
    """Lower end of the interval; nan where there is none, as with a single group."""
    high: float
    """Upper end of the interval."""
    n: int
    """Items (pairs or clips) behind the value."""
    failed: int
    """Items that were left out because they have no score."""
    groups: int
    """Groups of the n items. The fewer they are, the wider is the interval, however large n is."""


def bootstrap_mean(value_N: Floats, group_N: Labels, **resampling: Unpack[Resampling]) -> Figure:
    """The mean of the values; nan is an item that failed. Keywords: those of `Resampling`.

    If all values are equal the interval has no width, since every resample has the same mean."""
    scored_N = ~np.isnan(value_N)
    known_N = value_N[scored_N]
    index_N, groups = number_groups(group_N[scored_N])
    sum_G, n_G = np.bincount(index_N, weights=known_N, minlength=groups), np.bincount(index_N, minlength=groups)
    low, high = bootstrap_interval(lambda count_RG: (count_RG @ sum_G) / (count_RG @ n_G), groups, **resampling)
    return Figure(
        value=float(sum_G.sum() / len(known_N)) if len(known_N) else math.nan,
        low=low,
        high=high,
        n=len(known_N),
        failed=len(value_N) - len(known_N),
        groups=groups,
    )


def bootstrap_difference(
    before_N: Floats, before_group_N: Labels, after_M: Floats, after_group_M: Labels, **resampling: Unpack[Resampling]
) -> Figure:
    """The mean of the second values minus that of the first; nan is an item that failed. Keywords: those of
    `Resampling`. Groups of both sides are drawn together, each with its items of either side."""
    value_I, group_I = np.concatenate([before_N, after_M]), np.concatenate([before_group_N, after_group_M])
    is_after_I = np.arange(len(value_I)) >= len(before_N)
    scored_I = ~np.isnan(value_I)
    index_I, groups = number_groups(group_I[scored_I])
    sums, counts = [], []
    for side_I in (~is_after_I[scored_I], is_after_I[scored_I]):
        sums.append(np.bincount(index_I[side_I], weights=value_I[scored_I][side_I], minlength=groups))
        counts.append(np.bincount(index_I[side_I], minlength=groups))
    if not all(count_G.sum() for count_G in counts):
        nothing = math.nan
        return Figure(value=nothing, low=nothing, high=nothing, n=0, failed=len(value_I), groups=0)

    def difference(count_RG: NDArray[np.float64]) -> NDArray[np.float64]:
        before_R, after_R = ((count_RG @ sum_G) / (count_RG @ n_G) for sum_G, n_G in zip(sums, counts, strict=True))
        return np.asarray(after_R - before_R)

    low, high = bootstrap_interval(difference, groups, **resampling)
    return Figure(
        value=float(difference(np.ones((1, groups)))[0]),
        low=low,
        high=high,
        n=int(scored_I.sum()),
        failed=int((~scored_I).sum()),
        groups=groups,
    )


def with_exact_interval(figure: Figure, *, level: float = 0.95) -> Figure:
    """A share of 0 or 1 with an exact interval; any other figure as it is.

    If all items are hits no resample has a miss, however few items there are. The interval is then that of Clopper &
    Pearson (1934) with each group as a single trial: a share of 1 in 11 groups has [.72, 1], in 400 [.99, 1]."""
    if figure.groups < 2 or figure.value not in (0, 1):
        return figure
    unseen = 1 - ((1 - level) / 2) ** (1 / figure.groups)
    if figure.value == 1:
        return replace(figure, low=min(figure.low, 1 - unseen))
    return replace(figure, high=max(figure.high, unseen))


def number_groups(group_N: Labels) -> tuple[NDArray[np.intp], int]:
    """Each item's group as an index from 0, in the order of the sorted labels, and the number of groups."""
    labels, index_N = np.unique(group_N, return_inverse=True)
    return index_N, len(labels)


def bootstrap_interval(
    statistic: Statistic, groups: int, *, items: int = 0, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval (Efron & Tibshirani 1993, chapter 13) of a statistic over resampled groups.

    statistic: nan for a resample without a value (all of one rating, say), which is left out. items: the numbers that
    the statistic holds per resample, if more than G; it bounds the memory. With fewer than two groups there is nothing
    to resample, and the interval is nan. ConfigError for an invalid level or number of resamples."""
    if not 0 < level < 1:
        raise ConfigError(f"level: found {level}, expected a share between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ConfigError(f"resamples: found {resamples}, expected 1 or more; 1000 is usual")
    if groups < 2:
        return math.nan, math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        blocks = _draws(groups, resamples=resamples, rows=max(1, _BLOCK // max(groups, items)), seed=seed)
        value_R = np.concatenate([statistic(count_RG) for count_RG in blocks])
    value_R = value_R[~np.isnan(value_R)]
    if not len(value_R):
        return math.nan, math.nan
    low, high = np.quantile(value_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draws(groups: int, *, resamples: int, rows: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Resamples as counts per group, at most `rows` at a time; they do not depend on `rows`.

    Floats, since products of integer matrices are slow."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        cell_RG = rng.integers(groups, size=(block, groups)) + groups * np.arange(block)[:, None]
        count = np.bincount(cell_RG.ravel(), minlength=block * groups)
        yield count.reshape(block, groups).astype(np.float64)
