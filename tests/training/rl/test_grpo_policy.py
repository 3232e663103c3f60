"""The policy objective by hand, by loops over padded chains in float64, and its gradient by small differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from descore.training.losses import k3, policy_loss, token_weights

LOSS_TYPES = ["dapo", "grpo", "dr_grpo"]
ONE = torch.ones(1)


def drawn(n, *, seed=0, scale=1.0):
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_ratio(ratio, advantage, **epsilons):
    """One token whose probability is `ratio` times what it was: terms, and the loss's slope in its log-probability."""
    log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
    terms = policy_loss(log_prob, torch.zeros(1), torch.tensor([advantage]), weight_N=ONE, **epsilons)
    (slope,) = torch.autograd.grad(terms.loss, log_prob)
    return terms, slope.item()


def test_on_policy_the_gradient_is_the_policy_gradient():
    """Ratio 1: the objective is A, and its derivative A as well, so the loss has -A."""
    terms, slope = at_ratio(1.0, 0.7)
    assert terms.loss.item() == slope == pytest.approx(-0.7)
    assert (terms.clipped.item(), terms.tokens.item()) == (0, 1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "clipped"),
    [
        (1.1, 2.0, 2.2, False),
        (1.5, 2.0, 2.4, True),  # already likelier: held at 1.2
        (0.5, 2.0, 1.0, False),  # a good token became unlikely: it may come back
        (0.5, -2.0, -1.6, True),  # already unlikelier: held at 0.8
        (1.5, -2.0, -3.0, False),  # a bad token became likely: it may go down
    ],
)
def test_a_ratio_is_clipped_only_where_it_has_gone_far_enough(ratio, advantage, objective, clipped):
    """The objective is min(ratio · A, clip(ratio, 0.8, 1.2) · A); where it moves, its derivative is ratio · A."""
    terms, slope = at_ratio(ratio, advantage)
    assert terms.loss.item() == pytest.approx(-objective)
    assert terms.clipped.item() == clipped
    assert slope == pytest.approx(0 if clipped else -ratio * advantage)


def test_a_higher_epsilon_above_leaves_room_to_grow():
    assert at_ratio(1.25, 1.0)[0].clipped.item() == 1
    assert at_ratio(1.25, 1.0, epsilon_high=0.28)[0].clipped.item() == 0
    assert at_ratio(0.75, -1.0, epsilon_high=0.28)[0].clipped.item() == 1


def test_tokens_without_weight_are_not_looked_at():
    log_prob = torch.tensor([-1.0, math.nan, -3.0], requires_grad=True)
    weight = torch.tensor([0.5, 0.0, 0.25])
    terms = policy_loss(log_prob, log_prob.detach(), torch.tensor([1.0, math.nan, -2.0]), weight_N=weight)
    (slope_N,) = torch.autograd.grad(terms.loss, log_prob)
    assert terms.loss.item() == 0  # - 0.5 · 1 + 0.25 · 2
    assert terms.tokens.item() == 2
    assert slope_N.tolist() == [-0.5, 0, 0.5]


def test_without_any_token_the_loss_is_0_and_has_a_gradient_of_0():
    log_prob = torch.ones(2, requires_grad=True)
    terms = policy_loss(log_prob, torch.ones(2), torch.ones(2), weight_N=torch.zeros(2))
    terms.loss.backward()
    assert [terms.loss.item(), terms.clipped.item(), terms.tokens.item()] == [0, 0, 0]
    assert log_prob.grad.tolist() == [0, 0]


def test_the_gradient_is_that_of_small_differences():
    """Ratios from 0.4 to 2.4, on both sides of what is clipped; none of them lies at a corner."""
    log_prob, old = drawn(12, scale=0.3).requires_grad_(), drawn(12, seed=1, scale=0.3)
    advantage, weight = drawn(12, seed=2), drawn(12, seed=3).abs()
    loss = lambda x: policy_loss(x, old, advantage, weight_N=weight).loss  # noqa: E731
    assert 0 < policy_loss(log_prob, old, advantage, weight_N=weight).clipped < 12
    assert torch.autograd.gradcheck(loss, log_prob)
    assert torch.autograd.gradcheck(lambda x: k3(x, old), log_prob)


def test_only_the_policy_that_learns_gets_a_gradient():
    old = torch.zeros(1, requires_grad=True)
    terms = policy_loss(torch.zeros(1, requires_grad=True), old, ONE, weight_N=ONE)
    terms.loss.backward()
    assert old.grad is None


def test_half_precision_is_computed_in_float32():
    log_prob, old, advantage = (drawn(9, seed=seed).bfloat16() for seed in range(3))
    found = policy_loss(log_prob, old, advantage, weight_N=torch.ones(9))
    assert found.loss == policy_loss(log_prob.float(), old.float(), advantage.float(), weight_N=torch.ones(9)).loss
    assert k3(log_prob, old).dtype == torch.float32


def test_weights_by_hand():
    """Lengths 2, 6 and 4, the last does not count: 8 tokens, 2 chains, at most 10 tokens each."""
    length, counted = torch.tensor([2, 6, 4]), torch.tensor([True, True, False])
    expected = {"dapo": [1 / 8, 1 / 8, 0], "grpo": [1 / 4, 1 / 12, 0], "dr_grpo": [1 / 20, 1 / 20, 0]}
    for loss_type, weights in expected.items():
        found = token_weights(length, counted, loss_type=loss_type, max_length=10)
        assert found.tolist() == pytest.approx(weights)


def test_weights_are_those_of_trl_times_the_documented_factor():
    """TRL divides by all 12 tokens, or all 3 chains, of the update; masked chains have no loss, but are counted."""
    length, counted = torch.tensor([2, 6, 4]), torch.tensor([True, True, False])
    trl = {"dapo": [1 / 12, 1 / 12], "grpo": [1 / (3 * 2), 1 / (3 * 6)], "dr_grpo": [1 / (3 * 10)] * 2}
    factor = {"dapo": 12 / 8, "grpo": 3 / 2, "dr_grpo": 3 / 2}
    for loss_type, weights in trl.items():
        ours = token_weights(length, counted, loss_type=loss_type, max_length=10)[:2]
        assert ours.tolist() == pytest.approx([factor[loss_type] * weight for weight in weights])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_without_a_chain_that_counts_nothing_weighs(loss_type):
    found = token_weights(torch.tensor([3, 0]), torch.zeros(2), loss_type=loss_type, max_length=10)
    assert found.tolist() == [0, 0]


def padded_loss(log_prob, old, advantage, mask, counted, loss_type, max_length):
    """The same in float64 over padded chains, each averaged as its paper writes it."""
    term = np.zeros(len(mask))
    size = mask.sum(axis=1)
    for r, t in zip(*np.nonzero(mask), strict=True):
        ratio = np.exp(log_prob[r, t] - old[r, t])
        term[r] += min(ratio * advantage[r], min(max(ratio, 0.8), 1.2) * advantage[r])
    term, size = term[counted], size[counted]
    if loss_type == "dapo":
        return -term.sum() / size.sum()
    return -np.mean(term / size if loss_type == "grpo" else term / max_length)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=6), st.integers(0, 99), st.data())
def test_packs_add_up_to_the_mean_over_padded_chains(loss_type, chains, seed, data):
    """The flat sum over tokens, in two packs cut anywhere, against the average over padded rows."""
    length, counted = torch.tensor([n for n, _ in chains]), torch.tensor([counts for _, counts in chains])
    mask = torch.arange(5) < length[:, None]
    log_prob, old = (drawn((len(chains), 5), seed=seed + i, scale=0.3) for i in (0, 1))
    advantage = drawn(len(chains), seed=seed + 2)
    weight = token_weights(length, counted, loss_type=loss_type, max_length=7)
    flat = [log_prob[mask], old[mask], advantage.repeat_interleave(length), weight.repeat_interleave(length)]
    cut = data.draw(st.integers(0, len(flat[0])))
    packs = [[values[part] for values in flat] for part in (slice(cut), slice(cut, None))]
    found = [policy_loss(new, old, advantage, weight_N=weight) for new, old, advantage, weight in packs]
    expected = 0.0
    if counted.any():
        arrays = (x.numpy() for x in (log_prob, old, advantage, mask, counted))
        expected = padded_loss(*arrays, loss_type, 7)
    assert sum(terms.loss.item() for terms in found) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert sum(terms.tokens.item() for terms in found) == length[counted].sum()


def test_k3_by_hand():
    """The reference gives the token twice the probability, half, and the same: r - log r - 1."""
    found = k3(torch.zeros(3), torch.tensor([2.0, 0.5, 1.0]).log())
    assert found.tolist() == pytest.approx([1 - math.log(2), math.log(2) - 0.5, 0], abs=1e-7)


def test_its_mean_under_the_policy_is_the_divergence():
    """Over all four tokens, each as often as p gives it, the mean is the sum that defines KL(p, reference)."""
    p, reference = (drawn(4, seed=seed).log_softmax(dim=0) for seed in (0, 1))
    expected = sum(p[v].exp() * (p[v] - reference[v]) for v in range(4))
    assert (p.exp() * k3(p, reference)).sum().item() == pytest.approx(expected.item(), rel=1e-12)


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_no_token_is_nearer_than_the_same_policy(a, b):
    assert k3(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)).item() >= 0
