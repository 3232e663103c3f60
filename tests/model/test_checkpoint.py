"""A checkpoint reads back to the bit, transformers can open it by itself, and whatever does not fit says so."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import build_micro, noise_clip
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from descore.errors import CheckpointError, ConfigError
from descore.model.checkpoint import CheckpointSettings, read_settings
from descore.model.modeling import DescoreModel


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "micro"
    model = build_micro(dimensions=("quality", "alignment"))
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may break."""
    copy = tmp_path / "broken"
    copy.mkdir()
    for file in saved[1].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def edit_settings(folder, **changes):
    path = folder / "descore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_it_reads_back_to_the_bit(saved):
    model, folder = saved
    again = DescoreModel.from_pretrained(folder)
    assert again.settings == model.settings
    assert again.chat.rubric == model.chat.rubric
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_reward_is_the_same_after_reading_back(saved):
    model, folder = saved
    again = DescoreModel.from_pretrained(folder)
    whole = model.chat.lay_out_chains(model.chat.lay_out_prompts([noise_clip(0)], ["a"]), [model.chat.no_thinking])
    assert torch.equal(model(whole), again(whole))


def test_transformers_opens_it_by_itself(saved):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert AutoModelForImageTextToText.from_pretrained(saved[1]).config.model_type == "qwen3_vl"
    assert "<|query|>" in AutoProcessor.from_pretrained(saved[1]).tokenizer.get_vocab()


def test_saving_shows_no_bar_and_leaves_them_on(saved, tmp_path, capfd):
    enable_progress_bar()
    try:
        saved[0].save_pretrained(tmp_path / "again")
        assert is_progress_bar_enabled()
    finally:
        disable_progress_bar()
    assert capfd.readouterr().err == ""


def test_saving_over_an_old_one_leaves_nothing_else(saved, tmp_path):
    model, _ = saved
    target = tmp_path / "model"
    model.save_pretrained(target)
    (target / "stale.txt").write_text("from before")
    model.save_pretrained(target)
    assert not (target / "stale.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_half_precision_keeps_query_and_head_in_float32(saved):
    half = DescoreModel.from_pretrained(saved[1], dtype=torch.bfloat16)
    assert half.backbone.dtype == torch.bfloat16
    assert half.query.dtype == half.head.weight.dtype == torch.float32


@pytest.mark.parametrize("file", ["descore.json", "rubric.txt", "reward_head.safetensors", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=re.escape(file.split(".")[0])):
        DescoreModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema is 2, this version reads 1"),
        ({"max_chain_token": 7}, "max_chain_token unknown key; did you mean max_chain_tokens?"),
        ({"layout": "query first"}, "found 'query first'"),
        ({"dimensions": []}, "dimensions must not be empty, got []"),
        ({"dimensions": ["a", "a"]}, "dimensions names one twice: ['a', 'a']"),
        (
            {"reward_mean": {"quality": 0.0, "alignment": 0.0}},
            "reward_mean and reward_std go together, found one of them",
        ),
        ({"reward_mean": {"x": 0.0}, "reward_std": {"x": 1.0}}, "expected a number for each dimension"),
        ({"sampling": {"fsp": 2}}, "sampling.fsp unknown key; did you mean sampling.fps?"),
    ],
)
def test_wrong_settings_say_what_and_where(folder, changes, message):
    edit_settings(folder, **changes)
    with pytest.raises(CheckpointError, match=r"descore\.json") as fault:
        read_settings(folder)
    assert message in str(fault.value)


def test_a_head_of_another_size_is_refused(folder):
    edit_settings(folder, dimensions=["quality"])
    with pytest.raises(CheckpointError, match=r"'head': \(2, 64\).*need.*'head': \(1, 64\)"):
        DescoreModel.from_pretrained(folder)


def test_a_head_with_numbers_that_are_not_finite_is_refused(folder):
    path = folder / "reward_head.safetensors"
    weights = load_file(path)
    save_file({**weights, "query": weights["query"] * torch.nan}, path)
    with pytest.raises(CheckpointError, match="not finite"):
        DescoreModel.from_pretrained(folder)


@pytest.mark.parametrize("file", ["descore.json", "reward_head.safetensors", "model.safetensors", "tokenizer.json"])
def test_a_broken_file_is_one_line(folder, file):
    (folder / file).write_bytes(b"\x00 broken")
    with pytest.raises(CheckpointError) as fault:
        DescoreModel.from_pretrained(folder)
    assert "\n" not in str(fault.value)


def test_weights_that_are_missing_are_never_random(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    gone = "model.language_model.layers.0.mlp.up_proj.weight"
    del weights[gone]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=re.escape(gone)):
        DescoreModel.from_pretrained(folder)


def test_a_plain_backbone_is_told_how_to_become_one(tmp_path):
    with pytest.raises(CheckpointError, match="from_backbone"):
        DescoreModel.from_pretrained(tmp_path)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match=r"no such folder; expected .* tiny"):
        DescoreModel.from_pretrained("nowhere")


def test_another_family_is_refused_with_the_known_ones():
    from transformers import LlavaConfig

    with pytest.raises(ConfigError, match="model_type is 'llava'; expected one of qwen3_vl"):
        DescoreModel.from_backbone(LlavaConfig(), processor=build_micro().chat.processor)


def test_a_config_needs_a_processor(micro):
    with pytest.raises(ConfigError, match="give processor="):
        DescoreModel.from_backbone(micro.backbone.config)


def test_from_a_backbones_folder(micro, tmp_path):
    micro.backbone.save_pretrained(tmp_path)
    micro.chat.processor.save_pretrained(tmp_path)
    model = DescoreModel.from_backbone(tmp_path)
    assert torch.equal(model.backbone.lm_head.weight, micro.backbone.lm_head.weight)
    assert model.settings == CheckpointSettings()
    assert model.settings.trained_on is None


def test_the_embedding_grows_only_if_it_has_no_row_to_spare():
    from descore.model.small import small_config, small_processor

    def rows(vocabulary):
        processor = small_processor(["a"], vocabulary=300)
        config = small_config(processor, vocabulary=vocabulary, width=64, layers=1, vision_width=48, vision_layers=2)
        model = DescoreModel.from_backbone(config, processor=processor)
        return len(processor.tokenizer), model.backbone.get_input_embeddings().weight.shape[0]

    tokens, spare = rows(320)
    assert spare == 320
    assert rows(tokens - 1)[1] == 64 * -(-tokens // 64)
