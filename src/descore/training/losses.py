"""From laid-out sequences to losses: one forward gives the chain's log-probabilities and the reward behind it.

Attention is causal, so the chain's tokens do not see the query. Knows a DescoreModel and its inputs; knows nothing of
where they come from.

Shapes: B pairs, R = 2 B sequences (all a, then all b), T tokens, K named dimensions, N chain tokens, n of them at a
time, D width, V vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from descore.data.chat import Inputs
from descore.maths.losses import bradley_terry, bradley_terry_ties, next_token_sum, rating_regression, with_margin
from descore.model.descore_model import DescoreModel
from descore.training.cold_start_config import LossKind

LOGITS_AT_ONCE = 1 << 26
"""Logits that exist at one time, at most: 256 MB in float32, or 441 tokens of Qwen3-VL's vocabulary of 151,936. Their
softmax and gradient take as much again each."""

_BESIDE = ("preference", "labelled", "rating", "dropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLosses:
    """What a forward says of the labels of its pairs."""

    loss: Tensor
    """Summed over labels, with a gradient: scalar, float32."""
    count: Tensor
    """How many labels that is, as `count_labels` says: scalar."""
    metrics: dict[str, Tensor]
    """`pair_loss`; over decided pairs `pair_accuracy` (and, if there are several dimensions, `pair_accuracy.NAME`) and
    `margin`, chosen minus rejected reward: each a sum and its count (2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextToken:
    """What a forward says of the chains' tokens."""

    loss: Tensor
    """Sum of -log p(token), with a gradient: scalar, float32."""
    right: Tensor
    """How many tokens were the likeliest: scalar, float32."""
    tokens: Tensor
    """How many there are, each chain's end of turn included: scalar."""


def chain_loss(model: DescoreModel, inputs: Inputs, hidden_RTD: Tensor) -> Tensor:
    """Mean next-token loss over the chains that `chain_mask` marks. Without any chain it is 0."""
    found = next_tokens(model, inputs, hidden_RTD)
    return found.loss / found.tokens.clamp(min=1)


def next_tokens(model: DescoreModel, inputs: Inputs, hidden_RTD: Tensor) -> NextToken:
    """Next-token loss over the chains that `chain_mask` marks, summed. Logits are made for these columns only."""
    is_chain_RT = inputs["chain_mask"][:, 1:]
    before_ND, target_N = hidden_RTD[:, :-1][is_chain_RT], inputs["input_ids"][:, 1:][is_chain_RT]
    vocabulary = model.backbone.get_input_embeddings().weight.shape[0]
    loss, right = in_pieces(before_ND, target_N, output=model.backbone.lm_head, piece=LOGITS_AT_ONCE // vocabulary)
    return NextToken(loss=loss, right=right, tokens=is_chain_RT.sum())


def in_pieces(
    hidden_ND: Tensor, target_N: Tensor, *, output: Callable[[Tensor], Tensor], piece: int
) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target), and how many targets were the likeliest: two scalars, float32.

    `output` maps hidden states (n, D) to logits (n, V). It is asked for `piece` tokens at a time, and where there are
    several pieces, their logits are not kept but made again in the backward pass. Values and gradients are those of
    the plain way."""

    def look(hidden_nD: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        logits_nV = output(hidden_nD)
        right_n = logits_nV.detach().argmax(dim=-1) == target_n
        return next_token_sum(logits_nV, target_n), right_n.sum().float()

    if len(target_N) <= piece:
        return look(hidden_ND, target_N)
    pieces = zip(torch.split(hidden_ND, piece), torch.split(target_N, piece), strict=True)
    found = [checkpoint(look, hidden_nD, target_n, use_reentrant=False) for hidden_nD, target_n in pieces]
    return torch.stack([loss for loss, _ in found]).sum(), torch.stack([right for _, right in found]).sum()


def sequences(batch: dict[str, Any]) -> Inputs:
    """What a model's forward takes of a batch of pairs: all but what is known about it."""
    return {name: value for name, value in batch.items() if name not in _BESIDE}


def count_labels(batch: dict[str, Any], *, kind: LossKind) -> int:
    """How many labels of a batch have a loss: decided pairs by dimension; with `ties`, ties too; for `regression`,
    ratings by sequence and dimension."""
    return int(_has_loss(batch, kind).sum())


def pair_losses(
    model: DescoreModel,
    hidden_RTD: Tensor,
    batch: dict[str, Any],
    *,
    kind: LossKind,
    k: float = 5.0,
    margin_scale: float = 1.0,
) -> PairLosses:
    """Loss of the rewards at the query under a batch's labels, summed over them. A batch of no pair costs nothing.

    k: of `ties`. margin_scale: of `margin`, units of the reward for one of the batch's ratings; the margin is 0 where
    a pair lacks a rating, or the ratings contradict the preference."""
    reward_RK, pairs = model.rewards(hidden_RTD), len(batch["preference"])
    difference_BK, has_loss = reward_RK[:pairs] - reward_RK[pairs:], _has_loss(batch, kind)
    chosen_BK = difference_BK * batch["preference"]
    if kind == "regression":
        loss = rating_regression(reward_RK, batch["rating"], has_loss, reduction="sum")
    elif kind == "ties":
        loss = bradley_terry_ties(difference_BK, batch["preference"], has_loss, k=k, reduction="sum")
    elif kind == "margin":
        loss = with_margin(chosen_BK, margin_scale * _rated_better(batch), has_loss, reduction="sum")
    else:
        loss = bradley_terry(chosen_BK, has_loss, reduction="sum")
    metrics = _measure(chosen_BK.detach(), _decided(batch), names=model.settings.dimensions)
    metrics["pair_loss"] = torch.stack([loss.detach(), has_loss.sum().float()])
    return PairLosses(loss=loss, count=has_loss.sum(), metrics=metrics)


def _has_loss(batch: dict[str, Any], kind: LossKind) -> Tensor:
    """Whether a loss of this kind has a term for a label: (B, K), or (R, K) for regression."""
    if kind == "regression":
        return ~torch.isnan(batch["rating"])
    return batch["labelled"] if kind == "ties" else _decided(batch)  # type: ignore[no-any-return]


def _decided(batch: dict[str, Any]) -> Tensor:
    return batch["labelled"] & (batch["preference"] != 0)  # type: ignore[no-any-return]


def _rated_better(batch: dict[str, Any]) -> Tensor:
    """By how much the chosen clip's rating is above the other's (B, K), 0 at least."""
    rating_a_BK, rating_b_BK = batch["rating"].tensor_split(2)
    better_BK: Tensor = batch["preference"] * (rating_a_BK - rating_b_BK)
    return better_BK.nan_to_num(nan=0.0).clamp(min=0)


def _measure(margin_BK: Tensor, decided_BK: Tensor, *, names: Sequence[str]) -> dict[str, Tensor]:
    """Accuracy and mean margin over decided pairs, each a sum and its count. Equal rewards are not in order."""
    decided_BK = decided_BK.expand_as(margin_BK)
    right_K = ((margin_BK > 0) & decided_BK).sum(dim=0).float()
    decided_K = decided_BK.sum(dim=0).float()
    whole = {
        "pair_accuracy": torch.stack([right_K.sum(), decided_K.sum()]),
        "margin": torch.stack([(margin_BK * decided_BK).sum(), decided_K.sum()]),
    }
    if len(names) == 1:
        return whole
    return whole | {f"pair_accuracy.{name}": torch.stack([right_K[i], decided_K[i]]) for i, name in enumerate(names)}
