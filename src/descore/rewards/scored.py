"""The format of a scored table: what a row holds, how a result becomes one, and how it is read back.

A scored table is CSV, JSON Lines or Parquet. It has the source's columns, `prompt` and `video` among them, and then

    reward              the raw reward, mean over the chains; empty if there is none
    score               standardized by the checkpoint's mean and deviation; empty if it stores none
    std                 deviation of the chains' rewards; empty for a single chain
    samples             chains that gave a reward
    reward_NAME         the reward of each named dimension, where there are several
    mark_NAME           the marks of the first chain, 0 to 2; empty where the prompt does not ask, or there is no mark
    chain               the first chain's text; empty without thinking
    truncated           whether a chain was cut at its limit
    error               why there is no reward; empty if there is one
    model               what gave the reward

A table of pairs has a row for each side, with the columns `pair`, a number from 1, and `side`, a or b."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from descore.data.schema import path_resolver
from descore.data.tables import Cells, read_rows
from descore.errors import DescoreError, VideoError
from descore.types import DIMENSIONS, Mark, Score

REWARD_PREFIX, MARK_PREFIX = "reward_", "mark_"

WRITTEN_COLUMNS = ("reward", "score", "std", "samples", "chain", "truncated", "error", "model")
"""The columns with fixed names."""

_FLAGS: Mapping[str, bool | None] = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """A row of a scored table: a clip with its reward, or with the reason why it has none."""

    prompt: str
    video: str
    """A path; from `read_scored` relative to the table, unless its `resolve` is off."""
    reward: float | None
    """Mean over the chains; None if there is none. Only differences between clips of one prompt mean something."""
    score: float | None = None
    """The reward, standardized by the checkpoint's mean and deviation; None if it stores none."""
    std: float | None = None
    """Sample standard deviation of the chains' rewards; None for a single one."""
    samples: int = 0
    """Chains that gave a reward."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """By named dimension, where there are several; empty for one."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By dimension of the rubric, of the first chain; None is N/A. Empty if the chain has no marks."""
    chain: str | None = None
    """The first chain's text; None without thinking."""
    truncated: bool = False
    """Whether a chain was cut at its limit."""
    error: str | None = None
    """Why there is no reward; None if there is one."""
    model: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The source's columns, as the table has them."""
    line: int | None = None
    """Where the row stands in its table; None if it was not read from one."""

    def results(self) -> dict[str, Any]:
        """The columns that scoring adds."""
        return {
            "reward": self.reward,
            "score": self.score,
            "std": self.std,
            "samples": self.samples,
            **{REWARD_PREFIX + name: reward for name, reward in self.rewards.items()},
            **{MARK_PREFIX + name: self.marks.get(name) for name in DIMENSIONS},
            "chain": self.chain,
            "truncated": self.truncated,
            "error": self.error,
            "model": self.model,
        }


def is_written_column(name: str) -> bool:
    """Whether scoring writes a column of this name."""
    return name in WRITTEN_COLUMNS or name.startswith((REWARD_PREFIX, MARK_PREFIX))


def result_columns(dimensions: Sequence[str]) -> tuple[str, ...]:
    """The columns that scoring adds, in order, for a model of these named dimensions."""
    named = dimensions if len(dimensions) > 1 else ()
    blank = ScoredRow(prompt="", video="", reward=None, rewards=dict.fromkeys(named, 0.0))
    return tuple(blank.results())


def result_schema(source: Any, dimensions: Sequence[str]) -> Any:  # noqa: ANN401  # pyarrow is not typed
    """The schema of a scored table in Parquet: that of the source's columns (pyarrow), then the types of the others."""
    arrow = import_module("pyarrow")
    types = {"samples": arrow.int64(), "truncated": arrow.bool_()}
    types |= dict.fromkeys(("chain", "error", "model"), arrow.string())
    added = result_columns(dimensions)
    types |= {name: arrow.int64() for name in added if name.startswith(MARK_PREFIX)}
    return arrow.schema([*source, *(arrow.field(name, types.get(name, arrow.float64())) for name in added)])


def scored_row(
    result: Score | DescoreError, *, prompt: str, video: str, model: str, columns: Mapping[str, Any]
) -> ScoredRow:
    """The row of a result."""
    if isinstance(result, DescoreError):
        reason = result.reason if isinstance(result, VideoError) else str(result)
        return ScoredRow(prompt=prompt, video=video, reward=None, error=reason, model=model, columns=columns)
    first = result.completions[0]
    return ScoredRow(
        prompt=prompt,
        video=video,
        reward=result.reward,
        score=result.score,
        std=result.std,
        samples=len(result.completions),
        rewards=result.rewards if len(result.rewards) > 1 else {},
        marks={} if first.verdict is None else dict(first.verdict.marks),
        chain=first.text or None,
        truncated=result.truncated,
        model=model,
        columns=columns,
    )


def read_scored(file: str | Path, *, resolve: bool = True) -> Iterator[ScoredRow]:
    """The rows of a scored table, one at a time. Only `prompt`, `video` and `reward` must be there. `resolve` joins
    the videos' paths to the table's folder; without it they stay as the table has them.

    ConfigError for a file that is no table, DataError for the first row that cannot be used."""
    name_of = path_resolver(file) if resolve else str
    for line, row in read_rows(file, columns=("prompt", "video", "reward")):
        cells = Cells(file=str(file), line=line, row=row)
        error = cells.text("error")
        reward = None if error else cells.number("reward")
        marks = {name: _mark(cells, MARK_PREFIX + name) for name in DIMENSIONS if MARK_PREFIX + name in row}
        video = cells.text("video", file_name=True)
        yield ScoredRow(
            prompt=cells.text("prompt") or "",
            video=name_of(video) if video else "",
            reward=reward,
            score=cells.number("score"),
            std=_deviation(cells),
            samples=_samples(cells, reward),
            rewards=_rewards(cells),
            marks=marks if any(mark is not None for mark in marks.values()) else {},
            chain=cells.text("chain"),
            truncated=cells.choice("truncated", _FLAGS) or False,
            error=error or ("its row has no reward" if reward is None else None),
            model=cells.text("model"),
            columns={name: value for name, value in row.items() if not is_written_column(name)},
            line=line,
        )


def _rewards(cells: Cells) -> dict[str, float]:
    columns = [name for name in cells.row if name.startswith(REWARD_PREFIX)]
    numbers = {name.removeprefix(REWARD_PREFIX): cells.number(name) for name in columns}
    return {name: number for name, number in numbers.items() if number is not None}


def _deviation(cells: Cells) -> float | None:
    std = cells.number("std")
    if std is not None and std < 0:
        raise cells.error(f"std is {std:g}; expected a deviation of 0 or more")
    return std


def _samples(cells: Cells, reward: float | None) -> int:
    samples = cells.number("samples")
    if samples is None:
        return 0 if reward is None else 1
    if samples < 0 or samples != int(samples):
        raise cells.error(f"samples is {samples:g}; expected a whole number of chains")
    return int(samples)


def _mark(cells: Cells, column: str) -> Mark:
    whole: tuple[Mark, ...] = (0, 1, 2)
    mark = cells.number(column)
    if mark is not None and mark not in whole:
        raise cells.error(f"{column} is {mark:g}; expected 0, 1, 2 or nothing")
    return None if mark is None else whole[whole.index(int(mark))]  # type: ignore[arg-type]
