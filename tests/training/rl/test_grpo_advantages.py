"""Advantages by hand, and by loops in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from descore.training.losses import equal_groups, group_advantages

REWARD = st.sampled_from([0.0, 0.1, 0.35, 0.7, 1.0, math.nan])
GROUP = st.lists(st.tuples(REWARD, st.booleans()), min_size=4, max_size=4)


def test_by_hand():
    """Rewards 1 2 3 6: mean 3, squares 4 + 1 + 0 + 9 = 14, deviation √(14 / 3) = 2.160247."""
    found = group_advantages(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    assert found.tolist()[0] == pytest.approx([-2 / 2.160247, -1 / 2.160247, 0, 3 / 2.160247], rel=1e-5)


def test_two_chains_are_one_over_root_2_apart_from_the_mean():
    """Rewards 0 and d: mean d / 2, deviation √(2 (d / 2)²) = d / √2, so whatever d is, ±1 / √2, but for epsilon."""
    found = group_advantages(torch.tensor([[0.0, 0.4], [1.0, 0.0]]))
    assert (found * math.sqrt(2)).flatten().tolist() == pytest.approx([-1, 1, 1, -1], rel=1e-5)


def test_without_scale_only_the_mean_is_taken_off():
    assert group_advantages(torch.tensor([[1.0, 2.0, 6.0]]), scale="none").tolist() == [[-2, -1, 3]]


def test_a_large_epsilon_holds_small_differences_down():
    """Deviation √2 · 0.5: 0.5 / (0.707107 + 1) = 0.292893."""
    assert group_advantages(torch.tensor([[0.0, 1.0]]), epsilon=1.0)[0, 1].item() == pytest.approx(0.292893, rel=1e-5)


def test_a_chain_that_does_not_count_is_not_there():
    """Of 1, (9), 3 and (nan) two count: as if the group were 1 and 3."""
    reward, counted = torch.tensor([[1.0, 9.0, 3.0, math.nan]]), torch.tensor([[True, False, True, False]])
    found = group_advantages(reward, counted_CG=counted)
    assert found[0, [1, 3]].tolist() == [0, 0]
    assert torch.equal(found[:, [0, 2]], group_advantages(torch.tensor([[1.0, 3.0]])))


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("reward", [0.1, 0.7, 0.85, 1e4])
def test_equal_rewards_have_no_advantage_despite_rounding(reward, scale):
    """The float32 mean of seven times 0.1 is not 0.1, and what is left over would be divided by epsilon."""
    assert group_advantages(torch.full((2, 7), reward), scale=scale).tolist() == [[0] * 7] * 2


def test_equal_groups_by_hand():
    reward = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 2.0], [1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [math.nan] * 3])
    counted = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert equal_groups(reward, counted).tolist() == [True, False, True, True, True]
    assert equal_groups(reward[:2]).tolist() == [True, False]


@given(st.lists(GROUP, min_size=1, max_size=3), st.sampled_from(["group", "none"]))
def test_by_loops(groups, scale):
    reward, counted = (np.array([[chain[i] for chain in group] for group in groups]) for i in (0, 1))
    counted &= ~np.isnan(reward)
    expected = np.zeros(reward.shape)
    for c, g in zip(*np.nonzero(counted), strict=True):
        siblings = reward[c][counted[c]]
        if len(set(siblings)) > 1:
            expected[c, g] = reward[c, g] - np.mean(siblings)
            expected[c, g] /= np.std(siblings, ddof=1) + 1e-6 if scale == "group" else 1
    found = group_advantages(torch.from_numpy(reward), counted_CG=torch.from_numpy(counted), scale=scale)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)  # float64 stays float64


@given(GROUP)
def test_the_advantages_of_a_group_cancel(group):
    reward, counted = (torch.tensor([[chain[i] for chain in group]]) for i in (0, 1))
    counted &= ~reward.isnan()
    assert group_advantages(reward, counted_CG=counted).sum().item() == pytest.approx(0, abs=1e-5)


def test_half_precision_is_computed_in_float32():
    reward = torch.tensor([[0.1, 0.7, 0.3]]).bfloat16()
    assert torch.equal(group_advantages(reward), group_advantages(reward.float()))
