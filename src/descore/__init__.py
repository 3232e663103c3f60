"""descore: a video reward model that thinks before it scores.

The public names are loaded when they are first used, so importing descore loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from descore.errors import (
        AnswerError,
        CheckpointError,
        ConfigError,
        DataError,
        DescoreError,
        DescoreWarning,
        VideoError,
    )
    from descore.model.modeling import DescoreModel
    from descore.rewards.bulk import score_table
    from descore.rewards.function import RewardFunction
    from descore.rewards.pairs import preference_pairs
    from descore.rewards.ranking import rank
    from descore.rewards.scored import read_scored
    from descore.scorer import Request, SamplingParams, Scorer
    from descore.serving.client import AsyncClient, Client
    from descore.types import Clip, Comparison, Completion, Score
    from descore.video.reader import VideoSampling, read_clip

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("Scorer", "Request", "SamplingParams"), "descore.scorer"),
    **dict.fromkeys(("Clip", "Comparison", "Completion", "Score"), "descore.types"),
    **dict.fromkeys(("DescoreError", "DescoreWarning", "ConfigError", "CheckpointError"), "descore.errors"),
    **dict.fromkeys(("VideoError", "DataError", "AnswerError"), "descore.errors"),
    "DescoreModel": "descore.model.modeling",
    **dict.fromkeys(("AsyncClient", "Client"), "descore.serving.client"),
    "RewardFunction": "descore.rewards.function",
    "preference_pairs": "descore.rewards.pairs",
    "rank": "descore.rewards.ranking",
    "read_scored": "descore.rewards.scored",
    "score_table": "descore.rewards.bulk",
    "VideoSampling": "descore.video.reader",
    "read_clip": "descore.video.reader",
}

__all__ = [
    "AnswerError",
    "AsyncClient",
    "CheckpointError",
    "Client",
    "Clip",
    "Comparison",
    "Completion",
    "ConfigError",
    "DataError",
    "DescoreError",
    "DescoreModel",
    "DescoreWarning",
    "Request",
    "RewardFunction",
    "SamplingParams",
    "Score",
    "Scorer",
    "VideoError",
    "VideoSampling",
    "__version__",
    "preference_pairs",
    "rank",
    "read_clip",
    "read_scored",
    "score_table",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    if name not in _HOME:
        raise AttributeError(f"module 'descore' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
