"""Qwen3.5 and its MoE: the names of the parts, and the states of linear attention.

Frames, times, positions and vision inputs are those of Qwen3-VL, without features for layers behind the first.

Three of four layers have linear attention (gated delta rule, Yang et al. 2024, arXiv 2412.06464): each reads a sequence
in order into states of a fixed size, and no mask parts chains that follow one prompt. So a chain is never packed with
others. Where chains are written, a prompt is still encoded once: keys and values of the other layers are kept once, and
states are copied for each chain.

Padding on the left is zeros to these layers, which leave the states as they are; what stands on the right of a sequence
is never read by it.

Shapes: R rows (each prompt's samples, in order), D width, n columns of a step, w columns that a convolution reads, H
heads, K and V the widths of a key and a value."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from descore.model import qwen3_vl

MODEL_TYPES = ("qwen3_5", "qwen3_5_moe")

WRAPS_FRAMES, INTERLEAVES_POSITIONS = qwen3_vl.WRAPS_FRAMES, qwen3_vl.INTERLEAVES_POSITIONS
lay_out_videos, sizes_needed, misfits = qwen3_vl.lay_out_videos, qwen3_vl.sizes_needed, qwen3_vl.misfits
frame_pixels, values_of_token = qwen3_vl.frame_pixels, qwen3_vl.values_of_token
EXPORTS, ENGINE_FAULT = False, "was tried with no engine but native"
PACKS = False

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.visual.merger.",),
    "vision_tower": ("model.visual.",),
    "language_model": ("model.language_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    **qwen3_vl.LORA_TARGETS,
    "language_model": (
        *qwen3_vl.LORA_TARGETS["language_model"],
        *("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"),
    ),
}
"""The MoE's experts and routers are no linear layers, and get no adapter; its shared expert does."""

positions, vision_of = qwen3_vl.positions, qwen3_vl.vision_of
encode_vision, last_hidden = qwen3_vl.encode_vision, qwen3_vl.last_hidden


class RowStates(LinearAttentionLayer):  # type: ignore[misc]  # transformers is not typed
    """The states of a layer behind each row's chain so far, which begin as copies of its prompt's.

    Only the rows of `moves_R` (all, where it is None) take up what a forward reads: a chain that has ended waits for
    the query, which leaves no trace either, since the other chains go on."""

    def __init__(self, prefill: LinearAttentionLayer, samples: int) -> None:
        super().__init__()
        self.record_past = True  # transformers then asks `update_conv_state` for single steps, too
        self.has_previous_state[0] = True
        self.conv_states[0] = prefill.conv_states[0].repeat_interleave(samples, dim=0)
        self.recurrent_states[0] = prefill.recurrent_states[0].repeat_interleave(samples, dim=0)
        self.moves_R: Tensor | None = None

    @staticmethod
    def bytes_of(config: Any, *, dtype: torch.dtype) -> int:  # noqa: ANN401  # transformers' configs share no typed base
        """A row's states in one layer: what the convolution reads, in `dtype`, and a matrix a head in float32."""
        keys = config.linear_key_head_dim * config.linear_num_key_heads
        values = config.linear_value_head_dim * config.linear_num_value_heads
        read = (2 * keys + values) * config.linear_conv_kernel_dim
        return int(read * dtype.itemsize + values * config.linear_key_head_dim * torch.float32.itemsize)

    def update_conv_state(self, conv_states: Tensor, *_: object, **__: object) -> Tensor:
        """The inputs of the convolution: the w last of each row, and the step's (R, D, w + n)."""
        last_RDw = self.conv_states[0]
        wide = torch.cat([last_RDw, conv_states], dim=-1)
        self.conv_states[0] = self._moved(wide[..., -last_RDw.shape[-1] :], last_RDw)
        return wide

    def update_recurrent_state(self, recurrent_states: Tensor, *_: object, **__: object) -> Tensor:
        """Take up the states (R, H, K, V) behind a step."""
        self.recurrent_states[0] = self._moved(recurrent_states, self.recurrent_states[0])
        return recurrent_states

    def _moved(self, new: Tensor, old: Tensor) -> Tensor:
        if self.moves_R is None:
            return new
        return torch.where(self.moves_R.view(-1, *[1] * (new.ndim - 1)), new, old)

    def widen(self, room: int) -> None:
        """States have no columns to make room for."""

    def keep(self, _prompts: Tensor, rows: Tensor) -> None:
        """Keep these rows, and forget the others."""
        self.conv_states[0], self.recurrent_states[0] = self.conv_states[0][rows], self.recurrent_states[0][rows]


ROW_STATES = RowStates
