"""SmolVLM and SmolVLM2: the names of their parts, and their videos.

Behind a sentence with the number of frames and the video's length, each frame stands behind the minute and second that
it is in, `Frame from 00:01:`, as in the models' training. The words are the processor's; it is asked for one clip at a
time, since in a batch it states the longest clip's number of frames for all.

Shapes: F frames of all clips, N tokens of a frame, D width, S edge."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from descore.model import internvl
from descore.model.chat import Inputs, video_metadata
from descore.types import Clip
from descore.video.sampling import VideoSampling

MODEL_TYPES = ("smolvlm",)

WRAPS_FRAMES = False
INTERLEAVES_POSITIONS = False
ENGINE_FAULT = internvl.ENGINE_FAULT
EXPORTS, PACKS, ROW_STATES = internvl.EXPORTS, internvl.PACKS, internvl.ROW_STATES

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.connector.",),
    "vision_tower": ("model.vision_model.",),
    "language_model": ("model.text_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": ("proj",),
    "vision_tower": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "language_model": internvl.LORA_TARGETS["language_model"],
}

positions, vision_of = internvl.positions, internvl.vision_of


def _edge(processor: Any) -> int:  # noqa: ANN401  # processors share no typed base
    return int(processor.video_processor.max_image_size["longest_edge"])


def sizes_needed(sampling: VideoSampling, processor: Any) -> dict[str, int]:  # noqa: ANN401
    """What `sampling` must have instead, so that its frames can be read. Empty if they can."""
    return internvl.square_needed(sampling, _edge(processor))


def frame_pixels(config: Any) -> int:  # noqa: ANN401
    """Pixels of a frame: all have one size."""
    return int(config.vision_config.image_size**2)


def values_of_token(config: Any) -> int:  # noqa: ANN401
    """Values of pixels, three of each, that a token of a frame is made of."""
    return int(3 * (config.vision_config.patch_size * config.scale_factor) ** 2)


def misfits(config: Any, processor: Any) -> Iterator[str]:  # noqa: ANN401  # nor do configs
    """What in the processor does not belong to the config, and what in the config is not understood."""
    yield from internvl.text_misfits(config)
    vision, edge = config.vision_config, _edge(processor)
    if edge != vision.image_size:
        yield f"frames of the processor are {edge} pixels wide, of config.json {vision.image_size}; expected one"
    tokens = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
    if processor.image_seq_len != tokens:
        yield f"image_seq_len of the processor is {processor.image_seq_len}; {tokens} tokens are made of a frame"


def lay_out_videos(processor: Any, turns: Sequence[str], clips: Sequence[Clip]) -> Inputs:  # noqa: ANN401
    """Inputs of these turns, each with the frames of its clip in place of the video's placeholder."""
    words = [_words(processor, clip) for clip in clips]
    return internvl.lay_out_squares(
        processor, turns, clips, words=words, token_id=processor.image_token_id, edge=_edge(processor)
    )


def _words(processor: Any, clip: Clip) -> str:  # noqa: ANN401
    """A clip's frames in words and tokens. Frames are numbered at one a second, which makes their numbers their times:
    a quotient might fall below a whole second."""
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(**{**video_metadata(clip), "fps": 1.0, "frames_indices": list(clip.times)})
    videos = {"pixel_values": clip.frames[None], "video_metadata": [metadata]}
    return str(processor.replace_video_token(videos, video_idx=0))


def encode_vision(backbone: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401
    """The inputs with features in place of pixels; as they are, if they have features. transformers' own
    `get_image_features` leaves out a frame of even grey, which it takes for padding, so the tower is called itself."""
    tower = backbone.model.vision_model

    def features(pixels_n3SS: Tensor) -> Tensor:
        hidden = tower(pixel_values=pixels_n3SS.to(tower.dtype), return_dict=True).last_hidden_state
        out: Tensor = backbone.model.connector(hidden)
        return out

    return internvl.encode_squares(inputs, features, patch=int(backbone.config.vision_config.patch_size))


def last_hidden(backbone: Any, inputs: Inputs, **options: Any) -> Tensor:  # noqa: ANN401
    """Final, normalized hidden states (B, T, D); `options` go to the language model. With features instead of pixels
    the vision tower does not run."""
    encoded, token_id = encode_vision(backbone, inputs), backbone.config.image_token_id
    return internvl.decode_squares(backbone, encoded, token_id=token_id, **options)
