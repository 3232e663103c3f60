"""The parts of a rollout reward by hand; `test_rollout` has their sum."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.rubric import correctness, quality
from descore.training.rl.rollout import length_reward
from descore.types import DIMENSIONS, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}
VERDICT = Verdict(marks=MARKS, overall=3.67)
SOME_MARKS = st.fixed_dictionaries(dict.fromkeys(DIMENSIONS, st.sampled_from([0, 1, 2, None])))


def test_quality_by_hand():
    """dynamics is 2 and style N/A in truth; the other three are right, N/A for the camera among them."""
    assert quality(VERDICT, MARKS) == 1
    assert quality(VERDICT, MARKS | {"dynamics": 2, "style": None}) == pytest.approx(3 / 5)
    assert quality(None, MARKS) == 0


@given(SOME_MARKS, SOME_MARKS)
def test_each_mark_is_a_fifth(said, true):
    found = quality(Verdict(marks=said, overall=3.0), true)
    assert found == pytest.approx(1 - 0.2 * len([name for name in DIMENSIONS if said[name] is not true[name]]))


def test_not_applicable_is_not_wrong():
    said = dict.fromkeys(DIMENSIONS, 0)
    assert quality(Verdict(marks=said, overall=1.0), dict.fromkeys(DIMENSIONS)) == 0


def test_length_by_hand():
    """(1,250 - 500) / 1,500 is a half."""
    tokens = [0, 500, 501, 1250, 2000, 9000]
    assert [length_reward(n) for n in tokens] == [0, 0, pytest.approx(1 / 1500), 0.5, 1, 1]
    assert length_reward(30, none_below=20, full_from=40) == 0.5


def test_a_length_that_pays_lies_above_one_that_does_not():
    with pytest.raises(AssertionError, match="none_below is 40, full_from 40"):
        length_reward(30, none_below=40, full_from=40)


@pytest.mark.parametrize(("overalls", "said"), [((4.0, 2.0), 1), ((2.0, 4.0), -1), ((3.0, 3.0), 0)])
def test_correctness_by_hand(overalls, said):
    """Right 1, one tie of the two 0.5, wrong 0."""
    expected = {0: 1.0, 1: 0.5, 2: 0.0}
    assert [correctness(*overalls, p) for p in (1, 0, -1)] == [expected[abs(said - p)] for p in (1, 0, -1)]


def test_the_order_of_a_pair_does_not_matter_to_correctness():
    for a, b, preference in itertools.product((1.0, 3.0, 5.0), (1.0, 3.0, 5.0), (1, 0, -1)):
        assert correctness(a, b, preference) == correctness(b, a, -preference)
