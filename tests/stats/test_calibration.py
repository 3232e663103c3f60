"""Calibration by hand, for calibrated and overconfident models, and invariant to swapping a and b."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descore.errors import ConfigError
from descore.stats.agreement import measure_calibration

# Edges of bins among them, where 1 - p is a rounding error beside its mirror.
PROBABILITY = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.5, 0.7, 0.85, 1.0]))


def test_by_hand():
    """From the preferred side: .6 right, .6 wrong (from .4), .9 right (from .1); the tie does not count.
    Curve: at .6 one half, at .9 all. Brier: (.16 + .36 + .01) / 3. ECE: 2/3 · |.5 - .6| + 1/3 · |1 - .9| = .1."""
    found = measure_calibration(
        np.array([0.6, 0.4, 0.1, 0.99]), np.array([1, 1, -1, 0]), np.array(list("ppqr")), bins=5
    )
    assert [(b.low, b.high, b.n, b.share) for b in found.bins] == [
        (0.6, pytest.approx(0.7), 2, 0.5),
        (pytest.approx(0.9), 1.0, 1, 1.0),
    ]
    assert [b.mean_probability for b in found.bins] == pytest.approx([0.6, 0.9])
    assert (found.brier.value, found.ece.value) == pytest.approx((0.53 / 3, 0.1))
    assert (found.brier.n, found.brier.groups, found.ece.n) == (3, 2, 3)


def test_intervals_by_hand():
    """Resamples are pp, pq, qp and qq. p alone: Brier (.16 + .36) / 2 = .26, ECE |.5 - .6| = .1; q alone: .01, .1.
    Both together: .1 too, as above. The lone prompt of the upper bin gives no interval for its share."""
    found = measure_calibration(np.array([0.6, 0.4, 0.1]), np.array([1, 1, -1]), np.array(list("ppq")), bins=5)
    assert (found.brier.low, found.brier.high) == pytest.approx((0.01, 0.26))
    assert (found.ece.low, found.ece.high) == pytest.approx((0.1, 0.1))
    assert math.isnan(found.bins[1].share_low)


@given(st.lists(st.tuples(PROBABILITY, st.sampled_from([-1, 0, 1])), min_size=1))
@settings(max_examples=50)
def test_swapping_a_and_b_changes_nothing(pairs):
    probability, preference = np.array([p for p, _ in pairs]), np.array([h for _, h in pairs])
    group = np.arange(len(pairs)) // 2
    found = measure_calibration(probability, preference, group, resamples=20)
    swapped = measure_calibration(1 - probability, -preference, group, resamples=20)
    assert len(found.bins) == len(swapped.bins)
    for one, other in zip(found.bins, swapped.bins, strict=True):
        assert asdict(one) == pytest.approx(asdict(other), nan_ok=True)
    assert asdict(found.brier) == pytest.approx(asdict(swapped.brier), nan_ok=True)
    assert asdict(found.ece) == pytest.approx(asdict(swapped.ece), nan_ok=True)


@given(st.lists(st.tuples(PROBABILITY, st.sampled_from([-1, 1])), min_size=1), st.integers(1, 12))
@settings(max_examples=50)
def test_the_curve_adds_up(pairs, bins):
    """Every pair is in one bin, within its edges; the error is the curve's own."""
    probability, preference = np.array([p for p, _ in pairs]), np.array([h for _, h in pairs])
    found = measure_calibration(probability, preference, np.arange(len(pairs)), bins=bins, resamples=1)
    assert sum(b.n for b in found.bins) == len(pairs)
    assert all(b.low - 1e-8 <= b.mean_probability <= b.high + 1e-8 for b in found.bins)
    error = sum(b.n * abs(b.share - b.mean_probability) for b in found.bins) / len(pairs)
    assert found.ece.value == pytest.approx(error, abs=1e-12)


def test_a_coin_scores_a_quarter():
    """Always one half: Brier .25 whatever people say, half a hit each, and no calibration error."""
    found = measure_calibration(np.full(4, 0.5), np.array([1, 1, 1, -1]), np.arange(4))
    assert (found.brier.value, found.ece.value) == (0.25, 0.0)
    assert [(b.mean_probability, b.share, b.n) for b in found.bins] == [(0.5, 0.5, 4)]


def test_overconfidence_raises_the_calibration_error():
    """Outcomes drawn from the probabilities themselves; the overconfident model claims three times the log-odds."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=4000)
    preference = np.where(rng.random(4000) < 1 / (1 + np.exp(-odds)), 1, -1)
    calibrated, overconfident = (
        measure_calibration(1 / (1 + np.exp(-k * odds)), preference, np.arange(4000)) for k in (1, 3)
    )
    assert calibrated.ece.value < 0.03
    assert overconfident.ece.low > 0.1
    assert all(b.share_low - 0.03 < b.mean_probability < b.share_high + 0.03 for b in calibrated.bins if b.n > 50)
    assert calibrated.brier.high < overconfident.brier.low


def test_failed_pairs_are_counted_and_used_nowhere():
    """A failed tie does not count: it would be left out anyway."""
    found = measure_calibration(np.array([0.8, math.nan, 0.3, math.nan]), np.array([1, -1, -1, 0]), np.arange(4))
    assert (found.brier.n, found.brier.failed, found.ece.failed) == (2, 1, 1)
    assert found.brier.value == pytest.approx((0.04 + 0.09) / 2)


def test_without_a_pair_there_is_no_number():
    found = measure_calibration(np.array([math.nan]), np.array([1]), np.array(["p"]))
    assert found.bins == ()
    assert np.isnan([found.brier.value, found.ece.value, found.ece.low]).all()
    assert (found.ece.n, found.ece.failed) == (0, 1)


def test_no_bins_are_refused():
    with pytest.raises(ConfigError, match="bins: found 0, expected 1 or more"):
        measure_calibration(np.array([0.5]), np.array([1]), np.array([0]), bins=0)
