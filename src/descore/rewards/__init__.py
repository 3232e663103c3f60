"""The model as a reward: tables in bulk, best of N, preference pairs, and a plug for each trainer.

The public names are loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from descore.rewards.bulk import ScoringSummary, score_table, write_scores
    from descore.rewards.differentiable import DifferentiableReward
    from descore.rewards.frames import FrameFormat
    from descore.rewards.function import RewardFunction, Rewards
    from descore.rewards.groups import win_rates
    from descore.rewards.monitor import RewardMonitor, WarningLimits
    from descore.rewards.pairs import preference_pairs, write_best, write_pairs
    from descore.rewards.ranking import rank
    from descore.rewards.scored import ScoredRow, read_scored

_HOME = {
    "DifferentiableReward": "descore.rewards.differentiable",
    "FrameFormat": "descore.rewards.frames",
    **dict.fromkeys(("RewardFunction", "Rewards"), "descore.rewards.function"),
    **dict.fromkeys(("ScoringSummary", "score_table", "write_scores"), "descore.rewards.bulk"),
    **dict.fromkeys(("ScoredRow", "read_scored"), "descore.rewards.scored"),
    **dict.fromkeys(("RewardMonitor", "WarningLimits"), "descore.rewards.monitor"),
    **dict.fromkeys(("preference_pairs", "write_best", "write_pairs"), "descore.rewards.pairs"),
    "rank": "descore.rewards.ranking",
    "win_rates": "descore.rewards.groups",
}

__all__ = [
    "DifferentiableReward",
    "FrameFormat",
    "RewardFunction",
    "RewardMonitor",
    "Rewards",
    "ScoredRow",
    "ScoringSummary",
    "WarningLimits",
    "preference_pairs",
    "rank",
    "read_scored",
    "score_table",
    "win_rates",
    "write_best",
    "write_pairs",
    "write_scores",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    if name not in _HOME:
        raise AttributeError(f"module 'descore.rewards' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
