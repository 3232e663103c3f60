"""The loss in pieces is the plain one, in value and gradient, and never asks for more logits than it says."""

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from torch.nn import functional

from descore.training import losses
from descore.training.collate import ChainCollator
from descore.training.examples import ChainExample
from descore.training.losses import chain_loss, in_pieces


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
    loss, right = in_pieces(hidden, target, output=output, piece=piece)
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

    loss, _ = in_pieces(hidden, target, output=watched, piece=4)
    assert sizes == [4, 4, 4, 1]
    loss.backward()
    assert sorted(sizes) == [1, 1, 4, 4, 4, 4, 4, 4]  # each is made again in the backward pass

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        in_pieces(hidden, target, output=output, piece=4)
    assert not [shape for shape in kept if shape[-1:] == (50,)]  # and none is kept for it


def test_no_chain_at_all_costs_nothing():
    hidden, target, output = states(2)
    loss, right = in_pieces(hidden[:0], target[:0], output=output, piece=4)
    assert loss == 0
    assert right == 0


def test_a_model_learns_the_same_in_pieces(monkeypatch):
    model = build_micro()
    examples = [ChainExample(clip=noise_clip(i, frames=2), prompt="p", chain="a ball " * (i + 1)) for i in range(2)]
    batch = ChainCollator(model.chat)(examples)

    def gradients():
        model.zero_grad()
        loss = chain_loss(model, batch, model.hidden(batch))
        loss.backward()
        return loss.detach(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}

    whole, expected = gradients()
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * 320)  # three tokens of the micro model's vocabulary
    pieces, found = gradients()
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
