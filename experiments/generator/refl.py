"""Gradients of the reward through the last step of sampling, as ReFL has them (Xu et al. 2023, arXiv 2304.05977).

Each update samples without a gradient down to a noise level drawn from the last ones, predicts the clip from there with
one, and follows the gradient of its reward to the weights. A second loss holds the predicted clip near the one that the
generator predicted before training: without it a gradient finds what moves the number before it finds what people see.

    loss = -mean reward + anchor mean (clip - clip of the start)^2

Shapes: B clips, C = 3 colour channels, T frames, H rows, W columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from descore.rewards import DifferentiableReward
from experiments.generator.flow import HIGH, LOW, noise_of, schedule
from experiments.generator.model import Generator
from experiments.generator.rewards import enlarged, model_reward
from experiments.generator.tuning import Run, apply_gradients
from experiments.generator.words import read_prompts
from experiments.generator.world import FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflSettings:
    """Of the method."""

    batch: int = 8
    """Clips of an update, each of another prompt."""
    last_steps: int = 6
    """Steps of the schedule's end that one is drawn from."""
    anchor: float = 1.0


@dataclass(frozen=True, slots=True)
class Refl:
    """The method."""

    settings: ReflSettings

    def __call__(self, run: Run) -> Mapping[str, float]:
        """One update."""
        own = self.settings
        prompts = [one.prompt for one in run.asked(run.update * own.batch, own.batch)]
        seeds = run.seeds(own.batch)
        words_BL, rng = read_prompts(prompts), torch.Generator().manual_seed(seeds[0])
        steps, guidance = run.plan.steps, run.plan.guidance
        stop = steps - 1 - int(torch.randint(min(own.last_steps, steps), (1,), generator=rng))
        with run.timed("generation"):
            noisy_BCTHW, sigma_B = noisy_at(run.model, words_BL, seeds, steps=steps, stop=stop, guidance=guidance)
        with run.timed("update"):
            clip_BCTHW = predicted(run.model, noisy_BCTHW, sigma_B, words_BL, guidance=guidance)
            with torch.no_grad():
                before_BCTHW = predicted(run.start, noisy_BCTHW, sigma_B, words_BL, guidance=guidance)
            apart = (clip_BCTHW - before_BCTHW).square().mean()
        with run.timed("reward"):
            reward = _differentiable(run.plan.reward)(videos=as_videos(clip_BCTHW), prompts=prompts).nanmean()
        with run.timed("update"):
            (own.anchor * apart - reward).backward()  # type: ignore[no-untyped-call]  # through the reward, too
            norm = apply_gradients(run)
        return {"reward": float(reward.detach()), "apart": float(apart.detach()), "step": stop, "grad_norm": norm}


@torch.no_grad()
def noisy_at(
    model: Generator, words_BL: Tensor, seeds: list[int], *, steps: int, stop: int, guidance: float
) -> tuple[Tensor, Tensor]:
    """The values (B, C, T, H, W) before step `stop` of sampling, and their noise level (B)."""
    scheduler, values = schedule(steps), noise_of(seeds)
    for timestep, sigma in zip(scheduler.timesteps[:stop], scheduler.sigmas[:stop], strict=True):
        velocity = model.velocity(values, sigma.expand(len(seeds)), words_BL, guidance=guidance)
        (values,) = scheduler.step(velocity, timestep, values, return_dict=False)
    return values, scheduler.sigmas[stop].expand(len(seeds))


def predicted(model: Generator, noisy_BCTHW: Tensor, sigma_B: Tensor, words_BL: Tensor, *, guidance: float) -> Tensor:
    """The clip at the end of the straight path from here."""
    velocity = model.velocity(noisy_BCTHW, sigma_B, words_BL, guidance=guidance)
    return noisy_BCTHW - sigma_B.view(-1, 1, 1, 1, 1) * velocity


def unit_range(values_BCTHW: Tensor) -> Tensor:
    """Values from 0, black, to 1, white, as the reward takes them; what lies beyond has no gradient."""
    return ((values_BCTHW - LOW) / (HIGH - LOW)).clamp(0, 1)


def as_videos(values_BCTHW: Tensor) -> Tensor:
    """Videos (B, T, C, H, W) from 0 to 1, at the size of the rewards, with their graph."""
    frames_NCHW = unit_range(values_BCTHW).transpose(1, 2).flatten(0, 1)
    larger_NCHW = enlarged(frames_NCHW, low=0, high=1)
    return larger_NCHW.reshape(len(values_BCTHW), -1, *larger_NCHW.shape[1:])


@lru_cache(maxsize=1)
def _differentiable(name: str) -> DifferentiableReward:
    row = model_reward(name)
    return DifferentiableReward(row.model, fps=FPS, range=(0, 1), layout="BTCHW", **row.sampling_params)
