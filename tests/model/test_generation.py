"""One pass gives what encoding everything again gives; alone gives what a batch gives.

All in float32, where the two ways differ by the order of sums only: a few 1e-7 here, 1e-5 asked."""

import numpy as np
import pytest
import torch
from tests.conftest import build_micro, noise_clip

from descore.model.generation import SeededSampling, score_chains, think_and_score

TOLERANCE = 1e-5
CLIPS = [
    noise_clip(0),
    noise_clip(1, frames=6, width=64, height=48),
    noise_clip(2, frames=1),
    noise_clip(3, frames=5, width=48),
]
PROMPTS = ["a red ball", "a long prompt in two scripts, 漢字 and Latin: " + "and then " * 9, "?", "x" * 50]
GREEDY = {"limit": 24}
# Hot enough that some chains end by themselves early, some late, and some reach the limit.
SAMPLED = {"limit": 150, "temperature": 2.0, "samples": 3, "seeds": [1, 2, 3, 4]}


def inputs_of(model, which):
    return model.chat.lay_out_prompts([CLIPS[i] for i in which], [PROMPTS[i] for i in which])


def rewards_of(completion):
    """(K,): exactly the float32 numbers of the head."""
    return torch.tensor(list(completion.rewards.values()))


@pytest.fixture(scope="module")
def batch(micro):
    return think_and_score(micro, inputs_of(micro, range(4)), **SAMPLED)


def test_sampled_chains_end_at_unlike_lengths(batch):
    lengths = {c.num_tokens for row in batch for c in row}
    assert len(lengths) > 3
    assert any(c.truncated for row in batch for c in row)
    assert not all(c.truncated for row in batch for c in row)


@pytest.mark.parametrize("how", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_one_pass_equals_encoding_again(micro, how):
    prompts = inputs_of(micro, range(4))
    completions = think_and_score(micro, prompts, **how)
    for sample in range(len(completions[0])):
        chains = [row[sample].token_ids for row in completions]
        one_pass = torch.tensor([list(row[sample].rewards.values()) for row in completions])
        torch.testing.assert_close(one_pass, score_chains(micro, prompts, chains), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("i", range(4))
def test_alone_equals_in_a_batch(micro, batch, i):
    [alone] = think_and_score(micro, inputs_of(micro, [i]), **{**SAMPLED, "seeds": [SAMPLED["seeds"][i]]})
    assert [c.token_ids for c in alone] == [c.token_ids for c in batch[i]]
    for mine, theirs in zip(alone, batch[i], strict=True):
        torch.testing.assert_close(rewards_of(mine), rewards_of(theirs), atol=TOLERANCE, rtol=0)


def test_samples_equal_the_same_chains_scored_one_by_one(micro, batch):
    for i, row in enumerate(batch):
        prompt = inputs_of(micro, [i])
        for completion in row:
            again = score_chains(micro, prompt, [completion.token_ids])[0]
            torch.testing.assert_close(rewards_of(completion), again, atol=TOLERANCE, rtol=0)


def test_a_sample_does_not_depend_on_how_many_are_drawn(micro, batch):
    [two] = think_and_score(micro, inputs_of(micro, [0]), **{**SAMPLED, "samples": 2, "seeds": [1]})
    assert [c.token_ids for c in two] == [c.token_ids for c in batch[0][:2]]


def test_the_same_seed_again_and_another_seed(micro, batch):
    again = think_and_score(micro, inputs_of(micro, range(4)), **SAMPLED)
    assert [[c.token_ids for c in row] for row in again] == [[c.token_ids for c in row] for row in batch]
    other = think_and_score(micro, inputs_of(micro, range(4)), **{**SAMPLED, "seeds": [9, 9, 9, 9]})
    for these, those in zip(other, batch, strict=True):
        assert all(a.token_ids != b.token_ids for a, b in zip(these, those, strict=True))


def test_greedy_is_transformers_own_greedy(micro):
    """An independent way: transformers' generate on the whole prompt, its own prefill and positions."""
    prompts = inputs_of(micro, [1])
    forbidden = [*micro.chat.forbidden_ids, *range(len(micro.chat.tokenizer), 320)]
    out = micro.backbone.generate(**prompts, do_sample=False, max_new_tokens=24, suppress_tokens=forbidden)
    [[completion]] = think_and_score(micro, prompts, **GREEDY)
    assert completion.token_ids[:24] == out[0, prompts["input_ids"].shape[1] :].tolist()


def test_a_backbones_own_generation_settings_do_not_leak_in(micro):
    """Qwen3-VL ships settings for chatting; judging has its own."""
    from transformers import GenerationConfig

    model = build_micro()
    chatty = {"do_sample": True, "temperature": 0.7, "top_k": 1, "top_p": 0.1, "repetition_penalty": 3.0}
    model.backbone.generation_config = GenerationConfig(**chatty, eos_token_id=[5, 6, 7])
    for how in (GREEDY, SAMPLED):
        mine = think_and_score(model, inputs_of(model, range(4)), **how)
        theirs = think_and_score(micro, inputs_of(micro, range(4)), **how)
        assert [[c.token_ids for c in row] for row in mine] == [[c.token_ids for c in row] for row in theirs]


def test_a_chain_that_hits_the_limit_is_ended_scored_and_flagged(micro):
    [[completion]] = think_and_score(micro, inputs_of(micro, [0]), limit=5)
    assert completion.truncated
    assert completion.num_tokens == 6
    assert completion.token_ids[-1] == micro.chat.end_id
    assert torch.isfinite(rewards_of(completion)).all()


def test_forbidden_tokens_are_never_sampled(micro, batch):
    forbidden = {*micro.chat.forbidden_ids, *range(len(micro.chat.tokenizer), 320)}
    assert micro.chat.query_id in forbidden
    assert not forbidden & {token for row in batch for c in row for token in c.token_ids}


def test_even_a_model_that_wants_the_query_cannot_write_it():
    """With the query's output row made the loudest, an unguarded model would write nothing else."""
    model = build_micro()
    weight = model.backbone.get_output_embeddings().weight
    with torch.no_grad():
        weight[model.chat.query_id] = 100 * weight[5]
    [[completion]] = think_and_score(model, inputs_of(model, [0]), **GREEDY)
    assert model.chat.query_id not in completion.token_ids


def test_named_dimensions_come_one_each():
    model = build_micro(dimensions=("quality", "motion", "alignment"))
    [[completion]] = think_and_score(model, inputs_of(model, [0]), **GREEDY)
    assert rewards_of(completion).shape == (3,)
    assert rewards_of(completion).unique().numel() == 3


def test_inverse_transform_sampling_by_hand():
    """p = (0.2, 0.3, 0, 0.5), cumulative (0.2, 0.5, 0.5, 1): u = 0.1 draws 0; 0.2 and 0.49 draw 1; 0.5 draws 3.

    The third token is forbidden (minus infinity), so no number may draw it."""
    logits = torch.tensor([0.2, 0.3, 0.0, 0.5]).log()
    uniform = np.array([[0.1], [0.49], [0.51], [0.999999]])
    draw = SeededSampling(uniform, temperature=1.0, start=7)
    out = draw(torch.zeros(4, 7, dtype=torch.long), logits.expand(4, 4))
    assert out.argmax(dim=1).tolist() == [0, 1, 3, 3]
    assert torch.isinf(out).sum() == 12


def test_sampling_follows_the_distribution():
    """20,000 draws from (0.2, 0.3, 0, 0.5): a standard error is below 0.0036; four of them are allowed."""
    logits = torch.tensor([0.2, 0.3, 0.0, 0.5]).log().expand(20_000, 4)
    uniform = np.random.default_rng(0).random((20_000, 1))
    drawn = SeededSampling(uniform, temperature=1.0, start=0)(torch.zeros(20_000, 0), logits).argmax(dim=1)
    share = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(share, torch.tensor([0.2, 0.3, 0.0, 0.5]), atol=0.0144, rtol=0)
