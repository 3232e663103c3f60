"""Next-token loss in pieces is the plain one and never asks for more logits than it says; losses of pairs by loops."""

import math

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from tests.training.pairs import labelled
from torch.nn import functional

from descore.training.collate import MISSING, ChainCollator, PairCollator, TrainingExample, Unreadable
from descore.training.losses import (
    chunked_next_token_sum,
    count_labels,
    model_inputs,
    next_token_loss,
    pair_losses,
)


def states(count):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 16, generator=generator, requires_grad=True)
    output = torch.nn.Linear(16, 50, bias=False)
    return hidden, torch.randint(0, 50, (count,), generator=generator), output


@pytest.mark.parametrize("piece", [1, 3, 7, 12, 13, 100])
def test_pieces_give_the_plain_value_and_gradients(piece):
    hidden, target, output = states(13)
    plain = functional.cross_entropy(output(hidden), target, reduction="sum")
    expected = torch.autograd.grad(plain, [hidden, output.weight])
    loss, right = chunked_next_token_sum(hidden, target, output=output, chunk_size=piece)
    found = torch.autograd.grad(loss, [hidden, output.weight])
    # Sums of up to 13 terms in another order: a few float32 roundings.
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert right == (output(hidden).argmax(dim=-1) == target).sum()


def test_no_more_logits_than_a_piece_exist_at_a_time():
    hidden, target, output = states(13)
    sizes = []

    def watched(piece):
        sizes.append(len(piece))
        return output(piece)

    loss, _ = chunked_next_token_sum(hidden, target, output=watched, chunk_size=4)
    assert sizes == [4, 4, 4, 1]
    loss.backward()
    assert sorted(sizes) == [1, 1, 4, 4, 4, 4, 4, 4]  # each is made again in the backward pass

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        chunked_next_token_sum(hidden, target, output=output, chunk_size=4)
    assert not [shape for shape in kept if shape[-1:] == (50,)]  # and none is kept for it


def test_no_chain_at_all_costs_nothing():
    hidden, target, output = states(2)
    loss, right = chunked_next_token_sum(hidden[:0], target[:0], output=output, chunk_size=4)
    assert loss == 0
    assert right == 0


def test_a_model_learns_the_same_in_chunks():
    model = build_micro()
    examples = [TrainingExample(clip=noise_clip(i, frames=2), prompt="p", chain="a ball " * (i + 1)) for i in range(2)]
    batch = ChainCollator(model.chat)(examples)

    def gradients(max_logits):
        model.zero_grad()
        loss = next_token_loss(model, batch, model.hidden(batch), max_logits=max_logits).loss
        loss.backward()
        return loss.detach(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}

    whole, expected = gradients(None)
    chunked, found = gradients(3 * 320)  # three tokens of the micro model's vocabulary
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


DIMENSIONS = ("VQ", "MQ")
PAIRS = [
    labelled(0, [1, MISSING], rating_a=(4.0, 2.0), rating_b=(1.0, 2.5)),
    labelled(1, [-1, 0], rating_a=(4.0, None), rating_b=(1.0, 3.0)),  # the ratings of VQ contradict
    labelled(2, [0, -1]),
    labelled(3, [MISSING, 1], rating_a=(None, None), rating_b=(5.0, 1.0)),
]


@pytest.fixture(scope="module")
def two():
    """A model of two dimensions. Tests do not change it."""
    return build_micro(dimensions=DIMENSIONS)


@pytest.fixture(scope="module")
def seen(two):
    """Pairs as a batch, their hidden states, and rewards (R, K) as plain numbers."""
    batch = PairCollator(chat=two.chat, chain_drop=0.5, seed=0)(PAIRS)
    hidden = two.hidden(model_inputs(batch))
    return batch, hidden, two.rewards(hidden).tolist()


def labels(rewards):
    """Pair, dimension, label and difference of rewards, of each label."""
    for i, pair in enumerate(PAIRS):
        for k, preference in enumerate(pair.preference_K.tolist()):
            if preference != MISSING:
                yield pair, k, preference, rewards[i][k] - rewards[len(PAIRS) + i][k]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def bradley_terry_by_hand(rewards):
    return [-log_sigmoid(sign * d) for _, _, sign, d in labels(rewards) if sign]


def ties_by_hand(rewards):
    for _, _, sign, d in labels(rewards):
        wins, loses = 1 / (1 + 5 * math.exp(-d)), 1 / (1 + 5 * math.exp(d))
        yield -math.log({1: wins, -1: loses, 0: 1 - wins - loses}[sign])


def margin_by_hand(rewards):
    for pair, k, sign, d in labels(rewards):
        if sign:
            a, b = ((r if r is None else r[k]) for r in (pair.rating_a_K, pair.rating_b_K))
            better = 0 if a is None or math.isnan(a - b) else sign * (a - b)
            yield -log_sigmoid(sign * d - 0.5 * max(better, 0))


def regression_by_hand(rewards):
    for row, ratings in enumerate([p.rating_a_K for p in PAIRS] + [p.rating_b_K for p in PAIRS]):
        for k, rating in enumerate([] if ratings is None else ratings.tolist()):
            if not math.isnan(rating):
                yield (rewards[row][k] - rating) ** 2


KINDS = {
    "bradley-terry": (bradley_terry_by_hand, 4),
    "ties": (ties_by_hand, 6),
    "margin": (margin_by_hand, 4),
    "regression": (regression_by_hand, 9),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_of_pairs_by_a_plain_loop(two, seen, kind):
    batch, hidden, rewards = seen
    by_hand, labelled_so = KINDS[kind]
    expected = list(by_hand(rewards))
    found = pair_losses(two, hidden, batch, kind=kind, margin_scale=0.5)
    assert found.loss.item() == pytest.approx(sum(expected), rel=1e-4)
    assert found.count.item() == count_labels(batch, kind=kind) == len(expected) == labelled_so
    assert found.metrics["pair_loss"].tolist() == [found.loss.item(), labelled_so]


def test_accuracy_and_margin_are_of_decided_pairs(two, seen):
    batch, hidden, rewards = seen
    metrics = pair_losses(two, hidden, batch, kind="ties").metrics
    margins = {name: [s * d for _, k, s, d in labels(rewards) if s and DIMENSIONS[k] == name] for name in DIMENSIONS}
    for name, of_one in margins.items():
        assert metrics[f"pair_accuracy.{name}"].tolist() == [sum(m > 0 for m in of_one), len(of_one)]
    every = margins["VQ"] + margins["MQ"]
    assert metrics["pair_accuracy"].tolist() == [sum(m > 0 for m in every), 4]
    assert metrics["margin"].tolist() == pytest.approx([sum(every), 4], rel=1e-4)


def test_one_dimension_has_no_accuracy_of_its_own(micro):
    batch = PairCollator(chat=micro.chat, chain_drop=0.0, seed=0)([labelled(0, [1])])
    found = pair_losses(micro, micro.hidden(model_inputs(batch)), batch, kind="bradley-terry")
    assert found.metrics.keys() == {"pair_loss", "pair_accuracy", "margin"}


def test_pairs_one_by_one_sum_to_the_batch(two, seen):
    batch, hidden, _ = seen
    collate = PairCollator(chat=two.chat, chain_drop=0.5, seed=0)
    for kind in KINDS:
        alone = [collate([pair]) for pair in PAIRS]
        losses = [pair_losses(two, two.hidden(model_inputs(one)), one, kind=kind).loss for one in alone]
        # Other padding, other order of sums.
        torch.testing.assert_close(sum(losses), pair_losses(two, hidden, batch, kind=kind).loss, atol=1e-3, rtol=1e-4)
        assert sum(count_labels(one, kind=kind) for one in alone) == count_labels(batch, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_costs_nothing_and_has_the_same_metrics(two, seen, kind):
    """Processes add their metrics up: one that has none must not miss a name."""
    on_unreadable = Unreadable(table="t.csv", line=2, video="x.mp4", reason="no such file")
    batch = PairCollator(chat=two.chat, chain_drop=0.5, seed=0)([on_unreadable])
    found = pair_losses(two, torch.zeros(0, 1, two.query.shape[0]), batch, kind=kind)
    assert (found.loss.item(), found.count.item(), count_labels(batch, kind=kind)) == (0, 0, 0)
    assert {name: value.tolist() for name, value in found.metrics.items()} == {
        name: [0, 0] for name in pair_losses(two, seen[1], seen[0], kind=kind).metrics
    }


def test_a_dropped_chain_is_not_imitated(two):
    batch = PairCollator(chat=two.chat, chain_drop=1.0, seed=0)(PAIRS)
    found = next_token_loss(two, batch, two.hidden(model_inputs(batch)))
    assert (found.loss.item(), found.tokens.item()) == (0, 0)


def test_query_and_head_learn_from_a_dimension_that_has_labels(two):
    """All labels of MQ are missing: its row of the head has a gradient of 0."""
    batch = PairCollator(chat=two.chat, chain_drop=0.5, seed=0)([labelled(0, [1, MISSING]), labelled(1, [-1, MISSING])])
    two.zero_grad()
    pair_losses(two, two.hidden(model_inputs(batch)), batch, kind="ties").loss.backward()
    moved = two.head.weight.grad.abs().sum(dim=1)
    assert moved[0] > 0
    assert moved[1] == 0
    assert two.query.grad.abs().sum() > 0
    two.zero_grad()
