"""The Qwen3-VL family: its rotary positions, the names of its parts, and its vision inputs.

Another family is another module with these names.

Shapes: B sequences, T tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from descore.data.chat import Inputs

MODEL_TYPES = ("qwen3_vl", "qwen3_vl_moe")

WRAPS_FRAMES = True
"""The processor writes a time and a wrapper for each vision step."""

INTERLEAVES_POSITIONS = True
"""Time, height and width take turns in a head's dimensions; a config that does not say so misleads other engines."""

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
    """The vision inputs of some rows. Each row has one video."""
    grid_B3 = inputs["video_grid_thw"]
    pixels = torch.split(inputs["pixel_values_videos"], grid_B3.prod(dim=1).tolist())
    return {
        "pixel_values_videos": torch.cat([pixels[row] for row in rows]),
        "video_grid_thw": grid_B3[list(rows)],
    }
