"""Small checkpoints in the form that the official DeScore code writes, and their rewards computed from the parts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.conftest import RUBRIC, noise_clip

from descore.model.modeling import open_backbone
from descore.model.qwen3_vl import positions
from descore.model.small import small_config, small_processor

WIDTH = 64


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk, and what it was made of."""

    folder: Path
    model: Any
    """The backbone, PEFT's model of it if there is an adapter."""
    processor: Any
    head_KD: torch.Tensor
    base: Path | None = None


def small_official(seed=0):
    """A backbone and a processor with the query token added as the official code adds it: one row, no spare ones."""
    torch.manual_seed(seed)
    processor = small_processor(["a red ball rolls to the left <0.5 seconds>", RUBRIC], vocabulary=300)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<Reward>"]})
    config = small_config(processor, vocabulary=320, width=WIDTH, layers=2, vision_width=48, vision_layers=2)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    backbone = open_backbone(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(3.0)  # random weights hardly tell tokens apart
    backbone.resize_token_embeddings(len(processor.tokenizer))
    return backbone, processor


def save_head(folder, head_KD, *, form):
    """The names under which the official stages write the head."""
    state = {
        "stage 1": {"base_model.model.rm_head.weight": head_KD},
        "stage 2": {"model": {"rm_head.weight": head_KD}},
        "plain": {"weight": head_KD, "bias": torch.zeros(len(head_KD))},
    }[form]
    torch.save(state, folder / "rm_head.pth")


def whole_model(folder, *, form="stage 1", outputs=1, shards="100KB"):
    """Weights of the whole model, in several files."""
    backbone, processor = small_official()
    backbone.config.architectures = ["Qwen3VLRewardModelBT"]
    backbone.save_pretrained(folder, max_shard_size=shards)
    processor.save_pretrained(folder)
    head_KD = torch.randn(outputs, WIDTH, generator=torch.Generator().manual_seed(1))
    save_head(folder, head_KD, form=form)
    return Source(folder, backbone, processor, head_KD)


def adapted(folder, *, beside=True, embedding=None):
    """A LoRA adapter. `beside`: in lora_adapter/ under the weights, as the official stage 1 has it; else on its own,
    naming its base, as PEFT has it. `embedding`: how a copy of the embedding is saved with it, if it is."""
    import peft

    backbone, processor = small_official()
    base = folder if beside else folder.with_name("base")
    backbone.save_pretrained(base, max_shard_size="100KB")
    processor.save_pretrained(base)
    last_names = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=last_names,
        init_lora_weights=False,
        modules_to_save=["embed_tokens"] if embedding == "module" else None,
    )
    model = peft.get_peft_model(backbone, lora).eval()
    model.peft_config["default"].base_model_name_or_path = None if beside else "elsewhere/base"
    # The official code trains the embedding apart, and writes factors alone.
    place = folder / "lora_adapter" if beside else folder
    model.save_pretrained(place, save_embedding_layers=embedding is not None)
    head_KD = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    save_head(folder, head_KD, form="stage 1")
    return Source(folder, model, processor, head_KD, base)


@torch.no_grad()
def rewards_by_hand(source, inputs):
    """The embedding's own row at the query token, the head as a plain product: no code of the project's model."""
    inner = source.model.get_base_model() if source.base else source.model
    inputs = {key: value for key, value in inputs.items() if key != "chain_mask"}
    out = inner.model(**inputs, position_ids=positions(inner, inputs), use_cache=False)
    assert (inputs["input_ids"][:, -1] == source.processor.tokenizer.convert_tokens_to_ids("<Reward>")).all()
    return out.last_hidden_state[:, -1] @ source.head_KD.T


def inputs_for(model):
    """Two clips, a chain and none, laid out by the converted model."""
    chat = model.chat
    prompts = chat.lay_out_prompts([noise_clip(0), noise_clip(1, frames=6)], ["a red ball", "a longer prompt"])
    return chat.lay_out_chains(prompts, [chat.encode_chain("It rolls."), chat.no_thinking])
