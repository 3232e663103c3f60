"""Losses by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from descore.training.losses import (
    bradley_terry,
    bradley_terry_margin,
    bradley_terry_ties,
    next_token_sum,
    rating_regression,
)


def drawn(shape, *, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_equal_rewards_cost_log_2():
    assert bradley_terry(torch.zeros(3), torch.ones(3)).item() == pytest.approx(math.log(2))


def test_bradley_terry_by_hand():
    """Margins 1 and -2: -log sigmoid(1) = log(1 + e^-1) = 0.31326; -log sigmoid(-2) = log(1 + e^2) = 2.12693."""
    loss = bradley_terry(torch.tensor([1.0, -2.0]), torch.ones(2))
    assert loss.item() == pytest.approx((0.31326169 + 2.12692801) / 2, rel=1e-6)


def test_ties_carry_no_weight():
    alone = bradley_terry(torch.tensor([1.0]), torch.ones(1))
    with_ties = bradley_terry(torch.tensor([1.0, 7.0, -3.0]), torch.tensor([True, False, False]))
    assert alone.item() == with_ties.item()


def test_only_ties_cost_nothing_and_move_nothing():
    margin = torch.ones(2, requires_grad=True)
    loss = bradley_terry(margin, torch.zeros(2))
    loss.backward()
    assert loss.item() == 0
    assert margin.grad.tolist() == [0, 0]


def test_the_gradient_is_minus_the_probability_of_being_wrong():
    """d/dm -log sigmoid(m) = -sigmoid(-m): for m = 0.7, -1 / (1 + e^0.7) = -0.331812."""
    margin = torch.tensor([0.7], requires_grad=True)
    bradley_terry(margin, torch.ones(1)).backward()
    assert margin.grad.item() == pytest.approx(-1 / (1 + math.exp(0.7)))


def test_large_margins_do_not_overflow():
    assert bradley_terry(torch.tensor([-1e4]), torch.ones(1)).item() == pytest.approx(1e4)


def test_next_token_by_hand():
    """Uniform over 4 costs log 4; certainty costs nothing; the mean of both is half of log 4."""
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]])
    assert next_token_sum(logits, torch.tensor([2, 0])).item() == pytest.approx(math.log(4))


def test_the_sum_is_the_mean_times_what_is_decided():
    margin, decided = torch.tensor([1.0, -2.0, 9.0]), torch.tensor([True, True, False])
    total = bradley_terry(margin, decided, reduction="sum")
    assert total.item() == pytest.approx(2 * bradley_terry(margin, decided).item())


def test_bradley_terry_by_scipy():
    """-log of the logistic distribution's own cumulative function, pair by pair and dimension by dimension."""
    margin, decided = drawn((20, 3)), drawn((20, 3)) > 0
    expected = -logistic.logcdf(margin.numpy())[decided.numpy()].mean()
    assert bradley_terry(margin, decided).item() == pytest.approx(expected, rel=1e-6)


def ties(difference, preference, *, k=5.0):
    found = bradley_terry_ties(torch.tensor([difference]), torch.tensor([preference]), torch.tensor([True]), k=k)
    return found.item()


def test_equal_rewards_tie_four_times_in_six():
    """k = 5, d = 0: sigmoid(-log 5) = 1 / (1 + 5) = 1/6 for a and for b; (25 - 1) / 36 = 4/6 for a tie."""
    assert ties(0.0, 1) == ties(0.0, -1) == pytest.approx(math.log(6), rel=1e-6)
    assert ties(0.0, 0) == pytest.approx(math.log(6 / 4), rel=1e-6)


def test_a_difference_of_log_k_by_hand():
    """d = log 5: sigmoid(0) = 1/2 for a; sigmoid(-2 log 5) = 1/26 for b; 24 · 1/2 · 1/26 = 12/26 for a tie."""
    assert ties(math.log(5), 1) == pytest.approx(math.log(2), rel=1e-6)
    assert ties(math.log(5), -1) == pytest.approx(math.log(26), rel=1e-6)
    assert ties(math.log(5), 0) == pytest.approx(math.log(26 / 12), rel=1e-6)


@pytest.mark.parametrize("k", [1.01, 2.0, 5.0, 100.0])
@pytest.mark.parametrize("difference", [-7.0, -0.3, 0.0, 2.0])
def test_a_pair_is_a_or_b_or_a_tie(difference, k):
    assert sum(math.exp(-ties(difference, p, k=k)) for p in (1, -1, 0)) == pytest.approx(1, rel=1e-5)


def test_ties_by_strengths():
    """Rao and Kupper's own form, of strengths exp(r): a wins with a / (a + k b), b with b / (b + k a)."""
    a, b = drawn((50, 2)), drawn((50, 2), seed=1)
    preference, labelled = (drawn((50, 2), seed=2) * 2).round().clamp(-1, 1), drawn((50, 2), seed=3) > -1
    strong_a, strong_b, k = np.exp(a.double().numpy()), np.exp(b.double().numpy()), 3.0
    wins_a, wins_b = strong_a / (strong_a + k * strong_b), strong_b / (strong_b + k * strong_a)
    said = np.select([preference.numpy() > 0, preference.numpy() < 0], [wins_a, wins_b], 1 - wins_a - wins_b)
    expected = -np.log(said)[labelled.numpy()].mean()
    assert bradley_terry_ties(a - b, preference, labelled, k=k).item() == pytest.approx(expected, rel=1e-5)


def test_with_a_threshold_near_1_only_bradley_terry_is_left():
    difference, preference = torch.tensor([1.0, -2.0]), torch.tensor([1, -1])
    found = bradley_terry_ties(difference, preference, torch.ones(2), k=1 + 1e-6)
    assert found.item() == pytest.approx(bradley_terry(difference * preference, torch.ones(2)).item(), rel=1e-5)


def test_a_tie_pulls_rewards_together_and_equal_ones_rest():
    difference = torch.tensor([2.0, -2.0, 0.0], requires_grad=True)
    bradley_terry_ties(difference, torch.zeros(3), torch.ones(3), reduction="sum").backward()
    apart, under, equal = difference.grad.tolist()
    assert apart == -under > 0
    assert equal == pytest.approx(0, abs=1e-7)


def test_a_margin_by_hand():
    """Chosen 2 above rejected, margin 1: log(1 + e^-1) = 0.31326; as much above as the margin asks costs log 2."""
    one = torch.ones(1)
    assert bradley_terry_margin(2 * one, one, one).item() == pytest.approx(0.31326169)
    assert bradley_terry_margin(one, one, one).item() == pytest.approx(math.log(2))


def test_no_margin_is_bradley_terry():
    difference, decided = drawn((9, 2)), drawn((9, 2), seed=1) > 0
    assert bradley_terry_margin(difference, torch.zeros(9, 2), decided) == bradley_terry(difference, decided)


def test_regression_by_hand():
    """(1 - 0)² = 1 and (3 - 5)² = 4; the third is not rated: 5 / 2."""
    reward, rating = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0.0, 5.0, float("nan")])
    assert rating_regression(reward, rating, torch.tensor([True, True, False])).item() == 2.5


def test_regression_is_a_variance_where_rewards_are_all_the_mean():
    rating = drawn((40, 2))
    reward = torch.full_like(rating, rating.mean().item())
    assert rating_regression(reward, rating, torch.ones(40, 2)).item() == pytest.approx(
        np.var(rating.numpy()), rel=1e-5
    )


LOSSES = {
    "bradley_terry": lambda x, mask: bradley_terry(x, mask),
    "ties": lambda x, mask: bradley_terry_ties(x, torch.tensor([[1, -1], [0, 0]]), mask),
    "margin": lambda x, mask: bradley_terry_margin(x, torch.tensor([[0.5, 0.0], [1.0, 2.0]]).to(x.dtype), mask),
    "regression": lambda x, mask: rating_regression(x, torch.tensor([[0.5, 0.0], [1.0, 2.0]]).to(x.dtype), mask),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestEveryLoss:
    def test_its_gradient_is_that_of_small_differences(self, loss):
        x = drawn((2, 2)).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor([[1, 1], [1, 0]])), x)

    def test_without_a_label_it_is_0_and_moves_nothing(self, loss):
        x = drawn((2, 2)).requires_grad_()
        found = loss(x, torch.zeros(2, 2, dtype=torch.bool))
        found.backward()
        assert found.item() == 0
        assert x.grad.tolist() == [[0, 0], [0, 0]]

    def test_what_stands_where_there_is_no_label_is_not_looked_at(self, loss):
        labelled = torch.tensor([[True, False], [True, True]])
        x, other = drawn((2, 2)), drawn((2, 2))
        other[0, 1] = float("nan")
        other.requires_grad_()
        found = loss(other, labelled)
        found.backward()
        assert found.item() == loss(x, labelled).item()
        assert other.grad.isfinite().all()

    def test_half_precision_is_computed_in_float32(self, loss):
        x, mask = drawn((2, 2)).bfloat16(), torch.ones(2, 2)
        assert loss(x, mask).dtype == torch.float32
        assert loss(x, mask) == loss(x.float(), mask)

    def test_large_rewards_do_not_overflow(self, loss):
        assert loss(torch.tensor([[1e4, -1e4], [1e4, -1e4]]), torch.ones(2, 2)).isfinite()
