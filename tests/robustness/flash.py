"""A stand-in for the flash_attn package that computes on the CPU, in any precision, what its kernels compute.

It has the names that transformers imports and takes what the kernels take: sequences without padding, end to end or
of one length. There is no place for a mask, so all that reaches it comes from a padding mask (B, T) or from none. As
in the package since 2.1, a causal query of fewer tokens than there are keys stands at their end.

Shapes: B sequences, T tokens of all or of each, H heads, D width."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

UTILS = "transformers.modeling_flash_attention_utils"


def attend(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, *, scale: float | None, causal: bool) -> Tensor:
    """One sequence."""
    queries, keys, groups = len(q_THD), len(k_THD), q_THD.shape[1] // k_THD.shape[1]
    assert queries <= keys
    q, k, v = (x.transpose(0, 1) for x in (q_THD, *(x.repeat_interleave(groups, dim=1) for x in (k_THD, v_THD))))
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(0, 1)


class StandIn:
    """The kernels, and how often each was called."""

    def __init__(self) -> None:
        self.calls = {"equal lengths": 0, "without padding": 0}

    def flash_attn_func(self, q_BTHD, k_BTHD, v_BTHD, dropout_p=0.0, softmax_scale=None, causal=False):
        assert dropout_p == 0
        self.calls["equal lengths"] += 1
        rows = zip(q_BTHD, k_BTHD, v_BTHD, strict=True)
        return torch.stack([attend(q, k, v, scale=softmax_scale, causal=causal) for q, k, v in rows])

    def flash_attn_varlen_func(
        self, q_THD, k_THD, v_THD, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        dropout_p=0.0, softmax_scale=None, causal=False,
    ):  # fmt: skip
        assert dropout_p == 0
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        lengths_q, lengths_k = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
        assert (max(lengths_q), max(lengths_k)) == (int(max_seqlen_q), int(max_seqlen_k))
        self.calls["without padding"] += 1
        rows = zip(q_THD.split(lengths_q), k_THD.split(lengths_k), v_THD.split(lengths_k), strict=True)
        return torch.cat([attend(q, k, v, scale=softmax_scale, causal=causal) for q, k, v in rows])


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Let transformers find the stand-in as flash_attn until the test ends."""
    from transformers import modeling_flash_attention_utils as utils

    stand_in, package, padding = StandIn(), ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    package.flash_attn_func, package.flash_attn_varlen_func = stand_in.flash_attn_func, stand_in.flash_attn_varlen_func
    package.flash_attn_with_kvcache = None
    padding.unpad_input, padding.pad_input = utils._unpad_input, utils._pad_input
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    for name in (UTILS, "transformers.utils"):
        monkeypatch.setattr(f"{name}.is_flash_attn_2_available", lambda: True)
    monkeypatch.setitem(utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2], "general_availability_check", lambda: True)
    monkeypatch.setattr(f"{UTILS}._loaded_implementation", None)
    return stand_in
