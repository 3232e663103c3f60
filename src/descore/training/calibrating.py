"""The mean and deviation of the reward on clips that nothing was trained on: what makes a reward a score.

In: judged pairs. Out: settings that hold the two for each dimension. Knows rewards; knows nothing of models.

Shapes: C clips, K named dimensions."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from descore.errors import DescoreWarning
from descore.model.checkpoint import Settings
from descore.training.config import Way
from descore.training.evaluating import JudgedPair, is_scored


def calibrated(settings: Settings, judged: Sequence[JudgedPair], *, way: Way) -> Settings:
    """Settings with `reward_mean` and `reward_std` (the sample's) over the pairs' clips, each clip of a prompt once.

    Fewer than two clips, or rewards that are all the same, have no deviation: then a warning, and settings as they
    were."""
    clips = {
        (pair.prompt, video): reward_K
        for pair in judged
        if is_scored(pair, way)
        for video, reward_K in zip(pair.videos, pair.rewards[way], strict=True)
    }
    reward_CK = np.array(list(clips.values()))
    if len(clips) < 2 or not reward_CK.std(axis=0, ddof=1).all():
        said = f"not calibrated: {len(clips)} clips with a spread of rewards; expected two at least"
        warnings.warn(said, DescoreWarning, stacklevel=2)
        return settings
    mean_K, std_K = reward_CK.mean(axis=0), reward_CK.std(axis=0, ddof=1)
    return replace(
        settings,
        reward_mean={name: round(float(mean), 6) for name, mean in zip(settings.dimensions, mean_K, strict=True)},
        reward_std={name: float(f"{std:.6g}") for name, std in zip(settings.dimensions, std_K, strict=True)},
    )
