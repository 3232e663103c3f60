"""The Qwen3-VL family: its rotary positions, the names of its parts, its vision inputs, and its forward.

Another family is another module with these names.

Shapes: B sequences, T tokens, D width, V tokens of all videos, L layers that vision features are added behind."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from descore.model.chat import Inputs
from descore.video.sampling import VideoSampling

VISION_PIXELS, VISION_FEATURES = "pixel_values_videos", "vision_features"
"""The inputs that hold videos: their patches, or what `encode_vision` makes of them."""
MOST_PATCHES = 4096
"""Patches that the vision tower reads at a time, a frame at least; two frames of 448 x 448 pixels have 784."""

MODEL_TYPES = ("qwen3_vl", "qwen3_vl_moe")

WRAPS_FRAMES = True
"""The processor writes a time and a wrapper for each vision step."""

lay_out_videos = None
"""The family's own layout of videos, in place of the processor's; see `internvl`."""

ENGINE_FAULT: str | None = None
"""Why no engine but native is given what the family's models read."""

INTERLEAVES_POSITIONS = True
"""Time, height and width take turns in a head's dimensions; a config that does not say so misleads other engines."""

EXPORTS = True
"""An export is written for other engines."""

PACKS = True
"""A mask parts the chains that follow one prompt, so that they share it in one sequence."""

ROW_STATES = None
"""What a layer of linear attention has for each row while chains are written; None: all layers have keys and values."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    "vision_tower": ("model.visual.",),
    "language_model": ("model.language_model.", "lm_head."),
}
"""Part → how the names of its weights and modules begin. The first part that fits has the name."""

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": ("linear_fc1", "linear_fc2"),
    "vision_tower": ("qkv", "proj", "linear_fc1", "linear_fc2"),
    "language_model": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
"""Part → last names of the linear layers that get an adapter, unless a config says otherwise."""


def sizes_needed(sampling: VideoSampling, processor: Any) -> dict[str, int]:  # noqa: ANN401
    """What `sampling` must have instead, so that its frames can be read: whole patches, merged. Empty if they can."""
    multiple = processor.video_processor.patch_size * processor.video_processor.merge_size
    return {"size_multiple": multiple} if sampling.size_multiple % multiple else {}


def frame_pixels(config: Any) -> int | None:  # noqa: ANN401, ARG001
    """Pixels of a frame where all have one size; None: as sampling has it."""
    return None


def values_of_token(config: Any) -> int:  # noqa: ANN401
    """Values of pixels, three of each, that a token of a video is made of."""
    vision = config.vision_config
    return int(3 * vision.temporal_patch_size * (vision.spatial_merge_size * vision.patch_size) ** 2)


def misfits(config: Any, processor: Any) -> Iterator[str]:  # noqa: ANN401
    """What in the processor does not belong to the config."""
    names = {"patch_size": "patch_size", "merge_size": "spatial_merge_size"}
    for name, other in {**names, "temporal_patch_size": "temporal_patch_size"}.items():
        ours, theirs = getattr(processor.video_processor, name), getattr(config.vision_config, other)
        if ours != theirs:
            yield f"{name} of the processor is {ours}, of config.json {theirs}; expected one"


def positions(backbone: Any, inputs: Inputs) -> Tensor:  # noqa: ANN401  # the family's classes share no typed base
    """Rotary positions (3, B, T): time, height and width of each vision token, the running number of each text token.

    Passed explicitly with every forward, since the backbone otherwise remembers an offset from its last call."""
    position_3BT: Tensor
    position_3BT, _ = backbone.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    return position_3BT


def vision_of(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """The vision inputs of some rows, pixels or features. Each row has one video."""
    grid_B3 = inputs["video_grid_thw"]
    name = VISION_FEATURES if VISION_FEATURES in inputs else VISION_PIXELS
    patches_B = grid_B3.prod(dim=1)
    of_row = torch.split(inputs[name], (patches_B * len(inputs[name]) // patches_B.sum()).tolist())
    return {name: torch.cat([of_row[row] for row in rows]), "video_grid_thw": grid_B3[list(rows)]}


def encode_vision(backbone: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401
    """The inputs with the vision tower's features in place of pixels; as they are, if they have features.

    `vision_features` (V, 1 + L, D): what stands at each video token, then what is added to it behind each of the first
    L layers. Frames are encoded at most MOST_PATCHES at a time, which bounds the memory: none attends to another."""
    if VISION_FEATURES in inputs:
        return inputs
    pieces = list(_pieces(inputs["video_grid_thw"].tolist()))
    pixels = torch.split(inputs[VISION_PIXELS], [sum(t * h * w for t, h, w in piece) for piece in pieces])
    tower, features = backbone.model.visual, []
    for piece, values in zip(pieces, pixels, strict=True):
        grid_N3 = torch.tensor(piece, device=values.device)
        out = tower(values.to(tower.dtype), grid_thw=grid_N3, return_dict=True)
        features.append(torch.stack([out.pooler_output, *out.get("deepstack_features", ())], dim=1))
    others = {name: value for name, value in inputs.items() if name != VISION_PIXELS}
    return {**others, VISION_FEATURES: torch.cat(features)}


def _pieces(grids: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, int, int]]]:
    """The grids in order, cut between frames, each piece with at most MOST_PATCHES or one frame."""
    piece: list[tuple[int, int, int]] = []
    room = MOST_PATCHES
    for frames, height, width in grids:
        while frames:
            fitting = min(frames, room // (height * width))
            if not fitting and piece:
                yield piece
                piece, room = [], MOST_PATCHES
                continue
            taken = max(fitting, 1)
            piece.append((taken, height, width))
            frames, room = frames - taken, room - taken * height * width
    yield piece


def last_hidden(backbone: Any, inputs: Inputs, **options: Any) -> Tensor:  # noqa: ANN401
    """Final, normalized hidden states (B, T, D); `options` go to the language model. With features instead of pixels
    the vision tower does not run."""
    if VISION_FEATURES not in inputs:
        return backbone.model(**inputs, **options).last_hidden_state  # type: ignore[no-any-return]
    embedded_BTD = backbone.get_input_embeddings()(inputs["input_ids"])
    is_video_BT = inputs["input_ids"] == backbone.config.video_token_id
    own_VD, *added = inputs[VISION_FEATURES].to(embedded_BTD).unbind(dim=1)
    mask = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
    behind = {"visual_pos_masks": is_video_BT, "deepstack_visual_embeds": added} if added else {}
    return backbone.model.language_model(  # type: ignore[no-any-return]
        inputs_embeds=embedded_BTD.masked_scatter(is_video_BT[..., None], own_VD), **{**mask, **behind, **options}
    ).last_hidden_state
