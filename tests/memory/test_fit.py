"""What scoring and training take is counted from a config alone, and held against what there is."""

import json

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from tests.model import families
from transformers.cache_utils import DynamicCache

from descore.errors import CheckpointError, ConfigError
from descore.memory import fit
from descore.memory.fit import Memory, Requirement, backbone_config, fit_text, fitting, memory_of, requirements
from descore.memory.need import GIB, dequantized_bytes, empty_model, scoring_need, step_need, weight_bytes
from descore.model.small import small_config, small_processor

CARD = Memory(name="a card", total=10 * GIB, is_card=True)


@pytest.fixture(scope="module")
def config():
    return build_micro().backbone.config


def test_weights_and_cache_of_scoring_are_those_of_a_model(config):
    """Two clips of unlike lengths, padded to one: keys and values of each layer for all columns, in float32."""
    model = build_micro()
    prompts = model.chat.lay_out_prompts([noise_clip(0), noise_clip(1, frames=6)], ["a", "a longer prompt"])
    cache = DynamicCache(config=config.get_text_config())
    options = {"position_ids": model.family.positions(model.backbone, prompts), "past_key_values": cache}
    model.family.last_hidden(model.backbone, prompts, **options, use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    tokens = prompts["input_ids"].shape[1]
    need = scoring_need(empty_model(config), rows=2, tokens=tokens, chain=0, dtype=torch.float32)
    assert need.cache == kept
    assert need.weights == sum(weight.nbytes for weight in model.parameters())
    with_chains = scoring_need(empty_model(config), rows=2, tokens=tokens + 5, chain=5, samples=3, dtype=torch.float32)
    assert with_chains.cache == kept // (2 * tokens) * 2 * (tokens + 3 * 5)


def test_quantized_weights_are_counted_layer_by_layer(config):
    """8 bits: a byte a weight and four a row. 4 bits: half a byte, and four bytes for each 64 weights."""
    model = empty_model(config)
    output = model.backbone.get_output_embeddings().weight
    text = model.backbone.model.language_model.modules()
    linear = [m.weight for m in text if isinstance(m, torch.nn.Linear) and m.weight is not output]
    others = sum(weight.nbytes for weight in model.parameters()) - sum(weight.nbytes for weight in linear)
    assert weight_bytes(model, bits=8) == others + sum(w.numel() + 4 * w.shape[0] for w in linear)
    assert weight_bytes(model, bits=4) == int(others + sum(w.numel() * 0.5625 for w in linear))
    assert dequantized_bytes(model) == max(2 * w.numel() for w in linear)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_every_family_is_computed(model_type):
    config = families.build(model_type).backbone.config
    names = [requirement.name for requirement in requirements(config, gpu=True)]
    assert names == ["scoring", "stage 0", "stage 1", "stage 2"]


@pytest.mark.slow
def test_each_stage_takes_more_in_full_and_less_quantized(config, monkeypatch):
    monkeypatch.setattr(fit, "TOKENS", 256)
    monkeypatch.setattr(fit, "CHAIN", 64)
    by_name = {requirement.name: requirement.bytes_of for requirement in requirements(config, gpu=True)}
    assert list(by_name) == ["scoring", "stage 0", "stage 1", "stage 2"]
    assert list(by_name["scoring"]) == ["bfloat16", "8 bits", "4 bits"]
    for how in ("in full", "LoRA", "QLoRA"):
        assert by_name["stage 0"][how] < by_name["stage 1"][how] < by_name["stage 2"][how]
    on_cpu = next(requirements(config, gpu=False))
    assert on_cpu.bytes_of["float32"] > by_name["scoring"]["bfloat16"]


def test_a_quantized_step_holds_less_and_computes_the_same(config):
    lora = empty_model(config, learns="lora")
    plain, quantized = (step_need(lora, rows=2, tokens=128, chain=32, gpu=True, bits=bits) for bits in (None, 4))
    assert quantized.frozen == weight_bytes(lora, bits=4, learned=False) < plain.frozen
    assert quantized.layer == plain.layer + dequantized_bytes(lora)
    assert (quantized.learned, quantized.kept, quantized.logits) == (plain.learned, plain.kept, plain.logits)


def test_a_line_says_what_fits():
    both = Requirement(name="stage 1", bytes_of={"in full": 20 * GIB, "LoRA": 10 * GIB, "QLoRA": 5 * GIB})
    assert fitting(both, CARD) == ["LoRA", "QLoRA"]
    assert fit_text(both, CARD) == "in full 20.0, LoRA 10.0, QLoRA 5.0 GiB; LoRA, QLoRA fit a card's 10.0"
    one = Requirement(name="scoring", bytes_of={"bfloat16": 11 * GIB, "4 bits": GIB})
    assert fit_text(one, CARD).endswith("; 4 bits fits a card's 10.0")
    none = Requirement(name="scoring", bytes_of={"bfloat16": 11 * GIB})
    assert fit_text(none, CARD) == "bfloat16 11.0 GiB; nothing fits a card's 10.0"


def test_the_memory_of_a_machine_is_what_it_may_use():
    there = memory_of("cpu")
    assert not there.is_card
    assert 1 << 28 < there.total < 1 << 44


def test_a_config_that_cannot_be_read_is_one_line(tmp_path):
    for content, kind, fault in [
        (None, CheckpointError, "has no config.json"),
        ("[]", CheckpointError, "transformers cannot read the config"),
        (json.dumps({"model_type": "llama"}), ConfigError, "model_type is 'llama'"),
    ]:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(kind, match=fault) as error:
            backbone_config(str(tmp_path))
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="/no/such/place: no such folder"):
        backbone_config("/no/such/place")


def test_a_mixture_of_experts_is_computed_for_scoring():
    from transformers import Qwen3VLMoeConfig

    processor = small_processor(["a"], vocabulary=280)
    small = small_config(processor, vocabulary=320, width=64, layers=1, vision_width=48, vision_layers=2)
    text = small.text_config.to_dict() | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    moe = Qwen3VLMoeConfig(text_config=text, vision_config=small.vision_config.to_dict())
    found = requirements(moe, gpu=True)
    assert next(found).name == "scoring"
    with pytest.raises(ConfigError, match="not computed for a mixture of experts"):
        next(found)
