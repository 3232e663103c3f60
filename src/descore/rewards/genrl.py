"""A reward for GenRL.

`genrl/rewards.py::load_reward_fn(name, device, module_path)` calls `getattr(module, f"{name}_score")(device)`. With the
name `descore` and the module `descore.rewards.genrl` it finds `descore_score` here; it hands on no settings, so these
are environment variables:

    export DESCORE_MODEL=path/to/checkpoint DESCORE_FPS=16"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from descore.rewards.adapter import open_reward

TensorScoreFunction = Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]


def descore_score(device: str | torch.device | None = None, **settings: Any) -> TensorScoreFunction:  # noqa: ANN401
    """The factory: `fn(frames, prompts, metadata, only_strict=...)` that returns `({"avg": rewards}, {})`, rewards a
    float32 tensor (N) on `device`.

    settings: fields of `AdapterSettings`, for a module of one's own that calls this. GenRL takes means over rewards, so
    a clip without one raises VideoError."""
    reward = open_reward("descore_score(device, {})", layout="BTCHW", device=device, **settings)

    def score(
        frames: Tensor,
        prompts: Sequence[str],
        metadata: object = None,  # noqa: ARG001
        only_strict: bool = True,  # noqa: ARG001  # of GenEval
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """frames: (N, F, C, H, W), floats in [0, 1] or uint8."""
        result = reward(videos=frames, prompts=list(prompts))
        return {"avg": result.rewards.to(device or "cpu")}, {}

    return score
