"""The cluster bootstrap against SciPy's, by hand, and at its limits."""

import math
import warnings
from dataclasses import astuple

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from descore.errors import ConfigError
from descore.stats.bootstrap import bootstrap_interval, bootstrap_mean, number_groups, with_exact_interval


def test_mean_by_hand():
    """Three of the four that are there: (1 + 0 + 1 + 1) / 4, from prompts p and q; the nan failed."""
    found = bootstrap_mean(np.array([1.0, 0.0, math.nan, 1.0, 1.0]), np.array(["q", "p", "r", "p", "q"]))
    assert (found.value, found.n, found.failed, found.groups) == (0.75, 4, 1, 2)
    assert (found.low, found.high) == (0.5, 1.0)  # resamples are pp, pq, qp or qq: 1/2, 3/4, 3/4, 1


def test_alone_in_their_groups_it_is_scipys_bootstrap():
    """Both draw at random: over 20,000 resamples, the ends differ by less than a twentieth of the interval's width."""
    value = np.random.default_rng(5).normal(size=60)
    found = bootstrap_mean(value, np.arange(60), resamples=20_000)
    theirs = bootstrap((value,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    allowed = (theirs.high - theirs.low) / 20
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=allowed)


def test_for_independent_pairs_it_is_nearly_wilsons():
    """300 of 400: the two are a normal approximation and its bootstrap; within half a point of each other."""
    found = bootstrap_mean(np.repeat([1.0, 0.0], [300, 100]), np.arange(400), resamples=10_000)
    theirs = binomtest(300, 400).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_pairs_of_one_prompt_are_not_independent():
    """Ten copies of each of 40 values add no information: the interval is that of the 40, not a third as wide."""
    value = np.random.default_rng(2).integers(0, 2, 40).astype(float)
    alone = bootstrap_mean(value, np.arange(40))
    tenfold = bootstrap_mean(np.repeat(value, 10), np.repeat(np.arange(40), 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((alone.low, alone.high))


def test_a_resample_counts_groups_as_a_plain_loop_does():
    """The same draws, with the items of each drawn group put together one by one."""
    rng = np.random.default_rng(8)
    value, group = rng.normal(size=30), rng.integers(7, size=30)
    drawn = np.random.default_rng(3).integers(7, size=(200, 7))
    means = [np.concatenate([value[group == g] for g in row]).mean() for row in drawn]
    found = bootstrap_mean(value, group, resamples=200, seed=3, level=0.8)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


def test_the_seed_decides_and_the_size_of_the_blocks_does_not(monkeypatch):
    value = np.random.default_rng(0).normal(size=50)
    one, same, other = (bootstrap_mean(value, np.arange(50), seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert (one.low, one.high) != (other.low, other.high)
    monkeypatch.setattr("descore.stats.bootstrap._BLOCK", 130)
    assert astuple(bootstrap_mean(value, np.arange(50))) == pytest.approx(
        astuple(one)
    )  # products of other shapes round otherwise


def test_one_group_has_no_interval():
    found = bootstrap_mean(np.array([1.0, 0.0, 1.0]), np.array(["p", "p", "p"]))
    assert found.value == pytest.approx(2 / 3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("value", [np.array([]), np.array([math.nan, math.nan])])
def test_without_an_item_there_is_no_number(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap_mean(value, np.arange(len(value)))
    assert np.isnan(astuple(found)[:3]).all()
    assert (found.n, found.failed, found.groups) == (0, len(value), 0)


@pytest.mark.parametrize("groups", [2, 11, 400])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_all_hits_or_none_have_the_exact_interval(groups, level):
    """Clopper and Pearson's, from SciPy, with a trial per group; each group has two items here."""
    for hit in (0, 1):
        found = with_exact_interval(
            bootstrap_mean(np.full(2 * groups, hit), np.arange(2 * groups) // 2, level=level), level=level
        )
        theirs = binomtest(hit * groups, groups).proportion_ci(level, method="exact")
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_other_intervals_stay_as_they_are():
    some, one_group = bootstrap_mean(np.array([1.0, 0.0]), np.arange(2)), bootstrap_mean(np.ones(2), np.zeros(2))
    assert with_exact_interval(some) == some
    assert math.isnan(with_exact_interval(one_group).low)


def test_resamples_without_a_value_are_left_out():
    """Nan where the first of two groups is missing, 7 elsewhere; with none but nan there is no interval."""
    assert bootstrap_interval(lambda counts: np.where(counts[:, 0] > 0, 7.0, np.nan), 2) == (7.0, 7.0)
    assert np.isnan(bootstrap_interval(lambda counts: counts[:, 0] * np.nan, 2)).all()


def test_groups_are_numbers_or_names():
    index, groups = number_groups(np.array(["b", "a", "b"]))
    assert (index.tolist(), groups) == ([1, 0, 1], 2)
    assert number_groups(np.array([7, 7, 3]))[1] == 2


@pytest.mark.parametrize(
    ("how", "says"), [({"level": 95}, "level: found 95"), ({"resamples": 0}, "resamples: found 0")]
)
def test_senseless_options_are_refused(how, says):
    with pytest.raises(ConfigError, match=says):
        bootstrap_mean(np.zeros(3), np.arange(3), **how)
