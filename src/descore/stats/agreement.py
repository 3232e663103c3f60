"""Measure how well rewards agree with people's preferences: accuracy with ties and without, each with its interval; and
the calibration of preference probabilities: reliability curve, Brier score, expected calibration error.

In: margins (reward of a minus reward of b), preferences (1 for a, -1 for b, 0 for a tie), and the group of each pair,
mostly its prompt, which the bootstrap resamples. Out: figures. A margin or a
probability is nan if one of the two clips has no score; such a pair is counted as failed and left out.

Keywords `resamples`, `level`, `seed`: see `bootstrap_interval`.
Shapes: B pairs, G groups, R resamples, P pairs that the choice of a threshold affects, T thresholds, K bins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError
from descore.stats.bootstrap import (
    Figure,
    Floats,
    Integers,
    Labels,
    Resampling,
    bootstrap_interval,
    bootstrap_mean,
    number_groups,
    with_exact_interval,
)

NO_PREDICTED_TIES = -1.0
"""The threshold below every absolute margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedAccuracy:
    """Accuracy in three classes (a, b, tie), where rewards that differ by no more than a threshold are a tie."""

    figure: Figure
    threshold: float
    """|margin| <= threshold means a tie; -1.0 means no predicted ties. It is fitted on all pairs, even if the figure
    comes from thresholds fitted on halves, which measures how well such a threshold generalizes. A given one is
    another rule: |margin| < threshold."""
    tie_rate: float
    """The share of ties among people's preferences."""
    predicted_tie_rate: float
    """The share of ties among the predictions."""
    fitted_on: Literal["the same pairs", "the other half", "nothing"]
    """The pairs that a pair's threshold was fitted on. Fitted on the same pairs, the figure is slightly too high;
    nothing: it was given."""


class MarginBin(NamedTuple):
    """Accuracy over the pairs whose absolute difference lies in one range."""

    low: float
    """The least absolute difference in the bin."""
    high: float
    """The greatest."""
    figure: Figure


def accuracy_without_ties(
    margin_B: Floats, preference_B: Integers, group_B: Labels, **resampling: Unpack[Resampling]
) -> Figure:
    """The share of decided pairs that the rewards order as people do.

    Ties are left out. A decided pair with equal rewards counts as wrong, since the model did not decide."""
    decided_B = preference_B != 0
    margin_B, preference_B = margin_B[decided_B], preference_B[decided_B]
    hit_B = np.where(np.isnan(margin_B), np.nan, np.sign(margin_B) == preference_B)
    return share(hit_B, group_B[decided_B], **resampling)


def share(hit_N: Floats | NDArray[np.bool_], group_N: Labels, **resampling: Unpack[Resampling]) -> Figure:
    """The share of hits (1 or true) among items; nan is an item that failed.

    If all items or none are hits, the interval is an exact one over groups: see `with_exact_interval`."""
    return with_exact_interval(
        bootstrap_mean(np.asarray(hit_N, dtype=np.float64), group_N, **resampling), level=resampling.get("level", 0.95)
    )


def accuracy_by_margin(
    difference_B: Floats,
    margin_B: Floats,
    preference_B: Integers,
    group_B: Labels,
    *,
    bins: int = 5,
    **resampling: Unpack[Resampling],
) -> list[MarginBin]:
    """Accuracy without ties by the size of a difference, in at most `bins` bins of about equally many pairs.

    difference: of people's ratings (are clear cases easier?), or the margin itself (is a confident model right more
    often?); its sign is ignored. Decided pairs whose difference is nan are left out. Equal differences share a bin, so
    coarse ratings give fewer bins."""
    used_B = (preference_B != 0) & ~np.isnan(difference_B)
    size_B = np.abs(difference_B[used_B])
    if not len(size_B):
        return []
    top_K = np.unique(np.quantile(size_B, np.arange(1, bins + 1) / bins, method="inverted_cdf"))
    bin_B = np.searchsorted(top_K, size_B)
    result = []
    for k in range(len(top_K)):
        rows_B = np.flatnonzero(used_B)[bin_B == k]
        figure = accuracy_without_ties(margin_B[rows_B], preference_B[rows_B], group_B[rows_B], **resampling)
        result.append(MarginBin(float(size_B[bin_B == k].min()), float(top_K[k]), figure))
    return result


def accuracy_with_ties(
    margin_B: Floats,
    preference_B: Integers,
    group_B: Labels,
    *,
    held_out: bool = False,
    **resampling: Unpack[Resampling],
) -> TiedAccuracy:
    """Accuracy with the best threshold for ties (Deutsch, Foster & Freitag 2023, arXiv 2305.14324).

    The candidates are the distinct absolute margins, and no predicted ties; of equally good ones the smallest is taken.
    held_out: the groups are split in two by the seed, and each half is judged by the other's threshold. The threshold
    is searched again in each resample, so the interval covers the uncertainty of that choice; held-out resamples stay
    in their half. With a single group, which cannot be split, the held-out value is nan."""
    scored_B = ~np.isnan(margin_B)
    margin_B, preference_B = margin_B[scored_B], preference_B[scored_B]
    index_B, groups = number_groups(group_B[scored_B])
    half_B = _half(groups, seed=resampling.get("seed", 0))[index_B]
    parts = [half_B, ~half_B] if held_out else [np.ones(len(index_B), dtype=np.bool_)]
    searches = [_Search.over(margin_B[b], preference_B[b], index_B[b], groups) for b in parts]
    n, n_G = len(margin_B), np.bincount(index_B, minlength=groups)
    low, high = bootstrap_interval(
        lambda count_RG: _right(searches, count_RG) / (count_RG @ n_G), groups, items=n, **resampling
    )
    once_1G = np.ones((1, groups))
    known = n > 0 and not (held_out and groups < 2)
    figure = Figure(
        value=float(_right(searches, once_1G)[0]) / n if known else math.nan,
        low=low,
        high=high,
        n=n if known else 0,
        failed=int((~scored_B).sum()),
        groups=groups,
    )
    return TiedAccuracy(
        figure=with_exact_interval(figure, level=resampling.get("level", 0.95)),
        threshold=_Search.over(margin_B, preference_B, index_B, groups).best(once_1G),
        tie_rate=float((preference_B == 0).mean()) if n else math.nan,
        predicted_tie_rate=_predicted_ties(searches, once_1G) / n if known else math.nan,
        fitted_on="the other half" if held_out else "the same pairs",
    )


def accuracy_with_tie_margin(
    margin_B: Floats, preference_B: Integers, group_B: Labels, *, tie_margin: float, **resampling: Unpack[Resampling]
) -> TiedAccuracy:
    """VideoScore's rule, with .5 (He et al. 2024, arXiv 2406.15252; get_genaibench_pairwise_acc.py of its repository):
    a tie is right where |margin| < tie_margin, a decided pair where the sign is, however small the margin.

    A wide margin thus costs nothing on decided pairs. In units of the reward, there the mean of five scores from 1 to
    4, so it says little of a model whose rewards have another spread.

    ConfigError unless tie_margin is positive and finite."""
    if not 0 < tie_margin < math.inf:
        raise ConfigError(f"tie margin: found {tie_margin:g}, expected a positive number; VideoScore has 0.5")
    scored_B, close_B = ~np.isnan(margin_B), np.abs(margin_B) < tie_margin
    right_B = np.where(preference_B == 0, close_B, np.sign(margin_B) == preference_B)
    hit_B = np.where(scored_B, right_B, np.nan)
    any_scored = bool(scored_B.any())
    return TiedAccuracy(
        figure=share(hit_B, group_B, **resampling),
        threshold=tie_margin,
        tie_rate=float((preference_B[scored_B] == 0).mean()) if any_scored else math.nan,
        predicted_tie_rate=float(close_B[scored_B].mean()) if any_scored else math.nan,
        fitted_on="nothing",
    )


def accuracy_with_ties_compatible(margin_B: Floats, preference_B: Integers) -> float:
    """The value of VideoAlign's calc_accuracy_with_ties, for comparison with published figures; nan without pairs.

    It turns pairs into ties one after the other, ordered by their absolute margins and then as in the table, and takes
    the best accuracy after any of them. So it may stop inside a run of equal margins, where no threshold can: for
    preferences [0, 0, 1, 1] and margins all 1 it gives 1.0, but the best that a threshold attains is 0.5. Its value
    depends on the order of the pairs, and it always predicts at least one tie."""
    scored_B = ~np.isnan(margin_B)
    margin_B, preference_B = margin_B[scored_B], preference_B[scored_B]
    if not len(margin_B):
        return math.nan
    right_B, gain_B = _right_and_gain(margin_B, preference_B)
    after_B = right_B.sum() + np.cumsum(gain_B[np.argsort(np.abs(margin_B), kind="stable")])
    return float(after_B.max() / len(margin_B))


def _right_and_gain(margin_B: Floats, preference_B: Integers) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which pairs are right with no predicted ties, and by how much each pair changes their count once it is a tie."""
    right_B = (preference_B != 0) & (np.sign(margin_B) == preference_B)
    return right_B, (preference_B == 0).astype(np.int64) - right_B


def _half(groups: int, *, seed: int) -> NDArray[np.bool_]:
    """Which groups are in the first half; of an odd number, the second has one more."""
    shuffled_G = np.random.default_rng([seed, 1]).permutation(groups)  # another stream than the resamples'
    return shuffled_G < groups // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Pairs sorted by |margin| once for all resamples, so that every threshold is evaluated in one pass.

    Decided pairs that are wrong stay wrong at every threshold, so the search leaves them out."""

    margin_B: Floats
    """|margin| of all pairs, ascending."""
    right_G: NDArray[np.int64]
    """Pairs per group that are right with no predicted ties."""
    group_P: NDArray[np.intp]
    gain_P: NDArray[np.float32]
    """1 for a tie and -1 for a right pair: the change of the count if the pair becomes a tie."""
    end_T: NDArray[np.intp]
    """How many of the P pairs are ties at each threshold."""
    threshold_T: Floats
    """Ascending; the first is NO_PREDICTED_TIES."""

    @classmethod
    def over(cls, margin_B: Floats, preference_B: Integers, index_B: NDArray[np.intp], groups: int) -> "_Search":
        """Sort the pairs; index_B are their groups, numbered from 0."""
        order_B = np.argsort(np.abs(margin_B), kind="stable")
        margin_B, preference_B, index_B = margin_B[order_B], preference_B[order_B], index_B[order_B]
        right_B, gain_B = _right_and_gain(margin_B, preference_B)
        size_P = np.abs(margin_B[gain_B != 0])
        size_T, count_T = np.unique(size_P, return_counts=True)
        return cls(
            margin_B=np.abs(margin_B),
            right_G=np.bincount(index_B[right_B], minlength=groups),
            group_P=index_B[gain_B != 0],
            gain_P=gain_B[gain_B != 0].astype(np.float32),
            end_T=np.concatenate([[0], np.cumsum(count_T)]),
            threshold_T=np.concatenate([[NO_PREDICTED_TIES], size_T]),
        )

    def gains(self, count_RG: NDArray[np.float64]) -> NDArray[np.float32]:
        """(R, T): how many more pairs are right at each threshold than with no predicted ties.

        Counts are whole numbers, exact in float32 up to 16 million pairs."""
        after_RP = np.zeros((len(count_RG), len(self.gain_P) + 1), dtype=np.float32)
        np.multiply(count_RG.astype(np.float32)[:, self.group_P], self.gain_P, out=after_RP[:, 1:])
        np.cumsum(after_RP, axis=1, out=after_RP)
        return after_RP[:, self.end_T]

    def best(self, count_RG: NDArray[np.float64]) -> float:
        """The smallest of the best thresholds, for the first resample."""
        return float(self.threshold_T[self.gains(count_RG)[0].argmax()])


def _right(searches: Sequence[_Search], count_RG: NDArray[np.float64]) -> Floats:
    """(R,): pairs judged right when each search's best threshold is applied to the other, or to itself if alone."""
    gains = [search.gains(count_RG) for search in searches]
    right_R = np.zeros(len(count_RG))
    for fitted, fitted_RT, applied, applied_RT in zip(searches, gains, searches[::-1], gains[::-1], strict=True):
        threshold_R = fitted.threshold_T[fitted_RT.argmax(axis=1)]
        at_R = applied.threshold_T.searchsorted(threshold_R, side="right") - 1
        right_R += count_RG @ applied.right_G + np.take_along_axis(applied_RT, at_R[:, None], axis=1)[:, 0]
    return right_R


def _predicted_ties(searches: Sequence[_Search], once_1G: NDArray[np.float64]) -> int:
    """Pairs within the threshold that judges them."""
    return sum(
        int(applied.margin_B.searchsorted(fitted.best(once_1G), side="right"))
        for fitted, applied in zip(searches, searches[::-1], strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Pairs of about equal probability."""

    low: float
    """Lower edge of the probability, belonging to the bin; .5 at the lowest."""
    high: float
    """Upper edge, belonging to the next bin; 1 belongs to the last."""
    mean_probability: float
    """The mean probability of the side that the model prefers."""
    share: float
    """The share of the pairs in which people prefer that side."""
    share_low: float
    """Lower end of the share's interval."""
    share_high: float
    """Upper end."""
    n: int
    """Pairs; bins without any are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well probabilities of preference fit decided pairs."""

    bins: tuple[ReliabilityBin, ...]
    """The reliability curve, by ascending probability."""
    brier: Figure
    """Mean of (probability - outcome)^2 (Brier 1950, for two classes): 0 is perfect, .25 is always one half."""
    ece: Figure
    """Expected calibration error (Naeini et al. 2015): the mean over pairs of |share - mean probability| of their bin.
    It is above 0 by chance alone, and well above with few pairs in a bin."""


def measure_calibration(
    probability_B: Floats, preference_B: Integers, group_B: Labels, *, bins: int = 10, **resampling: Unpack[Resampling]
) -> Calibration:
    """Calibration on decided pairs; preferences are 1 for a, -1 for b, and 0 for a tie, which is left out.

    Which clip is called a is arbitrary, so each pair counts with the probability of the side that the model prefers,
    from .5 to 1, as the top label's does (Guo et al. 2017); swapping a and b changes nothing. At .5 exactly the model
    prefers neither, which counts as half a hit. Bins have equal width. ConfigError for fewer than one bin."""
    if bins < 1:
        raise ConfigError(f"bins: found {bins}, expected 1 or more; 10 is usual")
    decided_B = preference_B != 0
    probability_B, preference_B, group_B = probability_B[decided_B], preference_B[decided_B], group_B[decided_B]
    brier = bootstrap_mean((probability_B - (preference_B > 0)) ** 2, group_B, **resampling)
    scored_B = ~np.isnan(probability_B)
    lean_B = probability_B[scored_B] - 0.5
    sure_B = 0.5 + np.abs(lean_B)
    hit_B = 0.5 + 0.5 * np.sign(lean_B) * preference_B[scored_B]
    # Rounded first, since for a p on an edge 1 - p may be off that edge by a rounding error.
    bin_B = np.minimum(np.round(np.abs(lean_B) * 2 * bins, 9).astype(np.intp), bins - 1)
    curve = [
        _bin(k, bins, sure_B[bin_B == k], hit_B[bin_B == k], group_B[scored_B][bin_B == k], **resampling)
        for k in np.unique(bin_B).tolist()
    ]
    error, low, high = _expected_error(hit_B - sure_B, bin_B, group_B[scored_B], **resampling)
    return Calibration(bins=tuple(curve), brier=brier, ece=replace(brier, value=error, low=low, high=high))


def _bin(
    k: int, bins: int, sure_B: Floats, hit_B: Floats, group_B: Labels, **resampling: Unpack[Resampling]
) -> ReliabilityBin:
    hits = share(hit_B, group_B, **resampling)
    return ReliabilityBin(
        low=0.5 + 0.5 * k / bins,
        high=0.5 + 0.5 * (k + 1) / bins,
        mean_probability=float(sure_B.mean()),
        share=hits.value,
        share_low=hits.low,
        share_high=hits.high,
        n=hits.n,
    )


def _expected_error(
    gap_B: Floats, bin_B: Integers, group_B: Labels, **resampling: Unpack[Resampling]
) -> tuple[float, float, float]:
    """Value and interval of the sum over bins of |sum of gaps| / pairs: a bin's weight cancels its mean's divisor."""
    if not len(gap_B):
        return math.nan, math.nan, math.nan
    index_B, groups = number_groups(group_B)
    gap_GK = np.zeros((groups, int(bin_B.max()) + 1))
    np.add.at(gap_GK, (index_B, bin_B), gap_B)
    n_G = np.bincount(index_B, minlength=groups)
    low, high = bootstrap_interval(
        lambda count_RG: np.abs(count_RG @ gap_GK).sum(axis=1) / (count_RG @ n_G),
        groups,
        items=gap_GK.shape[1],
        **resampling,
    )
    return float(np.abs(gap_GK.sum(axis=0)).sum() / len(gap_B)), low, high
