"""Checkpoints from outside: none runs code or asks, and one that is broken or lies is refused in one line."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import descore
from descore.errors import CheckpointError, ConfigError, DescoreError, DescoreWarning
from descore.model import small
from descore.model.generation import think_and_score
from descore.model.modeling import DescoreModel, open_backbone, sort_targets
from descore.model.official_layout import find_parts, read_official_head, weight_files
from tests.conftest import build_micro, noise_clip

OPENING = {"from_pretrained", "from_config", "get_class_from_dynamic_module", "pipeline", "LLM"}
"""Calls that run a checkpoint's code if they are allowed to."""
OWN = {"DescoreModel", "Scorer", "cls"}
"""Whose from_pretrained is descore's."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "micro"
    build_micro().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(file: Path, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(folder, **options) -> str:
    with pytest.raises(DescoreError) as fault:
        DescoreModel.from_pretrained(folder, device="cpu", **options)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def calls_that_trust(source: str) -> list[int]:
    """Lines of the calls that open a checkpoint without saying that its code is not run."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    opening = []
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "id", "")
        if name not in OPENING or owner in OWN:
            continue
        given = {word.arg: word.value for word in call.keywords}.get("trust_remote_code")
        if not (isinstance(given, ast.Constant) and given.value is False):
            opening.append(call.lineno)
    return opening


@pytest.mark.slow
def test_no_call_lets_a_checkpoint_run_code():
    root = Path(descore.__file__).parent
    lines = {str(file.relative_to(root)): calls_that_trust(file.read_text()) for file in root.rglob("*.py")}
    assert {file: at for file, at in lines.items() if at} == {}


def test_the_look_for_such_calls_finds_them():
    assert calls_that_trust("A.from_pretrained(x)\nB.from_config(x, trust_remote_code=True)\nScorer.from_pretrained(x)")
    assert not calls_that_trust("A.from_pretrained(x, trust_remote_code=False)")


@pytest.fixture
def asks_and_runs(monkeypatch, tmp_path):
    """Answer yes to any question, and note it. The code of the checkpoint leaves a file."""
    asked, ran = [], tmp_path / "ran"
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    yield f"open({str(ran)!r}, 'w').close()\n"
    assert asked == []
    assert not ran.exists()


AUTO_MAP = {
    "config.json": {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"},
    },
    "processor_config.json": {"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Evil"}},
}


@pytest.mark.parametrize("paradigm", [None, "generative"])
@pytest.mark.parametrize("file", AUTO_MAP)
def test_code_of_a_checkpoint_never_runs(folder, asks_and_runs, capsys, file, paradigm):
    (folder / "evil.py").write_text(asks_and_runs)
    edit(folder / file, **AUTO_MAP[file])
    if file == "processor_config.json":
        edit(folder / "tokenizer_config.json", processor_class="Evil")
    assert "code of its own, which is never run" in refusal(folder, paradigm=paradigm)
    assert capsys.readouterr().out == ""


def test_an_unknown_processor_class_does_not_ask(folder, asks_and_runs):
    (folder / "evil.py").write_text(asks_and_runs)
    for file in ("processor_config.json", "tokenizer_config.json"):
        edit(folder / file, processor_class="Evil")
    assert "which reads no video; expected a video processor" in refusal(folder)


def test_code_that_is_not_needed_is_passed_over(folder, asks_and_runs):
    (folder / "evil.py").write_text(asks_and_runs)
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"})
    edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    DescoreModel.from_pretrained(folder, device="cpu")


def test_tensors_that_config_json_leaves_out_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    message = refusal(folder)
    assert "config.json has no room for 11 tensors" in message
    assert "layers.1." in message


def test_a_tensor_of_another_shape_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    save_file(
        {**weights, name: weights[name][:-1].contiguous()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    assert f"{name} has shape (191, 64), config.json needs (192, 64)" in refusal(folder)


def test_a_head_of_zeros_warns(folder):
    head = load_file(folder / "reward_head.safetensors")
    save_file({**head, "head": torch.zeros_like(head["head"])}, folder / "reward_head.safetensors")
    with pytest.warns(DescoreWarning, match="row 0 of the head is all zero"):
        DescoreModel.from_pretrained(folder, device="cpu")


def chains(model):
    prompts = model.chat.lay_out_prompts([noise_clip(0)], ["a red ball"])
    return [completion.token_ids for completion in think_and_score(model, prompts, limit=12)[0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"no_repeat_ngram_size": 1},
        {"num_beams": 4},
        {"stop_strings": ["a"]},
        {"max_time": 1e-9},
        {"min_new_tokens": 12},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"bad_words_ids": [[9]]},
        {"sequence_bias": [[[20], 50.0]]},
        {"guidance_scale": 3.0},
        {"begin_suppress_tokens": [20]},
        {"temperature": 0.7, "do_sample": True, "top_k": 1},
    ],
)
def test_generation_config_changes_no_chain(saved, folder, changes):
    edit(folder / "generation_config.json", **changes)
    model = DescoreModel.from_pretrained(folder, device="cpu")
    assert chains(model) == chains(DescoreModel.from_pretrained(saved, device="cpu"))
    model.save_pretrained(folder)


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
JSON_FILES = [f"{name}.json" for name in ("config", "tokenizer", "tokenizer_config", "processor_config", "descore")]


@pytest.mark.parametrize(
    "content",
    ["[]", "5", '"a"', DEEP, "{", "\x00", '{"a": 1' + "0" * 5000 + "}"],
    ids=["list", "number", "text", "deep", "cut", "zero", "digits"],
)
@pytest.mark.parametrize("file", [*JSON_FILES, "generation_config.json"])
def test_json_that_holds_no_settings_is_refused(folder, file, content):
    (folder / file).write_text(content)
    assert file in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rubric.txt", "Zeigt das Video Möwen? {prompt}".encode("latin-1"), "rubric.txt: cannot be used as a rubric"),
        ("rubric.txt", b"no place", "found 0 times {prompt}"),
        ("tokenizer.json", b"{}", "cannot open the processor"),
        ("chat_template.jinja", ENDLESS.encode(), "does not end within 100,000 lines"),
        ("chat_template.jinja", b"{% for %}", "the chat template fails"),
        ("chat_template.jinja", b"{{ messages.x.y }}", "the chat template fails"),
        ("chat_template.jinja", b"{{ 1 / 0 }}", "the chat template fails"),
        ("chat_template.jinja", b"{{ raise_exception('no') }}", "the chat template fails: no"),
        ("chat_template.jinja", b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template fails"),
        ("chat_template.jinja", b"hello", "writes the video 0 times"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}', "has no ../x.safetensors"),
        ("model.safetensors.index.json", b'{"weight_map": ["a"]}', "weight_map is no object of file names"),
        ("adapter_config.json", b'{"base_model_name_or_path": ["a"]}', "base_model_name_or_path is ['a']"),
        ("reward_head.safetensors", b"{}", "cannot be read"),
    ],
)
def test_a_broken_file_is_refused_in_a_line(folder, file, content, message):
    (folder / file).write_bytes(content)
    assert message in refusal(folder)


@pytest.mark.parametrize("size", [0, -1, "16", None, 14, 2.5, 10**12])
def test_a_patch_size_that_cannot_be_is_refused(folder, size):
    config = json.loads((folder / "processor_config.json").read_text())
    config["video_processor"]["patch_size"] = size
    (folder / "processor_config.json").write_text(json.dumps(config))
    assert "patch_size" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"model_type": 5},
        {"model_type": ["qwen3_vl"]},
        {"text_config": "a"},
        {"text_config": {"hidden_size": "a"}},
        {"vision_config": []},
        {"vision_config": {"depth": 1, "hidden_size": 48, "num_heads": 1, "patch_size": 0}},
        {"dtype": "float17"},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_a_config_of_another_type_is_refused(folder, changes):
    edit(folder / "config.json", **changes)
    assert str(folder) in refusal(folder) or "model_type" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04", b"PK\x03\x04", b"\x80\x02]q\x00."])
def test_an_official_head_that_is_no_pickle_is_refused(tmp_path, content):
    file = tmp_path / "rm_head.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rm_head\.pth") as fault:
        read_official_head(file, width=4)
    assert "\n" not in str(fault.value)


def test_an_official_adapter_whose_base_is_a_list_is_refused(tmp_path):
    (tmp_path / "rm_head.pth").write_bytes(b"")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": ["a"]}')
    with pytest.raises(CheckpointError, match="names no base"):
        find_parts(tmp_path, base=None)


def test_an_index_names_no_file_outside_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}')
    with pytest.raises(CheckpointError, match=r"has no \.\./x"):
        weight_files(tmp_path)


@pytest.mark.parametrize("part", ["config", "text_config"])
@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        ("flash_attention_2", "is not installed"),
        ("flash_attention_3", "is not installed"),
        ("flex_attention", "does not take the masks"),
        ("kernels-community/flash-attn2", "is code of a hub"),
    ],
)
def test_an_attention_that_cannot_be_used_is_refused(monkeypatch, attention, reason, part):
    for version in (2, 3):
        monkeypatch.setattr(f"transformers.utils.is_flash_attn_{version}_available", lambda: False)
    processor = small.small_processor(["a"], vocabulary=300)
    config = small.small_config(processor, vocabulary=320, width=64, layers=2, vision_width=48, vision_layers=2)
    getattr(config, part, config)._attn_implementation = attention
    with pytest.raises(ConfigError, match=f"{attention}, which {reason}.*; set it to sdpa"):
        open_backbone(config, dtype=torch.float32)


def test_equal_adapters_are_written_equal(tmp_path):
    file = tmp_path / "adapter_config.json"
    names = [f"layer.{number}.q_proj" for number in range(9)]
    written = set()
    for order in (names, names[::-1]):
        file.write_text(json.dumps({"target_modules": order, "r": 2, "exclude_modules": None}))
        sort_targets(file)
        written.add(file.read_text())
    assert [json.loads(text)["target_modules"] for text in written] == [names]
