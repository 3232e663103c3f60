"""What is scored: a table of prompts and videos, a table of pairs, or a folder of clips.

In: a path. Out: an `OpenedSource`, whose rows are read one at a time, as often as asked, and always in one order. Its
structure is checked once, from first row to last, so that a fault in a line is reported before anything is scored. A
row that cannot be scored, such as one without a prompt, is a row with an `error`."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from descore.data.schema import path_resolver
from descore.data.tables import SHARD_NAMES, Cells, TableRow, columns_of, is_sharded, is_table, read_rows
from descore.data.write import has_bytes
from descore.errors import ConfigError, DataError, how_to_install
from descore.rewards.scored import is_written_column

CLIP_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "apng", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
"""Of the files in a folder that are taken for clips. Pictures that may move (WebP, AVIF) are not."""

PAIR_COLUMN, SIDE_COLUMN = "pair", "side"
"""Columns of a scored table of pairs: the pair's number, from 1, and a or b."""

_SIDES = {"a": "video_a", "b": "video_b"}
_CHUNK = 1024
"""Rows whose types are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One clip to score."""

    number: int
    """From 0, in the source's order."""
    cells: Mapping[str, Any]
    """The source's columns, which are kept."""
    prompt: str
    """Empty if there is none; then there is an `error`."""
    video: str
    """The clip as the source names it."""
    path: str
    """Where it is."""
    error: str | None = None
    """Why it cannot be scored, as far as is known without opening it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """A source whose structure has been checked."""

    path: Path
    columns: tuple[str, ...]
    """What each row has, in order, before the columns that scoring adds."""
    count: int
    """Rows."""
    _read: Callable[[], Iterator[SourceRow]]
    not_utf8: str | None = None
    """The first text, such as a file's name, with bytes that are not; see `check_text`."""

    def rows(self) -> Iterator[SourceRow]:
        """All rows, from the first on."""
        return self._read()

    def arrow_schema(self, *, out: Path) -> Any:  # noqa: ANN401  # pyarrow is not typed
        """The types of the columns, for Parquet. ConfigError if a column has values of several types."""
        return _arrow_schema(self, out=out)


def is_source(name: str) -> bool:
    """Whether a name stands for many clips: a folder, or a table by its suffix."""
    return is_table(name) or Path(name).is_dir()


def open_source(
    path: str | Path, *, prompt: str | None = None, limit: int | None = None, replace: bool = False
) -> OpenedSource:
    """Check a table or a folder, and count its rows.

    prompt: of all clips; without it a table has a column `prompt`, and a folder a text file beside each clip (clip.mp4,
    clip.txt). limit: only so many rows. replace: leave out columns that a scored table has, rather than refuse them.
    ConfigError or DataError if it cannot be used."""
    path = Path(path)
    is_folder = path.is_dir() and not is_sharded(path)
    read = _folder_reader(path, prompt) if is_folder else _table_reader(path, prompt, replace=replace)

    def rows() -> Iterator[SourceRow]:
        return islice(read(), limit)

    columns: dict[str, None] = {}
    count, not_utf8 = 0, None
    for row in rows():
        columns.update(dict.fromkeys(row.cells))
        count += 1
        not_utf8 = not_utf8 or next(filter(has_bytes, row.cells.values()), None)
    if not count:
        raise ConfigError(f"{path}: no clips; expected files such as .mp4, .webm or .gif, in it or in its folders")
    return OpenedSource(path=path, columns=tuple(columns), count=count, _read=rows, not_utf8=not_utf8)


def _table_reader(path: Path, prompt: str | None, *, replace: bool) -> Callable[[], Iterator[SourceRow]]:
    names = columns_of(path)
    written = [name for name in names if is_written_column(name)]
    if written and not replace:
        raise DataError(
            str(path),
            1,
            f"has the column {written[0]!r}, which scoring writes; rename it, or let it be replaced: --replace",
        )
    if prompt is not None and "prompt" in names:
        raise ConfigError(f"{path}: has a column 'prompt', and --prompt is given; leave --prompt out")
    is_pairs = "video" not in names and set(_SIDES.values()) <= set(names)
    required = [*(_SIDES.values() if is_pairs else ["video"]), *(["prompt"] if prompt is None else [])]
    for name in (PAIR_COLUMN, SIDE_COLUMN) if is_pairs else ():
        if name in names:
            raise DataError(str(path), 1, f"has the column {name!r}, which a scored table of pairs has; rename it")

    def read() -> Iterator[SourceRow]:
        number = 0
        for pair, (line, row) in enumerate(read_rows(path, columns=required), start=1):
            cells = {name: value for name, value in row.items() if not is_written_column(name)}
            for one in _sides(cells, pair) if is_pairs else [cells]:
                yield _table_row(Cells(file=str(path), line=line, row=one), number, prompt)
                number += 1

    return read


def _sides(cells: TableRow, pair: int) -> Iterator[TableRow]:
    """The two rows of a pair: in the place of video_a and video_b a video, the pair's number and the side."""
    for side, column in _SIDES.items():
        made: TableRow = {}
        for name, value in cells.items():
            if name == _SIDES["a"]:
                made |= {"video": cells[column], PAIR_COLUMN: pair, SIDE_COLUMN: side}
            elif name not in _SIDES.values():
                made[name] = value
        yield made


def _table_row(cells: Cells, number: int, prompt: str | None) -> SourceRow:
    own = cells.text("prompt") if prompt is None else prompt
    video = cells.text("video", file_name=True)
    kept = dict(cells.row) if prompt is None else {"prompt": prompt, **cells.row}
    missing = "prompt" if not own else "video"
    return SourceRow(
        number=number,
        cells=kept,
        prompt=own or "",
        video=video or "",
        path=path_resolver(cells.file)(video) if video else "",
        error=None if own and video else f"no {missing}: the cell in line {cells.line} is empty",
    )


def _folder_reader(folder: Path, prompt: str | None) -> Callable[[], Iterator[SourceRow]]:
    def read() -> Iterator[SourceRow]:
        for number, file in enumerate(_clips_of(folder)):
            own, error = (prompt, None) if prompt is not None else _prompt_beside(file)
            name = file.relative_to(folder).as_posix()
            yield SourceRow(
                number=number,
                cells={"prompt": own, "video": name},
                prompt=own or "",
                video=name,
                path=str(file),
                error=error,
            )

    if prompt is None:
        first = next(_clips_of(folder), None)
        if first is not None and not any(file.with_suffix(".txt").is_file() for file in _clips_of(folder)):
            raise ConfigError(
                f"{folder}: no clip has its prompt beside it, such as {first.stem}.txt beside {first.name}; "
                "write these files, or give --prompt for all"
            )
    return read


def _clips_of(folder: Path) -> Iterator[Path]:
    """The clips in a folder and its folders, sorted; hidden ones are left out."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in CLIP_SUFFIXES:
                yield Path(root, name)


def _prompt_beside(file: Path) -> tuple[str | None, str | None]:
    """The prompt of a clip, or why there is none."""
    beside = file.with_suffix(".txt")
    try:
        prompt = beside.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return None, f"no prompt: expected it in {beside.name} beside the clip"
    except (OSError, UnicodeDecodeError) as error:
        return None, f"no prompt: {beside.name} cannot be read as UTF-8 ({error})"
    return (prompt, None) if prompt else (None, f"no prompt: {beside.name} is empty")


def _arrow_schema(source: OpenedSource, *, out: Path) -> Any:  # noqa: ANN401
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{out}: Parquet needs pyarrow; {how_to_install('tables')}") from None
    first = next(iter(sorted(source.path.glob(SHARD_NAMES))), source.path)
    if first.suffix.lower() == ".parquet":
        stored = parquet.read_schema(first)
        types = {name: stored.field(name).type for name in stored.names}
        types |= {"video": types.get("video", types.get(_SIDES["a"])), PAIR_COLUMN: arrow.int64()}
        return arrow.schema([(name, types.get(name, arrow.string())) for name in source.columns])
    try:
        schema = arrow.schema([])
        for chunk in _chunks(source):
            inferred = [(name, arrow.infer_type([row.get(name) for row in chunk])) for name in source.columns]
            schema = arrow.unify_schemas([schema, arrow.schema(inferred)], promote_options="permissive")
        text = [field.with_type(arrow.string()) if field.type == arrow.null() else field for field in schema]
        schema = arrow.schema(text)
        for chunk in _chunks(source):  # now, and not when all is scored
            arrow.Table.from_pylist(chunk, schema=schema)
    except (arrow.ArrowException, TypeError, OverflowError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{out}: a column cannot be written ({reason}); write a .jsonl table") from None
    return schema


def _chunks(source: OpenedSource) -> Iterator[list[dict[str, Any]]]:
    rows = source.rows()
    while chunk := [{name: row.cells.get(name) for name in source.columns} for row in islice(rows, _CHUNK)]:
        yield chunk


def rebased(source: OpenedSource, *, folder: Path) -> Callable[[SourceRow], Mapping[str, Any]]:
    """The function that gives a row's cells for a table in `folder`: a relative video stays the same file."""
    base = source.path if source.path.is_dir() else source.path.parent
    if os.path.realpath(base) == os.path.realpath(folder):
        return lambda row: row.cells

    def cells(row: SourceRow) -> Mapping[str, Any]:
        if not row.video or "://" in row.video or Path(row.video).is_absolute():
            return row.cells
        # Both by their real places: '..' behind a symbolic link leads elsewhere.
        relative = os.path.relpath(os.path.realpath(row.path), os.path.realpath(folder))
        return {**row.cells, "video": Path(relative).as_posix()}

    return cells
