"""A tiny model with random weights of each model_type that the package takes."""

import json

import pytest
import torch
import transformers
from tests.conftest import RUBRIC, build_micro, noise_clip

from descore.model.checkpoint import CheckpointSettings
from descore.model.efficient_vl import EfficientVLConfig
from descore.model.modeling import DescoreModel, family_of
from descore.model.small import CHAT_TEMPLATE, SPECIAL_TOKENS, small_config, small_tokenizer
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


EDGE, PATCH = 32, 8
"""Of the square frames, in pixels."""
SIZE = {"height": EDGE, "width": EDGE}
SMALL_TOWER = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": EDGE,
    "patch_size": PATCH,
}


def plain_text(tokenizer, kind, **more):
    """A language model with plain positions."""
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    return {**text_config(tokenizer), **rope, "model_type": kind, "head_dim": 32, **more}


def with_names(tokenizer, *, end=None, **names):
    """The tokenizer with further special tokens, which processors ask for by these names."""
    tokenizer.add_tokens(list(names.values()), special_tokens=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=end or tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        extra_special_tokens=names,
    )


def template(video):
    """Qwen's turns, with another placeholder of the video."""
    return CHAT_TEMPLATE.replace("<|vision_start|><|video_pad|><|vision_end|>", f"{{{{ {video!r} }}}}")


def internvl(tokenizer, *, text="qwen3", **sizes):
    tokenizer = with_names(
        tokenizer,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=SIZE),
        tokenizer,
        transformers.InternVLVideoProcessor(size=SIZE),
        image_seq_length=4,
        chat_template=template("<video>\n"),
    )
    return processor, transformers.InternVLConfig(
        text_config=plain_text(tokenizer, text, **sizes),
        vision_config=SMALL_TOWER,
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )


def internvl_moe(tokenizer):
    return internvl(tokenizer, text="qwen3_moe", **MIXTURE)


def smolvlm(tokenizer):
    pytest.importorskip("num2words", reason="transformers' processor of SmolVLM asks for it")
    tokenizer = with_names(
        tokenizer,
        end="<end_of_utterance>",
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    edges = {"size": {"longest_edge": 4 * EDGE}, "max_image_size": {"longest_edge": EDGE}}
    images, videos = transformers.SmolVLMImageProcessor(**edges), transformers.SmolVLMVideoProcessor(**edges)
    processor = transformers.SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4)
    return processor, transformers.SmolVLMConfig(
        text_config=plain_text(tokenizer, "llama"),
        vision_config=SMALL_TOWER,
        image_token_id=processor.image_token_id,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,  # None would not be kept, and its default is beyond the vocabulary
    )


def qwen3_processor(tokenizer, *, patch=PATCH):
    return transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**EVEN, patch_size=patch),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(**EVEN, patch_size=patch, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def qwen3_vl_moe(tokenizer):
    """The dense micro model's sizes, in the family's other class."""
    processor = qwen3_processor(tokenizer)
    dense = small_config(processor, vocabulary=320, width=64, layers=2, vision_width=48, vision_layers=2)
    return processor, transformers.Qwen3VLMoeConfig(
        text_config={**dense.text_config.to_dict(), **MIXTURE, "model_type": "qwen3_vl_moe_text"},
        vision_config={**dense.vision_config.to_dict(), "model_type": "qwen3_vl_moe_vision"},
        tie_word_embeddings=True,
        **token_ids(tokenizer),
    )


def as_qwen3_5(tokenizer):
    """With the family's own cuts between words: transformers opens every tokenizer of the family so."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return transformers.Qwen3_5Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        extra_special_tokens=list(SPECIAL_TOKENS.values()),
    )


def qwen3_5(tokenizer, *, patch=8, name="Qwen3_5Config", **sizes):
    tokenizer = as_qwen3_5(tokenizer)
    processor = qwen3_processor(tokenizer, patch=patch)
    text = text_config(
        tokenizer,
        # A quarter of a head turns with the position, in the family's proportion of 11 : 11 : 10.
        head_dim=64,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.25,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
        # Padding passes through one kind into the other, both ways.
        num_hidden_layers=3,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        # More heads of values than of keys, as the released models have.
        **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
        **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
        **sizes,
    )
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 3,
        "out_hidden_size": 64,
        "patch_size": patch,
        "num_position_embeddings": 64,
    }
    return processor, getattr(transformers, name)(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **token_ids(tokenizer)
    )


def qwen3_5_moe(tokenizer):
    return qwen3_5(tokenizer, name="Qwen3_5MoeConfig", shared_expert_intermediate_size=32, **MIXTURE)


def llava_onevision(tokenizer):
    tokenizer = with_names(tokenizer, image_token="<image>", video_token="<video>")
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=SIZE),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<video>\n"),
    )
    return processor, transformers.LlavaOnevisionConfig(
        text_config=plain_text(tokenizer, "qwen2"),
        vision_config={**SMALL_TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        tie_word_embeddings=True,
    )


def efficient_vl(tokenizer, *, patch=16):
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**EVEN, patch_size=patch),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(**EVEN, patch_size=patch, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    return processor, EfficientVLConfig(
        text_config=text_config(tokenizer),
        vision_config={"hidden_size": 32, "out_hidden_size": 64, "patch_size": patch},
        tie_word_embeddings=True,
        **token_ids(tokenizer),
    )


BUILDERS = {
    "qwen3_vl_moe": qwen3_vl_moe,
    "efficient_vl": efficient_vl,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "internvl": internvl,
    "internvl_moe": internvl_moe,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5_moe,
    "smolvlm": smolvlm,
    "llava_onevision": llava_onevision,
}
CLIPS = [
    noise_clip(0),
    noise_clip(1, frames=6, width=64, height=48),
    noise_clip(2, frames=1),
    noise_clip(3, frames=5, width=48),
]
LARGE_CLIPS = [
    noise_clip(0, width=64, height=32),
    noise_clip(1, frames=6, width=64, height=96),
    noise_clip(2, frames=1, width=32, height=32),
    noise_clip(3, frames=5, width=64, height=32),
]
SQUARE_CLIPS = [noise_clip(i, frames=frames, width=EDGE, height=EDGE) for i, frames in enumerate((4, 6, 1, 5))]


def clips_of(model):
    """Clips of unlike lengths, and of unlike sizes where the model reads these."""
    sampling = model.settings.sampling
    if sampling.max_pixels == sampling.size_multiple**2:
        return SQUARE_CLIPS
    return LARGE_CLIPS if sampling.size_multiple == 32 else CLIPS


def build(name, *, seed=0):
    """A model of this type or builder, like `build_micro`, whose chains and rewards depend on all that came before."""
    if name == "qwen3_vl":
        return build_micro(seed=seed)
    torch.manual_seed(seed)
    tokenizer = small_tokenizer(["a red ball rolls to the left <0.5 seconds>", RUBRIC], vocabulary=300)
    processor, config = BUILDERS[name](tokenizer)
    sampling = VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16)
    sampling = sampling.model_copy(update=family_of(config.model_type).sizes_needed(sampling, processor))
    settings = CheckpointSettings(sampling=sampling, max_chain_tokens=12)
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric=RUBRIC).eval()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model


def tell(model, text):
    """Let a model write this text and no other, whatever it sees: one token, which follows the prompt's last one."""
    model.chat.tokenizer.add_tokens([text])
    token, end = model.chat.tokenizer.convert_tokens_to_ids(text), model.chat.end_id
    last = int(model.chat.lay_out_prompts(clips_of(model)[:1], ["x"])["input_ids"][0, -1])
    table = model.backbone.get_input_embeddings().weight
    assert token < len(table)
    with torch.no_grad():
        for name, weight in model.backbone.get_decoder().named_parameters():
            if name.removesuffix(".weight").endswith(("o_proj", "out_proj", "down_proj")):
                weight.zero_()  # no layer moves anything
        output = torch.zeros_like(table)
        for direction, (before, after) in enumerate(((last, token), (token, end))):
            table[before] = 0.0
            table[before, direction] = 1.0
            output[after, direction] = 30.0
    model.backbone.lm_head.weight = torch.nn.Parameter(output)
    model.backbone.config.tie_word_embeddings = model.backbone.config.get_text_config().tie_word_embeddings = False
    return model
