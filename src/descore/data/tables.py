"""Read the rows of a table in CSV, TSV, JSON Lines, JSON or Parquet, and the cells of a row by type.

In: a file. Out: its rows with their line numbers, and cells as texts, numbers, choices or marks. An empty cell is None;
a row or a cell that cannot be read is a DataError with file and line."""

import csv
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from descore.errors import ConfigError, DataError, how_to_install, short_repr, unique_keys
from descore.io import JSON_ERRORS, json_error, parse_json
from descore.rubric import lone_surrogate
from descore.types import DIMENSIONS, NOT_APPLICABLE, Mark

TableRow = dict[str, Any]
TableRows = Iterator[tuple[int, TableRow]]
"""Rows by the line that each begins on."""

_T = TypeVar("_T")

_BOM = b"\xef\xbb\xbf"

_MAX_COLUMNS_NAMED = 12
"""Columns that a message lists."""

_PLAIN_NUMBER = re.compile(r"[-+0-9.eE]+")
"""Without what Python's float also takes: 1_0, and digits of other scripts."""

_LARGEST = (2 - 2**-23) * 2.0**127
"""Of float32, in which models give rewards: sums and squares of such numbers are finite."""

_SEPARATORS = {",": ("comma", "commas"), ";": ("semicolon", "semicolons"), "\t": ("tab", "tabs")}

_SYNONYMS: Mapping[str, str] = dict.fromkeys(("same", "equal", "draw", "both", "neither", "none", "ties"), "tie")
"""Words that other tables have for a label of ours."""

_MAX_CELL = 1 << 24
"""Characters. The csv module's own limit of 131,072 is below a long chain of thought."""


SHARD_NAMES = "part-*.parquet"
"""The files of a table that is a folder: as `descore score --engine ray` and Spark write them."""


def read_rows(file: str | Path, *, columns: Sequence[str] = ()) -> TableRows:
    """The rows of a table and the line that each begins on, counted from 1.

    In Parquet, which has no lines, rows are counted instead; a folder of Parquet shards is one table, in the order of
    their names. The table must have all `columns`; 'a.b' is the key b of the object in column a.

    ConfigError if there is no such file or its suffix is unknown; DataError if a row cannot be read, or for the first
    row if columns are missing, with all of them."""
    path = Path(file)
    if is_sharded(path):
        return _checked(_read_shards(path), file=str(file), columns=columns)
    if not path.is_file():
        raise ConfigError(f"{file}: {'not a file' if path.exists() else 'no such file'}; expected a table")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{file}: unknown suffix {path.suffix!r}; expected one of {', '.join(_READERS)}")
    return _checked(reader(path), file=str(file), columns=columns)


def columns_of(file: str | Path) -> tuple[str, ...]:
    """The columns of a table's first row."""
    _, row = next(read_rows(file))
    return tuple(row)


def is_table(name: str | Path) -> bool:
    """Whether a name has the suffix of a table, or is a folder of Parquet shards."""
    return Path(name).suffix.lower() in _READERS or is_sharded(name)


def is_sharded(folder: str | Path) -> bool:
    """Whether this is a folder of Parquet shards, which are one table."""
    return Path(folder).is_dir() and next(Path(folder).glob(SHARD_NAMES), None) is not None


def folder_of(table: str | Path) -> Path:
    """The folder that a table's relative paths begin in: that of its file, or of its shards."""
    return Path(table) if is_sharded(table) else Path(table).parent


def value_at(row: Mapping[str, Any], column: str) -> Any:  # noqa: ANN401  # whatever the table holds
    """The value in a column, or at a path such as 'scores.motion' or 'scores.0'; None if there is none."""
    if column in row:
        return row[column]
    head, _, rest = column.partition(".")
    inner = row.get(head)
    if isinstance(inner, list) and rest.isdecimal() and int(rest) < len(inner):
        return inner[int(rest)]
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to this one, regardless of case; None if none is similar."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def _checked(rows: TableRows, *, file: str, columns: Sequence[str]) -> TableRows:
    first = next(rows, None)
    if first is None:
        raise DataError(file, 1, "no rows; expected one at least")
    line, row = first
    missing = [column for column in columns if column not in row and column.partition(".")[0] not in row]
    if missing:
        raise DataError(file, 1, f"no column {_with_nearest(missing, row)}; found {_listed(row)}")
    yield line, row
    yield from rows


def _with_nearest(missing: Sequence[str], known: Iterable[str]) -> str:
    close = {column: nearest(column, known) for column in missing}
    return ", ".join(f"{c!r} (is it {close[c]!r}?)" if close[c] else repr(c) for c in missing)


def _listed(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f" and {len(names) - _MAX_COLUMNS_NAMED} more" if len(names) > _MAX_COLUMNS_NAMED else ""
    return ", ".join(names[:_MAX_COLUMNS_NAMED]) + more


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by number, each decoded by itself, so that a byte that is not UTF-8 is reported with its line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            yield number, _decoded(raw.removeprefix(_BOM) if number == 1 else raw, path, number)


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        raise DataError(
            str(path), line, f"byte 0x{raw[error.start]:02x} is not UTF-8; save the table as UTF-8"
        ) from None


def _read_csv(path: Path, *, separator: str = ",") -> TableRows:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader((text for _, text in _lines(path)), strict=True, delimiter=separator)
    header = next(_cells(reader, path), None)
    if header is None:
        raise DataError(str(path), 1, "the file is empty; expected a header and rows")
    names, name = _header(header[1], path, separator), _SEPARATORS[separator][0]
    for line, cells in _cells(reader, path):
        if len(cells) != len(names):
            hint = f"quote a cell that holds a {name}" if len(cells) > len(names) else f"is a {name} missing?"
            raise DataError(str(path), line, f"{len(cells)} cells; expected {len(names)}, one for each column: {hint}")
        yield line, dict(zip(names, cells, strict=True))


def _cells(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401  # csv has no type for it
    """Each record and the line that it begins on; a quoted cell may span several lines."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(str(path), line, f"no CSV ({error}); check the quotes") from None
        if cells:
            yield line, cells


def _header(cells: list[str], path: Path, separator: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    other = next((other for other in _SEPARATORS if other != separator and other in names[0]), None)
    if len(names) == 1 and other:
        found, expected = f"{_SEPARATORS[other][1]} between the columns", _SEPARATORS[separator][1]
        raise DataError(str(path), 1, f"found {found}, expected {expected}; save the table with {expected}")
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise DataError(str(path), 1, f"column {', '.join(map(repr, twice))} is there twice; name each once")
    return names


def _read_json_lines(path: Path) -> TableRows:
    for line, text in _lines(path):
        if not text.strip():
            continue
        yield line, _object(parse_json(text.rstrip(), file=path, line=line), path, line)


def _read_json(path: Path) -> TableRows:
    text = _decoded(path.read_bytes().removeprefix(_BOM), path, 1)
    at, line = _skip(text, 0), 1
    if text[at : at + 1] != "[":
        raise DataError(str(path), 1, "expected an array of objects; for one object a line, name the file .jsonl")
    decoder, start = json.JSONDecoder(object_pairs_hook=unique_keys), 0
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line, start = line + text.count("\n", start, at), at
        try:
            row, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise json_error(error, file=path) from None
        except JSON_ERRORS as error:
            raise json_error(error, file=path, line=line) from None
        yield line, _object(row, path, line)
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at : at + 1] == "," else at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _object(row: object, path: Path, line: int) -> TableRow:
    if not isinstance(row, dict):
        raise DataError(str(path), line, f"found {type(row).__name__}, expected an object with a key for each column")
    return row


def _read_parquet(path: Path) -> TableRows:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{path}: Parquet needs pyarrow; {how_to_install('tables')}") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(str(path), number + 1, f"no readable Parquet ({reason}); fetch the file again") from None


def _read_shards(folder: Path) -> TableRows:
    number = 0
    for shard in sorted(folder.glob(SHARD_NAMES)):
        for _, row in _read_parquet(shard):
            number += 1
            yield number, row


_READERS: Mapping[str, Callable[[Path], TableRows]] = {
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, separator="\t"),
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A row whose cells are read by type, and its place in a file."""

    file: str
    line: int
    row: Mapping[str, Any]

    def error(self, reason: str) -> DataError:
        """An error that names this row's file and line."""
        return DataError(self.file, self.line, reason)

    def text(self, column: str | None, *, file_name: bool = False) -> str | None:
        """The cell as text without white space around it; None if it is empty, or there is no such column. Only a
        `file_name` may hold bytes that are not UTF-8 (as surrogates, PEP 383)."""
        value = None if column is None else value_at(self.row, column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, Mapping | list):
            raise self.error(f"{column} is a {type(value).__name__}; expected a single value")
        text = str(value).strip()
        if surrogate := lone_surrogate(text, file_name=file_name):
            raise self.error(f"{column} has {surrogate}; {'rename the file' if file_name else 'write it as UTF-8'}")
        return text or None

    def required(self, column: str, *, file_name: bool = False) -> str:
        """The cell as text. DataError if it is empty."""
        text = self.text(column, file_name=file_name)
        if text is None:
            raise self.error(f"{column} is empty; expected a text")
        return text

    def video(self, column: str) -> str:
        """The path of a video, whose bytes need not be UTF-8. DataError if it is empty."""
        return self.required(column, file_name=True)

    def number(self, column: str) -> float | None:
        """The cell as a number that float32 holds; None if it is empty."""
        text = self.text(column)
        if text is None:
            return None
        try:
            number = float(text) if _PLAIN_NUMBER.fullmatch(text) else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise self.error(f"{column} is {short_repr(text)}; expected a number")
        if abs(number) > _LARGEST:
            raise self.error(f"{column} is {short_repr(text)}; expected a number of at most {_LARGEST:.1e}")
        return number

    def choice(self, column: str, values: Mapping[str, _T | None]) -> _T | None:
        """The value that the cell's text means, without regard to case; None if it is empty."""
        text = self.text(column)
        if text is None:
            return None
        if text in values:
            return values[text]
        # The file of MJ-Bench-Video has "Video 1 Better" in six rows, "Video 1 better" in all others.
        folded = {name.casefold(): value for name, value in values.items()}
        if text.casefold() not in folded:
            synonym = _SYNONYMS.get(text.casefold())
            hint = f"; write {synonym!r}" if synonym in values else ""
            raise self.error(f"{column} is {short_repr(text)}; expected {_alternatives(list(values))}{hint}")
        return folded[text.casefold()]

    def marks(self, column: str) -> dict[str, Mark] | None:
        """A mark for each of DIMENSIONS, from an object or its JSON text: 0, 1, 2, or "N/A" or null where the prompt
        does not ask; None if the cell is empty."""
        value = value_at(self.row, column)
        if value is None or value == "":
            return None
        if isinstance(value, str):
            try:
                value = parse_json(value, file=self.file, line=self.line)
            except DataError as error:
                raise self.error(f"{column} {error.reason}") from None
        if not isinstance(value, Mapping) or set(value) != set(DIMENSIONS):
            given = _listed(map(str, value)) if isinstance(value, Mapping) else short_repr(value)
            raise self.error(f"{column} has {given or 'nothing'}; expected a mark for each of {', '.join(DIMENSIONS)}")
        return {name: self._mark(f"{column}.{name}", value[name]) for name in DIMENSIONS}

    def _mark(self, column: str, value: object) -> Mark:
        if value is None or value == NOT_APPLICABLE:
            return None
        whole: tuple[Mark, ...] = (0, 1, 2)
        if isinstance(value, bool) or value not in whole:
            raise self.error(f'{column} is {short_repr(value)}; expected 0, 1, 2 or "N/A"')
        return whole[whole.index(value)]  # type: ignore[arg-type]  # 1.0, as some tables have it, becomes 1


def _alternatives(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
