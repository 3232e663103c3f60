"""From laid-out sequences to losses: one forward gives the chain's log-probabilities and the reward behind it.

Attention is causal, so the chain's tokens do not see the query. Knows a DescoreModel and its inputs; knows nothing of
where they come from.

Shapes: B pairs, R = 2 B sequences (all a, then all b), T tokens, N chain tokens, D width."""

import torch
from torch import Tensor

from descore.data.chat import Inputs
from descore.maths.losses import bradley_terry, next_token
from descore.model.descore_model import DescoreModel


def chain_loss(model: DescoreModel, inputs: Inputs, hidden_RTD: Tensor) -> Tensor:
    """Next-token loss over the chains that `chain_mask` marks, their end of turn included. Logits are made for these
    columns only. Without any chain the loss is 0."""
    is_chain_RT = inputs["chain_mask"]
    before_ND = hidden_RTD[:, :-1][is_chain_RT[:, 1:]]
    target_N = inputs["input_ids"][:, 1:][is_chain_RT[:, 1:]]
    return next_token(model.backbone.lm_head(before_ND), target_N)


def pair_loss(model: DescoreModel, hidden_RTD: Tensor, preference_B: Tensor) -> tuple[Tensor, Tensor]:
    """Bradley-Terry at the query, and the share of decided pairs in the right order. One named dimension.

    preference: 1 for a, -1 for b, 0 for a tie."""
    reward_a_B, reward_b_B = model.rewards(hidden_RTD)[:, 0].chunk(2)
    margin_B = (reward_a_B - reward_b_B) * preference_B
    decided_B = preference_B != 0
    right = (margin_B.detach() > 0).sum() / decided_B.sum().clamp(min=1)
    return bradley_terry(margin_B, decided_B), torch.as_tensor(right, dtype=torch.float32)
