"""The worth of a spread: by hand, against SciPy and plain loops, and at its limits."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

from descore.stats.uncertainty import SHARES, difference_error, half_width, spread_value
from descore.types import preference_probability


@pytest.mark.parametrize("difference", [-4.0, -1.0, 0.0, 0.3, 2.5, 8.0])
@pytest.mark.parametrize("error", [0.0, 0.4, 1.0, 3.0])
def test_an_uncertain_preference_is_near_the_integral(difference, error):
    """MacKay's approximation is off by .018 at the most, near |d| = 2.5 and e = 2."""

    def weighted(noise):
        return expit(difference + error * noise) * stats.norm.pdf(noise)

    exact, _ = integrate.quad(weighted, -12, 12, limit=200)
    assert preference_probability(difference, 0, variance=error**2) == pytest.approx(exact, abs=0.02)


def test_noise_draws_a_preference_towards_one_half():
    """sigmoid(2) = .881; with e^2 = 8 / pi the difference is divided by sqrt(2): sigmoid(1.414) = .804."""
    assert preference_probability(2.0, 0.0) == pytest.approx(0.8808, abs=1e-4)
    assert preference_probability(2.0, 0.0, variance=8 / math.pi) == pytest.approx(0.8044, abs=1e-4)


def test_the_interval_is_that_of_welchs_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.5, 4), rng.normal(0.0, 2.0, 7)
    error, freedom = difference_error(*(np.array([v]) for v in (a.std(ddof=1), 4, b.std(ddof=1), 7)))
    theirs = stats.ttest_ind(a, b, equal_var=False)
    low, high = theirs.confidence_interval(0.9)
    assert freedom[0] == pytest.approx(theirs.df)
    assert half_width(error, freedom, level=0.9)[0] == pytest.approx((high - low) / 2)


def test_a_single_chain_varies_as_the_other_side():
    """s = 2: the error is sqrt(4 / 1 + 4 / 4), with the three degrees of freedom that s has."""
    error, freedom = difference_error(np.array([math.nan]), np.array([1]), np.array([2.0]), np.array([4]))
    assert (error[0], freedom[0]) == (pytest.approx(math.sqrt(5)), 3)
    error, _ = difference_error(np.array([math.nan]), np.array([1]), np.array([math.nan]), np.array([1]))
    assert math.isnan(error[0])


def test_equal_chains_leave_no_doubt():
    error, freedom = difference_error(np.zeros(1), np.array([3]), np.zeros(1), np.array([3]))
    assert half_width(error, freedom)[0] == 0


def value_of(margin, error, preference, group=None, **more):
    margin, error = np.array(margin, float), np.array(error, float)
    group = np.arange(len(margin)) if group is None else np.array(group)
    freedom = np.full(len(margin), 10.0)
    return spread_value(margin, error, freedom, np.array(preference), group, resamples=200, **more)


def test_auroc_by_hand():
    """Right: sureness 3 and 1; wrong: 2 and 1. Of four comparisons 3 > 2, 3 > 1, 1 < 2 and 1 = 1: 2.5 of 4."""
    found = value_of([3, 1, 2, -1], [1, 1, 1, 1], [1, 1, -1, 1])
    assert found.auroc.value == found.auroc_margin.value == 2.5 / 4
    assert (found.auroc_spread.value, found.gain.value) == (0.5, 0)


def test_auroc_is_the_rank_test_of_scipy():
    rng = np.random.default_rng(1)
    margin, error = rng.normal(size=80).round(1), rng.uniform(0.5, 2, 80).round(1)
    preference = rng.choice([-1, 1], 80)
    right = np.sign(margin) == preference
    sure = np.abs(margin) / error
    theirs = stats.mannwhitneyu(sure[right], sure[~right]).statistic / (right.sum() * (~right).sum())
    assert value_of(margin, error, preference).auroc.value == pytest.approx(theirs)


def test_a_spread_that_knows_its_mistakes_has_worth():
    """Margins of one size whose error is large just where they are wrong: the margin knows nothing, the spread all."""
    preference = np.array([1] * 12)
    margin = np.array([1.0] * 8 + [-1.0] * 4)
    found = value_of(margin, np.where(margin > 0, 0.2, 2.0), preference)
    assert (found.auroc.value, found.auroc_margin.value, found.gain.value) == (1, 0.5, 0.5)
    assert [f.value for f in found.accuracy] == pytest.approx([1, 1, 1, 8 / 9.6, 8 / 12])
    assert [f.value for f in found.accuracy_margin] == pytest.approx([8 / 12] * 5)  # all equal: each counts in part
    assert (found.clear.value, found.clear_accuracy.value, found.clear_accuracy.n) == (8 / 12, 1, 8)


def test_accuracy_on_a_share_is_that_of_a_plain_loop():
    rng = np.random.default_rng(2)
    margin, preference = rng.normal(size=50), rng.choice([-1, 1], 50)
    first = np.argsort(-np.abs(margin))
    right = (np.sign(margin) == preference)[first]
    expected = [right[: int(share * 50)].mean() for share in SHARES]
    assert [f.value for f in value_of(margin, np.ones(50), preference).accuracy] == pytest.approx(expected)


def test_a_share_without_mistakes_has_an_exact_interval():
    """The surest 20 % of 50 pairs are right; of 10 that are, one in three may be wrong: .025^(1 / 10) = .69."""
    margin = np.concatenate([np.full(10, 2.0), np.full(40, 1.0)])
    surest = value_of(margin, np.ones(50), np.where(np.arange(50) < 40, 1, -1)).accuracy[0]
    assert (surest.value, surest.n, surest.groups) == (1, 10, 10)
    assert surest.low == pytest.approx(0.6915, abs=1e-4)


def test_ties_failures_and_single_chains_are_left_out():
    found = value_of([1, 2, math.nan, 3, 1], [1, 1, 1, math.nan, 1], [1, -1, 1, 1, 0])
    assert (found.auroc.n, found.auroc.failed) == (2, 2)
    assert value_of([1.0, 2.0], [math.nan, math.nan], [1, -1]) is None
    assert math.isnan(value_of([1.0, 2.0], [1, 1], [1, 1]).auroc.value)  # none is wrong


def test_intervals_resample_whole_groups():
    """Ten copies of each pair in its pair's group: the intervals are those of the single pairs."""
    rng = np.random.default_rng(3)
    margin, error, preference = rng.normal(size=30), rng.uniform(0.5, 1, 30), rng.choice([-1, 1], 30)
    once = value_of(margin, error, preference)
    tenfold = value_of(*(np.repeat(x, 10) for x in (margin, error, preference)), np.repeat(np.arange(30), 10))
    for name in ("auroc", "gain", "clear"):
        one, ten = getattr(once, name), getattr(tenfold, name)
        assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))
