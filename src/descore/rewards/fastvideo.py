"""A reward for FastVideo's own trainers (DiffusionNFT and its kin).

A `RewardScorer` of `fastvideo/train/methods/rl/rewards/media.py` is called with the media and the prompts, and
`MultiRewardScorer` adds several up:

    from descore.rewards.fastvideo import media_scorer
    rewards = MultiRewardScorer({"descore": 1.0}, scorers={"descore": media_scorer(device, model="...", fps=16)})

DanceGRPO, a fork of FastVideo, calls VideoAlign: see `descore.rewards.dance_grpo`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from descore.rewards.adapter import open_reward

MediaScorer = Callable[[Tensor, Sequence[str]], Tensor]


def media_scorer(device: str | torch.device | None = None, **settings: Any) -> MediaScorer:  # noqa: ANN401
    """The function of media and prompts. settings: fields of `AdapterSettings`.

    The trainer adds rewards up and takes their mean, so a clip without one raises VideoError."""
    reward = open_reward("media_scorer({})", device=device, **settings)

    def score(media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rewards (B), float32, on the media's device. media: (B, C, T, H, W) or (B, C, H, W), floats in [0, 1]."""
        layout = "BCHW" if media.ndim == 4 else "BCTHW"
        return reward(videos=media, prompts=list(prompts), layout=layout).rewards.to(media.device)

    return score
