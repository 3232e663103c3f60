"""What learns, and what the query and the head do."""

import copy

import pytest
import torch
from tests.conftest import build_micro, noise_clip

from descore.training.losses import bradley_terry


@pytest.fixture
def model():
    return build_micro()


def whole_of(model, chain="It rolls."):
    clips = [noise_clip(0), noise_clip(1, frames=6)]
    prompts = model.chat.lay_out_prompts(clips, ["a red ball", "another, longer prompt"])
    return model.chat.lay_out_chains(prompts, [model.chat.encode_chain(chain), model.chat.no_thinking])


def test_exactly_query_and_head_move_when_only_they_learn(model):
    before = copy.deepcopy(model.state_dict())
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    rewards_B = model(whole_of(model))[:, 0]
    bradley_terry(rewards_B[:1] - rewards_B[1:], torch.ones(1)).backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"query", "head.weight"}
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 2 * 64


def test_the_chain_does_not_see_the_query(model):
    """Attention is causal: hidden states in front of the query are the same whatever the query is."""
    whole = whole_of(model)
    before = model.hidden(whole)
    with torch.no_grad():
        model.query.add_(1.0)
    after = model.hidden(whole)
    torch.testing.assert_close(before[:, :-1], after[:, :-1], atol=0, rtol=0)
    assert (before[:, -1] - after[:, -1]).abs().max() > 0.01


def test_the_reward_is_head_times_hidden_state_at_the_query(model):
    whole = whole_of(model)
    weight, query_BD = model.head.weight[0].tolist(), model.hidden(whole)[:, -1].tolist()
    by_hand = [sum(w * h for w, h in zip(weight, row, strict=True)) for row in query_BD]
    torch.testing.assert_close(model(whole)[:, 0], torch.tensor(by_hand), atol=1e-5, rtol=0)


def test_the_head_stays_in_float32_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        assert model(whole_of(model)).dtype == torch.float32


def test_a_copied_model_has_a_query_of_its_own(model):
    """The hook that inserts the query must follow the copy, or a frozen reference would move with its origin."""
    twin = copy.deepcopy(model)
    whole = whole_of(model)
    before = twin(whole)
    with torch.no_grad():
        model.query.add_(1.0)
    assert torch.equal(twin(whole), before)
    with torch.no_grad():
        twin.query.add_(1.0)
    torch.testing.assert_close(twin(whole), model(whole))
