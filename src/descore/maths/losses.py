"""Losses over rewards and log-probabilities: pure functions of tensors, in float32 at least.

Every loss of rewards takes a mask of what is labelled, since a pair may lack a label in one dimension and have it in
another. It is averaged over what is labelled alone, or summed if `reduction` says so; where nothing is, it is 0, with a
gradient of 0. What stands at unlabelled places is never looked at: it may be nan.

Shapes: B pairs, R sequences, K named dimensions, N tokens, V vocabulary. Any shape will do in place of (B, K), as long
as a function's tensors share it."""

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the name that everyone knows it by
from torch import Tensor

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
