"""Measure the calibration of preference probabilities: reliability curve, Brier score, expected calibration error.

In: the probability that a is preferred, people's preference, and the group of each pair. Out: a `Calibration`. A
probability is nan if a clip has no score; such a pair is counted as failed and left out.

Keywords `resamples`, `level`, `seed`: see `bootstrap_interval`. Shapes: B pairs, G groups, K bins, R resamples."""

import math
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from descore.errors import ConfigError
from descore.stats.agreement import share
from descore.stats.bootstrap import (
    Figure,
    Floats,
    Integers,
    Labels,
    Resampling,
    bootstrap_interval,
    bootstrap_mean,
    number_groups,
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
