"""Win rates of a group."""

import math

import numpy as np
import pytest
import torch

from descore.errors import ConfigError
from descore.rewards import win_rates
from descore.types import preference_probability


def test_win_rates_of_two_are_bradley_terry():
    # sigmoid(log 3) = 3 / (1 + 3)
    assert win_rates([math.log(3), 0.0]).tolist() == pytest.approx([0.75, 0.25])


def test_win_rates_are_the_mean_over_the_others():
    rates = win_rates(torch.tensor([math.log(3), 0.0, 0.0]))
    assert rates.dtype == torch.float32
    assert rates.tolist() == pytest.approx([0.75, (0.25 + 0.5) / 2, (0.25 + 0.5) / 2])
    assert float(rates.mean()) == pytest.approx(0.5)


def test_groups_are_compared_within_themselves():
    rates = win_rates([math.log(3), 100.0, 0.0, 100.0], groups=["a", "b", "a", "b"])
    assert rates.tolist() == pytest.approx([0.75, 0.5, 0.25, 0.5])


def test_a_failed_clip_has_no_rate_and_beats_nobody():
    rates = win_rates([math.log(3), math.nan, 0.0]).tolist()
    assert rates[::2] == pytest.approx([0.75, 0.25])
    assert math.isnan(rates[1])


def test_a_clip_alone_has_no_rate():
    assert torch.isnan(win_rates([1.0, 2.0, 3.0], groups=[0, 1, 1]))[0]
    assert win_rates([]).shape == (0,)


def test_spread_widens_as_the_integral_says():
    # E sigmoid(x), x normal with mean 1.5 and variance .8^2 + .6^2 = 1, by a fine sum.
    x = np.linspace(1.5 - 10, 1.5 + 10, 200_001)
    density = np.exp(-((x - 1.5) ** 2) / 2) / math.sqrt(2 * math.pi)
    exact = float((density / (1 + np.exp(-x))).sum() * (x[1] - x[0]))
    widened = win_rates([1.5, 0.0], [0.8, 0.6])
    assert widened.tolist() == pytest.approx([exact, 1 - exact], abs=0.005)  # MacKay's approximation
    assert abs(preference_probability(1.5, 0.0) - exact) > 0.02  # without the spread it is further off


def test_an_unknown_deviation_counts_as_none():
    assert win_rates([1.0, 0.0], [math.nan, math.nan]).equal(win_rates([1.0, 0.0]))


def test_a_sure_difference_does_not_overflow():
    assert win_rates([1e6, -1e6]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": [1.0]}, "2 rewards, but 1 in std"),
        ({"groups": ["a"]}, "2 rewards, but 1 in groups"),
        ({"std": [-1.0, 0.0]}, "std is -1, expected a standard deviation of 0 or more"),
    ],
)
def test_lists_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        win_rates([1.0, 0.0], **options)


def test_an_unknown_name_lists_the_known():
    import descore.rewards

    with pytest.raises(AttributeError, match=r"it has .*win_rates"):
        descore.rewards.win_rate  # noqa: B018


@pytest.mark.parametrize(
    "groups", [torch.tensor([0, 0, 1, 1]), np.array([0, 0, 1, 1]), list(torch.tensor([0, 0, 1, 1]))]
)
def test_groups_may_be_a_tensor(groups):
    rates = win_rates([math.log(3), 0.0, 0.0, 0.0], groups=groups)
    assert rates.tolist() == pytest.approx([0.75, 0.25, 0.5, 0.5])


def test_none_is_not_known_as_in_a_scored_row():
    rates = win_rates([math.log(3), None, 0.0], [None, None, 0.0]).tolist()
    assert rates[::2] == pytest.approx([0.75, 0.25])
    assert math.isnan(rates[1])


def test_a_deviation_beyond_all_bounds_is_one_half():
    assert win_rates([1.0, 2.0], [1e200, 1.0]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("rewards", [torch.ones(2, 2), ["a", "b"], "12", 5, {1: 2}, [[1], [2]], None])
def test_rewards_that_are_no_list_of_numbers_are_one_line(rewards):
    with pytest.raises(ConfigError, match=r"^rewards: found .*; expected a list of numbers, one for each clip$"):
        win_rates(rewards)


@pytest.mark.parametrize("groups", [[["a"], ["a"]], torch.ones(2, 2), 5])
def test_groups_without_equality_are_one_line(groups):
    with pytest.raises(ConfigError, match=r"^groups: found .*expected a name or number for each clip$"):
        win_rates([1.0, 2.0], groups=groups)
