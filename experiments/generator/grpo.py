"""GRPO on the steps of the stochastic sampler (Liu et al. 2025, Flow-GRPO, arXiv 2505.05470).

Each update makes a group of clips for each of some prompts. A clip's advantage is its reward against its group's, and
each of its steps becomes as much more likely as the advantage says, within the bounds of PPO:

    ratio = p(step) / p_old(step),    loss = -mean min(ratio A, clip(ratio, 1 - e, 1 + e) A) + beta KL(step || start's)

Groupwise, the reward is replaced by the clip's rank in its group, so that only the order counts (as in Pref-GRPO, whose
win rates are ranks where a judge never errs); pointwise, it is taken as it is. Either is then standardized within the
group. Probabilities are means over a clip's values (`sde`), hence the narrow bounds.

Shapes: B clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from experiments.generator.flow import to_frames
from experiments.generator.sde import LEVEL, Trajectories, log_probability, mean_of_step, roll_out, step_kl
from experiments.generator.tuning import Run, apply_gradients

Comparison = Literal["groupwise", "pointwise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoSettings:
    """Of the method."""

    comparison: Comparison = "groupwise"
    prompts: int = 4
    """Of an update."""
    group: int = 8
    """Clips of each prompt."""
    steps: int = 10
    """Of sampling, fewer than for a look (Flow-GRPO's denoising reduction)."""
    rollout_guidance: float = 1.0
    """Of the clips that are trained on; looks are made with the plan's."""
    trained_steps: int = 4
    """Steps of each clip that are trained on, drawn anew in each update."""
    clip_range: float = 1e-4
    beta: float = 0.0
    level: float = LEVEL
    batch: int = 8
    """Clips that are trained on at once."""


def group_advantages(rewards: list[float], *, group: int, comparison: Comparison) -> Tensor:
    """Advantages (B) of clips that lie group by group. A clip without a reward has 0, and so has a group whose rewards
    are all equal."""
    advantage_B = torch.zeros(len(rewards))
    for first in range(0, len(rewards), group):
        reward_G = np.asarray(rewards[first : first + group], np.float64)
        known_G = ~np.isnan(reward_G)
        value_G = rankdata(reward_G[known_G]) if comparison == "groupwise" else reward_G[known_G]
        if len(value_G) > 1 and np.ptp(value_G) > 0:  # the deviation of equal floats may be above 0
            standard_G = torch.from_numpy((value_G - value_G.mean()) / value_G.std()).float()
            advantage_B[first : first + group][torch.from_numpy(known_G)] = standard_G
    return advantage_B


def clipped_loss(log_new_B: Tensor, log_old_B: Tensor, advantage_B: Tensor, *, clip_range: float) -> Tensor:
    """Mean over clips of PPO's loss of one step (Schulman et al. 2017, equation 7)."""
    ratio_B = (log_new_B - log_old_B).exp()
    bounded_B = ratio_B.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio_B * advantage_B, bounded_B * advantage_B).mean()


@dataclass(frozen=True, slots=True)
class Grpo:
    """The method."""

    settings: GrpoSettings

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Roll out, score, and take one step."""
        own = self.settings
        asked = [one for one in run.asked(run.update * own.prompts, own.prompts) for _ in range(own.group)]
        with run.timed("generation"):
            seeds, guidance, prompts = run.seeds(len(asked)), own.rollout_guidance, [one.prompt for one in asked]
            rolled = roll_out(run.model, prompts, seeds, steps=own.steps, guidance=guidance, level=own.level)
        with run.timed("reward"):
            rewards = run.reward(to_frames(rolled.clips_BCTHW), asked)
        advantage_B = group_advantages(rewards, group=own.group, comparison=own.comparison)
        with run.timed("update"):
            figures = self._train(run, rolled, advantage_B)
        return {
            "reward": float(np.nanmean(rewards)),
            "failed": float(np.isnan(rewards).mean()),
            **figures,
            **run.monitored(),
        }

    def _train(self, run: Run, rolled: Trajectories, advantage_B: Tensor) -> dict[str, float]:
        own, rng = self.settings, torch.Generator().manual_seed(run.seeds(1)[0])
        chosen = torch.randperm(len(rolled.log_probability_SB), generator=rng)[: own.trained_steps].tolist()
        total = {"loss": 0.0, "step_kl": 0.0}
        parts = torch.split(torch.arange(len(advantage_B)), own.batch)
        for step in chosen:
            for index_B in parts:
                loss, divergence = self._loss(run, rolled.only(index_B), advantage_B[index_B], step)
                share = len(index_B) / len(advantage_B) / len(chosen)
                (share * (loss + own.beta * divergence)).backward()  # type: ignore[no-untyped-call]
                total["loss"] += share * float(loss.detach())
                total["step_kl"] += share * float(divergence.detach())
        return {**total, "grad_norm": apply_gradients(run)}

    def _loss(self, run: Run, rolled: Trajectories, advantage_B: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """PPO's loss and the divergence from the start, of one step."""
        guidance, deviation = self.settings.rollout_guidance, rolled.noises[step].deviation
        mean = mean_of_step(run.model, rolled, step, guidance=guidance)
        log_new_B = log_probability(rolled.values_SBCTHW[step + 1], mean, deviation)
        log_old_B = rolled.log_probability_SB[step]
        loss = clipped_loss(log_new_B, log_old_B, advantage_B, clip_range=self.settings.clip_range)
        with torch.no_grad():
            reference = mean_of_step(run.start, rolled, step, guidance=guidance)
        return loss, step_kl(mean, reference, deviation).mean()
