"""Write pairs as a table in the project's schema: CSV, JSON Lines or Parquet, a row at a time.

In: `Pair` records, and the table's columns. Out: a whole file, or a folder of shards, or none. `read_pairs` reads it
back."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from descore.data.schema import OVERALL, PairColumns, SideColumns
from descore.data.tables import SHARD_NAMES, TableRow, folder_of
from descore.errors import ConfigError, how_to_install, short_repr
from descore.io import atomic_directory, atomic_path, check_place
from descore.rubric import marks_json
from descore.types import Pair, SideAnnotations

WriteRow = Callable[[TableRow], object]

_NO_CHARACTER = "backslashreplace"
"""Half of a pair of surrogates, which JSON may hold and UTF-8 may not, is written as JSON's own escape."""

_BYTE = re.compile("[\udc80-\udcff]")
"""A byte of a file's name that is not UTF-8 (PEP 383)."""

_ROWS = 1024
"""Rows that are written to a Parquet file at a time."""

SHARD_ROWS = 50_000
"""Rows of a Parquet shard: some 100 MB with chains of 2,000 characters."""


def schema_columns(columns: PairColumns) -> tuple[str, ...]:
    """The schema's names for the columns of another table, in order."""
    sides = (("a", columns.a), ("b", columns.b))
    return (
        "prompt",
        "video_a",
        "video_b",
        *(_column_name("preference", label) for label in columns.preference),
        *(f"chain_{letter}" for letter, side in sides if side.chain),
        *(f"marks_{letter}" for letter, side in sides if side.marks),
        *(_column_name(f"rating_{letter}", label) for letter, side in sides for label in side.ratings),
        *(name for name in ("group", "source_a", "source_b", "aspect") if getattr(columns, name)),
    )


def schema_cells(pair: Pair) -> TableRow:
    """A pair's cells by the schema's columns. What is not known is None, or absent for a label."""
    return {
        "prompt": pair.prompt,
        "video_a": pair.video_a,
        "video_b": pair.video_b,
        **{_column_name("preference", label): choice for label, choice in pair.preference.items()},
        **_side_cells("a", pair.a),
        **_side_cells("b", pair.b),
        "group": pair.group,
        "source_a": pair.source_a,
        "source_b": pair.source_b,
        "aspect": pair.aspect,
    }


def _side_cells(letter: str, side: SideAnnotations) -> TableRow:
    marks = None if side.marks is None else marks_json(side.marks)
    ratings = {_column_name(f"rating_{letter}", label): number for label, number in side.ratings.items()}
    return {f"chain_{letter}": side.chain, f"marks_{letter}": marks, **ratings}


def side_columns(letter: str, *, labels: Sequence[str], marks: bool) -> SideColumns:
    """One side's columns for ratings of these labels, and for marks if wanted, by the schema's names."""
    ratings = {label: _column_name(f"rating_{letter}", label) for label in labels}
    return SideColumns(marks=f"marks_{letter}" if marks else None, ratings=ratings)


def _column_name(stem: str, label: str) -> str:
    return stem if label == OVERALL else f"{stem}.{label}"


@contextmanager
def table_writer(
    out: Path,
    columns: Sequence[str],
    *,
    schema: Any = None,  # noqa: ANN401  # pyarrow is not typed
    overwrite: bool = False,
) -> Iterator[WriteRow]:
    """Yield a function that writes a row. The table is at `out` once the block has ended without an error.

    schema: the columns' types in Parquet, a pyarrow schema; without it ratings are numbers and all others texts.
    overwrite: replace a table that is there. ConfigError if it cannot be written, its suffix is none of .csv, .jsonl
    and .parquet, or it is there already; or for a row that `check_text` refuses."""
    check_target(out, overwrite=overwrite)
    with atomic_path(out) as aside, _WRITERS[out.suffix.lower()](aside, columns, schema) as write:

        def write_checked(row: TableRow) -> None:
            for value in row.values():
                check_text(out, value)
            write(row)

        yield write_checked


@contextmanager
def shards_writer(
    out: Path,
    columns: Sequence[str],
    *,
    schema: Any,  # noqa: ANN401  # pyarrow is not typed
) -> Iterator[WriteRow]:
    """Yield a function that writes a row of a table that is a folder of Parquet shards, of SHARD_ROWS rows each. The
    folder is at `out`, in the place of a former one, once the block has ended without an error."""
    with atomic_directory(out) as folder, ExitStack() as shard:
        count, write_row = 0, cast(WriteRow, None)

        def write(row: TableRow) -> None:
            nonlocal count, write_row
            if count % SHARD_ROWS == 0:
                shard.close()
                path = folder / SHARD_NAMES.replace("*", f"{count // SHARD_ROWS:05d}")
                write_row = shard.enter_context(_parquet_writer(path, columns, schema))
            write_row(row)
            count += 1

        yield write


def check_target(out: Path, *, overwrite: bool = False) -> None:
    """ConfigError if a table cannot have this name or be made there, or there is a file already."""
    check_writable(out)
    check_place(out)
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: exists already; choose another name with --out, or remove it")


def check_writable(out: Path) -> None:
    """ConfigError if no table is written under a name of this suffix."""
    if out.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{out}: unknown suffix {out.suffix!r}; expected one of {', '.join(_WRITERS)}")


def moved_path(video: str, *, table: Path, out: Path) -> str:
    """The path of a video of one table as another one has it, relative to its folder. Absolute paths and addresses stay
    as they are."""
    if "://" in video or Path(video).is_absolute():
        return video
    # Both by their real places: '..' behind a symbolic link leads elsewhere.
    return Path(os.path.relpath(os.path.realpath(folder_of(table) / video), os.path.realpath(out.parent))).as_posix()


def has_bytes(value: object) -> bool:
    """Whether this is a text with bytes that are not UTF-8, as a file's name may have."""
    return isinstance(value, str) and not value.isascii() and _BYTE.search(value) is not None


def check_text(out: Path, value: object) -> None:
    """ConfigError for a text with bytes that are not UTF-8, unless the table is JSON Lines, where they are escapes: in
    another one it would be the name of another file."""
    if out.suffix.lower() != ".jsonl" and has_bytes(value):
        raise ConfigError(
            f"{out}: {short_repr(value)} is not UTF-8, which only a .jsonl table can hold; write one, or rename it"
        )


@contextmanager
def _csv_writer(path: Path, columns: Sequence[str], _schema: object) -> Iterator[WriteRow]:
    with path.open("w", newline="", encoding="utf-8", errors=_NO_CHARACTER) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield lambda row: writer.writerow([_csv_cell(row.get(column)) for column in columns])


def _csv_cell(value: object) -> object:
    """A cell as `Cells` reads it back: lists, objects and truth values as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else value


@contextmanager
def _json_lines_writer(path: Path, columns: Sequence[str], _schema: object) -> Iterator[WriteRow]:
    with path.open("w", encoding="utf-8", errors=_NO_CHARACTER) as file:
        # Every row has every column, since readers take the columns from the first row.
        yield lambda row: file.write(
            # Dates and decimals, which a Parquet table may have, as texts.
            json.dumps({c: row.get(c) for c in columns}, ensure_ascii=False, default=str) + "\n"
        )


@contextmanager
def _parquet_writer(path: Path, columns: Sequence[str], schema: Any) -> Iterator[WriteRow]:  # noqa: ANN401
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{path}: Parquet needs pyarrow; {how_to_install('tables')}") from None
    types = [(c, arrow.float64() if c.startswith("rating_") else arrow.string()) for c in columns]
    schema = arrow.schema(types) if schema is None else schema
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def write(row: TableRow) -> None:
            rows.append({column: row.get(column) for column in columns})
            if len(rows) == _ROWS:
                flush()

        yield write
        flush()


_WRITERS = {".csv": _csv_writer, ".jsonl": _json_lines_writer, ".parquet": _parquet_writer}
