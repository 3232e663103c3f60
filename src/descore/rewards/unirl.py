"""A reward for UniRL (Tencent-Hunyuan).

A `RewardService` wraps one `RewardBackend` (`unirl/reward/base.py`), which a recipe names:

    reward:
      backend:
        _target_: descore.rewards.unirl.DescoreRewardBackend
        model: path/to/checkpoint
        fps: 16"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from descore.errors import ConfigError
from descore.rewards.adapter import open_reward, trainers_own
from descore.rewards.function import Rewards


class _Backend:
    """The face of UniRL's RewardBackend, where UniRL is not installed."""

    input_kind = "image"

    def __init__(self, model_name: str = "", batch_size: int = 8, timeout: float = 60.0) -> None:
        self.model_name, self.batch_size, self.timeout = model_name, batch_size, timeout

    def get_model_name(self) -> str:
        return self.model_name

    @property
    def preferred_input_kind(self) -> str:
        return self.input_kind

    def offload(self) -> None:
        """Nothing: the model stays where it is."""

    def onload(self) -> None:
        """Nothing: the model is where it was."""

    def dispose(self) -> None:
        """Nothing to release."""


@dataclass(slots=True)
class _Response:
    """The face of UniRL's RewardResponse."""

    rewards: list[float]
    successes: list[bool]
    errors: list[str | None]
    component_rewards: dict[str, list[float]] = field(default_factory=dict)
    compute_time: float = 0.0


class DescoreRewardBackend(trainers_own("unirl.reward.base", "RewardBackend", otherwise=_Backend)):  # type: ignore[misc]
    """Rewards of the generated videos of a request, with the terms that have a weight as components.

    A clip without a reward is NaN, has False in `successes` and its reason in `errors`: the service then names it and
    stops the step."""

    input_kind = "video"

    def __init__(
        self,
        model_name: str = "descore",
        batch_size: int = 8,
        timeout: float = 60.0,
        *,
        base_device: str | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """model_name, timeout: UniRL's own; the checkpoint is `model`. base_device: the same as device.
        settings: fields of `AdapterSettings`."""
        super().__init__(model_name=model_name, batch_size=batch_size, timeout=timeout)
        settings = {"device": base_device, **settings}
        self.reward = open_reward(
            "{} below _target_: descore.rewards.unirl.DescoreRewardBackend",
            layout="CTHW", on_error="nan", batch_size=batch_size, **settings,
        )  # fmt: skip

    def compute_rewards(self, request: Any) -> Any:  # noqa: ANN401  # UniRL's RewardRequest and RewardResponse
        """The response. request.videos: (C, T, H, W) each, floats in [0, 1]; request.prompts: one for each."""
        if request.videos is None:
            raise ConfigError("the request has no videos; expected the videos that the policy generated")
        start = time.monotonic()
        result = self.reward(videos=list(request.videos), prompts=list(request.prompts))
        errors = result.errors
        return trainers_own("unirl.types.reward", "RewardResponse", otherwise=_Response)(
            rewards=result.rewards.tolist(),
            successes=[index not in errors for index in range(len(result))],
            errors=[str(errors[index]) if index in errors else None for index in range(len(result))],
            component_rewards=_components(result, self.reward.weights),
            compute_time=time.monotonic() - start,
        )

    def is_available(self) -> bool:
        """The model is open as soon as the backend is."""
        return True


def _components(result: Rewards, names: Iterable[str]) -> dict[str, list[float]]:
    """Those terms, a number for every clip that has a reward: a mark that is not asked for adds 0 to it."""
    failed = result.rewards.isnan()
    return {name: result.terms[name].nan_to_num(0.0).masked_fill(failed, math.nan).tolist() for name in names}
