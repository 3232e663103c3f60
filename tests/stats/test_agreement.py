"""Accuracy with ties and without: by hand, against brute force, and by its invariances."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descore.stats.agreement import (
    NO_PREDICTED_TIES,
    accuracy_by_margin,
    accuracy_with_ties,
    accuracy_with_ties_compatible,
    accuracy_without_ties,
    share,
)

# Few distinct margins, zero among them, so that runs of equal ones are common; nan is a failed pair.
MARGIN = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, math.nan])
PAIR = st.tuples(MARGIN, st.sampled_from([-1, 0, 1]), st.integers(0, 3))
PAIRS = st.lists(PAIR, min_size=1, max_size=25)


def columns(pairs):
    margin, preference, group = zip(*pairs, strict=True)
    return np.array(margin), np.array(preference), np.array(group)


def same(one, other):
    return all(a == b or (a != a and b != b) for a, b in zip(astuple(one), astuple(other), strict=True))


def right(margin, preference, threshold):
    """Pairs right at a threshold, one by one."""
    judged = [0 if abs(m) <= threshold else 1 if m > 0 else -1 if m < 0 else None for m in margin]
    return sum(j == p for j, p in zip(judged, preference, strict=True))


def search(margin, preference):
    """The best accuracy over all thresholds, tried one by one, and the smallest that reaches it."""
    tried = [-1.0, *sorted({abs(m) for m in margin})]
    best = max(tried, key=lambda t: (right(margin, preference, t), -t))
    return right(margin, preference, best), best


def test_without_ties_by_hand():
    """Decided: a, b, a, b. Signs of the margins: a, b, b, and no decision at all. Two of four are right."""
    found = accuracy_without_ties(
        np.array([0.3, -2.0, -0.1, 0.0, 5.0, math.nan]), np.array([1, -1, 1, -1, 0, 1]), np.array(list("ppqqrs"))
    )
    assert (found.value, found.n, found.failed, found.groups) == (0.5, 4, 1, 2)
    assert (found.low, found.high) == (0.0, 1.0)  # p is right in both of its pairs, q in none


def test_with_ties_by_hand():
    """Margins .1 .2 .3 .9 -.8, people say tie, a, tie, a, b. No predicted ties: 3 of 5 right. Up to .1 a tie: 4.
    Up to .2: 3, up to .3: 4 again, up to .8: 3, all: 2. So .8 at .1, the smaller of two equally good thresholds."""
    margin, preference = np.array([0.1, 0.2, 0.3, 0.9, -0.8]), np.array([0, 1, 0, 1, -1])
    found = accuracy_with_ties(margin, preference, np.arange(5))
    assert (found.figure.value, found.threshold) == (0.8, 0.1)
    assert (found.tie_rate, found.predicted_tie_rate, found.fitted_on) == (0.4, 0.2, "the same pairs")


def test_no_predicted_ties_is_among_the_thresholds():
    """The least margin belongs to a pair that is right and decided: making it a tie would cost one."""
    found = accuracy_with_ties(np.array([0.1, 2.0, -1.0]), np.array([1, 1, -1]), np.arange(3))
    assert (found.figure.value, found.threshold, found.predicted_tie_rate) == (1.0, NO_PREDICTED_TIES, 0.0)


def test_the_compatible_accuracy_may_exceed_any_threshold():
    """All margins are equal: a threshold makes all ties or none, and 2 of 4 are right both ways. The other stops after
    two: both ties are called ties, both decided pairs are not. In another order it stops elsewhere: after the first it
    has 1 of 4, after the second 0, after the third 1, after the last 2."""
    margin, preference = np.ones(4), np.array([0, 0, 1, 1])
    assert accuracy_with_ties_compatible(margin, preference) == 1.0
    assert accuracy_with_ties_compatible(margin, preference[::-1]) == 0.5
    assert accuracy_with_ties(margin, preference, np.arange(4)).figure.value == 0.5


def test_the_compatibility_mode_never_does_without_ties():
    """A gold scorer of two decided pairs: at least the nearer one becomes a tie."""
    assert accuracy_with_ties_compatible(np.array([1.0, -2.0]), np.array([1, -1])) == 0.5
    assert math.isnan(accuracy_with_ties_compatible(np.array([math.nan]), np.array([1])))


@given(PAIRS)
def test_the_compatibility_mode_is_the_best_of_a_plain_walk(pairs):
    scored = [(m, p) for m, p, _ in pairs if not math.isnan(m)]
    walked = sorted(scored, key=lambda pair: abs(pair[0]))
    after = [
        sum(p == 0 for _, p in walked[: i + 1]) + sum(m * p > 0 for m, p in walked[i + 1 :]) for i in range(len(walked))
    ]
    found = accuracy_with_ties_compatible(*columns(pairs)[:2])
    assert found == max(after) / len(after) if after else math.isnan(found)


@given(PAIRS)
def test_the_threshold_search_is_brute_force(pairs):
    margin, preference, _ = columns([pair for pair in pairs if not math.isnan(pair[0])] or [(1.0, 1, 0)])
    found = accuracy_with_ties(*columns(pairs), resamples=1)
    if found.figure.n:
        hits, threshold = search(margin, preference)
        assert (found.figure.value, found.threshold) == (hits / len(margin), threshold)
        assert found.predicted_tie_rate == (np.abs(margin) <= threshold).mean()
    else:
        assert math.isnan(found.figure.value)


@given(PAIRS, st.booleans())
@settings(max_examples=50)
def test_each_resample_searches_anew(pairs, held_out):
    """The interval's ends are quantiles of brute force on the same draws, with each drawn group's pairs repeated."""
    pairs = [pair for pair in pairs if not math.isnan(pair[0])]
    names = sorted({group for *_, group in pairs})
    if len(names) < 2:
        return
    first = {names[i] for i in np.flatnonzero(np.random.default_rng([4, 1]).permutation(len(names)) < len(names) // 2)}
    values = []
    for drawn in np.random.default_rng(4).integers(len(names), size=(20, len(names))):
        resample = [pair for g in drawn for pair in pairs if pair[2] == names[g]]
        values.append(by_the_other_half(resample, first) if held_out else by_all(resample))
    found = accuracy_with_ties(*columns(pairs), held_out=held_out, resamples=20, seed=4).figure
    assert found.value == pytest.approx(by_the_other_half(pairs, first) if held_out else by_all(pairs))
    if 0 < found.value < 1:  # else the interval is widened
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def by_all(pairs):
    return search(*columns(pairs)[:2])[0] / len(pairs)


def by_the_other_half(pairs, first):
    halves = [[p[:2] for p in pairs if p[2] in first], [p[:2] for p in pairs if p[2] not in first]]
    threshold = [search(*zip(*half, strict=True))[1] if half else NO_PREDICTED_TIES for half in halves]
    hits = sum(right(*zip(*half, strict=True), threshold[1 - i]) for i, half in enumerate(halves) if half)
    return hits / len(pairs)


def test_held_out_by_hand():
    """Two prompts, so each is a half. p: tie at .1, a at .5; its threshold is .1. q: tie at .3, b at -.9; its threshold
    is .3. In q the threshold .1 misses the tie; in p .3 takes both right: 3 of 4, where all 4 fit with .3 for all."""
    margin, preference = np.array([0.1, 0.5, 0.3, -0.9]), np.array([0, 1, 0, -1])
    found = accuracy_with_ties(margin, preference, np.array(["p", "p", "q", "q"]), held_out=True)
    assert found.figure.value == 0.75
    assert (found.threshold, found.predicted_tie_rate) == (0.3, 0.25)
    assert found.fitted_on == "the other half"
    assert accuracy_with_ties(margin, preference, np.arange(4)).figure.value == 1.0


def test_one_group_cannot_be_held_out():
    found = accuracy_with_ties(np.array([1.0, 2.0]), np.array([0, 1]), np.array([7, 7]), held_out=True)
    assert math.isnan(found.figure.value)
    assert (found.figure.n, found.threshold) == (0, 1.0)
    assert accuracy_with_ties(np.array([1.0, 2.0]), np.array([0, 1]), np.array([7, 7])).figure.value == 1.0


def test_noise_flatters_only_where_the_threshold_is_fitted():
    """Random margins, 12 groups: over 40 tables, fitting on the pairs themselves gives more than held out."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(40):
        margin, preference, group = rng.normal(size=36), rng.integers(-1, 2, 36), np.arange(36) % 12
        fitted, held = (
            accuracy_with_ties(margin, preference, group, held_out=h, resamples=1).figure for h in (False, True)
        )
        gaps.append(fitted.value - held.value)
    assert min(gaps) > -0.05
    assert np.mean(gaps) > 0.05


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_and_sides_do_not_matter(pairs, random):
    margin, preference, group = columns(pairs)
    shuffled = columns(random.sample(pairs, len(pairs)))
    for accuracy in (accuracy_without_ties, accuracy_with_ties):
        found = accuracy(margin, preference, group, resamples=50)
        for other in (accuracy(*shuffled, resamples=50), accuracy(-margin, -preference, group, resamples=50)):
            assert same(flat(found), flat(other))


def flat(found):
    return getattr(found, "figure", found)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=2), st.booleans())
def test_gold_and_its_mirror(preferences, held_out):
    """A gold scorer is right in all, its mirror in no decided pair; equal rewards may still be ties."""
    preference, group = np.array(preferences), np.arange(len(preferences))
    decided = preference != 0
    if decided.any():
        assert accuracy_without_ties(preference * 2.0, preference, group, resamples=1).value == 1.0
        assert accuracy_without_ties(preference * -2.0, preference, group, resamples=1).value == 0.0
        mirror = accuracy_with_ties(-2.0 * preference[decided], preference[decided], group[decided], resamples=1)
        assert mirror.figure.value == 0.0
    assert accuracy_with_ties(preference * 2.0, preference, group, resamples=1).figure.value == 1.0
    if decided.all():
        gold = accuracy_with_ties(preference * 2.0, preference, group, held_out=held_out, resamples=1)
        assert (gold.figure.value, gold.threshold) == (1.0, NO_PREDICTED_TIES)


def test_failed_pairs_are_counted_and_used_nowhere():
    margin, preference, group = np.array([1.0, -1.0, 2.0, 0.1]), np.array([1, -1, -1, 0]), np.arange(4)
    without = accuracy_with_ties(margin, preference, group)
    margin, preference = np.append(margin, [math.nan] * 2), np.append(preference, [0, 1])
    with_failed = accuracy_with_ties(margin, preference, np.append(group, [8, 9]))
    assert with_failed.figure.failed == 2
    assert (with_failed.figure.value, with_failed.tie_rate) == (without.figure.value, without.tie_rate)
    assert accuracy_without_ties(margin, preference, np.arange(6)).failed == 1  # the other is a tie


@pytest.mark.parametrize("held_out", [False, True])
def test_without_a_scored_pair_there_is_no_number(held_out):
    found = accuracy_with_ties(np.array([math.nan]), np.array([1]), np.array([0]), held_out=held_out)
    assert np.isnan([found.figure.value, found.tie_rate, found.predicted_tie_rate]).all()
    assert (found.figure.n, found.figure.failed, found.threshold) == (0, 1, NO_PREDICTED_TIES)


def test_without_a_decided_pair_there_is_no_number():
    found = accuracy_without_ties(np.array([1.0]), np.array([0]), np.array([0]))
    assert (found.n, found.failed) == (0, 0)
    assert math.isnan(found.value)


def test_all_right_is_not_certain():
    """Five prompts, all right: Clopper and Pearson have .025^(1/5) = .478 as the lower end, with ties and without."""
    margin, preference = np.arange(1.0, 6), np.ones(5, dtype=int)
    for accuracy in (accuracy_without_ties, accuracy_with_ties):
        found = flat(accuracy(margin, preference, np.arange(5)))
        assert (found.low, found.high) == pytest.approx((0.4782, 1.0), abs=1e-4)


def test_share_by_hand():
    found = share(np.array([True, False, True, True]), np.array(["p", "p", "q", "q"]))
    assert (found.value, found.n, found.failed, found.groups) == (0.75, 4, 0, 2)
    assert share(np.array([1.0, math.nan]), np.arange(2)).failed == 1


def test_by_margin_by_hand():
    """Sizes 1 1 1 2 3 4, two bins of three: the near pairs are right once in three, the far ones always, one failed."""
    difference = np.array([1.0, -1.0, 1.0, 2.0, -3.0, 4.0, 9.0, math.nan])
    margin = np.array([0.5, 0.5, -0.5, 1.0, -1.0, math.nan, 1.0, 1.0])
    preference = np.array([1, -1, 1, 1, -1, 1, 0, 1])
    near, far = accuracy_by_margin(difference, margin, preference, np.arange(8), bins=2)
    assert (near.low, near.high, near.figure.n) == (1.0, 1.0, 3)
    assert near.figure.value == pytest.approx(1 / 3)
    assert (far.low, far.high, far.figure.value, far.figure.n, far.figure.failed) == (2.0, 4.0, 1.0, 2, 1)


def test_equal_differences_share_a_bin():
    """Ratings half a point apart in three pairs of four: four bins are asked for, and two can be made."""
    difference = np.array([0.5, 0.5, 1.0, 0.5])
    found = accuracy_by_margin(difference, difference, np.ones(4, dtype=int), np.arange(4), bins=4)
    assert [(low, high, figure.n) for low, high, figure in found] == [(0.5, 0.5, 3), (1.0, 1.0, 1)]
    assert accuracy_by_margin(difference, difference, np.zeros(4, dtype=int), np.arange(4)) == []
