"""A pack gives the log-probabilities, rewards and gradients of its chains' own whole sequences, one by one.

All in float32, where the two ways differ by the order of sums only: a few 1e-7 of the largest value, 1e-5 asked."""

import pytest
import torch
from tests.conftest import noise_clip

from descore.model.shared_prefix import pack_groups, read_pack

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


def packed(model, prompts, chains, **budget):
    """The same three of all packs together."""
    reads = [
        read_pack(model, pack, temperature=TEMPERATURE, entropy=True)
        for pack in pack_groups(model, prompts, chains, **budget)
    ]
    return [torch.cat([getattr(read, name) for read in reads]) for name in ("log_prob_N", "entropy_N", "reward_RK")]


def gradients(model, log_prob, reward):
    """Of a sum in which each token and each reward has a weight of its own, so that none can stand for another."""
    draw = torch.Generator().manual_seed(1)
    weigh = [torch.randn(value.shape, generator=draw) for value in (log_prob, reward)]
    model.zero_grad()
    ((log_prob * weigh[0]).sum() + (reward * weigh[1]).sum()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def agree(model, prompts, chains, **budget):
    """Values and gradients of the two ways."""
    slow, fast = one_by_one(model, prompts, chains), packed(model, prompts, chains, **budget)
    for mine, theirs in zip(fast, slow, strict=True):
        assert apart(mine, theirs) < TOLERANCE
    expected, found = gradients(model, slow[0], slow[2]), gradients(model, fast[0], fast[2])
    assert found.keys() == expected.keys()
    worst = max(apart(found[name], expected[name]) for name in expected if expected[name].any())
    assert worst < TOLERANCE
    return expected


LENGTHS = {
    1: ([9], [4]),
    2: ([1, 12], [30, 2]),
    3: ([5, 17, 2], [8]),
    16: ([1 + 3 * g % 11 for g in range(16)], [2 + 5 * g % 13 for g in range(16)]),
}


@pytest.mark.parametrize("chains", LENGTHS)
def test_equal_to_whole_sequences_one_by_one(micro, chains):
    agree(micro, prompts_of(micro), chains_of(micro, *LENGTHS[chains]))
