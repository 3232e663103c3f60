"""Losses: of stages 0 and 1, next-token losses on chains, and pair or rating losses on rewards; of stage 2, GRPO token
by token: advantages, the clipped policy objective, and the KL estimator.

Attention is causal, so the chain's tokens do not see the query: one forward gives both.

GRPO's tokens are flat: those of many chains one after another, without padding. Each has its weight in the whole
update, so a loss is a plain sum, and the sums of packs and processes add up to the update's. A token of weight 0 takes
no part, and its values are never read. All in float32 at least.

Shapes: B pairs, R = 2 B sequences (all a, then all b) or R chains, C clips with G chains each, T tokens, K named
dimensions, N chain tokens, n of them at a time or with a weight, D width, V vocabulary."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the name that everyone knows it by
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from descore.model.chat import Inputs
from descore.model.modeling import DescoreModel
from descore.training.config import LossKind

if TYPE_CHECKING:
    from descore.training.rl.config import LossType, ScaleRewards

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
    log_prob_BK = torch.where(preference_BK > 0, a_BK, torch.where(preference_BK < 0, b_BK, tie_BK))
    return _over_labelled(-log_prob_BK, labelled_BK, reduction)


def bradley_terry_margin(
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


MAX_LOGITS = 1 << 26
"""Logits that exist at one time: 256 MB in float32, or 441 tokens of Qwen3-VL's vocabulary of 151,936. Their softmax
and gradient take as much again each."""

_LABELS = ("preference", "labelled", "rating", "dropped")
"""Keys of a batch of pairs that are not inputs of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLosses:
    """The loss and the metrics of the pairs of a forward."""

    loss: Tensor
    """Summed over labels, with a gradient: scalar, float32."""
    count: Tensor
    """How many labels that is, as in `count_labels`: scalar."""
    metrics: dict[str, Tensor]
    """`pair_loss`; over decided pairs `pair_accuracy` (and, if there are several dimensions, `pair_accuracy.NAME`) and
    `margin`, chosen minus rejected reward: each a sum and its count (2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokenLoss:
    """The next-token loss of the chains of a forward."""

    loss: Tensor
    """Sum of -log p(token), with a gradient: scalar, float32."""
    correct: Tensor
    """How many tokens were the likeliest: scalar, float32."""
    tokens: Tensor
    """How many there are, each chain's end of turn included: scalar."""


def chain_loss(model: DescoreModel, inputs: Inputs, hidden_RTD: Tensor) -> Tensor:
    """Mean next-token loss over the chains that `chain_mask` marks. Without any chain it is 0."""
    result = next_token_loss(model, inputs, hidden_RTD)
    return result.loss / result.tokens.clamp(min=1)


def next_token_loss(
    model: DescoreModel, inputs: Inputs, hidden_RTD: Tensor, *, max_logits: int | None = None
) -> NextTokenLoss:
    """Next-token loss over the chains that `chain_mask` marks, summed. Logits are made for these columns only."""
    is_chain_RT = inputs["chain_mask"][:, 1:]
    before_ND, target_N = hidden_RTD[:, :-1][is_chain_RT], inputs["input_ids"][:, 1:][is_chain_RT]
    output, chunk_size = model.backbone.lm_head, tokens_at_once(model, max_logits=max_logits)
    loss, correct = chunked_next_token_sum(before_ND, target_N, output=output, chunk_size=chunk_size)
    return NextTokenLoss(loss=loss, correct=correct, tokens=is_chain_RT.sum())


def chunked_next_token_sum(
    hidden_ND: Tensor, target_N: Tensor, *, output: Callable[[Tensor], Tensor], chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target), and how many targets were the likeliest: two scalars, float32.

    `output` maps hidden states (n, D) to logits (n, V), `chunk_size` tokens at a time: see `map_chunks`."""

    def sums(hidden_nD: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        logits_nV = output(hidden_nD)
        correct_n = logits_nV.detach().argmax(dim=-1) == target_n
        return next_token_sum(logits_nV, target_n), correct_n.sum().float()

    losses, corrects = map_chunks(sums, hidden_ND, target_N, chunk_size=chunk_size)
    return torch.stack(losses).sum(), torch.stack(corrects).sum()


def tokens_at_once(model: DescoreModel, *, max_logits: int | None = None) -> int:
    """How many tokens have `max_logits` logits together, 1 at least. None: MAX_LOGITS."""
    vocabulary: int = model.backbone.get_input_embeddings().weight.shape[0]
    return max(1, (MAX_LOGITS if max_logits is None else max_logits) // vocabulary)


def map_chunks(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    hidden_ND: Tensor,
    target_N: Tensor,
    *,
    chunk_size: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """Apply a function that makes logits to `chunk_size` tokens at a time, and give both of its results by chunk.

    With several chunks, their logits are not kept but computed again in the backward pass. Values and gradients are
    those of one chunk."""
    if len(target_N) <= chunk_size:
        results = [function(hidden_ND, target_N)]
    else:
        chunks = zip(torch.split(hidden_ND, chunk_size), torch.split(target_N, chunk_size), strict=True)
        results = [checkpoint(function, hidden_nD, target_n, use_reentrant=False) for hidden_nD, target_n in chunks]
    return [first for first, _ in results], [second for _, second in results]


def model_inputs(batch: dict[str, Any]) -> Inputs:
    """The inputs of the model in a batch of pairs, without the labels."""
    return {name: value for name, value in batch.items() if name not in _LABELS}


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
        loss = bradley_terry_margin(chosen_BK, margin_scale * _rating_margin(batch), has_loss, reduction="sum")
    else:
        loss = bradley_terry(chosen_BK, has_loss, reduction="sum")
    metrics = _pair_metrics(chosen_BK.detach(), _decided(batch), names=model.settings.dimensions)
    metrics["pair_loss"] = torch.stack([loss.detach(), has_loss.sum().float()])
    return PairLosses(loss=loss, count=has_loss.sum(), metrics=metrics)


def _has_loss(batch: dict[str, Any], kind: LossKind) -> Tensor:
    """Whether a loss of this kind has a term for a label: (B, K), or (R, K) for regression."""
    if kind == "regression":
        return ~torch.isnan(batch["rating"])
    return batch["labelled"] if kind == "ties" else _decided(batch)  # type: ignore[no-any-return]


def _decided(batch: dict[str, Any]) -> Tensor:
    return batch["labelled"] & (batch["preference"] != 0)  # type: ignore[no-any-return]


def _rating_margin(batch: dict[str, Any]) -> Tensor:
    """By how much the chosen clip's rating is above the other's (B, K), 0 at least."""
    rating_a_BK, rating_b_BK = batch["rating"].tensor_split(2)
    margin_BK: Tensor = batch["preference"] * (rating_a_BK - rating_b_BK)
    return margin_BK.nan_to_num(nan=0.0).clamp(min=0)


def _pair_metrics(margin_BK: Tensor, decided_BK: Tensor, *, names: Sequence[str]) -> dict[str, Tensor]:
    """Accuracy and mean margin over decided pairs, each a sum and its count. Equal rewards are not in order."""
    decided_BK = decided_BK.expand_as(margin_BK)
    correct_K = ((margin_BK > 0) & decided_BK).sum(dim=0).float()
    decided_K = decided_BK.sum(dim=0).float()
    metrics = {
        "pair_accuracy": torch.stack([correct_K.sum(), decided_K.sum()]),
        "margin": torch.stack([(margin_BK * decided_BK).sum(), decided_K.sum()]),
    }
    if len(names) == 1:
        return metrics
    return metrics | {
        f"pair_accuracy.{name}": torch.stack([correct_K[i], decided_K[i]]) for i, name in enumerate(names)
    }


def group_advantages(
    rollout_reward_CG: Tensor,
    *,
    counted_CG: Tensor | None = None,
    scale: "ScaleRewards" = "group",
    epsilon: float = 1e-6,
) -> Tensor:
    """(reward - mean) / (deviation + epsilon), both of the chain's own group: (C, G).

    From DeepSeekMath (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). The deviation divides by one less than the
    number of chains that count, as TRL's does. scale "none" takes off the mean alone (Liu et al. 2025, "Dr. GRPO",
    arXiv 2503.20783): nearly equal chains then do not weigh as much as very different ones. Groups that `equal_groups`
    finds are exactly 0 throughout."""
    reward_CG, counted_CG = _counted(rollout_reward_CG, counted_CG)
    count_C1 = counted_CG.sum(dim=1, keepdim=True)
    mean_C1 = reward_CG.where(counted_CG, 0.0).sum(dim=1, keepdim=True) / count_C1.clamp(min=1)
    moves_CG = counted_CG & ~equal_groups(reward_CG, counted_CG)[:, None]
    advantage_CG = (reward_CG - mean_C1).where(moves_CG, 0.0)
    if scale == "none":
        return advantage_CG
    variance_C1 = advantage_CG.square().sum(dim=1, keepdim=True) / (count_C1 - 1).clamp(min=1)
    return advantage_CG / (variance_C1.sqrt() + epsilon)


def equal_groups(rollout_reward_CG: Tensor, counted_CG: Tensor | None = None) -> Tensor:
    """Which groups give no gradient, (C,), bool: all rewards that count are equal, or fewer than two count."""
    reward_CG, counted_CG = _counted(rollout_reward_CG, counted_CG)
    highest_C = reward_CG.where(counted_CG, -torch.inf).amax(dim=1)
    lowest_C = reward_CG.where(counted_CG, torch.inf).amin(dim=1)
    return highest_C <= lowest_C


def _counted(reward_CG: Tensor, counted_CG: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rewards in float32 at least, and which of them count: all by default."""
    counted_CG = torch.ones_like(reward_CG, dtype=torch.bool) if counted_CG is None else counted_CG.bool()
    return reward_CG.to(torch.promote_types(reward_CG.dtype, torch.float32)), counted_CG


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTerms:
    """Sums over some tokens, so that packs and processes add up. Only `loss` has a gradient."""

    loss: Tensor
    """Minus the clipped objective, weighted and summed: scalar."""
    clipped: Tensor
    """Tokens whose ratio was clipped, and who therefore do not move the policy: scalar."""
    tokens: Tensor
    """Tokens with a weight: scalar."""


def policy_loss(
    log_prob_N: Tensor,
    old_log_prob_N: Tensor,
    advantage_N: Tensor,
    *,
    weight_N: Tensor,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
) -> PolicyTerms:
    """- sum of weight · min(ratio · A, clip(ratio, 1 - epsilon_low, 1 + epsilon_high) · A), ratio = p / p_old.

    The clipped objective of PPO (Schulman et al. 2017, arXiv 1707.06347, equation 7) with GRPO's advantages (Shao et
    al. 2024, arXiv 2402.03300, equation 3). An epsilon_high above epsilon_low leaves more room to unlikely tokens (Yu
    et al. 2025, "DAPO", arXiv 2503.14476). With a dual_clip c, the objective of a token with A < 0 is at least c · A
    (Ye et al. 2020, arXiv 1912.09729, equation 5). log_prob: of the sampled tokens under the policy that learns, the
    only one that gets a gradient. old: under the policy that sampled them. weight: of `token_weights`, each chain's
    repeated for its tokens."""
    used_N = weight_N > 0
    new_n, old_n, advantage_n, weight_n = (
        _exact(values_N[used_N]) for values_N in (log_prob_N, old_log_prob_N.detach(), advantage_N, weight_N)
    )
    ratio_n = (new_n - old_n).exp()
    unclipped_n = ratio_n * advantage_n
    clipped_n = ratio_n.clamp(1 - epsilon_low, 1 + epsilon_high) * advantage_n
    objective_n, bounded_n = torch.minimum(unclipped_n, clipped_n), clipped_n < unclipped_n
    if dual_clip is not None:
        least_n = torch.where(advantage_n < 0, dual_clip * advantage_n, -torch.inf)
        objective_n, bounded_n = torch.maximum(objective_n, least_n), bounded_n | (objective_n < least_n)
    return PolicyTerms(
        loss=-(weight_n * objective_n).sum(),
        clipped=bounded_n.sum(),
        tokens=used_N.sum(),
    )


def token_weights(length_R: Tensor, counted_R: Tensor, *, loss_type: "LossType", max_length: int) -> Tensor:
    """What each token of a chain weighs, (R,), such that the weighted sum over tokens is the update's mean.

        dapo       1 / tokens that count                    every token alike
        grpo       1 / (chains that count · its length)     every chain alike
        dr_grpo    1 / (chains that count · max_length)     no chain's length matters

    The names are TRL's, whose divisors hold the masked chains as well: its losses are smaller by counted tokens / all
    tokens (dapo) or counted chains / all chains (grpo, dr_grpo).

    From DAPO (arXiv 2503.14476, equation 8), DeepSeekMath (arXiv 2402.03300, equation 3) and Dr. GRPO (arXiv
    2503.20783). length: tokens of each chain of the whole update, over all packs and processes. counted: 0 for a chain
    that was cut at the limit or failed; its tokens weigh 0. max_length: tokens that a chain may have."""
    counted_R = counted_R.to(torch.float32)
    sizes = {
        "dapo": (counted_R * length_R).sum(),
        "grpo": counted_R.sum() * length_R,
        "dr_grpo": counted_R.sum() * max_length,
    }
    return counted_R / sizes[loss_type].clamp(min=1)


def k3(log_prob_N: Tensor, reference_log_prob_N: Tensor) -> Tensor:
    """The k3 estimator, r - log r - 1 with r = p_reference / p: each token's part in the KL divergence, (N,).

    Schulman (2020, "Approximating KL divergence", joschu.net/blog/kl-approx.html). Its mean over tokens that p sampled
    is KL(p, reference) without bias, and no single value is below 0."""
    difference_N = _exact(reference_log_prob_N) - _exact(log_prob_N)
    return difference_N.expm1() - difference_N


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
