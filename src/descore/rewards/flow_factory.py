"""A reward for Flow-Factory.

`reward_model` of a reward's YAML is a Python path to a `PointwiseRewardModel` (`flow_factory/rewards/abc.py`), and keys
that Flow-Factory does not know are the reward's own:

    rewards:
      - name: descore
        reward_model: descore.rewards.flow_factory.DescoreRewardModel
        batch_size: 16
        model: path/to/checkpoint
        fps: 16"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from descore.errors import ConfigError
from descore.rewards.adapter import array_layout, open_reward, trainers_own


class _Model:
    """The face of Flow-Factory's PointwiseRewardModel, where it is not installed."""

    def __init__(self, config: Any, accelerator: Any) -> None:  # noqa: ANN401
        self.config, self.accelerator = config, accelerator
        self.device = accelerator.device if str(config.device) == "cuda" else config.device


@dataclass(slots=True)
class _Output:
    """The face of Flow-Factory's RewardModelOutput."""

    rewards: list[float]
    extra_info: dict[str, Any] | None = None


class DescoreRewardModel(trainers_own("flow_factory.rewards.abc", "PointwiseRewardModel", otherwise=_Model)):  # type: ignore[misc]
    """Rewards of generated videos. A clip without one raises VideoError: the trainer takes means over a group."""

    required_fields = ("prompt", "video")
    use_tensor_inputs = True

    def __init__(self, config: Any, accelerator: Any) -> None:  # noqa: ANN401  # RewardArguments, Accelerator
        """Settings are the reward's further keys, fields of `AdapterSettings`; device and precision the trainer's."""
        super().__init__(config, accelerator)
        own = {"device": self.device, "dtype": config.dtype, "batch_size": config.batch_size, **config.extra_kwargs}
        self.reward = open_reward("{} below reward_model: descore.rewards.flow_factory.DescoreRewardModel", **own)

    def __call__(self, *, prompt: Sequence[str], video: Any = None, **others: Any) -> Any:  # noqa: ANN401, ARG002
        """RewardModelOutput with a number for each video. video: a list of (T, C, H, W), floats in [0, 1]; others:
        image, audio and conditions, which are not looked at."""
        if video is None:
            raise ConfigError("there is no video to score; expected a task that generates videos")
        videos = list(video)
        result = self.reward(videos=videos, prompts=list(prompt), layout=array_layout(videos))
        output = trainers_own("flow_factory.rewards.abc", "RewardModelOutput", otherwise=_Output)
        return output(rewards=result.rewards.tolist())
