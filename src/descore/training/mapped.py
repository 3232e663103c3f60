"""Rows of a checked table in an Arrow file that is mapped into memory: any length, at random access.

In: a table on disk, and its rows as they are read and checked. Out: a file beside the run, and rows by number; a worker
process costs nothing more. Knows rows and columns; knows nothing of what they mean."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from descore.errors import ConfigError

_ROWS = 1024
"""Rows in a record batch: a row is found by one division."""
_DIGEST = b"sha256 of the table"


class MappedRows:
    """The rows of a file that `write_rows` wrote, by number."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self._reader: Any = None

    def __len__(self) -> int:
        reader = self._opened()
        full = reader.num_record_batches - 1
        return int(full * _ROWS + reader.get_batch(full).num_rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        batch, row = divmod(number, _ROWS)
        found: dict[str, Any] = self._opened().get_batch(batch).slice(row, 1).to_pylist()[0]
        return found

    @property
    def digest(self) -> str:
        """Of the table that the rows were read from."""
        told: bytes = self._opened().schema.metadata[_DIGEST]
        return told.decode()

    def column(self, name: str) -> Any:  # noqa: ANN401  # pyarrow is not typed
        """A whole column, an Arrow array in pieces that stay on the disk until they are looked at."""
        return self._opened().read_all().column(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # a worker maps the file for itself

    def _opened(self) -> Any:  # noqa: ANN401
        self._reader = self._reader or pa.ipc.open_file(pa.memory_map(str(self.index)))
        return self._reader


def write_rows(table: Path, index: Path, rows: Iterator[dict[str, Any]], *, schema: Any) -> None:  # noqa: ANN401
    """Write the rows of a table, of which `schema` says the columns, whole or not at all.

    A file that is there already must be of the same table and columns, and the rows are not asked for. ConfigError if
    it is not, or if there is no such table; whatever asking for a row raises."""
    digest = _digest_of(table)
    if index.is_file():
        with pa.memory_map(str(index)) as mapped:
            there = pa.ipc.open_file(mapped).schema
        if there.metadata[_DIGEST] != digest:
            raise ConfigError(f"{table}: has changed since the run began; bring it back or choose another run.out")
        if there.names != schema.names:
            raise ConfigError(f"{table}: was read for other columns when the run began; choose another run.out")
        return
    index.parent.mkdir(parents=True, exist_ok=True)
    aside = index.with_name(index.name + ".partial")
    with pa.ipc.new_file(str(aside), schema.with_metadata({_DIGEST: digest})) as out:
        for batch in _batches(rows, schema):
            out.write_batch(batch)
    aside.replace(index)


def _batches(rows: Iterator[dict[str, Any]], schema: Any) -> Iterator[Any]:  # noqa: ANN401
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == _ROWS:
            yield pa.RecordBatch.from_pylist(some, schema=schema)
            some = []
    if some:
        yield pa.RecordBatch.from_pylist(some, schema=schema)


def _digest_of(table: Path) -> bytes:
    if not table.is_file():
        raise ConfigError(f"{table}: no such file; expected a table of examples")
    with table.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()
