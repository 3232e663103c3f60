"""Losses over rewards and log-probabilities: pure functions of tensors.

Shapes: B pairs, N tokens, V vocabulary."""

import torch.nn.functional as F  # noqa: N812  # the name that everyone knows it by
from torch import Tensor


def bradley_terry(margin_B: Tensor, decided_B: Tensor) -> Tensor:
    """Mean of -log sigmoid(margin) over decided pairs (Bradley & Terry 1952): scalar.

    margin: chosen minus rejected reward. decided: 1 for a pair with a preference, 0 for a tie, which carries no
    weight. Without any decided pair the loss is 0."""
    weight_B = decided_B.to(margin_B.dtype)
    return -(F.logsigmoid(margin_B) * weight_B).sum() / weight_B.sum().clamp(min=1)


def next_token_sum(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Sum of -log p(target) over tokens, computed in float32: scalar. Without any token it is 0."""
    return F.cross_entropy(logits_NV.float(), target_N, reduction="sum")
