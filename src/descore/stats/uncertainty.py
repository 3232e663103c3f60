"""What the spread of several chains says: the interval of a difference of rewards, and whether margins that are small
for their spread are the wrong ones.

In: rewards as means over chains with their sample deviations and numbers of chains; or margins, their standard errors,
preferences and groups, as in `agreement`. Out: numbers, and figures with intervals.

Keywords `resamples`, `level`, `seed`: see `bootstrap_interval`. Shapes: B pairs, G groups, R resamples, V values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from descore.stats.agreement import share
from descore.stats.bootstrap import (
    Figure,
    Floats,
    Integers,
    Labels,
    Resampling,
    Statistic,
    bootstrap_interval,
    number_groups,
    with_exact_interval,
)

LEVEL = 0.95
"""Of the intervals that decide whether one clip is better than another."""

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the pairs that are decided, the surest first, at which accuracy is stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadValue:
    """How well wrong pairs are told from right ones. All figures are of the same decided pairs."""

    auroc: Figure
    """By |margin| / standard error; .5 is chance, 1 means that every right pair is surer than every wrong one."""
    auroc_margin: Figure
    """By |margin| alone: what is known without the spread."""
    auroc_spread: Figure
    """By the standard error alone, small ones being sure."""
    gain: Figure
    """`auroc` minus `auroc_margin`, on the same resamples: the worth of the spread beside the margin."""
    shares: tuple[float, ...]
    """SHARES."""
    accuracy: tuple[Figure, ...]
    """Accuracy on each share of the pairs, those with the largest |margin| / standard error (El-Yaniv & Wiener 2010).
    `n` counts the pairs of the share, `groups` as many of all groups."""
    accuracy_margin: tuple[Figure, ...]
    """Accuracy on the shares with the largest |margin|."""
    clear: Figure
    """The share of pairs whose interval of the difference, at LEVEL, leaves out 0."""
    clear_accuracy: Figure
    """Accuracy on these."""


def difference_error(
    std_a_B: Floats, chains_a_B: Integers, std_b_B: Floats, chains_b_B: Integers
) -> tuple[Floats, Floats]:
    """The standard error of the difference of two means, sqrt(s_a^2 / n_a + s_b^2 / n_b), and its degrees of freedom by
    Welch (1947).

    std: sample deviations over chains; nan for a single chain, which is taken to vary as the other side does. Both nan
    gives nan."""
    one_B = np.isnan(std_a_B) | np.isnan(std_b_B)
    std_a_B, std_b_B = np.where(np.isnan(std_a_B), std_b_B, std_a_B), np.where(np.isnan(std_b_B), std_a_B, std_b_B)
    a_B, b_B = std_a_B**2 / chains_a_B, std_b_B**2 / chains_b_B
    with np.errstate(invalid="ignore", divide="ignore"):
        welch_B = (a_B + b_B) ** 2 / (a_B**2 / np.maximum(chains_a_B - 1, 1) + b_B**2 / np.maximum(chains_b_B - 1, 1))
    freedom_B = np.where(one_B, np.maximum(chains_a_B, chains_b_B) - 1, welch_B)
    error_B = np.sqrt(a_B + b_B)
    return error_B, np.where(error_B == 0, np.inf, freedom_B)


def half_width(error_B: Floats, freedom_B: Floats, *, level: float = LEVEL) -> Floats:
    """Half the interval of a difference of means: Student's quantile times the standard error."""
    exact_B = np.isinf(freedom_B)
    quantile_B = np.where(exact_B, 0.0, stdtrit(np.where(exact_B, 1.0, freedom_B), (1 + level) / 2))
    return np.asarray(quantile_B * error_B)


def spread_value(
    margin_B: Floats,
    error_B: Floats,
    freedom_B: Floats,
    preference_B: Integers,
    group_B: Labels,
    **resampling: Unpack[Resampling],
) -> SpreadValue | None:
    """Whether the spread of the chains tells wrong pairs from right ones; None where no pair has a standard error.

    preference: 1 for a, -1 for b; ties (0) are left out. Pairs without a score or a spread (nan) count as failed. Equal
    rewards are wrong, as in `accuracy_without_ties`."""
    decided_B = preference_B != 0
    known_B = decided_B & np.isfinite(margin_B) & np.isfinite(error_B)
    if not known_B.any():
        return None
    size_B, right_B = np.abs(margin_B[known_B]), np.sign(margin_B[known_B]) == preference_B[known_B]
    with np.errstate(invalid="ignore", divide="ignore"):
        sure_B = np.nan_to_num(size_B / error_B[known_B], nan=0.0, posinf=np.inf)
    pairs = _Pairs(right_B, group_B[known_B], failed=int(decided_B.sum() - known_B.sum()), resampling=resampling)
    by_sure, by_size = pairs.auroc(sure_B), pairs.auroc(size_B)
    clear_B = size_B > half_width(error_B[known_B], freedom_B[known_B])
    return SpreadValue(
        auroc=pairs.figure(by_sure),
        auroc_margin=pairs.figure(by_size),
        auroc_spread=pairs.figure(pairs.auroc(-error_B[known_B])),
        gain=pairs.figure(lambda count_RG: by_sure(count_RG) - by_size(count_RG)),
        shares=SHARES,
        accuracy=tuple(pairs.selective_accuracy(sure_B, SHARES)),
        accuracy_margin=tuple(pairs.selective_accuracy(size_B, SHARES)),
        clear=share(clear_B, group_B[known_B], **resampling),
        clear_accuracy=share(right_B[clear_B], group_B[known_B][clear_B], **resampling),
    )


class _Pairs:
    """Decided pairs whose figures are computed from counts of their groups."""

    def __init__(self, right_B: NDArray[np.bool_], group_B: Labels, *, failed: int, resampling: Resampling) -> None:
        self.right_B, self.failed, self.resampling = right_B, failed, resampling
        self.index_B, self.groups = number_groups(group_B)

    def figure(self, statistic: Statistic) -> Figure:
        """The statistic of the pairs, and its interval."""
        low, high = bootstrap_interval(statistic, self.groups, items=len(self.right_B), **self.resampling)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(statistic(np.ones((1, self.groups)))[0])
        return Figure(value=value, low=low, high=high, n=len(self.right_B), failed=self.failed, groups=self.groups)

    def auroc(self, sure_B: Floats) -> Statistic:
        """The probability that a right pair is surer than a wrong one, where equal ones count one half: the area under
        the receiver operating characteristic (Hanley & McNeil 1982). nan if all are right, or none is."""
        order_B = np.argsort(sure_B, kind="stable")
        _, start_V = np.unique(sure_B[order_B], return_index=True)
        right_B, index_B = self.right_B[order_B], self.index_B[order_B]

        def area(count_RG: NDArray[np.float64]) -> Floats:
            weight_RB = count_RG[:, index_B]
            right_RV, wrong_RV = (
                np.add.reduceat(weight_RB * which_B, start_V, axis=1) for which_B in (right_B, ~right_B)
            )
            below_RV = wrong_RV.cumsum(axis=1) - wrong_RV / 2
            return np.asarray((right_RV * below_RV).sum(axis=1) / (right_RV.sum(axis=1) * wrong_RV.sum(axis=1)))

        return area

    def selective_accuracy(self, sure_B: Floats, shares: Sequence[float]) -> list[Figure]:
        """Accuracy on the surest shares. Of equally sure pairs that do not all fit in, each counts in part: the mean
        over all orders of them."""
        order_B = np.argsort(-sure_B, kind="stable")
        _, start_V = np.unique(-sure_B[order_B], return_index=True)
        right_B, index_B = self.right_B[order_B], self.index_B[order_B]

        def accuracy(part: float, count_RG: NDArray[np.float64]) -> Floats:
            weight_RB = count_RG[:, index_B]
            all_RV, hit_RV = (
                np.pad(np.add.reduceat(each, start_V, axis=1).cumsum(axis=1), ((0, 0), (1, 0)))
                for each in (weight_RB, weight_RB * right_B)
            )
            rows = zip(all_RV, hit_RV, strict=True)
            share_R = np.array(
                [np.interp(part * all_V[-1], all_V, hit_V) / (part * all_V[-1]) for all_V, hit_V in rows]
            )
            return share_R.round(12)  # so that all is 1

        return [self._share_figure(partial(accuracy, part), part) for part in shares]

    def _share_figure(self, statistic: Statistic, part: float) -> Figure:
        """The figure of a share of the pairs, with an exact interval where all of them are right or none is."""
        figure = self.figure(statistic)
        own = replace(figure, n=round(part * figure.n), groups=max(1, round(part * figure.groups)))
        return with_exact_interval(own, level=self.resampling.get("level", 0.95))
