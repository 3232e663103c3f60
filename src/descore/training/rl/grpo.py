"""GRPO, token by token: advantages, the clipped policy objective, and the KL estimator.

Tokens are flat: those of many chains one after another, without padding. Each has its weight in the whole update, so a
loss is a plain sum, and the sums of packs and processes add up to the update's. A token of weight 0 takes no part, and
its values are never read. All in float32 at least.

Shapes: R chains, N tokens, n of them with a weight."""

from dataclasses import dataclass

import torch
from torch import Tensor

from descore.training.rl.config import LossType, ScaleRewards


def group_advantages(
    rollout_reward_CG: Tensor, *, counted_CG: Tensor | None = None, scale: ScaleRewards = "group", epsilon: float = 1e-6
) -> Tensor:
    """(reward - mean) / (deviation + epsilon), both of the chain's own group: (C, G).

    From DeepSeekMath (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). The deviation divides by one less than the
    number of chains that count, as TRL's does. scale "none" takes off the mean alone (Liu et al. 2025, "Dr. GRPO",
    arXiv 2503.20783): nearly equal chains then do not weigh as much as very different ones. Groups that `equal_groups`
    finds are exactly 0 throughout."""
    reward_CG, counted_CG = _read(rollout_reward_CG, counted_CG)
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
    reward_CG, counted_CG = _read(rollout_reward_CG, counted_CG)
    highest_C = reward_CG.where(counted_CG, -torch.inf).amax(dim=1)
    lowest_C = reward_CG.where(counted_CG, torch.inf).amin(dim=1)
    return highest_C <= lowest_C


def _read(reward_CG: Tensor, counted_CG: Tensor | None) -> tuple[Tensor, Tensor]:
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


def token_weights(length_R: Tensor, counted_R: Tensor, *, loss_type: LossType, max_length: int) -> Tensor:
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
