"""Written examples from a table of any length, at random access and without memory.

In: a table with columns prompt, video, chain; or of pairs, with video_a, chain_a, video_b, chain_b. Out: a data set
whose items are read when asked for. The table is checked once, row by row, and its texts are put into an Arrow file
that is mapped into memory, so that a worker process costs nothing more. Knows tables and videos; knows nothing of
tokens or models."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch.utils.data import Dataset

from descore.data.cells import Cells
from descore.data.sampling import VideoSampling
from descore.data.tables import read_rows
from descore.data.video import read_clip
from descore.errors import ConfigError, DataError, VideoError
from descore.training.collate import Unreadable
from descore.types import Clip

_SCHEMA = pa.schema([("line", pa.int64()), ("prompt", pa.string()), ("video", pa.string()), ("chain", pa.string())])
_SIDES = ("", "_a", "_b")
_ROWS = 1024
"""Rows in a record batch: a row is found by one division."""
_DIGEST = b"sha256 of the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainExample:
    """A clip, the prompt that it was generated from, and what a good judge writes about it."""

    clip: Clip
    prompt: str
    chain: str


class ChainTable(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic in name only
    """The examples of a table, by number. An item whose video cannot be read is an `Unreadable`."""

    def __init__(self, table: Path, *, index: Path, sampling: VideoSampling) -> None:
        """`index` is the Arrow file that `index_table` wrote for this table."""
        self.table = table
        self.index = index
        self.sampling = sampling
        self._reader: Any = None

    def __len__(self) -> int:
        reader = self._opened()
        full = reader.num_record_batches - 1
        return int(full * _ROWS + reader.get_batch(full).num_rows)

    def __getitem__(self, number: int) -> ChainExample | Unreadable:
        batch, row = divmod(number, _ROWS)
        cells = self._opened().get_batch(batch).slice(row, 1).to_pylist()[0]
        video = str(self.table.parent / cells["video"])
        try:
            clip = read_clip(video, sampling=self.sampling)
        except VideoError as fault:
            return Unreadable(table=str(self.table), line=cells["line"], video=video, reason=fault.reason)
        return ChainExample(clip=clip, prompt=cells["prompt"], chain=cells["chain"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # a worker maps the file for itself

    def _opened(self) -> Any:  # noqa: ANN401  # pyarrow is not typed
        self._reader = self._reader or pa.ipc.open_file(pa.memory_map(str(self.index)))
        return self._reader


def index_table(table: Path, index: Path) -> None:
    """Check a table and write the Arrow file of its examples. One that is there already must be of the same table.

    DataError with file and line if a row lacks something, ConfigError if the table is another than the file's."""
    digest = _digest_of(table)
    if index.is_file():
        with pa.memory_map(str(index)) as mapped:
            if pa.ipc.open_file(mapped).schema.metadata[_DIGEST] != digest:
                raise ConfigError(f"{table}: has changed since the run began; bring it back or choose another run.out")
        return
    index.parent.mkdir(parents=True, exist_ok=True)
    aside = index.with_name(index.name + ".partial")
    with pa.ipc.new_file(str(aside), _SCHEMA.with_metadata({_DIGEST: digest})) as out:
        for batch in _batches(read_examples(table)):
            out.write_batch(batch)
    aside.replace(index)


def read_examples(table: Path) -> Iterator[dict[str, Any]]:
    """Line, prompt, video and chain of each example, in order. A row that lacks one of them raises DataError."""
    sides: tuple[str, ...] = ()
    for line, row in read_rows(table, columns=("prompt",)):
        cells = Cells(file=str(table), line=line, row=row)
        sides = sides or _sides_of(cells)
        for side in sides:
            texts = {name: cells.needed(name + side) for name in ("video", "chain")}
            yield {"line": line, "prompt": cells.needed("prompt"), **texts}


def _sides_of(cells: Cells) -> tuple[str, ...]:
    """What stands behind `video` and `chain` in the table's column names."""
    sides = tuple(side for side in _SIDES if {f"video{side}", f"chain{side}"} <= cells.row.keys())
    if not sides:
        found = ", ".join(cells.row)
        expected = "video and chain, or video_a, chain_a, video_b, chain_b"
        raise DataError(cells.file, 1, f"no columns to learn from; expected {expected}, found {found}")
    return sides


def _batches(examples: Iterator[dict[str, Any]]) -> Iterator[Any]:
    rows: list[dict[str, Any]] = []
    for example in examples:
        rows.append(example)
        if len(rows) == _ROWS:
            yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


def _digest_of(table: Path) -> bytes:
    if not table.is_file():
        raise ConfigError(f"{table}: no such file; expected a table of examples")
    with table.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()
