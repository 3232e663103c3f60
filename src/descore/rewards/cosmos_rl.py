"""A reward for cosmos-rl's reward service (`reward_service/cosmos_rl_reward`).

A file in its folder `model/`, as its own handlers are, and an entry of its configuration:

    from descore.rewards.cosmos_rl import DescoreRewardHandler      # model/descore.py; importing it registers it

    [[reward_args]]
    reward_type = "descore"
    model_path = "path/to/checkpoint"
    enable = true

Other settings are environment variables (DESCORE_THINK, ...); fps comes with each request, as
`video_infos[...]["video_fps"]`."""

import math
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from descore.errors import ConfigError
from descore.rewards.adapter import open_reward, trainers_own
from descore.rewards.function import RewardFunction


class _Handler:
    """The face of cosmos-rl's BaseRewardHandler, where it is not installed."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        pass


class DescoreRewardHandler(
    trainers_own("cosmos_rl_reward.handler.reward_base", "BaseRewardHandler", otherwise=_Handler)  # type: ignore[misc]
):
    """Rewards of the videos of a request, and the terms that they are made of. What is not known is None, null in the
    answer: the service cannot send NaN, and sends nothing at all where a handler raises, while its client waits."""

    reward_name = "descore"
    NEEDS_LATENT_DECODER = True

    def __init__(
        self,
        model_path: str = "",
        dtype: Any = None,  # noqa: ANN401  # a torch.dtype or its name
        device: Any = None,  # noqa: ANN401
        download_path: str = "",  # noqa: ARG002  # of models that are several files
        fps: float | None = None,
        endpoint_url: str | None = None,  # noqa: ARG002  # of models that are served elsewhere
        endpoint_api_key: str | None = None,  # noqa: ARG002
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """fps: of requests that do not state theirs. settings: fields of `AdapterSettings`."""
        super().__init__()
        self.settings = {"model": model_path or None, "dtype": dtype, "device": device, "fps": fps, **settings}
        self.reward: RewardFunction | None = None

    def set_up(self) -> None:
        """Open the model."""
        call = "{} in its [[reward_args]]"
        self.reward = open_reward(call, layout="BCTHW", range=None, on_error="nan", needs_fps=False, **self.settings)

    def calculate_reward(self, images: Tensor, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The service's answer, with `descore_reward` and the terms in `scores`, lists of B numbers.

        images: (B, C, T, H, W), uint8. metadata: prompts, and video_infos with video_fps."""
        if self.reward is None:
            raise ConfigError("the handler has no model yet; call set_up() first")
        start = time.monotonic()
        result = self.reward(videos=images, prompts=list(metadata["prompts"]), fps=_rates(metadata, self.reward.fps))
        terms = {name: _known(values) for name, values in result.terms.items()}
        return {
            "scores": {**terms, "descore_reward": _known(result.rewards)},
            "input_info": {**metadata.get("input_info", {}), "video_infos": list(metadata.get("video_infos", []))},
            "duration": f"{time.monotonic() - start:.2f}",
            "decoded_duration": metadata.get("decode_duration", "N/A"),
            "type": self.reward_name,
        }


def _known(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _rates(metadata: Mapping[str, Any], default: float | None) -> list[float]:
    """Frames per second of each video: the request's, else the setting."""
    infos = metadata.get("video_infos") or [{}] * len(metadata["prompts"])
    rates = [info.get("video_fps", default) for info in infos]
    if None in rates:
        raise ConfigError("no video_fps in the request's video_infos; send it, or set DESCORE_FPS")
    return [float(rate) for rate in rates]


class _Registry:
    """The face of cosmos-rl's RewardRegistry."""

    @staticmethod
    def register() -> Any:  # noqa: ANN401  # a decorator
        return lambda handler: handler


_registry = trainers_own("cosmos_rl_reward.handler.registry", "RewardRegistry", otherwise=_Registry)
_registry.register()(DescoreRewardHandler)
