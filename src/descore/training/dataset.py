"""Written examples from a table of any length, at random access and without memory.

In: a table with columns prompt, video, chain; or of pairs, with video_a, chain_a, video_b, chain_b. Out: a data set
whose items are read when asked for. The table is checked once, row by row. Knows tables and videos; knows nothing of
tokens or models."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from descore.data.tables import Cells, read_rows
from descore.errors import ConfigError, DataError, VideoError
from descore.io import atomic_path
from descore.training.collate import Unreadable
from descore.types import Clip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

Key = int | tuple[int, int]
"""A row's number; or the epoch that shows it, and its number."""


class EpochSampler(Sampler[tuple[int, int]]):
    """Each number below `count` once an epoch, in an order of that epoch's own."""

    def __init__(self, count: int, *, seed: int, lengths: Sequence[int] | None = None, together: int = 1) -> None:
        """`lengths`: of each row; rows of about one length then stand together, `together` (an update's) at a time,
        the longest of all first, so that memory that does not suffice shows at once."""
        self.count = count
        self.seed = seed
        self.lengths = lengths
        self.together = together
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this one, the first of which is 0. accelerate and Trainer call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(seed)
        return ((epoch, number) for number in self._numbers(generator))

    def _numbers(self, generator: torch.Generator) -> list[int]:
        if self.lengths is None:
            return torch.randperm(self.count, generator=generator).tolist()
        return list(LengthGroupedSampler(self.together, lengths=self.lengths, generator=generator))


_ROWS = 1024
"""Rows in a record batch: a row is found by one division."""
_DIGEST = b"sha256 of the table"


class ArrowTable:
    """The rows of a file that `write_arrow_table` wrote, by number."""

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


def write_arrow_table(table: Path, index: Path, rows: Iterator[dict[str, Any]], *, schema: Any) -> None:  # noqa: ANN401
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
    with atomic_path(index) as aside, pa.ipc.new_file(str(aside), schema.with_metadata({_DIGEST: digest})) as out:
        for batch in _batches(rows, schema):
            out.write_batch(batch)


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


_SCHEMA = pa.schema([("line", pa.int64()), ("prompt", pa.string()), ("video", pa.string()), ("chain", pa.string())])
_SIDES = ("", "_a", "_b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainExample:
    """A clip, the prompt that it was generated from, and what a good judge writes about it."""

    clip: Clip
    prompt: str
    chain: str


class ChainTable(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic in name only
    """The examples of a table, by number, the same in every epoch. An item whose video cannot be read is an
    `Unreadable`."""

    def __init__(self, table: Path, *, index: Path, sampling: VideoSampling) -> None:
        """`index` is the Arrow file that `index_table` wrote for this table."""
        self.table = table
        self.sampling = sampling
        self.rows = ArrowTable(index)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> ChainExample | Unreadable:
        cells = self.rows[key[1] if isinstance(key, tuple) else key]
        video = str(self.table.parent / cells["video"])
        try:
            clip = read_clip(video, sampling=self.sampling)
        except VideoError as fault:
            return Unreadable(table=str(self.table), line=cells["line"], video=video, reason=fault.reason)
        return ChainExample(clip=clip, prompt=cells["prompt"], chain=cells["chain"])


def index_table(table: Path, index: Path) -> None:
    """Check a table and write the Arrow file of its examples. One that is there already must be of the same table.

    DataError with file and line if a row lacks something, ConfigError if the table is another than the file's."""
    write_arrow_table(table, index, read_examples(table), schema=_SCHEMA)


def read_examples(table: Path) -> Iterator[dict[str, Any]]:
    """Line, prompt, video and chain of each example, in order. A row that lacks one of them raises DataError."""
    sides: tuple[str, ...] = ()
    for line, row in read_rows(table, columns=("prompt",)):
        cells = Cells(file=str(table), line=line, row=row)
        sides = sides or _sides_of(cells)
        for side in sides:
            texts = {name: cells.required(name + side) for name in ("video", "chain")}
            yield {"line": line, "prompt": cells.required("prompt"), **texts}


def _sides_of(cells: Cells) -> tuple[str, ...]:
    """What stands behind `video` and `chain` in the table's column names."""
    sides = tuple(side for side in _SIDES if {f"video{side}", f"chain{side}"} <= cells.row.keys())
    if not sides:
        found = ", ".join(cells.row)
        expected = "video and chain, or video_a, chain_a, video_b, chain_b"
        raise DataError(cells.file, 1, f"no columns to learn from; expected {expected}, found {found}")
    return sides
