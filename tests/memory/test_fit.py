"""What scoring and training take is counted from a config alone, and held against what there is."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from tests.conftest import build_micro, noise_clip
from tests.model import families
from transformers.cache_utils import DynamicCache

from descore.errors import CheckpointError, ConfigError
from descore.memory.fit import (
    ClipSize,
    Memory,
    Requirement,
    clip_size,
    fit_text,
    fitting,
    memory_of,
    read_model,
    requirements,
    size_text,
)
from descore.memory.live_bytes import LiveBytes
from descore.memory.need import GIB, cache_bytes, dequantized_bytes, empty_model, scoring_need, step_need, weight_bytes
from descore.model.checkpoint import CheckpointSettings, find_checkpoint
from descore.rubric import DEFAULT_RUBRIC
from descore.training.cold_start import pair_batch_loss
from descore.training.collate import PairCollator, TrainingExample, TrainingPair
from descore.training.config import LossConfig, PairTrainableConfig
from descore.training.models import set_trainable, trainable_weights
from descore.video.sampling import VideoSampling

CARD = Memory(name="a card", total=10 * GIB, is_card=True)
SMALL = ClipSize(frames=4, video=64, words=128, chain=64)
ALL = ["qwen3_vl", *families.BUILDERS]
"""Every kind of model that the package takes."""


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
@pytest.mark.parametrize("model_type", ALL)
def test_every_family_is_counted_as_it_runs(model_type):
    """Keys, values and states of a batch to the byte, and a real step of LoRA within a tenth: masks, positions and what
    the vision tower makes inside are not computed. At real sizes they are less beside the rest."""
    model = families.build(model_type)
    empty = empty_model(model.backbone.config, learns="lora")
    prompts = model.chat.lay_out_prompts(families.clips_of(model)[:2], ["a", "a longer prompt"])
    rows, columns = prompts["input_ids"].shape
    assert cache_bytes(empty, columns=rows * columns, rows=rows, dtype=torch.float32) == cached(model, prompts)
    batch, peak = pair_step(model)
    rows, tokens = batch["input_ids"].shape
    video = int((batch["mm_token_type_ids"] == 2).sum()) // rows
    need = step_need(empty, rows=rows, tokens=tokens, chain=21, gpu=False, video=video)
    assert need.peak == pytest.approx(peak, rel=0.1)


def cached(model, prompts):
    """Bytes of what a forward of these leaves in the cache."""
    cache = DynamicCache(config=model.backbone.config.get_text_config())
    options = {"position_ids": model.family.positions(model.backbone, prompts), "past_key_values": cache}
    with torch.no_grad():
        model.family.last_hidden(model.backbone, prompts, **options, use_cache=True)
    linear = model.family.ROW_STATES is not None
    states = [s for layer in cache.layers if linear and hasattr(layer, "conv_states") for s in states_of(layer)]
    keys = [t for layer in cache.layers if not hasattr(layer, "conv_states") for t in (layer.keys, layer.values)]
    return sum(tensor.nbytes for tensor in (*states, *keys))


def states_of(layer):
    return (*layer.conv_states.values(), *layer.recurrent_states.values())


def pair_step(model):
    """A pair's batch, and the peak of all tensors in a step of LoRA over it. Gradients and moments exist before."""
    model = model.train()
    set_trainable(model, PairTrainableConfig(), precision=torch.bfloat16)
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    clips = [noise_clip(seed, frames=32, width=32, height=32) for seed in range(2)]
    a, b = (TrainingExample(clip=clip, prompt="q" * 300, chain="q" * 20) for clip in clips)
    pair = TrainingPair(a=a, b=b, preference_K=np.array([1], dtype=np.int8), number=0)
    batch = PairCollator(chat=model.chat, chain_drop=0.0, seed=0)([pair])
    weights = list(trainable_weights(model).values())
    optimizer = torch.optim.AdamW(weights, lr=1e-6)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    there = [*model.parameters(), *(weight.grad for weight in weights), *moments, *batch.values()]
    with LiveBytes(there) as counted:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms, _ = pair_batch_loss(model, batch, loss=LossConfig(chain_weight=0.1))
        terms.sum().backward()
        optimizer.step()
    return batch, counted.peak + sum(tensor.nbytes for tensor in there)


@pytest.mark.slow
def test_each_stage_takes_more_in_full_and_less_quantized(config):
    by_name = {r.name: r.bytes_of for r in requirements(config, clip=SMALL, gpu=True)}
    assert list(by_name) == ["scoring", "stage 0", "stage 1", "stage 2"]
    assert list(by_name["scoring"]) == ["bfloat16", "8 bits", "4 bits"]
    for how in ("in full", "LoRA", "QLoRA"):
        assert by_name["stage 0"][how] < by_name["stage 1"][how] < by_name["stage 2"][how]
    on_cpu = next(requirements(config, clip=SMALL, gpu=False))
    assert on_cpu.bytes_of["float32"] > by_name["scoring"]["bfloat16"]


@pytest.mark.slow
def test_chains_that_share_no_prompt_take_a_row_each():
    """Of 16 rows in stage 2, layer inputs alone are 16 times those of stage 0."""
    config = families.build("qwen3_5").backbone.config
    by_name = {r.name: r.bytes_of.get("LoRA", 0) for r in requirements(config, clip=SMALL, gpu=True)}
    lora = empty_model(config, learns="lora")
    held = step_need(lora, rows=1, tokens=128, chain=1, gpu=True)
    rest = {name: size - held.frozen - held.learned for name, size in by_name.items() if name != "scoring"}
    assert rest["stage 2"] > 12 * rest["stage 0"]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "internvl", "llava_onevision"])
def test_a_clip_has_the_tokens_of_its_largest_frames(model_type):
    model = families.build(model_type)
    sampling = VideoSampling(fps=0.25, max_pixels=32 * 32, min_pixels=16 * 16, size_multiple=16, max_frames=6)
    settings = CheckpointSettings(sampling=sampling, max_chain_tokens=7)
    clip = clip_size(model.backbone.config, settings, rubric="x" * 300)
    assert (clip.frames, clip.words, clip.chain) == (4, 100 + 512, 7)  # a quarter of a frame for each of 16 seconds
    inputs = model.chat.lay_out_prompts([noise_clip(0, frames=4, width=32, height=32)], ["x"])
    behind = 1 if model_type == "llava_onevision" else 0
    assert clip.video == int((inputs["mm_token_type_ids"] == 2).sum()) - behind
    assert clip.tokens == clip.video + 619


def test_a_checkpoint_is_computed_as_it_samples(tmp_path):
    """tiny takes at most 16 frames of 16,384 pixels, 2,048 to a token, and writes 192 tokens."""
    _, clip = read_model("tiny")
    assert (clip.frames, clip.video, clip.chain) == (16, 128, 192)
    assert size_text(clip).startswith("16 s of video: 16 frames are 128 tokens, words ")
    shutil.copy(find_checkpoint("tiny") / "config.json", tmp_path)
    config, plain = read_model(str(tmp_path))
    assert plain == clip_size(config, CheckpointSettings(), rubric=DEFAULT_RUBRIC)
    assert (plain.frames, plain.chain) == (32, 1024)


def test_a_released_judge_is_computed_by_its_own_text():
    """32 frames of 602,112 pixels, 2,048 to a token."""
    _, clip = read_model("tiny", rubric="videoscore2")
    assert (clip.frames, clip.chain) == (32, 1024)
    assert clip.video == 32 * 602_112 // 2048
    with pytest.raises(ConfigError, match="videoalign is of a model with a head"):
        read_model("tiny", rubric="videoalign")


def test_of_the_hub_only_small_files_are_fetched(monkeypatch):
    tiny, asked = find_checkpoint("tiny"), []
    own = read_model("tiny")[1]

    def download(repo, name):
        asked.append((repo, name))
        if repo == "a/backbone":
            raise EntryNotFoundError("404")
        return str(tiny / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with monkeypatch.context() as patched:
        read = type(read_model("tiny")[0]).from_pretrained(tiny)
        patched.setattr("descore.memory.fit.transformers_config", lambda _: read)
        assert read_model("a/model")[1] == own
        assert read_model("a/backbone")[1].frames == 32
    assert {name for _, name in asked} == {"rubric.txt", "descore.json"}


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
    small = Requirement(name="scoring", bytes_of={"float32": GIB // 40})
    assert fit_text(small, CARD) == "float32 0.025 GiB; float32 fits a card's 10.0"
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
            read_model(str(tmp_path))
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="/no/such/place: no such folder"):
        read_model("/no/such/place")


@pytest.mark.slow
def test_of_a_mixture_experts_that_learn_are_not_computed():
    config = families.build("qwen3_vl_moe").backbone.config
    scoring, *stages = requirements(config, clip=SMALL, gpu=True)
    assert scoring.left_out == ""
    for stage in stages:
        assert list(stage.bytes_of) == ["LoRA", "QLoRA"]
        assert fit_text(stage, CARD).endswith("fit a card's 10.0; not computed in full: experts learn")
    on_cpu = next(requirements(config, clip=SMALL, gpu=False))
    assert on_cpu.bytes_of["float32"] > scoring.bytes_of["bfloat16"]
    with pytest.raises(ConfigError, match="qwen3_vl_moe_text: memory of experts that learn is not computed"):
        step_need(empty_model(config, learns="full"), rows=1, tokens=64, chain=8, gpu=True)
