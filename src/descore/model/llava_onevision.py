"""LLaVA-OneVision: the names of its parts, and its videos.

All frames stand in one row of tokens, with one token behind the last, and without a word of when they were. The times
follow in the sentence that the authors' code trains LLaVA-Video with (`add_time_instruction`).

Shapes: B sequences, F frames of all clips, N tokens of a frame, V tokens of all videos, D width, S edge."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from descore.model import internvl
from descore.model.chat import Inputs
from descore.types import Clip

MODEL_TYPES = ("llava_onevision",)

WRAPS_FRAMES = False
INTERLEAVES_POSITIONS = False
ENGINE_FAULT = internvl.ENGINE_FAULT
EXPORTS, PACKS, ROW_STATES = internvl.EXPORTS, internvl.PACKS, internvl.ROW_STATES

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.multi_modal_projector.", "model.image_newline."),
    "vision_tower": ("model.vision_tower.",),
    "language_model": ("model.language_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": internvl.LORA_TARGETS["merger"],
    "vision_tower": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "language_model": internvl.LORA_TARGETS["language_model"],
}

positions, vision_of = internvl.positions, internvl.vision_of
sizes_needed = internvl.sizes_needed


def frame_pixels(config: Any) -> int:  # noqa: ANN401
    """Pixels of a frame: all have one size."""
    return int(config.vision_config.image_size**2)


def values_of_token(config: Any) -> int:  # noqa: ANN401
    """Values of pixels, three of each, that a token of a frame is made of, on average: two by two patches are one."""
    edge, patch = config.vision_config.image_size, config.vision_config.patch_size
    return int(3 * edge**2 / math.ceil(edge // patch / 2) ** 2)


def misfits(config: Any, processor: Any) -> Iterator[str]:  # noqa: ANN401  # processors and configs share no typed base
    """What in the processor does not belong to the config, and what in the config is not understood."""
    yield from internvl.text_misfits(config)
    size, vision = processor.video_processor.size, config.vision_config
    if {size["height"], size["width"]} != {vision.image_size}:
        found = f"{size['height']} x {size['width']}"
        yield f"frames of the processor are {found} pixels, of config.json {vision.image_size}; expected one square"
    tokens = (vision.image_size // vision.patch_size) ** 2
    if processor.num_image_tokens != tokens:
        yield f"num_image_tokens of the processor is {processor.num_image_tokens}; a picture has {tokens} patches"
    if config.vision_feature_select_strategy != "full":
        yield f"vision_feature_select_strategy is {config.vision_feature_select_strategy}; expected full"


def lay_out_videos(processor: Any, turns: Sequence[str], clips: Sequence[Clip]) -> Inputs:  # noqa: ANN401
    """Inputs of these turns, each with the frames of its clip in place of the video's placeholder."""
    words = [f"{processor.replace_video_token(_video_of(clip), video_idx=0)}\n{_times(clip)}" for clip in clips]
    edge = int(processor.video_processor.size["height"])
    return internvl.lay_out_squares(processor, turns, clips, words=words, token_id=processor.video_token_id, edge=edge)


def _video_of(clip: Clip) -> dict[str, Any]:
    return {"pixel_values_videos": [clip.frames]}


def _times(clip: Clip) -> str:
    """The authors' sentence, to a hundredth of a second."""
    located = ",".join(f"{time:.2f}s" for time in clip.times)
    return (
        f"The video lasts for {clip.duration:.2f} seconds, and {len(clip.times)} frames are uniformly sampled from it. "
        f"These frames are located at {located}.Please answer the following questions related to this video."
    )


def encode_vision(backbone: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401
    """The inputs with features in place of pixels; as they are, if they have features."""

    def features(pixels_n3SS: Tensor) -> Tensor:
        videos = backbone.model.get_video_features(pixels_n3SS[:, None], return_dict=True)  # releases name it unlike
        out: Tensor = videos.pooler_output[:, :-1]  # each frame came as a video, with the token behind it
        return out

    return internvl.encode_squares(inputs, features, patch=int(backbone.config.vision_config.patch_size))


def last_hidden(backbone: Any, inputs: Inputs, **options: Any) -> Tensor:  # noqa: ANN401
    """Final, normalized hidden states (B, T, D); `options` go to the language model. With features instead of pixels
    the vision tower does not run."""
    encoded, token_id = encode_vision(backbone, inputs), backbone.config.video_token_id
    behind_D = backbone.model.image_newline
    return internvl.decode_squares(backbone, encoded, token_id=token_id, behind_D=behind_D, **options)
