"""Sampling as a stochastic process, so that a step has a probability: what GRPO needs of a flow.

The flow's ordinary differential equation and this stochastic one have the same distribution at each noise level (Liu
et al. 2025, Flow-GRPO, arXiv 2505.05470, section 4.2). With the noise level t and the velocity v, a clip x is expected
to hold the noise x + (1 - t) v, so its score is -(x + (1 - t) v) / t, and one step from t to t' < t is

    mean = x + (v + g^2 / (2 t) (x + (1 - t) v)) (t' - t),   deviation = g sqrt(t - t'),   g^2 = a^2 t / (1 - t)

At t = 1, where g has no bound, it is taken at the schedule's second level. `level` is a; 0 is the ordinary equation,
whose steps have no probability.
The last step, to the clip itself, is always an ordinary one: with 10 steps its noise would be 9 levels of grey that
nothing takes away again. It has no probability, and nothing is trained on it.

Log-probabilities are means over a clip's values, as in the authors' code: sums over 98,304 values would leave no ratio
near 1.

Shapes: S steps, B clips, C = 3 colour channels, T frames, H rows, W columns, L words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from descore.errors import ConfigError
from experiments.generator.flow import GUIDANCE, schedule
from experiments.generator.model import Generator
from experiments.generator.words import read_prompts
from experiments.generator.world import FRAMES, SIDE

LEVEL = 0.7
"""a of Flow-GRPO's experiments."""

_DIMS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNoise:
    """The noise levels of one step, and g squared over t."""

    sigma: float
    """t."""
    following: float
    """t'."""
    spread: float
    """g^2 / t = a^2 / (1 - t)."""

    @property
    def deviation(self) -> float:
        """Of the step's normal distribution."""
        return math.sqrt(self.spread * self.sigma * (self.sigma - self.following))


def step_noises(steps: int, *, level: float = LEVEL) -> list[StepNoise]:
    """The steps of the schedule, from noise to clip. ConfigError for fewer than two."""
    if steps < 2:
        raise ConfigError(f"steps is {steps}; a stochastic sampler needs 2 or more")
    sigmas = [float(sigma) for sigma in schedule(steps).sigmas]
    return [
        StepNoise(sigma=now, following=then, spread=level**2 / (1 - min(now, sigmas[1])) if then > 0 else 0.0)
        for now, then in pairwise(sigmas)
    ]


def step_mean(values_BCTHW: Tensor, velocity_BCTHW: Tensor, noise: StepNoise) -> Tensor:
    """Mean of the next values."""
    expected_noise = values_BCTHW + (1 - noise.sigma) * velocity_BCTHW
    drift = velocity_BCTHW + noise.spread / 2 * expected_noise
    return values_BCTHW + drift * (noise.following - noise.sigma)


def log_probability(next_BCTHW: Tensor, mean_BCTHW: Tensor, deviation: float) -> Tensor:
    """Log of the normal density of the next values (B), a mean over each clip's values."""
    off = (next_BCTHW - mean_BCTHW).square().mean(dim=_DIMS) / (2 * deviation**2)
    return -off - math.log(deviation) - math.log(2 * math.pi) / 2


def step_kl(mean_BCTHW: Tensor, other_BCTHW: Tensor, deviation: float) -> Tensor:
    """Kullback-Leibler divergence (B) of two steps of one deviation, a mean over each clip's values."""
    return (mean_BCTHW - other_BCTHW).square().mean(dim=_DIMS) / (2 * deviation**2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectories:
    """What a rollout of B clips went through."""

    words_BL: Tensor
    values_SBCTHW: Tensor
    """S + 1 of them: the noise first, the clips last."""
    log_probability_SB: Tensor
    """Of each step but the last, under the generator that made it."""
    noises: list[StepNoise]

    def only(self, index_N: Tensor) -> "Trajectories":
        """Those of some clips."""
        return Trajectories(
            words_BL=self.words_BL[index_N],
            values_SBCTHW=self.values_SBCTHW[:, index_N],
            log_probability_SB=self.log_probability_SB[:, index_N],
            noises=self.noises,
        )

    @property
    def clips_BCTHW(self) -> Tensor:  # noqa: N802  # shapes are in the names
        """The values of the clips."""
        return self.values_SBCTHW[-1]


@torch.no_grad()
def roll_out(
    model: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float = GUIDANCE,
    level: float = LEVEL,
) -> Trajectories:
    """Stochastic samples, one for each prompt and seed; all randomness of a clip comes from its seed."""
    words_BL, noises = read_prompts(list(prompts)), step_noises(steps, level=level)
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    path, logs = [_fresh(rngs)], []  # the noise of `flow.noise_of`
    for noise in noises:
        mean = step_mean(path[-1], _velocity(model, path[-1], words_BL, noise, guidance), noise)
        path.append(mean + noise.deviation * _fresh(rngs))
        if noise is not noises[-1]:
            logs.append(log_probability(path[-1], mean, noise.deviation))
    return Trajectories(
        words_BL=words_BL, values_SBCTHW=torch.stack(path), log_probability_SB=torch.stack(logs), noises=noises
    )


def mean_of_step(model: Generator, rolled: Trajectories, step: int, *, guidance: float = GUIDANCE) -> Tensor:
    """Mean of a step of the trajectories under this generator, with its graph."""
    values, noise = rolled.values_SBCTHW[step], rolled.noises[step]
    return step_mean(values, _velocity(model, values, rolled.words_BL, noise, guidance), noise)


@torch.no_grad()
def path_kl(model: Generator, start: Generator, rolled: Trajectories, *, guidance: float = GUIDANCE) -> Tensor:
    """Divergence (B) of the generator that made the trajectories from another, summed over their steps but the last."""
    total_B = torch.zeros(len(rolled.words_BL))
    for step, noise in enumerate(rolled.noises[:-1]):
        mean, reference = (mean_of_step(one, rolled, step, guidance=guidance) for one in (model, start))
        total_B += step_kl(mean, reference, noise.deviation)
    return total_B


def _fresh(rngs: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn((3, FRAMES, SIDE, SIDE), generator=rng) for rng in rngs])


def _velocity(model: Generator, values: Tensor, words_BL: Tensor, noise: StepNoise, guidance: float) -> Tensor:
    sigma_B = torch.full((len(values),), noise.sigma)
    return model.velocity(values, sigma_B, words_BL, guidance=guidance)
