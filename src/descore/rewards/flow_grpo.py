"""A reward for flow_grpo, DiffusionNFT and their kin.

They look rewards up in a table of factories in `flow_grpo/rewards.py::multi_score(device, {name: weight})`. Two lines
there:

    from descore.rewards.flow_grpo import descore_scorer
    score_functions["descore"] = lambda device: descore_scorer(device, model="path/to/checkpoint", fps=16)

or `"descore": descore_scorer`, and the settings in the environment (DESCORE_MODEL, DESCORE_FPS); in the config
`config.reward_fn = {"descore": 1.0}`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from descore.rewards.adapter import array_layout, open_reward

ScoreFunction = Callable[..., tuple[list[float], dict[str, Any]]]


def descore_scorer(device: str | torch.device | None = None, **settings: Any) -> ScoreFunction:  # noqa: ANN401
    """The factory: `fn(images, prompts, metadata)` that returns `(scores, {})`, a number for each clip.

    settings: fields of `AdapterSettings`. The trainer's mean and deviation of a group have no way with NaN, which would
    reach the weights: a clip without a reward raises VideoError."""
    reward = open_reward("descore_scorer(device, {})", device=device, **settings)

    def score(
        images: Any,  # noqa: ANN401
        prompts: Sequence[str],
        metadata: object = None,  # noqa: ARG001  # of the prompt's tests, in GenEval
        **options: object,  # noqa: ARG001  # only_strict, ref_images
    ) -> tuple[list[float], dict[str, Any]]:
        """images: float tensor in [0, 1], (N, F, C, H, W) or (N, C, H, W); or uint8 array, (N, F, H, W, C) or
        (N, H, W, C)."""
        result = reward(videos=images, prompts=list(prompts), layout=array_layout(images))
        return result.rewards.tolist(), {}

    return score
