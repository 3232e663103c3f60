"""Checkpoints of other layouts: where the query and the video stand, token by token, and the same reward either way."""

from dataclasses import replace

import pytest
import torch
from tests.conftest import build_micro, noise_clip

from descore.errors import ConfigError
from descore.model.chat import Layout
from descore.model.generation import score_chains, think_and_score

VIDEO = "<0.5 seconds><|vision_start|>....<|vision_end|><2.5 seconds><|vision_start|>....<|vision_end|>"


@pytest.fixture
def laid_out():
    """The micro model under a layout and a rubric."""
    model = build_micro()

    def change(layout, rubric="Judge whether the video shows: {prompt}"):
        model.chat = replace(model.chat, layout=layout, rubric=rubric)
        return model

    return change


def text_of(chat, chain, prompt="a red ball"):
    prompts = chat.lay_out_prompts([noise_clip(0)], [prompt])
    whole = chat.lay_out_chains(prompts, [chain])
    assert whole["mm_token_type_ids"].shape == whole["input_ids"].shape
    assert whole["input_ids"][0][whole["chain_mask"][0]].tolist() == chat.before_query(chain)
    return chat.tokenizer.decode(whole["input_ids"][0]).replace("<|video_pad|>", ".")


def test_the_query_before_the_end_of_turn(laid_out):
    chat = laid_out(Layout.QUERY_INSIDE).chat
    before = f"<|im_start|>user\n{VIDEO}Judge whether the video shows: a red ball<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(chat, chat.encode_chain("It rolls.")) == f"{before}It rolls.<|query|>"
    assert text_of(chat, chat.no_thinking) == f"{before}<|query|>"


def test_chain_and_query_in_the_users_turn(laid_out):
    chat = laid_out(Layout.USER_TURN).chat
    before = f"<|im_start|>user\n{VIDEO}Judge whether the video shows: a red ball"
    assert text_of(chat, chat.encode_chain("It rolls.")) == f"{before}It rolls.<|query|>"
    assert text_of(chat, chat.no_thinking) == f"{before}<|query|>"


def test_a_chain_to_imitate_is_the_assistants_in_every_layout(laid_out):
    """Without the query, what is laid out is what the model learns to write."""
    rows = []
    for layout in Layout:
        chat = laid_out(layout).chat
        prompts = chat.lay_out_prompts([noise_clip(0)], ["a"])
        rows.append(chat.lay_out_chains(prompts, [chat.encode_chain("It rolls.")], query=False)["input_ids"])
    assert all(torch.equal(rows[0], row) for row in rows[1:])


def test_the_video_stands_where_the_rubric_has_it(laid_out):
    chat = laid_out(Layout.QUERY_LAST, "Asked: {prompt}. Seen: {video}. Judge.").chat
    found = text_of(chat, chat.no_thinking, prompt="a {video} of {prompt}")
    assert found.startswith(f"<|im_start|>user\nAsked: a {{video}} of {{prompt}}. Seen: {VIDEO}. Judge.<|im_end|>")


def test_a_rubric_without_a_prompt_is_refused(laid_out):
    chat = laid_out(Layout.QUERY_LAST, "Seen: {video}.").chat
    with pytest.raises(ConfigError, match=r"found 0 times \{prompt\}"):
        chat.lay_out_prompts([noise_clip(0)], ["a"])


@pytest.mark.parametrize("layout", Layout)
def test_one_pass_equals_encoding_again(laid_out, layout):
    """Chains of unlike lengths, three samples each; float32, where sums in another order differ by a few 1e-7."""
    model = laid_out(layout)
    clips = [noise_clip(0), noise_clip(1, frames=6, width=64, height=48)]
    prompts = model.chat.lay_out_prompts(clips, ["a red ball", "a longer prompt than the other"])
    completions = think_and_score(model, prompts, limit=300, samples=3, temperature=2.0, seeds=[1, 2])
    assert len({completion.num_tokens for row in completions for completion in row}) > 2
    for sample in range(3):
        chains = [row[sample].token_ids for row in completions]
        rewards_BK = torch.tensor([list(row[sample].rewards.values()) for row in completions])
        torch.testing.assert_close(rewards_BK, score_chains(model, prompts, chains), atol=1e-5, rtol=0)


def test_the_layouts_are_not_the_same_reward(laid_out):
    rewards = []
    for layout in Layout:
        model = laid_out(layout)
        prompts = model.chat.lay_out_prompts([noise_clip(0)], ["a"])
        rewards.append(score_chains(model, prompts, [model.chat.encode_chain("It rolls.")]).item())
    assert min(abs(a - b) for i, a in enumerate(rewards) for b in rewards[:i]) > 1e-3


def test_a_checkpoint_keeps_its_layout(laid_out, tmp_path):
    model = laid_out(Layout.QUERY_INSIDE)
    model.settings = model.settings.model_copy(update={"layout": Layout.QUERY_INSIDE})
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model")
    assert again.chat.layout is Layout.QUERY_INSIDE
    assert again.settings == model.settings
