"""One pass gives what encoding everything again gives; alone gives what a batch gives.

All in float32, where the two ways differ by the order of sums only: a few 1e-7 here, 1e-5 asked."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.conftest import build_micro, noise_clip
from transformers.cache_utils import DynamicCache

from descore.model.generation import (
    SHARED_PREFIX,
    ChainWriter,
    SharedPrefixCache,
    attend_shared_prefix,
    attending_by,
    sample_token_ids,
    score_chains,
    think_and_score,
)
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.models import set_trainable

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


@pytest.fixture(scope="module")
def adapters():
    """The micro model with adapters on its language model that change what it writes."""
    model = build_micro()
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=4, lora_alpha=8)), precision=torch.float32)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.backbone.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.1)
    return model.eval()


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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

    The third token is forbidden (minus infinity), so no number may draw it, nor a fifth, forbidden one behind all."""
    logits = torch.tensor([0.2, 0.3, 0.0, 0.5, 0.0]).log()
    uniform = torch.tensor([[0.1], [0.49], [0.51], [0.999999], [0.0], [1 - 2**-53]], dtype=torch.float64)
    drawn = sample_token_ids(logits.expand(6, 5), uniform, temperature=1.0)
    assert drawn.tolist() == [0, 1, 3, 3, 0, 3]
    front = sample_token_ids(logits[[2, 3, 4]].expand(6, 3), uniform, temperature=1.0)
    assert front.tolist() == [1] * 6


def test_sampling_follows_the_distribution():
    """20,000 draws from (0.2, 0.3, 0, 0.5): a standard error is below 0.0036; four of them are allowed."""
    logits = torch.tensor([0.2, 0.3, 0.0, 0.5]).log().expand(20_000, 4)
    uniform = torch.from_numpy(np.random.default_rng(0).random((20_000, 1)))
    share = torch.bincount(sample_token_ids(logits, uniform, temperature=1.0), minlength=4) / 20_000
    torch.testing.assert_close(share, torch.tensor([0.2, 0.3, 0.0, 0.5]), atol=0.0144, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "temperature"), [(320, 1.0), (40_000, 0.7), (40_000, 2.0)])
def test_sampling_draws_what_all_in_float64_draws(vocabulary, temperature):
    """A weight in float32 is off by 1e-7 of itself, so of 500 draws fewer than one in 1,000 is another's neighbour."""
    torch.manual_seed(0)
    logits = 4 * torch.randn(500, vocabulary)
    logits[:, ::3] = -torch.inf
    uniform = torch.rand(500, 1, dtype=torch.float64)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    expected = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    assert (sample_token_ids(logits, uniform, temperature=temperature) != expected).sum() <= 1


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-30, 1e-6])
def test_towards_temperature_0_it_is_the_likeliest(temperature):
    logits = torch.tensor([[0.1, 3.0, -torch.inf, 2.9], [5.0, -9.0, 4.0, -torch.inf]])
    for number in (0.0, 0.5, 0.999):
        uniform = torch.full((2, 1), number, dtype=torch.float64)
        assert sample_token_ids(logits, uniform, temperature=temperature).tolist() == [1, 0]


SHARED = [(1, [0]), (2, [0, 1, 2, 3]), (5, [1, 3]), (32, [2])]
"""Samples, and which prompts: alone, in a batch of unlike lengths, many rows of one."""


@pytest.mark.parametrize(("samples", "which"), SHARED, ids=str)
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapters"])
def test_a_shared_prefix_reads_what_encoding_again_reads(micro, adapters, samples, which, adapted):
    model = adapters if adapted else micro
    prompts = inputs_of(model, which)
    rows = think_and_score(model, prompts, limit=80, samples=samples, temperature=2.0, seeds=which)
    for sample in range(samples):
        again = score_chains(model, prompts, [row[sample].token_ids for row in rows])
        one_pass = torch.stack([rewards_of(row[sample]) for row in rows])
        torch.testing.assert_close(one_pass, again, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapters"])
def test_greedy_chains_of_a_batch_are_those_of_transformers(micro, adapters, adapted):
    """Unlike lengths, over more than one room of own columns, each prompt alone by generate."""
    model = adapters if adapted else micro
    forbidden = [*model.chat.forbidden_ids, *range(len(model.chat.tokenizer), 320)]
    for row, i in zip(think_and_score(model, inputs_of(model, range(4)), limit=70, samples=2), range(4), strict=True):
        prompts = inputs_of(model, [i])
        out = model.backbone.generate(**prompts, do_sample=False, max_new_tokens=70, suppress_tokens=forbidden)
        written = out[0, prompts["input_ids"].shape[1] :].tolist()
        assert [c.token_ids[:70] for c in row] == [written, written]


ALL_END = {"limit": 340, "temperature": 5.0, "samples": 2, "seeds": [1, 4, 3, 3]}
"""The chains of two prompts end long before the others."""


@pytest.fixture(scope="module")
def all_end(micro):
    """Completions, rows left each time that some left, and columns of the steps."""
    kept, steps, keep, step = [], [], SharedPrefixCache.keep, ChainWriter._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedPrefixCache, "keep", lambda *args: (kept.append(len(args[2])), keep(*args)))
        patch.setattr(ChainWriter, "_step", lambda self, column: (steps.append(column), step(self, column)))
        return think_and_score(micro, inputs_of(micro, range(4)), **ALL_END), kept, steps


@pytest.mark.slow
def test_rows_that_are_done_leave_and_nothing_changes(micro, all_end, monkeypatch):
    """A row leaves when at most half of the places are needed; the chains and rewards are those of rows that stay."""
    leaving, kept, _ = all_end
    assert len(kept) > 1
    assert all(after <= before / 2 for before, after in pairwise([8, *kept]))
    monkeypatch.setattr(ChainWriter, "_fewer_rows", lambda *_: None)
    for mine, theirs in zip(think_and_score(micro, inputs_of(micro, range(4)), **ALL_END), leaving, strict=True):
        assert [c.token_ids for c in mine] == [c.token_ids for c in theirs]
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(rewards_of(a), rewards_of(b), atol=TOLERANCE, rtol=0)


def test_rewards_of_rows_that_left_are_those_of_encoding_again(micro, all_end):
    for sample in range(2):
        chains = [row[sample].token_ids for row in all_end[0]]
        one_pass = torch.stack([rewards_of(row[sample]) for row in all_end[0]])
        again = score_chains(micro, inputs_of(micro, range(4)), chains)
        torch.testing.assert_close(one_pass, again, atol=TOLERANCE, rtol=0)


def test_writing_stops_when_all_rows_are_done(all_end):
    """As many steps as the longest chain has tokens before its end of turn."""
    rows, _, steps = all_end
    assert steps == list(range(max(c.num_tokens for row in rows for c in row) - 1))
    assert not any(c.truncated for row in rows for c in row)


def test_a_prompts_keys_are_kept_once_however_many_chains(micro):
    """8 chains of 20 tokens have a room of 64 columns each and no copy of the prompt's; a room of 128 from 63 on."""
    prompts = inputs_of(micro, [1])
    length = prompts["input_ids"].shape[1]
    for limit, room in ((20, 64), (62, 64), (63, 128)):
        writer = ChainWriter(micro, prompts, samples=8, temperature=0.0, uniform_RN=np.zeros((8, limit + 1)))
        with torch.inference_mode():
            writer.write()
        for layer in writer.cache.layers:
            assert layer.prompt_keys.shape == layer.prompt_values.shape == (1, 1, length, 64)
            assert layer.keys.shape == layer.values.shape == (8, 1, room, 64)


def test_attention_with_shared_keys_equals_the_plain_formula():
    """Two prompts, one with padding, three rows each, two heads of queries for each of keys, two columns a step."""
    torch.manual_seed(0)
    prefill = DynamicCache()
    prompt_keys, prompt_values = torch.randn(2, 2, 2, 5, 8)
    prefill.update(prompt_keys, prompt_values, 0)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    cache = SharedPrefixCache(prefill, mask, samples=3)
    own_keys, own_values = torch.randn(2, 6, 2, 4, 8)
    query = torch.randn(6, 2, 4, 8).transpose(1, 2)  # as projections give it
    cache.write_at(0, count=4)
    keys, values = cache.update(own_keys, own_values, 0)
    visible = torch.zeros(6, 1, 2, 64, dtype=torch.bool)
    visible[:, :, 0, :3] = visible[:, :, 1, :4] = True
    bias = torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)
    module = torch.nn.Module()
    module.layer_idx = 0
    out, _ = attend_shared_prefix(module, query, keys, values, bias, scaling=0.3, shared_prefix=cache)
    for row in range(6):
        for head in range(4):
            for column in range(2):
                b, g = row // 3, head // 2
                k = torch.cat([prompt_keys[b, g][mask[b] == 1], own_keys[row, g, : 3 + column]])
                v = torch.cat([prompt_values[b, g][mask[b] == 1], own_values[row, g, : 3 + column]])
                expected = (0.3 * query[row, head, column] @ k.T).softmax(dim=0) @ v
                torch.testing.assert_close(out[row, column, head], expected, atol=TOLERANCE, rtol=0)


def test_a_model_is_left_with_its_own_attention(micro, monkeypatch):
    config = micro.backbone.config.get_text_config()
    think_and_score(micro, inputs_of(micro, [0]), **GREEDY)
    assert config._attn_implementation == "sdpa"
    monkeypatch.setattr(ChainWriter, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        think_and_score(micro, inputs_of(micro, [0]), **GREEDY)
    assert config._attn_implementation == "sdpa"


def test_a_forward_beside_the_writing_is_the_plain_one(micro):
    """Another thread may score while chains are written."""
    prompts = inputs_of(micro, [0, 1])
    chains = [[100, 120, micro.chat.end_id], [130, micro.chat.end_id]]
    plain = score_chains(micro, prompts, chains)
    with attending_by(micro.backbone, SHARED_PREFIX):
        assert torch.equal(score_chains(micro, prompts, chains), plain)
