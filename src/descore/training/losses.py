"""From laid-out sequences to losses: one forward gives the chain's log-probabilities and the reward behind it.

Attention is causal, so the chain's tokens do not see the query. Knows a DescoreModel and its inputs; knows nothing of
where they come from.

Shapes: B pairs, R = 2 B sequences (all a, then all b), T tokens, K named dimensions, N chain tokens, n of them at a
time, D width, V vocabulary."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the name that everyone knows it by
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from descore.data.chat import Inputs
from descore.model.modeling import DescoreModel
from descore.training.config import LossKind

Reduction = Literal["mean", "sum"]


def bradley_terry(margin_BK: Tensor, decided_BK: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean of -log sigmoid(margin) over decided pairs (Bradley & Terry 1952): scalar.

    margin: chosen minus rejected reward. decided: 1 for a pair with a preference, 0 for a tie or no label, which carry
    no weight."""
    return _over_labelled(-F.logsigmoid(_where(decided_BK, margin_BK)), decided_BK, reduction)


def bradley_terry_ties(
    difference_BK: Tensor, preference_BK: Tensor, labelled_BK: Tensor, *, k: float = 5.0, reduction: Reduction = "mean"
) -> Tensor:
    """Mean of -log P(label) over labelled pairs, ties included (Rao & Kupper 1967, Journal of the American Statistical
    Association 62): scalar.

        P(a over b) = sigmoid(d - log k)
        P(tie)      = (k² - 1) · sigmoid(d - log k) · sigmoid(-d - log k)

    difference: d, reward of a minus reward of b. preference: 1 for a, -1 for b, 0 for a tie. k: above 1; equal rewards
    tie with probability (k - 1) / (k + 1). The default is VideoAlign's (arXiv 2501.13918)."""
    assert k > 1, f"k is {k}; without a threshold above 1 there are no ties"
    d_BK, threshold = _where(labelled_BK, difference_BK), math.log(k)
    a_BK, b_BK = F.logsigmoid(d_BK - threshold), F.logsigmoid(-d_BK - threshold)
    tie_BK = math.log(k * k - 1) + a_BK + b_BK
    said_BK = torch.where(preference_BK > 0, a_BK, torch.where(preference_BK < 0, b_BK, tie_BK))
    return _over_labelled(-said_BK, labelled_BK, reduction)


def with_margin(
    difference_BK: Tensor, margin_BK: Tensor, decided_BK: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Mean of -log sigmoid(difference - margin) over decided pairs (Touvron et al. 2023, "Llama 2", arXiv 2307.09288,
    equation 2): scalar.

    difference: chosen minus rejected reward. margin: by how much the one is better, in units of the reward; with 0
    everywhere it is `bradley_terry`."""
    return bradley_terry(difference_BK - margin_BK, decided_BK, reduction=reduction)


def rating_regression(
    reward_RK: Tensor, rating_RK: Tensor, labelled_RK: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Mean squared difference of reward and rating over rated sequences: scalar. VideoScore (He et al. 2024,
    arXiv 2406.15252) learns its ratings so.

    rating: standardized by the caller, since a reward head without a bias cannot learn a mean."""
    return _over_labelled(_where(labelled_RK, reward_RK - rating_RK).square(), labelled_RK, reduction)


def next_token_sum(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Sum of -log p(target) over tokens, computed in float32: scalar. Without any token it is 0."""
    return F.cross_entropy(logits_NV.float(), target_N, reduction="sum")


def _where(labelled: Tensor, values: Tensor) -> Tensor:
    """The values, and 0 where there is no label: a nan would pass through a product with 0."""
    return torch.where(labelled.bool(), values.to(torch.promote_types(values.dtype, torch.float32)), 0.0)


def _over_labelled(losses: Tensor, labelled: Tensor, reduction: Reduction) -> Tensor:
    weight = labelled.to(losses.dtype)
    total = (losses * weight).sum()
    return total / weight.sum().clamp(min=1) if reduction == "mean" else total


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
