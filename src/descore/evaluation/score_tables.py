"""A table of scores that another system wrote, as a judge.

In: a table with `video` and `reward` (or `score`), and optionally `prompt`, `error` and named dimensions, either as
`reward.NAME` or as a column of a label's name; the lines of `descore score --json` are such a table. Out: a judge that
looks rewards up. A clip that is not in the table has failed. No video is opened."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from descore.data.tables import Cells, read_rows, value_at
from descore.errors import DataError, DescoreWarning
from descore.evaluation.judges import OpenVideo, config_without_chains, file_digest, package_versions
from descore.evaluation.records import Record, plain_record
from descore.evaluation.results import ClipKey, key_of
from descore.rubric import unknown_of
from descore.types import PRIMARY, RatedClip

_REWARDS = ("reward", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableJudge:
    """Looks up each clip's reward in a table."""

    file: Path
    model: str
    """The system that wrote the scores."""
    values: Mapping[ClipKey, Record]
    """The known values of a record, by clip."""
    batch_size: int = 4096

    @property
    def config(self) -> Record:
        """What the scores depend on: the table's contents, not its path."""
        return config_without_chains(
            model=self.model, digest=file_digest(self.file), versions=package_versions("descore")
        )

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:  # noqa: ARG002
        """A record for each clip."""
        absent = {"error": f"{self.file.name} has no score of it"}
        return [plain_record(clip, model=self.model, **self.values.get(key_of(clip), absent)) for clip in clips]


def read_scores(
    file: Path, *, clips: Sequence[RatedClip], labels: Sequence[str] = (), model: str | None = None
) -> TableJudge:
    """A table of scores of a benchmark's clips.

    A row's video is matched by its path as the benchmark's table has it, or where one path is the end of the other. A
    file name without a folder is matched, with a warning, where it is unique; a row of another folder never is. A row
    without a prompt holds for every prompt of the video. `model` names the system; by default the name in the rows, or
    the file's name. Two rows for one clip, or no row for any, raise DataError; rows of other clips are left out with a
    warning."""
    index = _ClipIndex.of(clips)
    values: dict[ClipKey, Record] = {}
    line_of: dict[ClipKey, int] = {}
    unmatched: list[int] = []
    by_name: list[str] = []
    names: set[str | None] = set()
    for line, row in read_rows(file, columns=("video",)):
        cells = Cells(file=str(file), line=line, row=row)
        _check_columns(cells, labels)
        names.add(cells.text("model"))
        keys = index.find(cells.video("video"), cells.text("prompt"))
        if twice := next((key for key in keys if key in values), None):
            raise cells.error(f"a second score of {twice[0]!r}; the first is in line {line_of[twice]}: keep one")
        values |= dict.fromkeys(keys, _values_of(cells, labels))
        line_of |= dict.fromkeys(keys, line)
        unmatched += [] if keys else [line]
        by_name += [f"line {line}: {keys[0][0]}"] if keys and index.only_by_name(cells.video("video")) else []
    _check_matches(unmatched, matched=len(values), file=file, example=clips[0].video if clips else "")
    _warn_of_names(by_name, file=file)
    own_name = next(iter(names)) if len(names) == 1 else None
    return TableJudge(file=file, model=model or own_name or file.stem, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClipIndex:
    """Clips by the names that a table may have for them."""

    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By video: the prompts that it was made from, by the same prompt with single spaces."""
    videos: dict[str, list[str]] = field(default_factory=dict)
    """By file name."""

    @classmethod
    def of(cls, clips: Sequence[RatedClip]) -> "_ClipIndex":
        index = cls()
        for clip in clips:
            if clip.video not in index.prompts:
                index.videos.setdefault(PurePosixPath(clip.video).name, []).append(clip.video)
            index.prompts.setdefault(clip.video, {})[_single_spaced(clip.prompt)] = clip.prompt
        return index

    def find(self, video: str, prompt: str | None) -> list[ClipKey]:
        matched = video if video in self.prompts else self._by_name(video)
        if matched is None:
            return []
        prompts = self.prompts[matched]
        if prompt is None:
            return [(matched, each) for each in prompts.values()]
        return [(matched, prompts[_single_spaced(prompt)])] if _single_spaced(prompt) in prompts else []

    def only_by_name(self, video: str) -> bool:
        """Whether a row's video that is matched has no more in common with its clip's than the file name."""
        matched = video if video in self.prompts else self._by_name(video)
        return matched != video and (matched is None or "/" not in video or "/" not in matched)

    def _by_name(self, video: str) -> str | None:
        same_name = self.videos.get(PurePosixPath(video).name, [])
        same_end = [own for own in same_name if f"/{own}".endswith(f"/{video}") or f"/{video}".endswith(f"/{own}")]
        return same_end[0] if len(same_end) == 1 else None


def _warn_of_names(matches: Sequence[str], *, file: Path) -> None:
    if matches:
        message = f"{len(matches):,} of its rows are matched by file name alone, the first in {matches[0]}"
        warnings.warn(f"{file}: {message}; write the clips' folders if this is wrong", DescoreWarning, stacklevel=3)


def _single_spaced(prompt: str) -> str:
    return " ".join(prompt.split())


def _check_columns(cells: Cells, labels: Sequence[str]) -> None:
    row = cells.row
    if not any(name in row for name in (*_REWARDS, "error", "rewards", *labels)) and not _dimension_columns(row):
        raise cells.error(f"no column reward or score; found {', '.join(row)}")


def _dimension_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """By named dimension: its column."""
    return {column.removeprefix("reward."): column for column in row if column.startswith("reward.")}


def _values_of(cells: Cells, labels: Sequence[str]) -> Record:
    """The values of a record that a row has; an `error` if it has one, whatever its reward, or no reward."""
    if error := cells.text("error"):
        return {"error": error}
    rewards = _rewards(cells, labels)
    reward = next((number for name in _REWARDS if (number := cells.number(name)) is not None), None)
    if reward is None and not rewards:
        return {"error": "its row has no reward"}
    truncated, thinking, marks = cells.row.get("truncated"), cells.text("thinking"), cells.marks("marks")
    unknown = None if marks is None else list(unknown_of(thinking or "", marks))
    return {
        "rewards": rewards or {"reward": reward},
        "reward": fmean(rewards.values()) if reward is None else reward,
        "std": cells.number("std"),
        "thinking": thinking,
        "marks": marks,
        "unknown": unknown,
        "overall": cells.number("overall"),
        "partial_overall": None if unknown is None else not PRIMARY.isdisjoint(unknown),
        "truncated": truncated if isinstance(truncated, bool) else None,
    }


def _rewards(cells: Cells, labels: Sequence[str]) -> dict[str, float]:
    inner = cells.row.get("rewards")
    columns = {label: label for label in labels} | _dimension_columns(cells.row)
    if isinstance(inner, Mapping):
        columns |= {name: f"rewards.{name}" for name in inner}
    numbers = {
        name: cells.number(column) for name, column in columns.items() if value_at(cells.row, column) is not None
    }
    return {name: number for name, number in numbers.items() if number is not None}


def _check_matches(unmatched: Sequence[int], *, matched: int, file: Path, example: str) -> None:
    if not matched:
        line = unmatched[0] if unmatched else 1
        raise DataError(str(file), line, f"no row is of a clip in the benchmark; its videos are like {example!r}")
    if unmatched:
        message = f"{len(unmatched):,} of its rows, from line {unmatched[0]}, are of no clip in the benchmark; left out"
        warnings.warn(f"{file}: {message}", DescoreWarning, stacklevel=3)
