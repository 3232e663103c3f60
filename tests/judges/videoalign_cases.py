"""Small checkpoints in the form that VideoAlign's code writes, and their rewards computed without any code of ours."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from tests.model.families import qwen2_vl
from torchvision.transforms import functional as tvf

from descore.model.small import small_tokenizer

WIDTH, PIXELS, FPS = 64, 64 * 64, 8
QUERIES = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
MOMENTS = {"VQ_mean": 3.5, "VQ_std": 2.0, "MQ_mean": 1.25, "MQ_std": 0.5, "TA_mean": -2.0, "TA_std": 4.0}
TEXT = "Rate it. Visual: {prompt} END"
"""What a rubric of another template begins with, in the tests of it."""


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk, and what it was made of."""

    folder: Path
    model: Any
    processor: Any
    head_KD: torch.Tensor


def make_source(folder, *, form="whole", outputs=1, moments=MOMENTS, tokenizer=True, old_names=True, **changes):
    """form: "whole" has model.pth, "adapter" an adapter and what else learned. changes: of model_config.json."""
    torch.manual_seed(0)
    processor, config = qwen2_vl(small_tokenizer(["a red ball rolls to the left", TEXT], vocabulary=300))
    backbone = transformers.Qwen2VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(3.0)  # random weights hardly tell tokens apart
    base = folder / "base"
    backbone.save_pretrained(base)
    processor.save_pretrained(base)
    processor.tokenizer.add_tokens(list(QUERIES), special_tokens=True)
    backbone.resize_token_embeddings(len(processor.tokenizer))
    backbone.rm_head = torch.nn.Linear(WIDTH, outputs, bias=False)
    model = with_adapter(backbone)
    step = folder / "theirs" / "checkpoint-12"
    for older in ("checkpoint-3", "checkpoint-12"):
        (folder / "theirs" / older).mkdir(parents=True)
    save_weights(model, step, form=form, old_names=old_names)
    if tokenizer:
        processor.tokenizer.save_pretrained(step / "tokenizer")
    write_config(folder / "theirs", base=base, moments=moments, changes=changes)
    return Source(folder / "theirs", model, processor, backbone.rm_head.weight.detach().clone())


def with_adapter(backbone):
    excluded = ("lm_head", "rm_head", "embed_tokens", "visual")
    linear = [name for name, module in backbone.named_modules() if isinstance(module, torch.nn.Linear)]
    targets = [name for name in linear if not any(part in name for part in excluded)]
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    return peft.get_peft_model(backbone, lora).eval()


def name_of(name, *, old):
    """transformers 4 had the language model and the vision tower at other places."""
    if not old:
        return name
    name = name.replace("base_model.model.model.visual.", "base_model.model.visual.")
    return name.replace("base_model.model.model.language_model.", "base_model.model.model.")


def save_weights(model, step, *, form, old_names):
    state = {name_of(name, old=old_names): tensor for name, tensor in model.state_dict().items()}
    if form == "whole":
        torch.save(state, step / "model.pth")
        return
    from safetensors.torch import save_file

    factors = {name.replace(".default.", "."): tensor for name, tensor in state.items() if ".lora_" in name}
    save_file({name: tensor.contiguous() for name, tensor in factors.items()}, step / "adapter_model.safetensors")
    learned = {name: tensor for name, tensor in state.items() if "rm_head" in name or "embed_tokens" in name}
    torch.save(learned, step / "non_lora_state_dict.pth")


def write_config(folder, *, base, moments, changes):
    content = {
        "data_config": {
            "meta_data": "train.csv",
            "data_dir": "data",
            "max_frame_pixels": PIXELS,
            "num_frames": None,
            "fps": 2.0,
            "eval_dim": ["VQ", "MQ", "TA"],
            "prompt_template_type": "detailed_special",
            "sample_type": "uniform",
        },
        "model_config": {
            "model_name_or_path": str(base),
            "output_dim": 1,
            "use_special_tokens": True,
            "reward_token": "special",
        },
        "peft_lora_config": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_task_type": "CAUSAL_LM"},
        "inference_config": moments,
    }
    for part, values in changes.items():
        content[part] |= values
    (folder / "model_config.json").write_text(json.dumps(content))


def film(seed, *, seconds=2.6):
    return np.random.default_rng(seed).integers(0, 256, (round(FPS * seconds), 80, 96, 3), dtype=np.uint8)


def frames_by_hand(video):
    """6 frames of 2.6 s at 2 a second, since 5.2 is nearest to 3 pairs; each edge rounded down to a multiple of 16."""
    pairs = round(min(max(len(video) / FPS * 2.0, 4), 768) / 2)
    index = torch.linspace(0, len(video) - 1, pairs * 2).round().long()
    frames = torch.from_numpy(video)[index].permute(0, 3, 1, 2)
    shrink = math.sqrt(frames[0, 0].numel() / PIXELS)
    size = [math.floor(edge / shrink / 16) * 16 for edge in frames.shape[2:]]
    return tvf.resize(frames, size, interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)


@torch.no_grad()
def rewards_by_hand(source, videos, texts):
    """Rewards (B, 3): one clip at a time, the whole sequence at once, the head at each token."""
    rewards = []
    for video, text in zip(videos, texts, strict=True):
        parts = [{"type": "video"}, {"type": "text", "text": text}]
        turn = source.processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        inputs = source.processor(
            text=[turn], videos=[frames_by_hand(video)], do_resize=False, do_sample_frames=False, return_tensors="pt"
        )
        hidden_TD = source.model.get_base_model().model(**inputs).last_hidden_state[0]
        ids = inputs["input_ids"][0].tolist()
        at = [hidden_TD[ids.index(source.processor.tokenizer.convert_tokens_to_ids(token))] for token in QUERIES]
        head = source.head_KD.expand(3, -1)
        rewards.append(torch.stack([row @ weight for row, weight in zip(at, head, strict=True)]))
    return torch.stack(rewards)
