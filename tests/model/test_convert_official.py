"""Checkpoints of the official form are converted: the same rewards as their parts give by hand, and one line for
whatever does not fit. Everything is in float32; sums in another order differ by a few 1e-7, 1e-5 is asked."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import RUBRIC
from tests.model.official_cases import adapted, inputs_for, rewards_by_hand, save_head, whole_model

from descore.errors import CheckpointError, ConfigError, DescoreError
from descore.model.chat import Layout
from descore.model.convert_official import convert_official
from descore.model.modeling import DescoreModel, has_adapters
from descore.model.official_layout import read_official_head

HOW = {"rubric": RUBRIC, "layout": "chain, query, end of turn"}


@pytest.fixture
def whole(tmp_path):
    return whole_model(tmp_path / "theirs")


def opened(source, out, **how):
    convert_official(source.folder, out, **{**HOW, **how})
    return DescoreModel.from_pretrained(out, device="cpu")


def assert_same_rewards(source, model):
    inputs = inputs_for(model)
    rewards_BK = rewards_by_hand(source, inputs)
    assert not torch.equal(rewards_BK[0], rewards_BK[1])
    torch.testing.assert_close(model(inputs), rewards_BK, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("form", ["stage 1", "stage 2", "plain"])
def test_a_whole_model_gives_its_rewards(tmp_path, form, layout):
    source = whole_model(tmp_path / "theirs", form=form)
    assert (source.folder / "model.safetensors.index.json").is_file()
    model = opened(source, tmp_path / "ours", layout=layout)
    assert model.chat.layout is layout
    assert_same_rewards(source, model)


def test_the_query_keeps_its_number_and_the_embedding_its_size(whole, tmp_path):
    model = opened(whole, tmp_path / "ours")
    number = whole.processor.tokenizer.convert_tokens_to_ids("<Reward>")
    assert model.query_id == number
    assert "<Reward>" not in model.chat.tokenizer.get_vocab()
    assert number in model.chat.forbidden_ids
    embedding = whole.model.get_input_embeddings().weight
    assert torch.equal(model.query, embedding[number])
    assert model.backbone.get_input_embeddings().weight.shape == embedding.shape
    text = "a red ball <Reward>"
    assert model.chat.tokenizer(text)["input_ids"] != whole.processor.tokenizer(text)["input_ids"]
    assert model.chat.tokenizer("a red ball")["input_ids"] == whole.processor.tokenizer("a red ball")["input_ids"]


def test_weights_are_copied_as_they_are(whole, tmp_path):
    opened(whole, tmp_path / "ours")
    shards = sorted(whole.folder.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert all((tmp_path / "ours" / shard.name).read_bytes() == shard.read_bytes() for shard in shards)
    assert not list((tmp_path / "ours").glob("*.pth"))


def test_what_it_says_of_itself(whole, tmp_path):
    converted = convert_official(whole.folder, tmp_path / "ours", **HOW)
    model = DescoreModel.from_pretrained(tmp_path / "ours", device="cpu")
    assert model.settings == converted.settings
    assert model.settings.trained_on == "by the official DeScore code; converted from theirs"
    assert model.settings.sampling.size_multiple == 16  # patches of 8 pixels, merged 2 by 2
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]


def test_stage_2_has_its_weights_in_a_folder_of_their_own(tmp_path):
    (tmp_path / "actor").mkdir()
    source = whole_model(tmp_path / "actor" / "huggingface", form="stage 2")
    (source.folder / "rm_head.pth").rename(tmp_path / "actor" / "rm_head.pth")
    for number, given in enumerate((tmp_path / "actor", source.folder)):
        convert_official(given, tmp_path / str(number), **HOW)
        assert_same_rewards(source, DescoreModel.from_pretrained(tmp_path / str(number), device="cpu"))


@pytest.mark.parametrize("beside", [True, False], ids=["lora_adapter/", "peft"])
@pytest.mark.parametrize("merge", [False, True], ids=["kept", "merged"])
def test_an_adapter_gives_its_rewards(tmp_path, beside, merge):
    source = adapted(tmp_path / "theirs", beside=beside)
    model = opened(source, tmp_path / "ours", merge=merge)
    assert has_adapters(model.backbone) is not merge
    assert (tmp_path / "ours" / "adapter_model.safetensors").is_file() is not merge
    assert_same_rewards(source, model)
    assert sorted(p.name for p in tmp_path.iterdir() if "ours" in p.name) == ["ours"]
    assert not any(p.is_symlink() for p in (tmp_path / "ours").iterdir())


def test_an_adapter_changes_the_reward(tmp_path):
    source = adapted(tmp_path / "theirs")
    inputs = inputs_for(opened(source, tmp_path / "ours"))
    with source.model.disable_adapter():
        without = rewards_by_hand(source, inputs)
    assert (rewards_by_hand(source, inputs) - without).abs().min() > 0.1


def test_an_adapter_is_never_passed_over(tmp_path, monkeypatch):
    source = adapted(tmp_path / "theirs")
    convert_official(source.folder, tmp_path / "ours", **HOW)
    monkeypatch.setattr("descore.model.modeling.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="has an adapter, which needs peft"):
        DescoreModel.from_pretrained(tmp_path / "ours")


@pytest.mark.parametrize("embedding", ["module", "layer"])
def test_the_query_row_of_an_adapter_that_saved_the_embedding(tmp_path, embedding):
    source = adapted(tmp_path / "theirs", beside=False, embedding=embedding)
    number = source.processor.tokenizer.convert_tokens_to_ids("<Reward>")
    trained = "embed_tokens.weight"
    edit_adapter(source.folder, lambda name, weight: add_to_row(weight, number) if trained in name else weight)
    with torch.no_grad():
        source.model.get_base_model().get_input_embeddings().weight[number] += 1.0
    model = opened(source, tmp_path / "ours")
    assert not any("embed" in name for name in load_file(tmp_path / "ours" / "adapter_model.safetensors"))
    assert_same_rewards(source, model)


def edit_adapter(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file({name: change(name, weight) for name, weight in load_file(file).items()}, file)


def add_to_row(weight, row):
    changed = weight.clone()
    changed[row] += 1.0
    return changed


def test_several_outputs_have_names(tmp_path):
    source = whole_model(tmp_path / "theirs", outputs=2)
    with pytest.raises(ConfigError, match="the head has 2 outputs, found 1 names"):
        convert_official(source.folder, tmp_path / "ours", **HOW)
    model = opened(source, tmp_path / "ours", dimensions=["quality", "alignment"])
    assert_same_rewards(source, model)


class Malicious:
    """What runs when it is unpickled the plain way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_head_that_wants_to_run_code_is_refused(whole, tmp_path, legacy):
    trace, file = tmp_path / "it ran", whole.folder / "rm_head.pth"
    payload = {"rm_head.weight": whole.head_KD, "extra": Malicious(trace)}
    torch.save(payload, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="is refused, because it holds more than tensors") as fault:
        convert_official(whole.folder, tmp_path / "ours", **HOW)
    assert "\n" not in str(fault.value)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the plain way does run it, so the test could have failed
    assert trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_wants_to_run_code_is_refused(whole, tmp_path):
    (whole.folder / "rm_head.pth").write_bytes(pickle.dumps(Malicious(tmp_path / "it ran")))
    with pytest.raises(CheckpointError, match="is refused"):
        convert_official(whole.folder, tmp_path / "ours", **HOW)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"rm_head.weight": torch.ones(1, 32)}, "found {'rm_head.weight': (1, 32)}; expected one matrix, outputs x 64"),
        ({"a": torch.ones(1, 64), "b": torch.ones(1, 64)}, "expected one matrix"),
        ({"model": {}}, "found {}; expected one matrix"),
        ({"weight": torch.ones(1, 64), "bias": torch.ones(1)}, "bias is not zero; the head here has no bias"),
        ({"weight": torch.full((1, 64), torch.nan)}, "not finite"),
    ],
)
def test_a_head_of_another_form_is_refused(tmp_path, state, said):
    torch.save(state, tmp_path / "rm_head.pth")
    with pytest.raises(CheckpointError, match=re.escape(said)):
        read_official_head(tmp_path / "rm_head.pth", width=64)


def remove(*names):
    def change(folder):
        for name in names:
            for file in folder.glob(name):
                file.unlink()

    return change


def pickled_weights(folder):
    remove("model*")(folder)
    (folder / "pytorch_model.bin").touch()


@pytest.mark.parametrize(
    ("change", "how", "said"),
    [
        (remove("rm_head.pth"), {}, "has no rm_head.pth; without it there is no reward"),
        (remove("model-00002*"), {}, "has no model-00002"),
        (pickled_weights, {}, "has neither model.safetensors nor adapter_config.json"),
        (remove("config.json"), {}, "transformers cannot read the config"),
        (lambda folder: (folder / "rm_head.pth").write_bytes(b""), {}, "rm_head.pth: cannot be read"),
        (remove(), {"query_token": "<Score>"}, "no added token <Score>; name the query token with --query-token"),
        (remove(), {"base": "elsewhere"}, "has weights of its own; leave it out"),
        (remove(), {"merge": True}, "has no adapter; leave it out"),
        (remove(), {"layout": "query first"}, "found 'query first', expected one of 'chain, end of turn, query', "),
        (remove(), {"rubric": "no place for it"}, "found 0 times {prompt}"),
        (remove(), {"rubric": "{prompt} <video>"}, "found <video>; write {video} where the video stands"),
        (remove(), {"dimensions": ["a", "b"]}, "the head has 1 outputs, found 2 names"),
    ],
)
def test_whatever_does_not_fit_is_one_line_and_writes_nothing(whole, tmp_path, change, how, said):
    change(whole.folder)
    with pytest.raises(DescoreError, match=re.escape(said)) as fault:
        convert_official(whole.folder, tmp_path / "ours", **{**HOW, **how})
    assert "\n" not in str(fault.value)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


def test_what_is_there_is_not_overwritten(whole, tmp_path):
    (tmp_path / "ours").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another"):
        convert_official(whole.folder, tmp_path / "ours", **HOW)


def other_kind(source):
    file = source.folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "IA3"}))


def other_base(source):
    edit_adapter(source.folder, lambda name, weight: weight[:, :32].contiguous() if "lora_A" in name else weight)


def no_base(source):
    source.base.rename(source.base.with_name("moved"))


def learned_beside(source):
    (source.folder / "non_lora_state_dict.pth").touch()


def learned_embedding(source):
    embedding = source.model.get_base_model().get_input_embeddings().weight.detach().clone()
    file = source.folder / "adapter_model.safetensors"
    name = "base_model.model.model.language_model.embed_tokens.weight"
    save_file({**load_file(file), name: add_to_row(embedding, 5)}, file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_kind, "found 'IA3', expected LORA"),
        (other_base, "is (192, 32), the backbone has (192, 64); give its own --base"),
        (no_base, "elsewhere/base: no such folder"),
        (learned_beside, "says that more than the adapter learned"),
        (learned_embedding, "learned in full, which an adapter cannot hold"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(tmp_path, monkeypatch, change, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = adapted(tmp_path / "theirs", beside=False)
    change(source)
    with pytest.raises(CheckpointError, match=re.escape(said)) as fault:
        convert_official(source.folder, tmp_path / "ours", **HOW)
    assert "\n" not in str(fault.value)


def test_an_adapters_base_can_be_given(tmp_path):
    source = adapted(tmp_path / "theirs", beside=False)
    source.base.rename(tmp_path / "moved")
    assert_same_rewards(source, opened(source, tmp_path / "ours", base=str(tmp_path / "moved")))


@pytest.mark.parametrize("form", ["stage 1", "stage 2"])
def test_heads_in_half_precision_are_read_exactly(tmp_path, form):
    head_KD = torch.randn(1, 64).bfloat16()
    save_head(tmp_path, head_KD, form=form)
    found_KD = read_official_head(tmp_path / "rm_head.pth", width=64)
    assert found_KD.dtype == torch.float32
    assert torch.equal(found_KD, head_KD.float())
