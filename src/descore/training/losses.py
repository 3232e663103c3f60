"""From laid-out sequences to losses: one forward gives the chain's log-probabilities and the reward behind it.

Attention is causal, so the chain's tokens do not see the query. Knows a DescoreModel and its inputs; knows nothing of
where they come from.

Shapes: B pairs, R = 2 B sequences (all a, then all b), T tokens, N chain tokens, n of them at a time, D width,
V vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from descore.data.chat import Inputs
from descore.maths.losses import bradley_terry, next_token_sum
from descore.model.descore_model import DescoreModel

LOGITS_AT_ONCE = 1 << 26
"""Logits that exist at one time, at most: 256 MB in float32, or 441 tokens of Qwen3-VL's vocabulary of 151,936. Their
softmax and gradient take as much again each."""


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


def pair_loss(model: DescoreModel, hidden_RTD: Tensor, preference_B: Tensor) -> tuple[Tensor, Tensor]:
    """Bradley-Terry at the query, and the share of decided pairs in the right order. One named dimension.

    preference: 1 for a, -1 for b, 0 for a tie."""
    reward_a_B, reward_b_B = model.rewards(hidden_RTD)[:, 0].chunk(2)
    margin_B = (reward_a_B - reward_b_B) * preference_B
    decided_B = preference_B != 0
    right = (margin_B.detach() > 0).sum() / decided_B.sum().clamp(min=1)
    return bradley_terry(margin_B, decided_B), torch.as_tensor(right, dtype=torch.float32)
