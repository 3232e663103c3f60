"""Rewards for a judge that is trained on text with ms-swift.

A file for `--external_plugins`, and the rewards by name in the command line:

    from swift.rewards import orms                              # swift.plugin in older releases
    from descore.rewards.ms_swift import JUDGE_ORMS
    orms.update(JUDGE_ORMS)

    swift rlhf --rlhf_type grpo --external_plugins plugin.py --reward_funcs descore_format descore_marks

They are those of `descore.rewards.trl`, and read the same columns. Where TRL has None, NaN leaves a completion out."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from descore.rewards.trl import answer_format, mark_agreement, preference_agreement, rating_agreement


class _TextReward:
    """A reward as ms-swift makes and calls it."""

    function: ClassVar[Callable[..., list[float | None]]]

    def __init__(self, args: object = None, **others: object) -> None:
        """args, others: of the training, which these rewards do not need."""

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float]:  # noqa: ANN401
        """A number for each completion; NaN where its row has no label."""
        values = type(self).function(completions, **columns)
        return [math.nan if value is None else value for value in values]


class AnswerFormatReward(_TextReward):
    """`answer_format`."""

    function = staticmethod(answer_format)


class MarkReward(_TextReward):
    """`mark_agreement`, with the column `marks`."""

    function = staticmethod(mark_agreement)


class RatingReward(_TextReward):
    """`rating_agreement`, with the column `rating`."""

    function = staticmethod(rating_agreement)


class PreferenceReward(_TextReward):
    """`preference_agreement`, with the columns `pair`, `side` and `preference`."""

    function = staticmethod(preference_agreement)


JUDGE_ORMS: Mapping[str, type[_TextReward]] = MappingProxyType(
    {
        "descore_format": AnswerFormatReward,
        "descore_marks": MarkReward,
        "descore_rating": RatingReward,
        "descore_preference": PreferenceReward,
    }
)
"""The rewards by the names that `--reward_funcs` takes."""
