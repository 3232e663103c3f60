"""The model as a reward: tables in bulk, best of N, preference pairs, and a plug for each trainer.

The public names are loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from descore.rewards.frames import FrameFormat
    from descore.rewards.function import RewardFunction, Rewards
    from descore.rewards.groups import win_rates

_HOME = {
    "FrameFormat": "descore.rewards.frames",
    **dict.fromkeys(("RewardFunction", "Rewards"), "descore.rewards.function"),
    "win_rates": "descore.rewards.groups",
}

__all__ = ["FrameFormat", "RewardFunction", "Rewards", "win_rates"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    if name not in _HOME:
        raise AttributeError(f"module 'descore.rewards' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
