"""Correlations: SciPy's values, and a bootstrap that agrees with repeating the clips."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from descore.stats.correlation import correlations

SCIPY = {"spearman": stats.spearmanr, "kendall": stats.kendalltau, "pearson": stats.pearsonr}
CLIP = st.tuples(st.sampled_from([-1.0, 0.1, 0.7, 2.0]), st.sampled_from([1.0, 2.5, 3.0]), st.integers(0, 4))


@pytest.fixture(autouse=True)
def silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def some_clips(n, groups, seed=0):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=n)
    return reward, np.round(reward + rng.normal(size=n)), np.arange(n) % groups


def test_by_hand():
    """Rewards 1 2 3 4 against ratings 1 3 2 4. Ranks differ by 0 1 1 0: rho = 1 - 6 · 2 / (4 · 15) = .8. Of six pairs
    five agree and one does not: tau = 4 / 6. No ties, and ranks are the values: r = rho."""
    found = correlations(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4]), np.arange(4), within=False)
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(
        {"spearman": 0.8, "kendall": 2 / 3, "pearson": 0.8}
    )
    assert all((figure.n, figure.failed, figure.groups) == (4, 0, 4) for figure in found.values())


@pytest.mark.parametrize("name", SCIPY)
def test_over_all_clips_it_is_scipys(name):
    reward, rating, group = some_clips(40, 8)
    found = correlations(reward, rating, group, within=False)[name]
    assert found.value == pytest.approx(SCIPY[name](reward, rating).statistic)
    assert found.low < found.value < found.high


@given(st.lists(CLIP, min_size=2, max_size=20))
@settings(max_examples=40)
def test_the_bootstrap_is_scipy_on_repeated_clips(clips):
    """The same draws, each drawn group's clips repeated; resamples in which SciPy finds no coefficient are left out."""
    reward, rating, group = (np.array(column) for column in zip(*clips, strict=True))
    names = np.unique(group)
    if len(names) < 2 or np.ptp(reward) == 0 or np.ptp(rating) == 0:
        return
    found = correlations(reward, rating, group, within=False, resamples=15, seed=6)
    resampled = {name: [] for name in SCIPY}
    for drawn in np.random.default_rng(6).integers(len(names), size=(15, len(names))):
        rows = np.concatenate([np.flatnonzero(group == names[g]) for g in drawn])
        if np.ptp(reward[rows]) and np.ptp(rating[rows]):
            for name, coefficient in SCIPY.items():
                resampled[name].append(coefficient(reward[rows], rating[rows]).statistic)
    for name, values in resampled.items():
        ends = np.quantile(values, [0.025, 0.975]) if values else [math.nan] * 2
        assert (found[name].low, found[name].high) == pytest.approx(tuple(ends), nan_ok=True, abs=1e-9)


def test_within_prompts_by_hand():
    """p agrees in full: 1. q is turned round: -1. r has one clip, s equal ratings, t equal rewards: left out. Prompts
    apart by far do not count: over all, the two of p are above the two of q in both."""
    reward = np.array([11.0, 12, 1, 2, 5, 6, 7, 3, 3])
    rating = np.array([4.0, 5, 2, 1, 3, 3, 3, 1, 2])
    group = np.array(list("ppqqrsstt"))
    found = correlations(reward, rating, group, within=True)
    for figure in found.values():
        assert figure.value == pytest.approx(0)
        assert (figure.n, figure.groups) == (4, 2)
        assert (figure.low, figure.high) == pytest.approx((-1, 1))
    assert correlations(reward, rating, group, within=False)["spearman"].value > 0.5


@pytest.mark.parametrize("name", SCIPY)
def test_within_prompts_it_is_the_mean_of_scipys(name):
    reward, rating, group = some_clips(60, 6, seed=3)
    found = correlations(reward, rating, group, within=True)[name]
    each = [SCIPY[name](reward[group == g], rating[group == g]).statistic for g in range(6)]
    assert found.value == pytest.approx(np.mean(each))


def test_gold_its_mirror_and_order():
    reward, rating, group = some_clips(30, 6)
    shuffled = np.random.default_rng(1).permutation(30)
    for within in (False, True):
        found = correlations(reward, rating, group, within=within)
        other = correlations(reward[shuffled], rating[shuffled], group[shuffled], within=within)
        for name, figure in found.items():
            assert (figure.value, figure.low, figure.high) == pytest.approx(
                (other[name].value, other[name].low, other[name].high)
            )
            assert correlations(rating, rating, group, within=within)[name].value == pytest.approx(1)
            assert correlations(-rating, rating, group, within=within)[name].value == pytest.approx(-1)


@pytest.mark.parametrize(
    "reward", [np.ones(4), np.full(4, 0.1), np.array([math.nan] * 3 + [1.0]), np.full(4, math.nan)]
)
def test_without_variation_there_is_no_coefficient(reward):
    for within in (False, True):
        for figure in correlations(reward, np.arange(4.0), np.array([0, 0, 1, 1]), within=within).values():
            assert math.isnan(figure.value)
            assert math.isnan(figure.low)
            assert figure.failed == np.isnan(reward).sum()
            assert figure.n == (0 if within else 4 - figure.failed)


def test_nearly_equal_rewards_do_not_warn():
    reward = 1 + np.arange(4) * 1e-16
    correlations(reward, np.arange(4.0), np.arange(4), within=False)


def test_clips_without_a_rating_do_not_count():
    reward, rating = np.array([1.0, 2, math.nan, 4, 5]), np.array([1.0, 2, 3, math.nan, 4])
    found = correlations(reward, rating, np.arange(5), within=False)["pearson"]
    assert (found.n, found.failed) == (3, 1)
