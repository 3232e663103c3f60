"""How far the probability of a preference can be believed: reliability curve, Brier score, calibration error.

In: the probability that a is preferred, what people preferred, the group of each pair. Out: a `Calibration`. A
probability is nan where a clip has no score: that pair is counted as failed and used nowhere.
Knows arrays; knows nothing of rewards or of how the probability was made.

Keywords `resamples`, `level`, `seed`: see `bootstrap.interval`. Shapes: B pairs, G groups, K bins, R resamples."""

import math
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from descore.errors import ConfigError
from descore.stats.agreement import share
from descore.stats.bootstrap import Figure, Floats, Integers, Labels, Resampling, interval, mean, number_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Pairs that the model is about equally sure of."""

    low: float
    """Lower edge of the probability, belonging to the bin; .5 at the lowest."""
    high: float
    """Upper edge, belonging to the next bin; 1 belongs to the last."""
    mean_probability: float
    """Of the side that the model prefers: what it claims."""
    share: float
    """Of the pairs in which people prefer that side: what is so."""
    share_low: float
    """Lower end of the share's interval."""
    share_high: float
    """Upper end."""
    n: int
    """Pairs; bins without any are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A probability of preference, held against decided pairs."""

    bins: tuple[ReliabilityBin, ...]
    """The reliability curve, by ascending probability."""
    brier: Figure
    """Mean of (probability - outcome)^2 (Brier 1950, for two classes): 0 is perfect, .25 is saying one half always."""
    ece: Figure
    """Expected calibration error (Naeini et al. 2015): the mean over pairs of |share - mean probability| of their bin.
    Chance alone keeps it above 0; with few pairs in a bin, well above."""


def reliability(
    probability_B: Floats, preference_B: Integers, group_B: Labels, *, bins: int = 10, **how: Unpack[Resampling]
) -> Calibration:
    """Calibration on decided pairs; preferences are 1 for a, -1 for b, and 0 for a tie, which is left out.

    Which clip is called a is arbitrary, so each pair is told from the side that the model prefers, with a probability
    from .5 to 1, as the top label's is (Guo et al. 2017): swapping a and b changes nothing. At .5 exactly the model
    prefers neither, and half a hit is counted. Bins have equal width. ConfigError for fewer than one bin."""
    if bins < 1:
        raise ConfigError(f"bins: found {bins}, expected 1 or more; 10 is usual")
    decided_B = preference_B != 0
    probability_B, preference_B, group_B = probability_B[decided_B], preference_B[decided_B], group_B[decided_B]
    brier = mean((probability_B - (preference_B > 0)) ** 2, group_B, **how)
    scored_B = ~np.isnan(probability_B)
    lean_B = probability_B[scored_B] - 0.5
    sure_B = 0.5 + np.abs(lean_B)
    hit_B = 0.5 + 0.5 * np.sign(lean_B) * preference_B[scored_B]
    # Rounded first, since 1 - p may lie a rounding error beside an edge on which p lies.
    bin_B = np.minimum(np.round(np.abs(lean_B) * 2 * bins, 9).astype(np.intp), bins - 1)
    curve = [
        _bin(k, bins, sure_B[bin_B == k], hit_B[bin_B == k], group_B[scored_B][bin_B == k], **how)
        for k in np.unique(bin_B).tolist()
    ]
    error, low, high = _expected_error(hit_B - sure_B, bin_B, group_B[scored_B], **how)
    return Calibration(bins=tuple(curve), brier=brier, ece=replace(brier, value=error, low=low, high=high))


def _bin(
    k: int, bins: int, sure_B: Floats, hit_B: Floats, group_B: Labels, **how: Unpack[Resampling]
) -> ReliabilityBin:
    hits = share(hit_B, group_B, **how)
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
    gap_B: Floats, bin_B: Integers, group_B: Labels, **how: Unpack[Resampling]
) -> tuple[float, float, float]:
    """Value and interval of the sum over bins of |sum of gaps| / pairs: each bin's weight cancels against its mean."""
    if not len(gap_B):
        return math.nan, math.nan, math.nan
    index_B, groups = number_groups(group_B)
    gap_GK = np.zeros((groups, int(bin_B.max()) + 1))
    np.add.at(gap_GK, (index_B, bin_B), gap_B)
    n_G = np.bincount(index_B, minlength=groups)
    low, high = interval(
        lambda count_RG: np.abs(count_RG @ gap_GK).sum(axis=1) / (count_RG @ n_G),
        groups,
        items=gap_GK.shape[1],
        **how,
    )
    return float(np.abs(gap_GK.sum(axis=0)).sum() / len(gap_B)), low, high
