"""Models and inputs to measure: the former tiny's sizes, and Qwen3-VL's true sizes, all without trained weights.

A true size is built on torch's meta device, which holds sizes and no data, or filled with small random numbers."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from descore.model.chat import QUERY_TOKEN
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import SPECIAL_TOKENS, small_config, small_processor
from descore.training.config import LoraConfig, PairTrainableConfig, PartConfig
from descore.training.models import set_trainable
from descore.types import Clip

CORPUS = ("a red ball rolls to the left <0.5 seconds>",)
"""Text that the tokenizers are trained on."""
UNTRAINED = CheckpointSettings(trained_on="nothing: a benchmark")

Learns = Literal["lora", "full"]
"""How the language model learns; query and head learn in full, and nothing else does."""
VOCABULARY, HEAD, PATCH = 151_936, 128, 16
"""Shared by the family: rows of the embedding, numbers in a head, pixels along a vision patch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The values in which the configs of Qwen/Qwen3-VL-*-Instruct differ."""

    width: int
    layers: int
    heads: int
    inner: int
    tied: bool
    vision_layers: int
    vision_width: int
    vision_inner: int
    deepstack: tuple[int, ...]


SIZES = {
    "2B": Size(
        width=2048, layers=28, heads=16, inner=6144, tied=True,
        vision_layers=24, vision_width=1024, vision_inner=4096, deepstack=(5, 11, 17),
    ),
    "4B": Size(
        width=2560, layers=36, heads=32, inner=9728, tied=True,
        vision_layers=24, vision_width=1024, vision_inner=4096, deepstack=(5, 11, 17),
    ),
    "8B": Size(
        width=4096, layers=36, heads=32, inner=12_288, tied=False,
        vision_layers=27, vision_width=1152, vision_inner=4304, deepstack=(8, 16, 24),
    ),
}  # fmt: skip
"""All have 8 heads for keys and values, and 16 in the vision tower."""


def small_model(vocabulary: int = 1024) -> DescoreModel:
    """The former tiny's layers with random weights, and an embedding of this many rows.

    Its chains run to the limit, so that all ways do the same work."""
    torch.manual_seed(0)
    processor = small_processor(CORPUS, vocabulary=1024)
    processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
    config = small_config(processor, vocabulary=vocabulary)
    return DescoreModel.from_backbone(config, processor=processor, settings=UNTRAINED, rubric="{prompt}").eval()


def small_learner(vocabulary: int = 1024) -> DescoreModel:
    """The same, with adapters on the language model, query and head to learn."""
    model = small_model(vocabulary)
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=16, lora_alpha=32)), precision=torch.float32)
    return model


def noise_clip(seed: int, *, frames: int, edge: int = 64) -> Clip:
    """A clip of random pixels at two frames a second."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, edge, edge, 3), dtype=np.uint8)
    return Clip(
        frames=pixels,
        times=tuple(t / 2 for t in range(frames)),
        source="<noise>",
        source_fps=2.0,
        source_size=(edge, edge),
        source_frames=frames,
        duration=frames / 2,
    )


def true_size_filled(size: Size, *, learns: Learns, device: str = "cpu") -> DescoreModel:
    """A model with small random weights, the same 64 rows repeated: billions of draws would take minutes. It is built
    on its device, which takes seconds on a GPU."""
    from transformers.initialization import no_init_weights

    torch.manual_seed(0)
    with no_init_weights(), torch.device(device):
        model = true_size(size, learns=learns)
    model.backbone.tie_weights()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        rows = 0.02 * torch.randn(min(64, len(weight)), *weight.shape[1:], device=device)
        for piece in weight.data.split(64):
            piece.copy_(rows[: len(piece)])
    return model


def true_size(size: Size, *, learns: Learns) -> DescoreModel:
    """A model in bfloat16 whose language model learns; its tokenizer has 1,024 words, its embedding all rows."""
    processor = small_processor(CORPUS, vocabulary=1024, patch=PATCH)
    processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
    model = DescoreModel.from_backbone(
        config_of(size, processor),
        processor=processor,
        settings=UNTRAINED,
        rubric="{prompt}",
        dtype=torch.bfloat16,
    )
    set_trainable(model, PairTrainableConfig(language_model=PartConfig(mode=learns)), precision=torch.bfloat16)
    return model


def config_of(size: Size, processor: Any) -> Any:  # noqa: ANN401  # transformers is not typed
    """The published config, except the ids of its special tokens."""
    from transformers import Qwen3VLConfig

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": 8,
        "head_dim": HEAD,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5_000_000.0, "mrope_section": [24, 20, 20]},
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_width,
        "intermediate_size": size.vision_inner,
        "num_heads": 16,
        "out_hidden_size": size.width,
        "patch_size": PATCH,
        "deepstack_visual_indexes": size.deepstack,
    }
    names = {"image": "image_token_id", "video": "video_token_id", "vision_start": "vision_start_token_id"}
    names["vision_end"] = "vision_end_token_id"
    ids = {key: processor.tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS[name]) for name, key in names.items()}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=size.tied, **ids)
