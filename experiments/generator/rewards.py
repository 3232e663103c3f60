"""The rewards that are compared, each called as a user of `descore.rewards` calls it.

    scorers = open_rewards(["think", "off", "sharpness"])
    scores = scorers["think"](clips, prompts, keys)      # a number for each clip, nan where there is none

A name is a row of REWARDS, or NAME=CHECKPOINT for a model of one's own, such as discriminative=runs/siblings/p1.

Models get the clips enlarged to 128 pixels, the size of the drawn clips that `tiny` has learned from; `reward_check
--as-they-are` measures them at the 64 of the generator."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from descore.errors import ConfigError, VideoError
from descore.evaluation.features import FEATURES
from descore.rewards import RewardFunction, RewardMonitor, Rewards
from descore.rewards.terms import Normalize
from descore.scorer import Scorer
from descore.types import Clip
from experiments.generator.world import FPS, Frames

Scores: TypeAlias = dict[str, list[float]]
"""By name, a number for each clip."""
RewardScorer: TypeAlias = Callable[[Sequence[Frames], Sequence[str], Sequence[str]], Scores]
"""From clips, their prompts and the clips' keys. Some are a `ModelScorer`."""

CHAINS = 4
"""Of the means over several chains."""
ENLARGE = 2
"""From the generator's size to that of the rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReward:
    """A reward of a model."""

    model: str
    sampling_params: Mapping[str, Any]
    names: Callable[[str, Rewards], Scores]
    """What its rewards are recorded as."""


def one_number(name: str, rewards: Rewards) -> Scores:
    """The reward under its own name."""
    return {name: rewards.rewards.tolist()}


def mean_and_bound(name: str, rewards: Rewards) -> Scores:
    """The mean over chains, and the mean minus the deviation: an optimizer gains less by what one chain misreads."""
    std_B = rewards.standard_errors * math.sqrt(CHAINS)
    return {f"{name}-mean": rewards.raw.tolist(), f"{name}-bound": (rewards.raw - std_B).tolist()}


MODELS: Mapping[str, ModelReward] = {
    "think": ModelReward(model="tiny", sampling_params={"think": "on"}, names=one_number),
    "chains": ModelReward(model="tiny", sampling_params={"think": "on", "samples": CHAINS}, names=mean_and_bound),
    "off": ModelReward(model="tiny", sampling_params={"think": "off"}, names=one_number),
}
"""By name: tiny behind a chain, behind several, and at once."""

REWARDS = (*MODELS, *FEATURES, "random")
"""All names: models, hand-made features, and numbers drawn from the clips' keys."""

JUDGE = "judge"
"""What a training may follow beside them: the judge's overall. What a method makes of it is the most that it makes of
any reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScorer:
    """The scorer of a model's reward."""

    name: str
    row: ModelReward
    reward: RewardFunction
    enlarge: int = ENLARGE

    def __call__(self, clips: Sequence[Frames], prompts: Sequence[str], _: Sequence[str]) -> Scores:
        """The rewards, by the names that they are recorded as."""
        videos = [torch.from_numpy(enlarged_frames(frames, times=self.enlarge)).permute(0, 3, 1, 2) for frames in clips]
        return self.row.names(self.name, self.reward(videos=videos, prompts=list(prompts), layout="TCHW"))


def open_rewards(names: Sequence[str], *, monitored: bool = False, enlarge: int = ENLARGE) -> dict[str, RewardScorer]:
    """The scorer of each name. monitored: models count their rewards, and warn of the signs of a gamed one. enlarge:
    how many times larger than they are models see the clips.

    ConfigError for a name that is not known."""
    return {name.partition("=")[0]: _open(name, monitored=monitored, enlarge=enlarge) for name in names}


def model_reward(name: str) -> ModelReward:
    """The model behind a name. ConfigError for a name that is none of a model."""
    _, _, checkpoint = name.partition("=")
    if checkpoint:
        return ModelReward(model=checkpoint, sampling_params={}, names=one_number)
    if name not in MODELS:
        raise ConfigError(f"reward: found '{name}', expected a model: one of {', '.join(MODELS)}, or NAME=CHECKPOINT")
    return MODELS[name]


def _open(name: str, *, monitored: bool, enlarge: int) -> RewardScorer:
    if "=" in name or name in MODELS:
        row, monitor = model_reward(name), RewardMonitor() if monitored else None
        scorer = Scorer.from_pretrained(row.model)
        # What a generative model writes has no mean and deviation, and needs none to be compared.
        normalize: Normalize = "checkpoint" if scorer.settings.reward_std else "none"
        reward = RewardFunction(scorer, fps=FPS, normalize=normalize, monitor=monitor, **row.sampling_params)
        return ModelScorer(name=name.partition("=")[0], row=row, reward=reward, enlarge=enlarge)
    if name in FEATURES:
        return lambda clips, _, __: {name: [_measured(name, frames) for frames in clips]}
    if name == "random":
        return lambda _, __, keys: {name: [_drawn(key) for key in keys]}
    raise ConfigError(f"reward: found '{name}', expected one of {', '.join(REWARDS)}, or NAME=CHECKPOINT")


def enlarged(values_NCHW: Tensor, *, low: float, high: float, times: int = ENLARGE) -> Tensor:
    """Pictures of any range at so many times their size, within the range. Differentiable."""
    larger: Tensor = interpolate(values_NCHW, scale_factor=times, mode="bicubic")
    return larger.clamp(low, high)


def enlarged_frames(frames: Frames, *, times: int = ENLARGE) -> Frames:
    """Frames (T, H, W, 3) at so many times their size."""
    if times == 1:
        return frames
    values_TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    larger: Frames = (
        enlarged(values_TCHW, low=0, high=255, times=times).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return np.ascontiguousarray(larger)


def as_clip(frames: Frames, *, source: str = "<generated>") -> Clip:
    """The frames as a Clip at the world's FPS."""
    count, height, width = frames.shape[:3]
    return Clip(
        frames=frames,
        times=tuple(frame / FPS for frame in range(count)),
        source=source,
        source_fps=FPS,
        source_size=(width, height),
        source_frames=count,
        duration=count / FPS,
    )


def _measured(name: str, frames: Frames) -> float:
    try:
        return FEATURES[name].measure(as_clip(frames))
    except VideoError:  # nothing moves, say
        return math.nan


def _drawn(key: str) -> float:
    return float(np.random.default_rng(list(key.encode())).random())
