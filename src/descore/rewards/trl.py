"""Rewards for a judge that is trained on text with TRL: what the answer that it writes is worth.

`GRPOTrainer(reward_funcs=[...])` calls `f(prompts, completions, completion_ids, **columns)`, the columns those of the
data set:

    from descore.rewards.trl import answer_format, mark_agreement
    GRPOTrainer(reward_funcs=[answer_format, mark_agreement], args=GRPOConfig(reward_weights=[0.2, 1.0]), ...)

A number is for one completion; None leaves it out of this reward: its row has no label. What the columns hold is what
tables hold (docs/data.md). Without a readable answer the reward is 0, the least: the judge is to learn to give one."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from descore.data.schema import PREFERENCES
from descore.data.tables import Cells
from descore.errors import AnswerError, ConfigError
from descore.rubric import correctness, quality, read_answer
from descore.types import PREFERENCE_SIGN, Preference, Verdict

LOWEST, HIGHEST = 1.0, 5.0
"""The scale of the answer's overall score, and of the column `rating`."""

Column = Sequence[Any]


def answer_format(completions: Column, **columns: object) -> list[float | None]:  # noqa: ARG001
    """1 for a completion that ends in an answer which can be read, else 0."""
    return [float(verdict is not None) for verdict in _verdicts(completions)]


def mark_agreement(completions: Column, marks: Column | None = None, **columns: object) -> list[float | None]:  # noqa: ARG001
    """The share of the five marks that equal those of the column `marks`: objects, or their JSON text."""
    rows = _rows(len(completions), marks=marks)
    wanted = [row.marks("marks") for row in rows]
    verdicts = _verdicts(completions)
    return [None if given is None else quality(v, given) for v, given in zip(verdicts, wanted, strict=True)]


def rating_agreement(completions: Column, rating: Column | None = None, **columns: object) -> list[float | None]:  # noqa: ARG001
    """1 for an overall score that equals the column `rating`, 0 for one at the other end of 1 to 5, between them a
    straight line."""
    rows = _rows(len(completions), rating=rating)
    return [_nearness(verdict, row) for verdict, row in zip(_verdicts(completions), rows, strict=True)]


def preference_agreement(
    completions: Column,
    pair: Column | None = None,
    side: Column | None = None,
    preference: Column | None = None,
    **columns: object,  # noqa: ARG001
) -> list[float | None]:
    """The share of the other side's answers in this call to which the overall score stands as people prefer; half for
    a tie on one part only.

    pair: what both rows of a pair share. side: the row's video, a or b. preference: a, b or tie, the same in both. None
    where no answer of the other side is in the call, so a batch should hold both."""
    rows = _rows(len(completions), pair=pair, side=side, preference=preference)
    verdicts = _verdicts(completions)
    sides = [(row.required("pair"), row.choice("side", {"a": "a", "b": "b"})) for row in rows]
    written: dict[tuple[str, str | None], list[float]] = {}
    for key, verdict in zip(sides, verdicts, strict=True):
        if verdict is not None:
            written.setdefault(key, []).append(verdict.overall)
    return [
        _order(verdict, written.get((number, {"a": "b", "b": "a"}.get(letter or "")), []), row, letter)
        for verdict, row, (number, letter) in zip(verdicts, rows, sides, strict=True)
    ]


def completion_text(completion: Any) -> str:  # noqa: ANN401
    """The text of a completion: a text, or messages, of which the last one counts."""
    if isinstance(completion, Sequence) and not isinstance(completion, str):
        completion = completion[-1]["content"] if completion else ""
    if isinstance(completion, str):
        return completion
    return "".join(part.get("text", "") for part in completion or ())


def _verdicts(completions: Column) -> list[Verdict | None]:
    return [_verdict(completion_text(completion)) for completion in completions]


def _verdict(text: str) -> Verdict | None:
    try:
        return read_answer(text)
    except AnswerError:
        return None


def _rows(count: int, **columns: Column | None) -> list[Cells]:
    """The rows of these columns, each to be read by type. ConfigError for a column that is not there."""
    given: dict[str, Column] = {}
    for name, column in columns.items():
        if column is None:
            raise ConfigError(f"the data set has no column {name!r}; add it, or leave this reward out")
        if len(column) != count:
            raise ConfigError(f"{count} completions, but {len(column)} in the column {name!r}; expected one for each")
        given[name] = column
    return [_cells({name: column[index] for name, column in given.items()}, index + 1) for index in range(count)]


def _cells(row: Mapping[str, Any], line: int) -> Cells:
    return Cells(file="<batch>", line=line, row=row)


def _nearness(verdict: Verdict | None, row: Cells) -> float | None:
    rating = row.number("rating")
    if rating is None:
        return None
    if not LOWEST <= rating <= HIGHEST:
        raise row.error(f"rating is {rating:g}; expected {LOWEST:g} to {HIGHEST:g}, the scale of the answer")
    return 0.0 if verdict is None else 1 - abs(verdict.overall - rating) / (HIGHEST - LOWEST)


def _order(verdict: Verdict | None, others: Sequence[float], row: Cells, side: str | None) -> float | None:
    preference: Preference | None = row.choice("preference", PREFERENCES)
    if preference is None or side is None:
        return None
    if verdict is None:
        return 0.0
    if not others:
        return None
    sign = PREFERENCE_SIGN[preference] if side == "a" else -PREFERENCE_SIGN[preference]
    return fmean(correctness(verdict.overall, other, sign) for other in others)
