"""The table that chains are collected for: pairs, rated clips, or prompts and videos alone.

In: a table in the project's schema. Out: its rows as records, each with the cells that it was read from, and the one
clip or two that a teacher is asked about. The whole table is read, and so checked, before anything is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from descore.chains.records import PairSide
from descore.data.schema import ClipColumns, clip_columns_of, pair_columns_of, parse_clip, parse_pair, path_resolver
from descore.data.tables import Cells, columns_of, read_rows
from descore.errors import DataError
from descore.types import Pair, RatedClip

TableKind = Literal["pairs", "rated clips", "clips"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainClip:
    """One clip of a row, to be asked about."""

    row: int
    """Number of its row, from 0."""
    side: PairSide | None
    """Which clip of a pair; None in a table of single clips."""
    prompt: str
    video: str
    """As the table has it."""
    path: str
    """Where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """A row of the source table."""

    number: int
    """From 0."""
    line: int
    record: Pair | RatedClip
    """Its paths are those of the table, not joined to its folder. A clip without a rating has `ratings` empty."""
    clips: tuple[ChainClip, ...]
    """a and b of a pair, or the single clip."""
    cells: Mapping[str, Any]
    """By column, as the table has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSourceTable:
    """A table that has been read."""

    path: Path
    kind: TableKind
    columns: tuple[str, ...]
    rows: tuple[ChainRow, ...]

    @property
    def clips(self) -> tuple[ChainClip, ...]:
        """The clips of all rows, in order; one that stands in several rows is there as often."""
        return tuple(clip for row in self.rows for clip in row.clips)


def read_chain_source(table: Path, *, limit: int | None = None) -> ChainSourceTable:
    """Read a table, or its first `limit` rows.

    ConfigError for a file that is no table, DataError for the first row that cannot be used, with file and line."""
    columns = columns_of(table)
    kind = _kind_of(columns, file=str(table))
    needed = ("prompt", "video_a", "video_b") if kind == "pairs" else ("prompt", "video")
    rows = islice(read_rows(table, columns=needed), limit)
    parsed = (
        _row(number, Cells(file=str(table), line=line, row=row), kind, columns)
        for number, (line, row) in enumerate(rows)
    )
    return ChainSourceTable(path=table, kind=kind, columns=columns, rows=tuple(parsed))


def _kind_of(columns: tuple[str, ...], *, file: str) -> TableKind:
    if {"video_a", "video_b"} <= set(columns):
        return "pairs"
    if "video" in columns:
        return "rated clips" if any(name.partition(".")[0] == "rating" for name in columns) else "clips"
    found = ", ".join(columns)
    raise DataError(file, 1, f"no column video, nor video_a and video_b; expected one clip a row or two, found {found}")


def _row(number: int, cells: Cells, kind: TableKind, columns: tuple[str, ...]) -> ChainRow:
    record: Pair | RatedClip
    if kind == "pairs":
        record = parse_pair(cells, columns=pair_columns_of(columns, file=cells.file))
        videos: dict[PairSide | None, str] = {"a": record.video_a, "b": record.video_b}
    else:
        rated = clip_columns_of(columns, file=cells.file) if kind == "rated clips" else ClipColumns(ratings={})
        record = parse_clip(cells, columns=rated)
        videos = {None: record.video}
    path_of = path_resolver(cells.file)
    clips = tuple(
        ChainClip(row=number, side=side, prompt=record.prompt, video=video, path=path_of(video))
        for side, video in videos.items()
    )
    return ChainRow(number=number, line=cells.line, record=record, clips=clips, cells=cells.row)
