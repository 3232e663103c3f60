"""Weights in 8 and 4 bits, sharded files, and transformers' device_map: the same model, or nearly, and one line for
what is not there."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from tests.model.families import build

from descore import Scorer
from descore.errors import ConfigError, DescoreWarning
from descore.evaluation.judges import ModelJudge
from descore.memory.need import empty_model, weight_bytes
from descore.model import WeightPlacement, bits_of, expert_weights
from descore.model.modeling import DescoreModel
from descore.scorer import SamplingParams

PROMPT = "a red ball"
CLIPS = [(noise_clip(seed), PROMPT) for seed in range(4)]
needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The micro model, its weights in many files."""
    model = build_micro()
    path = tmp_path_factory.mktemp("placement") / "micro"
    model.save_pretrained(path)
    (path / "model.safetensors").unlink()
    model.backbone.save_pretrained(path, max_shard_size="200KB")
    assert len(list(path.glob("model-*.safetensors"))) > 2
    return path


def rewards(scorer):
    return torch.tensor([score.reward for score in scorer.score_batch(CLIPS, think="off")])


def test_shards_and_a_device_map_change_nothing(folder):
    plain = Scorer(build_micro(), name="micro")
    for how in ({}, {"device_map": "auto"}, {"device": "auto"}, {"device_map": {"": "cpu"}}):
        scorer = Scorer.from_pretrained(folder, **{"device": "cpu", "dtype": torch.float32, **how})
        assert torch.equal(rewards(scorer), rewards(plain))


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "bits", "within"), [("8bit", 8, 0.012), ("4bit", 4, 0.11)])
def test_the_language_model_is_quantized(folder, name, bits, within):
    """Of normal weights, 8 bits round a row's to 1/127 of its largest, .6 % of them on the whole, and NF4 some 9 %."""
    whole = Scorer.from_pretrained(folder, device="cpu", dtype=torch.bfloat16)
    scorer = Scorer.from_pretrained(folder, device="cpu", quantization_config=name)
    backbone = scorer.model.backbone
    assert bits_of(backbone) == bits
    assert bits_of(whole.model.backbone) is None
    kept = {id(weight) for weight in backbone.model.visual.parameters()} | {id(backbone.lm_head.weight)}
    assert all(weight.is_floating_point() for weight in backbone.parameters() if id(weight) in kept)
    held = sum(weight.nbytes for weight in scorer.model.parameters())
    # Scales of 8 bits, and of 4 bits for each 64 weights, are no parameters.
    assert held == pytest.approx(weight_bytes(empty_model(backbone.config), bits=bits), rel=0.06)
    assert not torch.equal(rewards(scorer), rewards(whole))
    # On a CPU, bitsandbytes has laid the weights out in another way by now.
    backbone = Scorer.from_pretrained(folder, device="cpu", quantization_config=name).model.backbone
    backbone.dequantize()
    original, rounded = (dict(model.named_parameters()) for model in (whole.model.backbone, backbone))
    moved = [name for name in original if not torch.equal(original[name], rounded[name])]
    assert moved
    for name in original:
        quantized = "language_model.layers" in name and original[name].ndim == 2
        assert quantized is (name in moved)
        if quantized:
            exact = original[name].float()
            assert (rounded[name].float() - exact).norm() < within * exact.norm()


@needs_bitsandbytes
@pytest.mark.slow
def test_experts_that_stay_whole_are_named(tmp_path):
    build("qwen3_vl_moe").save_pretrained(tmp_path)
    fault = r"quantization: experts are no linear layers and stay in bfloat16, \d\d% of the model's bytes"
    with pytest.warns(DescoreWarning, match=fault):
        model = DescoreModel.from_pretrained(tmp_path, device="cpu", quantization_config="4bit")
    assert {weight.dtype for weight in expert_weights(model.backbone).values()} == {torch.bfloat16}


@needs_bitsandbytes
@pytest.mark.slow
def test_a_quantized_model_writes_and_is_its_own_run(folder):
    scorer = Scorer.from_pretrained(folder, device="cpu", quantization_config="4bit")
    alone = scorer.score(noise_clip(0), prompt=PROMPT)
    assert alone.thinking
    params = SamplingParams()
    precision = ModelJudge(scorer=scorer, sampling_params=params).config["precision"]
    assert precision == "bfloat16, 4 bits"
    plain = Scorer.from_pretrained(folder, device="cpu")
    assert ModelJudge(scorer=plain, sampling_params=params).config["precision"] == "float32"


@pytest.mark.parametrize("how", [{"quantization_config": "4bit"}, {"device_map": "auto"}])
def test_a_missing_package_is_one_line(folder, monkeypatch, how):
    monkeypatch.setattr("descore.model.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"not installed; run pip install '.\[quantize\]'") as error:
        DescoreModel.from_pretrained(folder, device="cpu", **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"quantization_config": "3bit"}, "quantization: found '3bit'; expected 8bit, 4bit"),
        ({"quantization_config": "4bit", "engine": "vllm"}, "are for engine native, found 'vllm'"),
    ],
)
def test_what_cannot_be_quantized_is_one_line(folder, how, fault):
    with pytest.raises(ConfigError, match=fault):
        Scorer.from_pretrained(folder, device="cpu", **how)


def test_a_model_that_is_left_on_the_cpu_is_refused():
    model = SimpleNamespace(backbone=SimpleNamespace(hf_device_map={"model.visual": 0, "model.language_model": "cpu"}))
    with pytest.raises(ConfigError, match="does not fit the GPUs, a part of it is on the CPU; quantize it"):
        WeightPlacement(device_map="auto").put(model)
