"""A tiny model with random weights of each model_type that the package takes."""

import torch
import transformers
from tests.conftest import RUBRIC, build_micro

from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import CHAT_TEMPLATE, SPECIAL_TOKENS, small_tokenizer
from descore.video.sampling import VideoSampling

EVEN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""Images and videos alike."""


def text_config(tokenizer, **more):
    return {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "pad_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def token_ids(tokenizer):
    names = {"image": "image_token_id", "video": "video_token_id", "vision_start": "vision_start_token_id"}
    names["vision_end"] = "vision_end_token_id"
    return {key: tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS[name]) for name, key in names.items()}


def qwen2_processor(tokenizer, name, *, patch):
    video = transformers.Qwen2VLVideoProcessor(**EVEN, patch_size=patch, cap_pixels_per_frame=False)
    images = transformers.Qwen2VLImageProcessor(**EVEN, patch_size=patch)
    return getattr(transformers, name)(images, tokenizer, video, chat_template=CHAT_TEMPLATE)


def qwen2_vl(tokenizer, *, patch=8):
    vision = {"depth": 2, "embed_dim": 48, "num_heads": 3, "hidden_size": 64, "mlp_ratio": 2, "patch_size": patch}
    return qwen2_processor(tokenizer, "Qwen2VLProcessor", patch=patch), transformers.Qwen2VLConfig(
        text_config=text_config(tokenizer), vision_config=vision, tie_word_embeddings=True, **token_ids(tokenizer)
    )


def qwen2_5_vl(tokenizer, *, patch=8):
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "out_hidden_size": 64,
        "patch_size": patch,
        "window_size": 4 * patch,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    return qwen2_processor(tokenizer, "Qwen2_5_VLProcessor", patch=patch), transformers.Qwen2_5_VLConfig(
        text_config=text_config(tokenizer), vision_config=vision, tie_word_embeddings=True, **token_ids(tokenizer)
    )


BUILDERS = {"qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen2_5_vl}


def build(model_type, *, seed=0):
    """A model of this type, like `build_micro`, whose chains and rewards depend on all that came before."""
    if model_type == "qwen3_vl":
        return build_micro(seed=seed)
    torch.manual_seed(seed)
    tokenizer = small_tokenizer(["a red ball rolls to the left <0.5 seconds>", RUBRIC], vocabulary=300)
    processor, config = BUILDERS[model_type](tokenizer)
    settings = CheckpointSettings(
        sampling=VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16),
        max_chain_tokens=12,
    )
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric=RUBRIC).eval()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model
