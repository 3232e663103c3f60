"""Losses by hand."""

import math

import pytest
import torch

from descore.maths.losses import bradley_terry, next_token_sum


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
