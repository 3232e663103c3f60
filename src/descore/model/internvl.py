"""InternVL3 and 3.5 in transformers' own port, and what families share whose frames are squares of one size.

Each frame is a picture of its own, `Frame-1: <img>...</img>`, as in the models' training; its number is all that is
said of when it was. transformers writes `Frame1:`, and takes no batch of clips with unlike numbers of frames, so frames
are laid out here.

Shapes: B sequences, T tokens, D width, F frames of all clips, N tokens of a frame, V tokens of all videos, S edge."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from descore.errors import VideoError
from descore.model import qwen3_vl
from descore.model.chat import Inputs, pixels_of
from descore.model.qwen3_vl import VISION_FEATURES, VISION_PIXELS
from descore.types import Clip
from descore.video.sampling import VideoSampling

FRAMES = "video_frames"
"""The input (B,) with the number of each clip's frames, which `pixel_values_videos` (F, 3, S, S) has one by one."""
VIDEO_KIND = 2
"""In `mm_token_type_ids`, as transformers has it."""

MODEL_TYPES = ("internvl",)
TEXT_TYPES = ("qwen2", "qwen3", "qwen3_moe", "llama")
"""Language models that attend to all that came before, and to nothing else."""

WRAPS_FRAMES = False
INTERLEAVES_POSITIONS = False
ENGINE_FAULT = "has its frames laid out here, which no engine but native does as the model was trained"
EXPORTS, PACKS, ROW_STATES = qwen3_vl.EXPORTS, qwen3_vl.PACKS, qwen3_vl.ROW_STATES

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.multi_modal_projector.",),
    "vision_tower": ("model.vision_tower.",),
    "language_model": ("model.language_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": ("linear_1", "linear_2"),
    "vision_tower": ("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
    "language_model": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


def _edge(processor: Any) -> int:  # noqa: ANN401  # processors share no typed base
    return int(processor.video_processor.size["height"])


def sizes_needed(sampling: VideoSampling, processor: Any) -> dict[str, int]:  # noqa: ANN401
    """What `sampling` must have instead, so that its frames can be read. Empty if they can."""
    return square_needed(sampling, _edge(processor))


def square_needed(sampling: VideoSampling, edge: int) -> dict[str, int]:
    """What makes all frames squares of this edge: their multiple and their most pixels leave no other size."""
    if sampling.size_multiple == edge and sampling.max_pixels == edge * edge:
        return {}
    return {"size_multiple": edge, "max_pixels": edge * edge, "min_pixels": min(sampling.min_pixels, edge * edge)}


def frame_pixels(config: Any) -> int:  # noqa: ANN401
    """Pixels of a frame: all have one size."""
    return math.prod(config.vision_config.image_size)


def values_of_token(config: Any) -> int:  # noqa: ANN401
    """Values of pixels, three of each, that a token of a frame is made of, on average."""
    return int(3 * frame_pixels(config) / _tokens(config))


def _tokens(config: Any) -> int:  # noqa: ANN401
    """Tokens of a frame."""
    edges = zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
    return math.prod(int(edge // patch * config.downsample_ratio) for edge, patch in edges)


def misfits(config: Any, processor: Any) -> Iterator[str]:  # noqa: ANN401  # nor do configs
    """What in the processor does not belong to the config, and what in the config is not understood."""
    yield from text_misfits(config)
    size, vision = processor.video_processor.size, config.vision_config
    if [size["height"], size["width"]] != list(vision.image_size) or size["height"] != size["width"]:
        found = f"{size['height']} x {size['width']}"
        yield f"frames of the processor are {found} pixels, of config.json {vision.image_size}; expected one square"
    if processor.image_seq_length != _tokens(config):
        found = processor.image_seq_length
        yield f"image_seq_length of the processor is {found}; {_tokens(config)} tokens are made of a frame"


def text_misfits(config: Any) -> Iterator[str]:  # noqa: ANN401
    """A language model whose attention chains cannot share."""
    text = config.get_text_config()
    if text.model_type not in TEXT_TYPES:
        yield f"its language model is {text.model_type!r}; expected one of {', '.join(TEXT_TYPES)}"
    if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        yield "its language model has a sliding window; expected full attention in every layer"


def lay_out_videos(processor: Any, turns: Sequence[str], clips: Sequence[Clip]) -> Inputs:  # noqa: ANN401
    """Inputs of these turns, each with the frames of its clip in place of the video's placeholder."""
    frame = processor.start_image_token + processor.image_token * processor.image_seq_length + processor.end_image_token
    words = ["\n".join(f"Frame-{i + 1}: {frame}" for i in range(len(clip.times))) for clip in clips]
    return lay_out_squares(
        processor, turns, clips, words=words, token_id=processor.image_token_id, edge=_edge(processor)
    )


def lay_out_squares(
    processor: Any,  # noqa: ANN401
    turns: Sequence[str],
    clips: Sequence[Clip],
    *,
    words: Sequence[str],
    token_id: int,
    edge: int,
) -> Inputs:
    """Inputs whose videos are these words, in which each `token_id` stands for a part of a frame. Pixels are rescaled
    and normalized as the processor's settings say, and nothing else. VideoError for frames of another size."""
    for clip in clips:
        if clip.size != (edge, edge):
            found, multiple = "x".join(map(str, clip.size)), f"size_multiple {edge} and max_pixels {edge * edge}"
            raise VideoError(clip.source, f"frames of {found} pixels; expected {edge}x{edge}: sample with {multiple}")
    texts = [turn.replace(processor.video_token, text, 1) for turn, text in zip(turns, words, strict=True)]
    tokens = processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    kinds = VIDEO_KIND * (tokens["input_ids"] == token_id).long()
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "mm_token_type_ids": kinds,
        VISION_PIXELS: torch.cat([_normalized(processor.video_processor, pixels_of(clip)) for clip in clips]),
        FRAMES: torch.tensor([len(clip.times) for clip in clips]),
    }


def _normalized(video: Any, pixels_T3HW: Tensor) -> Tensor:  # noqa: ANN401
    options = (video.do_rescale, video.rescale_factor, video.do_normalize, tuple(video.image_mean))
    values: Tensor = video.rescale_and_normalize(pixels_T3HW, *options, tuple(video.image_std))
    return values


def positions(backbone: Any, inputs: Inputs) -> Tensor:  # noqa: ANN401, ARG001
    """Positions (3, B, T), three times the running number of each token: one that has none is of the padding."""
    return (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0).repeat(3, 1, 1)


def vision_of(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """The vision inputs of some rows, pixels or features. Each row has one video."""
    name = VISION_FEATURES if VISION_FEATURES in inputs else VISION_PIXELS
    of_row = torch.split(inputs[name], inputs[FRAMES].tolist())
    return {name: torch.cat([of_row[row] for row in rows]), FRAMES: inputs[FRAMES][list(rows)]}


def encode_vision(backbone: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401
    """The inputs with features in place of pixels; as they are, if they have features."""

    def features(pixels_n3SS: Tensor) -> Tensor:
        out: Tensor = backbone.model.get_image_features(pixel_values=pixels_n3SS, return_dict=True).pooler_output
        return out

    return encode_squares(inputs, features, patch=int(backbone.config.vision_config.patch_size[0]))


def encode_squares(inputs: Inputs, features: Callable[[Tensor], Tensor], *, patch: int) -> Inputs:
    """The inputs with `vision_features` (F, N, D) in place of pixels, encoded as many frames at a time as have
    MOST_PATCHES patches of this edge, and one at least."""
    if VISION_PIXELS not in inputs:
        return inputs
    pixels_F3SS = inputs[VISION_PIXELS]
    at_once = max(1, qwen3_vl.MOST_PATCHES // (pixels_F3SS.shape[-1] // patch) ** 2)
    others = {name: value for name, value in inputs.items() if name != VISION_PIXELS}
    return {**others, VISION_FEATURES: torch.cat([features(part) for part in torch.split(pixels_F3SS, at_once)])}


def last_hidden(backbone: Any, inputs: Inputs, **options: Any) -> Tensor:  # noqa: ANN401
    """Final, normalized hidden states (B, T, D); `options` go to the language model. With features instead of pixels
    the vision tower does not run."""
    return decode_squares(backbone, encode_vision(backbone, inputs), token_id=backbone.config.image_token_id, **options)


def decode_squares(
    backbone: Any,  # noqa: ANN401
    inputs: Inputs,
    *,
    token_id: int,
    behind_D: Tensor | None = None,
    position_ids: Tensor,
    **options: Any,  # noqa: ANN401
) -> Tensor:
    """Hidden states (B, T, D) of the language model, with features at the columns of `token_id`, if there are any.

    behind_D: what stands behind the features of a clip's frames. position_ids (3, B, T), of which one is taken: the
    language model has plain positions."""
    embedded_BTD = backbone.get_input_embeddings()(inputs["input_ids"])
    if VISION_FEATURES in inputs:
        behind = () if behind_D is None else (behind_D.to(embedded_BTD)[None],)
        of_clip = torch.split(inputs[VISION_FEATURES].to(embedded_BTD), inputs[FRAMES].tolist())
        feature_VD = torch.cat([part for clip in of_clip for part in (clip.flatten(0, 1), *behind)])
        embedded_BTD = embedded_BTD.masked_scatter((inputs["input_ids"] == token_id)[..., None], feature_VD)
    mask = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
    language_model, position_BT = backbone.get_decoder(), position_ids[0]
    out = language_model(inputs_embeds=embedded_BTD, position_ids=position_BT, **{**mask, **options})
    return out.last_hidden_state  # type: ignore[no-any-return]
