"""How much better a chain is than the others of its clip: the advantages of group-relative policy optimization.

In: the rollout reward of each chain, and which chains count: one that was cut at the token limit, failed to decode or
has no reward does not. It takes no part in its group's mean and deviation, its advantage is 0, and what stands in its
place is never looked at: it may be nan. Out: advantages, in float32 at least.

Shapes: C clips, G chains for each."""

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "none"]
"""What a chain's distance from the mean is divided by: the deviation of its group, or nothing."""


def group_advantages(
    rollout_reward_CG: Tensor, *, counted_CG: Tensor | None = None, scale: Scale = "group", epsilon: float = 1e-6
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
    """Which groups have nothing to tell, (C,), bool: all rewards that count are equal, or fewer than two count."""
    reward_CG, counted_CG = _read(rollout_reward_CG, counted_CG)
    highest_C = reward_CG.where(counted_CG, -torch.inf).amax(dim=1)
    lowest_C = reward_CG.where(counted_CG, torch.inf).amin(dim=1)
    return highest_C <= lowest_C


def _read(reward_CG: Tensor, counted_CG: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rewards in float32 at least, and which of them count: all, if nobody says."""
    counted_CG = torch.ones_like(reward_CG, dtype=torch.bool) if counted_CG is None else counted_CG.bool()
    return reward_CG.to(torch.promote_types(reward_CG.dtype, torch.float32)), counted_CG
