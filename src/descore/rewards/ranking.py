"""Rank the clips of each prompt by their rewards: the best of N, and how sure that is.

    ranked = rank(read_scored("scores.parquet"), keep=2)
    for ranking in ranked.rankings: ranking.places[0].video, ranking.lead.probability
    ranked.left_out                                            # clips without a reward: they are never ranked

In: rows of a scored table. Out: a ranking for each prompt. Clips compete where prompt and, if the table has a column
for it, group are the same. Rows are read once; of each a few numbers and its video's path are kept, and no chain."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import pstdev
from typing import Literal, TypeVar

import numpy as np

from descore.data.schema import OVERALL
from descore.data.tables import columns_of, nearest
from descore.errors import ConfigError, DataError
from descore.rewards.scored import ScoredRow
from descore.stats.uncertainty import LEVEL, difference_error, half_width
from descore.types import DIMENSIONS, preference_probability

_REWARD = "reward"
"""What clips are ranked by, unless a dimension or a mark is named."""

_T = TypeVar("_T")
_K = TypeVar("_K")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedClip:
    """What is kept of a clip that has a reward."""

    number: int
    """Of its row, counted from 0 in the order of reading."""
    video: str
    """Its path."""
    name: str
    """The video as the table has it."""
    value: float
    """What it is ranked by."""
    reward: float
    score: float | None
    """The reward, standardized by the checkpoint."""
    std: float | None
    """Sample standard deviation of the value over chains; None for one chain, or where the table does not say."""
    samples: int
    """Chains that gave a reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """How far one clip is ahead of another, and how sure that is."""

    margin: float
    """Difference of the values that they are ranked by."""
    deviations: float | None
    """The margin in deviations: of the checkpoint where it states one, or else of the table's values; None where all
    values are equal."""
    probability: float | None
    """That people prefer the first, drawn towards one half by the error of the means: see `preference_probability`.
    None for marks, which are no rewards."""
    low: float | None
    """Lower end of the margin's interval at LEVEL, by Welch's t; None where no side has several chains."""
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the first is the winner: its margin is above 0 and, with several chains, its interval leaves out
        0."""
        return self.margin > 0 and (self.low is None or self.low > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The clips of one prompt, best first."""

    prompt: str
    group: str
    """Empty if the table has no such column."""
    clips: int
    """Those with a reward."""
    places: tuple[RankedClip, ...]
    """The best `keep` of them; equal ones in the order of the table."""
    leads: tuple[Lead, ...]
    """Of each place over the next one; the last clip of all has none."""

    @property
    def lead(self) -> Lead | None:
        """Of the first over the second; None where a prompt has one clip only."""
        return self.leads[0] if self.leads else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A clip that is not ranked."""

    number: int
    video: str
    """As the table has it."""
    prompt: str
    reason: str
    failed: bool
    """It has no reward; others are there twice, or have no value to be ranked by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTable:
    """The rankings of a table."""

    left_out: tuple[LeftOut, ...]
    """Clips without a reward or the value that is ranked by, and clips that are there twice, in order."""
    rankings: tuple[Ranking, ...]
    """In the order in which the prompts came first."""
    by: str
    model: str | None
    """That scored all clips."""
    deviation: Literal["checkpoint", "table"]
    """Whose deviation margins are measured in."""


def require_scored(table: str | Path) -> None:
    """ConfigError for a table of prompts and videos without rewards."""
    columns = columns_of(table)
    if _REWARD not in columns and "prompt" in columns:
        raise ConfigError(f"{table}: no column 'reward'; score it first: descore score {table} --out scores.jsonl")


def rank(
    rows: Iterable[ScoredRow], *, keep: int = 1, by: str | None = None, file: str | Path = "<rows>"
) -> RankedTable:
    """The best `keep` clips of each prompt. by: None for the reward, or a named dimension of the head or a mark; clips
    of equal marks are ordered by their reward. file: the name of the table, for messages.

    ConfigError for a `by` that no row has. DataError, with file and line, for rows of several models or of heads with
    other dimensions, whose rewards cannot be compared."""
    if keep < 1:
        raise ConfigError(f"keep is {keep}; expected 1 or more clips for each prompt")
    table = collect(rows, by=by, file=file)
    return RankedTable(
        left_out=tuple(table.left_out),
        rankings=tuple(_ranking(key, clips, table=table, keep=keep) for key, clips in table.prompts.items()),
        by=table.by,
        model=table.model,
        deviation="checkpoint" if table.standardized else "table",
    )


class Collected:
    """The clips of a table by prompt and group, each prompt's best first, and what their values have in common."""

    def __init__(self, *, by: str | None, file: str | Path) -> None:
        self.by = by or _REWARD
        self.is_mark = self.by in DIMENSIONS
        self.file = str(file)
        self.left_out: list[LeftOut] = []
        self.prompts: dict[tuple[str, str], list[RankedClip]] = {}
        self.first: ScoredRow | None = None
        """The first row with a reward."""
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._deviation = 0.0

    @property
    def model(self) -> str | None:
        """That scored all clips; None where nothing says it."""
        return None if self.first is None else self.first.model

    @property
    def standardized(self) -> bool:
        """Whether differences of scores are margins in deviations: for the reward of a head of one dimension."""
        return self.first is not None and self.by == _REWARD and self.first.score is not None and not self.first.rewards

    def add(self, number: int, row: ScoredRow) -> None:
        """Take a row, or note why it is left out."""
        clip = self._clip(number, row)
        if isinstance(clip, str):
            name, failed = _name(row), row.reward is None
            self.left_out.append(LeftOut(number=number, video=name, prompt=row.prompt, reason=clip, failed=failed))
        else:
            self.prompts.setdefault((row.prompt, group_of(row)), []).append(clip)

    def finish(self) -> None:
        """Order each prompt's clips, best first, once all rows were taken."""
        for clips in self.prompts.values():
            clips.sort(key=lambda clip: (-clip.value, -clip.reward))  # stable: equal ones stay in the table's order
        values = [clip.value for clips in self.prompts.values() for clip in clips]
        self._deviation = pstdev(values) if values else 0.0

    def lead(self, a: RankedClip, b: RankedClip) -> Lead:
        """How far a is ahead of b."""
        margin = a.value - b.value
        error, half = _error(a, b)
        low, high = (None, None) if half is None else (margin - half, margin + half)
        deviations = margin / self._deviation if self._deviation else None
        if self.standardized and a.score is not None and b.score is not None:
            deviations = a.score - b.score
        probability = None if self.is_mark else preference_probability(margin, 0.0, variance=error**2)
        return Lead(margin=margin, deviations=deviations, probability=probability, low=low, high=high)

    def _clip(self, number: int, row: ScoredRow) -> RankedClip | str:
        """What is kept of a row, or why it is left out."""
        if row.reward is None or not row.prompt or not row.video:
            return row.error or f"has no {'prompt' if row.video else 'video'}"
        self._check_same_model(row)
        first = self._numbers.setdefault((row.prompt, group_of(row), row.video), number)
        if first != number:
            return "is there twice"
        value = self._value(row)
        if value is None:
            return f"{self.by} is N/A: the prompt does not ask for it" if row.marks else "its chain has no marks"
        return RankedClip(
            number=number,
            video=row.video,
            name=_name(row),
            value=value,
            reward=row.reward,
            score=row.score,
            std=row.std if self.by == _REWARD else None,
            samples=row.samples or 1,
        )

    def _value(self, row: ScoredRow) -> float | None:
        if self.by == _REWARD or (self.by == OVERALL and not row.rewards):
            return row.reward
        if self.by in row.rewards:
            return row.rewards[self.by]
        if not self.is_mark:
            raise _unknown(self.by, row, self.file)
        return row.marks.get(self.by)

    def _check_same_model(self, row: ScoredRow) -> None:
        if self.first is None:
            self.first = row
        elif row.model != self.first.model:
            found = f"model is {row.model!r}, on line {self.first.line} {self.first.model!r}"
            raise self._mixed(row, f"{found}; rewards of two models")
        elif row.rewards.keys() != self.first.rewards.keys():
            found = f"dimensions are {_named(row)}, on line {self.first.line} {_named(self.first)}"
            raise self._mixed(row, f"{found}; rewards of two heads")

    def _mixed(self, row: ScoredRow, found: str) -> DataError:
        return DataError(self.file, row.line or 0, f"{found} cannot be compared: split the table")


def collect(rows: Iterable[ScoredRow], *, by: str | None, file: str | Path) -> Collected:
    """The clips of a table by prompt, best first. Errors: see `rank`."""
    table = Collected(by=by, file=file)
    for number, row in enumerate(rows):
        table.add(number, row)
    table.finish()
    return table


def group_of(row: ScoredRow) -> str:
    """The row's group; empty if the table has no such column."""
    group = row.columns.get("group")
    return "" if group is None else str(group)


def together(rows: Iterable[_T], sets: Mapping[_K, Sequence[int]]) -> Iterator[tuple[_K, list[_T]]]:
    """The rows of each set, given by their numbers, as soon as the last one is read: keys with rows, in the order of
    the numbers. A row is held no longer than until its sets are full, so a table whose prompts stand together needs
    room for one of them."""
    sets_of: dict[int, list[_K]] = {}
    for key, numbers in sets.items():
        for number in dict.fromkeys(numbers):
            sets_of.setdefault(number, []).append(key)
    held: dict[_K, dict[int, _T]] = {}
    for number, row in enumerate(rows):
        for key in sets_of.pop(number, ()):
            own = held.setdefault(key, {})
            own[number] = row
            if len(own) == len(set(sets[key])):
                yield key, [held[key][n] for n in sets[key]]
                del held[key]


def _ranking(key: tuple[str, str], clips: Sequence[RankedClip], *, table: Collected, keep: int) -> Ranking:
    prompt, group = key
    return Ranking(
        prompt=prompt,
        group=group,
        clips=len(clips),
        places=tuple(clips[:keep]),
        leads=tuple(table.lead(a, b) for a, b in islice(pairwise(clips), keep)),
    )


def _error(a: RankedClip, b: RankedClip) -> tuple[float, float | None]:
    """The standard error of the difference, 0 where it is not known, and half its interval."""
    if a.std is None and b.std is None:
        return 0.0, None
    std_a, std_b = (np.array([math.nan if clip.std is None else clip.std]) for clip in (a, b))
    error, freedom = difference_error(std_a, np.array([a.samples]), std_b, np.array([b.samples]))
    return float(error[0]), float(half_width(error, freedom, level=LEVEL)[0])


def _name(row: ScoredRow) -> str:
    return str(row.columns.get("video", row.video))


def _named(row: ScoredRow) -> str:
    return ", ".join(row.rewards) or "one"


def _unknown(by: str, row: ScoredRow, file: str) -> ConfigError:
    known = [_REWARD, *row.rewards, *DIMENSIONS]
    close = nearest(by, known)
    hint = f" (is it {close!r}?)" if close else ""
    return ConfigError(f"{file}: nothing is named {by!r}{hint}; it has {', '.join(known)}")
