"""Pair accuracy by hand, by SciPy, and by its mirror."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from descore.maths.agreement import pair_accuracy, preference_probability


def test_by_hand():
    """Decided: a, b, a, b. Signs of the margins: a, b, b, and no decision at all. Two of four are right."""
    found = pair_accuracy(np.array([0.3, -2.0, -0.1, 0.0, 5.0]), np.array([1, -1, 1, -1, 0]))
    assert (found.value, found.n) == (0.5, 4)


@given(st.integers(1, 200), st.data())
def test_the_interval_is_scipys_wilson(n, data):
    right = data.draw(st.integers(0, n))
    margin = np.where(np.arange(n) < right, 1.0, -1.0)
    found = pair_accuracy(margin, np.ones(n, dtype=int))
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@given(st.lists(st.tuples(st.floats(-5, 5).filter(bool), st.sampled_from([-1, 1])), min_size=1))
def test_gold_its_mirror_and_order(pairs):
    margin, preference = np.array([m for m, _ in pairs]), np.array([p for _, p in pairs])
    assert pair_accuracy(preference * 2.0, preference).value == 1.0
    assert pair_accuracy(preference * -2.0, preference).value == 0.0
    assert pair_accuracy(margin, preference) == pair_accuracy(margin[::-1], preference[::-1])
    assert pair_accuracy(-margin, -preference) == pair_accuracy(margin, preference)


def test_without_a_decided_pair_there_is_no_number():
    found = pair_accuracy(np.array([1.0]), np.array([0]))
    assert found.n == 0
    assert math.isnan(found.value)


def test_preference_probability_by_hand():
    """Equal: one half. One apart: 1 / (1 + e^-1) = 0.731059. However far apart, it stays a probability."""
    assert preference_probability(2.0, 2.0) == 0.5
    assert preference_probability(3.0, 2.0) == pytest.approx(0.7310585786)
    assert preference_probability(2.0, 3.0) == pytest.approx(1 - 0.7310585786)
    assert preference_probability(1e6, -1e6) == 1.0
    assert preference_probability(-1e6, 1e6) == 0.0
