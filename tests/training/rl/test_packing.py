"""A pack gives the log-probabilities, rewards and gradients of its chains' own whole sequences, one by one.

All in float32, where the two ways differ by the order of sums only: a few 1e-7 of the largest value, 1e-5 asked."""

import copy
import dataclasses

import pytest
import torch
from tests import conftest
from tests.conftest import build_micro, noise_clip
from torch.nn.attention.flex_attention import create_mask

from descore.errors import ConfigError
from descore.model.chat import Layout
from descore.model.generation import think_and_score
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.models import set_trainable
from descore.training.rl import packing as packing
from descore.training.rl.packing import forward_pack, pack_groups

TOLERANCE = 1e-5
CLIPS = [noise_clip(0), noise_clip(1, frames=6, width=64, height=48), noise_clip(2, frames=1)]
PROMPTS = ["a red ball", "a long prompt in two scripts, 漢字 and Latin: " + "and then " * 9, "?"]
TEMPERATURE = 0.7


def prompts_of(model, clips=range(2)):
    return model.chat.lay_out_prompts([CLIPS[i] for i in clips], [PROMPTS[i] for i in clips])


def chains_of(model, *groups):
    """Random chains of the lengths that each group says, end of turn included."""
    draw = torch.Generator().manual_seed(0)
    return [
        [[*torch.randint(10, 250, (length - 1,), generator=draw).tolist(), model.chat.end_id] for length in lengths]
        for lengths in groups
    ]


def apart(found, expected):
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


def one_by_one(model, prompts, chains):
    """The slow way, with nothing in common: each chain behind its own prompt, in a forward of its own, and its
    probabilities by plain softmax over the tokens that the tokenizer knows and a chain may hold."""
    patches = prompts["video_grid_thw"].prod(dim=1).tolist()
    pixels = prompts["pixel_values_videos"].split(patches)
    special = {i for i, token in model.chat.tokenizer.added_tokens_decoder.items() if token.special}
    allowed = [i for i in range(len(model.chat.tokenizer)) if i not in special or i == model.chat.end_id]
    log_probs, entropies, rewards = [], [], []
    for row, group in enumerate(chains):
        per_token = ("input_ids", "attention_mask", "mm_token_type_ids")
        alone = {key: prompts[key][row : row + 1] for key in per_token}
        alone |= {"pixel_values_videos": pixels[row], "video_grid_thw": prompts["video_grid_thw"][row : row + 1]}
        for chain in group:
            inputs = model.chat.lay_out_chains(alone, [chain])
            hidden = model.hidden(inputs)
            rewards.append(model.rewards(hidden)[0])
            whole = model.chat.lay_out_chains(alone, [chain], query=False)
            logits = model.backbone.lm_head(model.hidden(whole)[0, -len(chain) - 1 : -1])
            p = (logits[:, allowed] / TEMPERATURE).softmax(dim=-1)
            log_probs += [p[n, allowed.index(token)].log() for n, token in enumerate(chain)]
            entropies += [-(q * q.log()).sum() for q in p]
    return torch.stack(log_probs), torch.stack(entropies).detach(), torch.stack(rewards)


def packed(model, prompts, chains, *, max_logits=None, **budget):
    """The same three of all packs together."""
    outputs = [
        forward_pack(model, pack, temperature=TEMPERATURE, entropy=True, max_logits=max_logits)
        for pack in pack_groups(model, prompts, chains, **budget)
    ]
    return [
        torch.cat([getattr(output, name) for output in outputs]) for name in ("log_prob_N", "entropy_N", "reward_RK")
    ]


def gradients(model, log_prob, reward):
    """Of a sum in which each token and each reward has a weight of its own, so that none can stand for another."""
    draw = torch.Generator().manual_seed(1)
    weigh = [torch.randn(value.shape, generator=draw) for value in (log_prob, reward)]
    model.zero_grad()
    ((log_prob * weigh[0]).sum() + (reward * weigh[1]).sum()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def agree(model, prompts, chains, **options):
    """Values and gradients of the two ways."""
    slow, fast = one_by_one(model, prompts, chains), packed(model, prompts, chains, **options)
    for mine, theirs in zip(fast, slow, strict=True):
        assert apart(mine, theirs) < TOLERANCE
    expected, found = gradients(model, slow[0], slow[2]), gradients(model, fast[0], fast[2])
    assert found.keys() == expected.keys()
    worst = max(apart(found[name], expected[name]) for name in expected if expected[name].any())
    assert worst < TOLERANCE
    return expected


def two_of(model, *lengths):
    """Two clips, with chains of these lengths for each."""
    return prompts_of(model), chains_of(model, *lengths)


LENGTHS = {
    1: ([9], [4]),
    3: ([5, 17, 2], [8, 1, 30]),
    16: ([1 + 3 * g % 11 for g in range(16)], [6]),
}


@pytest.mark.parametrize("size", LENGTHS)
def test_a_pack_equals_whole_sequences_one_by_one(micro, size):
    """Of 1, 3 and 16 chains, beside another clip's."""
    prompts, chains = two_of(micro, *LENGTHS[size])
    [pack] = pack_groups(micro, prompts, chains)
    assert pack.chains == tuple((clip, g) for clip, group in enumerate(chains) for g in range(len(group)))
    agree(micro, prompts, chains)


def test_long_groups_split_under_a_budget_to_the_same_gradient(micro):
    prompts, chains = two_of(micro, [9, 2, 14, 5], [3, 20])
    longest = int(prompts["attention_mask"].sum(dim=1).max())
    packs = pack_groups(micro, prompts, chains, token_budget=longest + 24)
    assert len(packs) > 2
    assert [member for pack in packs for member in pack.chains] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    agree(micro, prompts, chains, token_budget=longest + 24)


def test_groups_of_unlike_sizes_and_of_none():
    """Three clips of which the first has no chain, and is not looked at; several rewards."""
    model = build_micro(dimensions=("quality", "motion"))
    prompts, chains = prompts_of(model, range(3)), chains_of(model, [], [7, 3], [4])
    [pack] = pack_groups(model, prompts, chains)
    assert pack.chains == ((1, 0), (1, 1), (2, 0))
    assert len(pack.vision["video_grid_thw"]) == 2
    agree(model, prompts, chains)
    assert pack_groups(model, prompts, [[], [], []]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("size", "budget"), [(1, None), (3, None), (3, 30), (16, None)])
def test_adapters_checkpointing_and_chunks_agree(size, budget):
    """The whole of what a large model needs at once, for 1, 3 and 16 chains of unlike lengths, and in several packs.
    Only adapters, query and head have gradients."""
    model = build_micro()
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=4, lora_alpha=8)), precision=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # they begin at 0, where the other half of an adapter has no gradient
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    prompts, chains = two_of(model, *LENGTHS[size])
    longest = int(prompts["attention_mask"].sum(dim=1).max())
    split = {} if budget is None else {"token_budget": longest + budget}
    assert (len(pack_groups(model, prompts, chains, **split)) > 1) == bool(split)
    found = agree(model, prompts, chains, max_logits=5 * 320, **split)  # five tokens of the micro model's vocabulary
    assert {name.split(".")[-3] if "lora" in name else name for name in found} == {
        "lora_A",
        "lora_B",
        "query",
        "head.weight",
    }


def test_eager_attention_gives_the_same():
    model = build_micro()
    expected = packed(model, *two_of(model, [9, 2], [3, 20]))
    model.backbone.set_attn_implementation({"text_config": "eager"})
    for mine, theirs in zip(packed(model, *two_of(model, [9, 2], [3, 20])), expected, strict=True):
        assert apart(mine, theirs) < TOLERANCE


def test_a_query_inside_the_turn_reads_the_chain_without_its_end(micro):
    model = copy.copy(micro)
    model.chat = dataclasses.replace(micro.chat, layout=Layout.QUERY_INSIDE)
    agree(model, *two_of(model, [9, 2], [1, 20]))


def test_a_pack_reads_what_the_rollout_saw(micro):
    """On policy, rewards are those that came with the chains; each sampled chain is possible."""
    prompts = prompts_of(micro)
    completions = think_and_score(micro, prompts, limit=20, samples=3, temperature=2.0, seeds=[1, 2])
    [pack] = pack_groups(micro, prompts, [[c.token_ids for c in row] for row in completions])
    with torch.no_grad():
        output = forward_pack(micro, pack, temperature=2.0)
    assert (
        apart(output.reward_RK, torch.tensor([list(c.rewards.values()) for row in completions for c in row]))
        < TOLERANCE
    )
    assert torch.isfinite(output.log_prob_N).all()
    lengths = [c.num_tokens for row in completions for c in row]
    assert torch.bincount(output.chain_of_N).tolist() == lengths
    assert pack.target_N.tolist() == [token for row in completions for c in row for token in c.token_ids]


def test_what_a_rollout_never_writes_has_no_probability(micro):
    [pack] = pack_groups(micro, prompts_of(micro, [0]), [[[20, micro.query_id, 319, micro.chat.end_id]]])
    output = forward_pack(micro, pack, entropy=True)
    assert torch.isinf(output.log_prob_N).tolist() == [False, True, True, False]
    assert torch.isfinite(output.entropy_N).all()


def test_what_was_not_asked_for_is_none(micro):
    [pack] = pack_groups(micro, prompts_of(micro, [0]), chains_of(micro, [4]))
    output = forward_pack(micro, pack, reward=False)
    assert output.reward_RK is None
    assert output.entropy_N is None


def test_no_more_logits_than_a_chunk_exist_at_a_time(micro):
    sizes = []
    [pack] = pack_groups(micro, *two_of(micro, [9, 2], [3]))
    hook = micro.backbone.lm_head.register_forward_hook(lambda _module, _args, logits: sizes.append(len(logits)))
    output = forward_pack(micro, pack, max_logits=5 * 320)
    assert sizes == [5, 5, 4]
    torch.autograd.grad(output.log_prob_N.sum(), [micro.backbone.lm_head.weight])
    hook.remove()
    assert sorted(sizes) == [4, 4, 5, 5, 5, 5]  # each is made again in the backward pass


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, [[(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]]),
        # rows of 100 + 30, 40 + 10 and 90 + 20 columns: side by side, three of 136; of two, 136 and 112
        (3 * 136, [[(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]]),
        (3 * 136 - 1, [[(0, 0), (0, 1), (0, 2), (1, 0)], [(2, 0), (2, 1)]]),
        (2 * 136 - 1, [[(0, 0), (0, 1), (0, 2)], [(1, 0), (2, 0), (2, 1)]]),
        (2 * 112 - 1, [[(0, 0), (0, 1), (0, 2)], [(1, 0)], [(2, 0), (2, 1)]]),
        # 100 + 20 columns fit, 100 + 30 do not
        (120, [[(0, 0), (0, 1)], [(0, 2)], [(1, 0)], [(2, 0), (2, 1)]]),
        (1, [[(0, 0)], [(0, 1)], [(0, 2)], [(1, 0)], [(2, 0)], [(2, 1)]]),
    ],
)
def test_whole_groups_stay_together_as_far_as_the_budget_goes(budget, expected):
    assert packing._assign_packs([100, 40, 90], [[10, 10, 10], [10], [10, 10]], budget, shares=True) == expected


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        # a row for each chain: six of 112 columns, or three of 112, one of 56 and two of 104
        (6 * 112, [[(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]]),
        (6 * 112 - 1, [[(0, 0), (0, 1), (0, 2), (1, 0)], [(2, 0), (2, 1)]]),
        (2 * 112, [[(0, 0), (0, 1)], [(0, 2), (1, 0)], [(2, 0), (2, 1)]]),
    ],
)
def test_where_chains_share_no_row_the_budget_counts_rows(budget, expected):
    assert packing._assign_packs([100, 40, 90], [[10, 10, 10], [10], [10, 10]], budget, shares=False) == expected


def test_a_chain_in_the_users_turn_is_refused(micro):
    model = copy.copy(micro)
    model.chat = dataclasses.replace(micro.chat, layout=Layout.USER_TURN)
    with pytest.raises(ConfigError, match=r"layout: found .*user's turn.*expected 'chain, end of turn, query'"):
        pack_groups(model, prompts_of(micro), chains_of(micro, [3], [3]))


def test_attention_that_takes_no_mask_is_refused(micro, monkeypatch):
    [pack] = pack_groups(micro, prompts_of(micro, [0]), chains_of(micro, [4]))
    monkeypatch.setattr(micro.backbone.config.get_text_config(), "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ConfigError, match=r"flash_attention_2, which takes no mask, .* set it to sdpa"):
        forward_pack(micro, pack)


@pytest.fixture(scope="module")
def grouped():
    """The micro model with four heads of queries for two of keys and values."""
    small = conftest.small_config

    def config(*args, **kwargs):
        made = small(*args, **kwargs)
        made.text_config.num_attention_heads, made.text_config.num_key_value_heads = 4, 2
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "small_config", config)
        return build_micro()


def watched(monkeypatch, kernel):
    """What flex_attention is called with, where `kernel` stands in for it and is thought to run here."""
    calls = []

    def attend(query, key, value, **options):
        calls.append((query.shape[1], key.shape[1], value.shape[1], options["enable_gqa"]))
        return kernel(query, key, value, **options)

    monkeypatch.setattr(packing, "flex_fault", lambda *_: None)
    monkeypatch.setattr(packing, "flex_attention", lambda _: attend)
    return calls


def by_the_formula(query, key, value, *, block_mask, scale, enable_gqa):
    """flex_attention by its definition: torch's own has no backward on a CPU."""
    repeats = query.shape[1] // key.shape[1]
    assert enable_gqa == (repeats > 1)
    rows, _, columns, _ = query.shape
    visible = create_mask(block_mask.mask_mod, rows, 1, columns, columns, device="cpu")
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    return (scale * query @ key.mT).masked_fill(~visible, -torch.inf).softmax(dim=-1).nan_to_num() @ value


@pytest.mark.slow
def test_flex_attention_reads_what_the_mask_shows(grouped, monkeypatch):
    """torch's own, uncompiled: groups of heads, padding, and packs under a budget; no key or value is repeated."""
    prompts, chains = two_of(grouped, [9, 2, 14, 5], [3, 20])
    budget = int(prompts["attention_mask"].sum(dim=1).max()) + 40
    with torch.no_grad():
        masked = packed(grouped, prompts, chains, token_budget=budget)
        calls = watched(monkeypatch, packing.flex_attention("cpu"))
        for mine, theirs in zip(packed(grouped, prompts, chains, token_budget=budget), masked, strict=True):
            assert apart(mine, theirs) < TOLERANCE
    assert set(calls) == {(4, 2, 2, True)}


def test_the_block_mask_gives_the_gradients_of_whole_sequences(grouped, monkeypatch):
    calls = watched(monkeypatch, by_the_formula)
    prompts, chains = two_of(grouped, [9, 2, 14, 5], [3, 20])
    agree(grouped, prompts, chains, token_budget=int(prompts["attention_mask"].sum(dim=1).max()) + 40)
    assert calls


def test_sdpa_on_a_cpu_repeats_no_keys_and_values(grouped, monkeypatch):
    shapes, sdpa = set(), packing.scaled_dot_product_attention

    def attend(query, key, value, **options):
        shapes.add((query.shape[1], key.shape[1], value.shape[1]))
        return sdpa(query, key, value, **options)

    monkeypatch.setattr(packing, "scaled_dot_product_attention", attend)
    agree(grouped, *two_of(grouped, [9, 2, 14, 5], [3, 20]))
    assert shapes == {(4, 2, 2)}


def test_flex_attention_skips_blocks_of_other_chains():
    """A prompt and three chains of a block each: a chain reads its own block and the prompt's, and no other chain's."""
    part_PT = torch.tensor([[0, 1, 2, 3]]).repeat_interleave(packing.MASK_BLOCK, dim=1)
    mask = packing.block_mask(part_PT)
    visible = mask.to_dense()[0, 0]
    assert visible.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


def test_layers_read_again_attend_alike(grouped, monkeypatch):
    """Gradient checkpointing reads each layer again in the backward, behind the forward that chose its attention."""
    calls = watched(monkeypatch, by_the_formula)
    model = copy.deepcopy(grouped)
    expected = gradients(model, *packed(model, *two_of(model, [9, 2], [3]))[::2])
    model.train()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    once = len(calls)
    found = gradients(model, *packed(model, *two_of(model, [9, 2], [3]))[::2])
    assert max(apart(found[name], expected[name]) for name in expected if expected[name].any()) < TOLERANCE
    assert len(calls) == 3 * once


def test_the_chosen_attention_is_not_stored(grouped, tmp_path):
    model = copy.deepcopy(grouped).train()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    packed(model, *two_of(model, [9, 2], [3]))
    model.save_pretrained(tmp_path / "model")
    assert packing.PACKED not in (tmp_path / "model" / "config.json").read_text()


def test_without_cuda_flex_attention_is_not_used():
    fault = packing.flex_fault(torch.device("cpu"), torch.float32, 4, 2, 64)
    assert fault == "flex_attention is compiled for CUDA"


def test_features_in_place_of_pixels_give_the_same(micro):
    prompts, chains = two_of(micro, [9, 2, 14], [3])
    with torch.no_grad():
        encoded = micro.family.encode_vision(micro.backbone, prompts)
    assert "pixel_values_videos" not in encoded
    assert micro.family.encode_vision(micro.backbone, encoded) is encoded
    budget = int(prompts["attention_mask"].sum(dim=1).max()) + 24
    pairs = [packed(micro, inputs, chains, token_budget=budget) for inputs in (prompts, encoded)]
    for mine, theirs in zip(*pairs, strict=True):
        assert apart(mine, theirs) < TOLERANCE
    expected, found = (gradients(micro, values[0], values[2]) for values in pairs)
    vision = {name for name in expected if ".visual." in name}
    assert vision
    assert found.keys() == expected.keys() - vision
    assert max(apart(found[name], expected[name]) for name in found if expected[name].any()) < TOLERANCE


def test_vision_is_encoded_in_pieces_of_a_bounded_size(micro, monkeypatch):
    """Two pairs of frames of 16 patches, three of 48 and one of 16: pieces hold whole ones, of one clip or two."""
    prompts = prompts_of(micro, range(3))
    with torch.no_grad():
        whole = micro.family.encode_vision(micro.backbone, prompts)["vision_features"]
        sizes, tower = [], micro.backbone.model.visual
        hook = tower.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        monkeypatch.setattr(micro.family, "MOST_PATCHES", 100)
        pieces = micro.family.encode_vision(micro.backbone, prompts)["vision_features"]
        hook.remove()
    assert sizes == [16 * 2 + 48, 48 * 2, 16]
    assert apart(pieces, whole) < TOLERANCE
