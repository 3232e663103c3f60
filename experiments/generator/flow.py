"""Between frames and the flow: values, noise, the training loss, and sampling with diffusers' Euler scheduler.

A clip's noise comes from its own seed, so a clip does not depend on those beside it but for rounding.

Shapes: B clips, C = 3 colour channels, T frames, H rows, W columns, L words."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from experiments.generator.model import Generator, velocity_to
from experiments.generator.words import NOTHING, read_prompts
from experiments.generator.world import FRAMES, SIDE, Frames

LOW, HIGH = -1.0, 3.0
"""Values of black and of white. The world is dark: so its values have about the mean and the deviation of the noise."""

STEPS, GUIDANCE = 16, 3.0
"""Of sampling, where nothing else is said."""
SHIFT = 3.0
"""Towards high noise, where a clip's contents are decided: of the schedule, and of the noise levels in training."""
DROP = 0.1
"""Share of the training clips whose prompt is left out, for guidance."""


def to_values(frames: Sequence[Frames]) -> Tensor:
    """Frames (T, H, W, C) of B clips as values (B, C, T, H, W), float32."""
    stacked_BTHWC = torch.from_numpy(np.stack(frames)).float()
    return stacked_BTHWC.permute(0, 4, 1, 2, 3).contiguous() * ((HIGH - LOW) / 255) + LOW


def to_frames(values_BCTHW: Tensor) -> list[Frames]:
    """Frames (T, H, W, C), uint8, of each clip; values beyond black and white are clamped."""
    levels = ((values_BCTHW.detach().float() - LOW) * (255 / (HIGH - LOW))).round().clamp(0, 255).to(torch.uint8)
    return [clip_CTHW.permute(1, 2, 3, 0).contiguous().numpy() for clip_CTHW in levels]


def noise_of(seeds: Sequence[int], *, frames: int = FRAMES, side: int = SIDE) -> Tensor:
    """Standard normal noise (B, C, T, H, W), each clip's from its own seed."""
    shape = (3, frames, side, side)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def mixed(clean_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The point of the straight path at each clip's noise level."""
    sigma_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
    return (1 - sigma_B1111) * clean_BCTHW + sigma_B1111 * noise_BCTHW


def flow_errors(
    model: Generator, clean_BCTHW: Tensor, words_BL: Tensor, *, sigma_B: Tensor, noise_BCTHW: Tensor
) -> Tensor:
    """Mean squared error of the velocity (B) over each clip (Lipman et al. 2023)."""
    noisy_BCTHW = mixed(clean_BCTHW, noise_BCTHW, sigma_B)
    predicted = model.velocity(noisy_BCTHW, sigma_B, words_BL)
    wanted = velocity_to(clean_BCTHW, noisy_BCTHW, sigma_B)  # noise - clip, but for the least noise levels
    return (predicted - wanted).square().mean(dim=(1, 2, 3, 4))


def random_sigmas(count: int, rng: torch.Generator, *, least: float = 0.0) -> Tensor:
    """Noise levels (count) of training clips, as often as the schedule passes them (Esser et al. 2024), from the least
    to 1."""
    first = least / (SHIFT - (SHIFT - 1) * least)
    level_B = first + (1 - first) * torch.rand(count, generator=rng)
    return SHIFT * level_B / (1 + (SHIFT - 1) * level_B)


def without_some_prompts(words_BL: Tensor, rng: torch.Generator) -> Tensor:
    """The words, with DROP of the prompts left out."""
    dropped_B = torch.rand(len(words_BL), generator=rng) < DROP
    return torch.where(dropped_B[:, None], NOTHING, words_BL)


def schedule(steps: int) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler with its noise levels set: `sigmas` from 1 to 0, steps + 1 of them."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist())
    return scheduler


def sample(
    model: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Values (B, C, T, H, W) of a clip for each prompt and seed. Differentiable unless gradients are off."""
    scheduler, words_BL = schedule(steps), read_prompts(list(prompts))
    values_BCTHW = noise_of(seeds)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        velocity = model.velocity(values_BCTHW, sigma.expand(len(seeds)), words_BL, guidance=guidance)
        (values_BCTHW,) = scheduler.step(velocity, timestep, values_BCTHW, return_dict=False)
    return values_BCTHW


@torch.no_grad()
def generate(
    model: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int = 8,
) -> list[Frames]:
    """Frames (T, H, W, C) of a clip for each prompt and seed."""
    frames: list[Frames] = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        frames += to_frames(sample(model, prompts[part], seeds[part], steps=steps, guidance=guidance))
    return frames
