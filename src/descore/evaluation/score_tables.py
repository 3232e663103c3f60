"""Scores that another system wrote, so that it is judged by the same statistics.

In: a table with `video` and `reward` (or `score`), and if you like `prompt`, `error` and named dimensions, either as
`reward.NAME` or as a column of a label's name; the lines of `descore score --json` are such a table. Out: a judge that
looks rewards up. A clip that the table lacks has failed. Knows tables and names of videos; opens no video."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from descore.data.tables import Cells, read_rows, value_at
from descore.errors import DataError, DescoreWarning
from descore.evaluation.judges import file_digest, unthinking_config, versions
from descore.evaluation.records import plain_record
from descore.evaluation.results import Key, key_of
from descore.evaluation.runs import Open
from descore.types import RatedClip

Known = Mapping[str, Any]

_REWARDS = ("reward", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableJudge:
    """Looks up what a table says of each clip."""

    file: Path
    model: str
    """Whose scores they are."""
    found: Mapping[Key, Known]
    """The known values of a record, by clip."""
    batch_size: int = 4096

    @property
    def config(self) -> dict[str, Any]:
        """What the scores depend on: the table's contents, wherever it lies."""
        return unthinking_config(model=self.model, digest=file_digest(self.file), versions=versions("descore"))

    def judge(self, clips: Sequence[RatedClip], *, open_video: Open) -> list[dict[str, Any]]:  # noqa: ARG002
        """A record for each clip."""
        absent = {"error": f"{self.file.name} has no score of it"}
        return [plain_record(clip, model=self.model, **self.found.get(key_of(clip), absent)) for clip in clips]


def read_scores(
    file: Path, *, clips: Sequence[RatedClip], labels: Sequence[str] = (), model: str | None = None
) -> TableJudge:
    """A table of scores of a benchmark's clips.

    A row's video is found by its path as the benchmark's table has it, by the end of that path, or by its file name
    where that is unique; without a prompt it stands for the video with any. `model` is what to call the system; by
    default what the rows call it, or the file's name. Two rows for one clip, or no row for any, raise DataError; rows
    of other clips are left out with a warning."""
    book, found, lines, strangers = _Book.of(clips), dict[Key, Known](), dict[Key, int](), list[int]()
    names: set[str | None] = set()
    for line, row in read_rows(file, columns=("video",)):
        cells = Cells(file=str(file), line=line, row=row)
        _check_columns(cells, labels)
        names.add(cells.text("model"))
        keys = book.find(cells.needed("video"), cells.text("prompt"))
        if twice := next((key for key in keys if key in found), None):
            raise cells.fault(f"a second score of {twice[0]!r}; the first is in line {lines[twice]}: keep one")
        found |= dict.fromkeys(keys, _known(cells, labels))
        lines |= dict.fromkeys(keys, line)
        strangers += [] if keys else [line]
    _report(strangers, found=len(found), file=file, example=clips[0].video if clips else "")
    own_name = next(iter(names)) if len(names) == 1 else None
    return TableJudge(file=file, model=model or own_name or file.stem, found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    """Clips by whatever a table may call them."""

    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By video: the prompts that it was made from, by their words."""
    videos: dict[str, list[str]] = field(default_factory=dict)
    """By file name."""

    @classmethod
    def of(cls, clips: Sequence[RatedClip]) -> "_Book":
        book = cls()
        for clip in clips:
            if clip.video not in book.prompts:
                book.videos.setdefault(PurePosixPath(clip.video).name, []).append(clip.video)
            book.prompts.setdefault(clip.video, {})[_words(clip.prompt)] = clip.prompt
        return book

    def find(self, video: str, prompt: str | None) -> list[Key]:
        own = video if video in self.prompts else self._by_name(video)
        if own is None:
            return []
        prompts = self.prompts[own]
        if prompt is None:
            return [(own, each) for each in prompts.values()]
        return [(own, prompts[_words(prompt)])] if _words(prompt) in prompts else []

    def _by_name(self, video: str) -> str | None:
        like = self.videos.get(PurePosixPath(video).name, [])
        ends = [own for own in like if f"/{own}".endswith(f"/{video}") or f"/{video}".endswith(f"/{own}")]
        chosen = ends or like
        return chosen[0] if len(chosen) == 1 else None


def _words(prompt: str) -> str:
    return " ".join(prompt.split())


def _check_columns(cells: Cells, labels: Sequence[str]) -> None:
    row = cells.row
    if not any(name in row for name in (*_REWARDS, "error", "rewards", *labels)) and not _named(row):
        raise cells.fault(f"no column reward or score; found {', '.join(row)}")


def _named(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns of named dimensions, by dimension."""
    return {column.removeprefix("reward."): column for column in row if column.startswith("reward.")}


def _known(cells: Cells, labels: Sequence[str]) -> dict[str, Any]:
    """The values of a record that a row has; an `error` if there is no reward among them."""
    rewards = _rewards(cells, labels)
    reward = next((number for name in _REWARDS if (number := cells.number(name)) is not None), None)
    if reward is None and not rewards:
        return {"error": cells.text("error") or "its row has no reward"}
    truncated = cells.row.get("truncated")
    return {
        "rewards": rewards or {"reward": reward},
        "reward": fmean(rewards.values()) if reward is None else reward,
        "std": cells.number("std"),
        "thinking": cells.text("thinking"),
        "marks": cells.marks("marks"),
        "overall": cells.number("overall"),
        "truncated": truncated if isinstance(truncated, bool) else None,
    }


def _rewards(cells: Cells, labels: Sequence[str]) -> dict[str, float]:
    inner = cells.row.get("rewards")
    columns = {label: label for label in labels} | _named(cells.row)
    if isinstance(inner, Mapping):
        columns |= {name: f"rewards.{name}" for name in inner}
    found = {name: cells.number(column) for name, column in columns.items() if value_at(cells.row, column) is not None}
    return {name: number for name, number in found.items() if number is not None}


def _report(strangers: Sequence[int], *, found: int, file: Path, example: str) -> None:
    if not found:
        line = strangers[0] if strangers else 1
        raise DataError(str(file), line, f"no row is of a clip in the benchmark; its videos are like {example!r}")
    if strangers:
        told = f"{len(strangers):,} of its rows, from line {strangers[0]}, are of no clip in the benchmark; left out"
        warnings.warn(f"{file}: {told}", DescoreWarning, stacklevel=3)
