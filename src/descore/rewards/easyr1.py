"""A reward for a judge that is trained on text with EasyR1.

EasyR1 loads a function from a file (`verl/workers/reward/function.py`), so a file of one line, and in the YAML:

    from descore.rewards.easyr1 import REWARD_TYPE, judge_scores        # my_reward.py

    worker:
      reward:
        reward_type: batch
        reward_function: ./my_reward.py:judge_scores
        reward_function_kwargs: {format_weight: 0.2}

`ground_truth` is a row's labels as JSON: `{"marks": {...}}`, `{"rating": 3.5}`, or both rows of a pair with
`{"pair": "12", "side": "a", "preference": "b"}`; see `descore.rewards.trl`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from descore.errors import ConfigError, short_repr
from descore.rewards.trl import answer_format, mark_agreement, preference_agreement, rating_agreement

REWARD_TYPE = "batch"
"""EasyR1 hands on all responses of a batch at once."""

_PARTS: Mapping[str, Callable[..., list[float | None]]] = {
    "marks": mark_agreement,
    "rating": rating_agreement,
    "preference": preference_agreement,
}
_COLUMNS = {"marks": ("marks",), "rating": ("rating",), "preference": ("pair", "side", "preference")}


def judge_scores(
    reward_inputs: Sequence[Mapping[str, Any]],
    *,
    format_weight: float = 0.2,
    marks_weight: float = 1.0,
    rating_weight: float = 1.0,
    preference_weight: float = 1.0,
) -> list[dict[str, float]]:
    """For each response a dict with `format`, the parts that its labels allow, and `overall`: their weighted mean.

    reward_inputs: with response and ground_truth. EasyR1 has no place for a missing reward: a row without a label, or a
    pair without an answer of its other side in the batch, raises ConfigError."""
    responses = [one["response"] for one in reward_inputs]
    labels = [_labels(one["ground_truth"], index) for index, one in enumerate(reward_inputs)]
    weights = {"marks": marks_weight, "rating": rating_weight, "preference": preference_weight, "format": format_weight}
    rows: list[dict[str, float]] = [{} for _ in responses]
    for part in _PARTS:
        _add(rows, part, responses, labels)
    for index, row in enumerate(rows):
        if not row:
            wanted = "marks, rating, or pair, side and preference (with an answer of the other side in the batch)"
            raise ConfigError(f"ground_truth {index} has no label to compare with; expected {wanted}")
    for row, value in zip(rows, answer_format(responses), strict=True):
        row["format"] = value or 0.0
    return [{"overall": _mean(row, weights), **row} for row in rows]


def _labels(ground_truth: object, index: int) -> Mapping[str, Any]:
    try:
        labels = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    except ValueError:
        labels = None
    if not isinstance(labels, Mapping):
        raise ConfigError(
            f'ground_truth {index} is {short_repr(ground_truth)}; expected labels as JSON, such as {{"rating": 3.5}}'
        )
    return labels


def _add(
    rows: Sequence[dict[str, float]], part: str, responses: Sequence[str], labels: Sequence[Mapping[str, Any]]
) -> None:
    """Give the rows that have the labels of a part its value."""
    names = _COLUMNS[part]
    having = [index for index, row in enumerate(labels) if all(row.get(name) is not None for name in names)]
    columns = {name: [labels[index][name] for index in having] for name in names}
    values = _PARTS[part]([responses[index] for index in having], **columns)
    for index, value in zip(having, values, strict=True):
        if value is not None:
            rows[index][part] = value


def _mean(row: Mapping[str, float], weights: Mapping[str, float]) -> float:
    total = sum(weights[part] for part in row)
    if total <= 0:
        raise ConfigError(f"the weights of {', '.join(row)} add up to {total:g}; expected more than 0")
    return sum(weights[part] * value for part, value in row.items()) / total
