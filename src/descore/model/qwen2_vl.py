"""Qwen2-VL and Qwen2.5-VL: rotary positions, the names of the parts, and vision inputs.

All frames stand between one pair of wrappers without a word of when they were. Qwen2.5-VL knows it by positions: two
for each second between its vision steps (`tokens_per_second`). Qwen2-VL is not told.

Shapes: B sequences, T tokens."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from descore.model import qwen3_vl
from descore.model.chat import Inputs

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")

WRAPS_FRAMES = False
lay_out_videos = qwen3_vl.lay_out_videos
ENGINE_FAULT = "reads times from positions, which no engine but native is given exactly"
INTERLEAVES_POSITIONS = False
EXPORTS, PACKS, ROW_STATES = qwen3_vl.EXPORTS, qwen3_vl.PACKS, qwen3_vl.ROW_STATES

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.visual.merger.",),
    "vision_tower": ("model.visual.",),
    "language_model": ("model.language_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": ("0", "2"),
    "vision_tower": ("qkv", "proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"),
    "language_model": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}

_SECONDS = "second_per_grid_ts"


def positions(backbone: Any, inputs: Inputs) -> Tensor:  # noqa: ANN401  # the family's classes share no typed base
    """Rotary positions (3, B, T): time, height and width of each vision token, the running number of each text token.

    Text behind the video begins behind the largest position of the three (Wang et al. 2024, arXiv 2409.12191, section
    2.1), as the released models were trained. `get_rope_index` of transformers 5 passes over that of time, so that a
    long clip's last frames would stand behind the prompt."""
    config = backbone.config.vision_config
    each_second = getattr(config, "tokens_per_second", None)
    out_3BT = torch.zeros(3, *inputs["input_ids"].shape, dtype=torch.long, device=inputs["input_ids"].device)
    grids, merge = inputs["video_grid_thw"].tolist(), config.spatial_merge_size
    steps = [1.0] * len(grids) if each_second is None else [each_second * s for s in inputs[_SECONDS].tolist()]
    videos = iter([_video_positions(grid, merge=merge, step=step) for grid, step in zip(grids, steps, strict=True)])
    for row, (mask_T, kind_T) in enumerate(
        zip(inputs["attention_mask"].bool(), inputs["mm_token_type_ids"], strict=True)
    ):
        parts_3N, start = [], 0
        for is_video, run in groupby(kind_T[mask_T].tolist()):
            part_3N = next(videos) if is_video else torch.arange(len(list(run))).expand(3, -1)
            parts_3N.append(start + part_3N)
            start = int(parts_3N[-1].max()) + 1
        out_3BT[:, row, mask_T] = torch.cat(parts_3N, dim=1).to(out_3BT)
    return out_3BT


def _video_positions(grid: Sequence[int], *, merge: int, step: float) -> Tensor:
    """Positions (3, V) of a video's tokens, from 0. step: from one vision step to the next in time."""
    frames, height, width = grid
    time_F = (torch.arange(frames) * step).long()
    return torch.stack(
        torch.meshgrid(time_F, torch.arange(height // merge), torch.arange(width // merge), indexing="ij")
    ).flatten(1)


sizes_needed, misfits = qwen3_vl.sizes_needed, qwen3_vl.misfits
frame_pixels, values_of_token = qwen3_vl.frame_pixels, qwen3_vl.values_of_token
encode_vision, last_hidden = qwen3_vl.encode_vision, qwen3_vl.last_hidden


def vision_of(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """The vision inputs of some rows. Each row has one video."""
    seconds = {name: inputs[name][list(rows)] for name in (_SECONDS,) if name in inputs}
    return {**qwen3_vl.vision_of(inputs, rows), **seconds}
