"""Pairs from a table of any length, at random access, in an order that each epoch shuffles anew.

Takes a table of pairs (`descore.data.schema`) and the named dimensions to learn. `index_pairs` checks it row by row and
writes an Arrow file, from which `PairTable` reads pairs when they are needed, so that a long table takes no memory.

Shapes: N pairs, K named dimensions."""

import hashlib
import json
import math
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from descore.data.schema import OVERALL, PairColumns, pair_columns_of, read_pairs
from descore.data.tables import columns_of
from descore.errors import ConfigError, DataError, DescoreWarning, VideoError
from descore.io import atomic_path
from descore.training.collate import MISSING, RatingScale, TrainingExample, TrainingPair, Unreadable
from descore.training.config import ChainSource
from descore.types import PREFERENCE_SIGN, Mark, Pair
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

Key = int | tuple[int, int]
"""A row's number, or its epoch and number."""


class EpochSampler(Sampler[tuple[int, int]]):
    """Each number below `count` once an epoch, shuffled by (seed, epoch) alone."""

    def __init__(self, count: int, *, seed: int, lengths: Sequence[int] | None = None, batch_size: int = 1) -> None:
        """`lengths`: of each row; the `batch_size` rows of an update then have about one length, and the longest of all
        come first, so that too little memory shows at once."""
        self.count = count
        self.seed = seed
        self.lengths = lengths
        self.batch_size = batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass, from 0. accelerate and Trainer call this."""
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
        return list(LengthGroupedSampler(self.batch_size, lengths=self.lengths, generator=generator))


def end_with_parent(_worker: int) -> None:
    """End this data worker as soon as its parent process ends, however that ends: the `worker_init_fn` of each loader.

    A worker that waits to hand over a large batch does not notice by itself that nobody reads it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:  # noqa: ANN401  # a class that multiprocessing does not name
    parent.join()
    os._exit(1)


_ROWS = 1024
"""Rows in a record batch, so that one division locates a row."""
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
        cells: dict[str, Any] = self._opened().get_batch(batch).slice(row, 1).to_pylist()[0]
        return cells

    @property
    def digest(self) -> str:
        """SHA-256 of the table that the rows were read from."""
        digest: bytes = self._opened().schema.metadata[_DIGEST]
        return digest.decode()

    def column(self, name: str) -> Any:  # noqa: ANN401  # pyarrow is not typed
        """A whole column, an Arrow array in chunks that stay on the disk until they are read."""
        return self._opened().read_all().column(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # a worker maps the file for itself

    def _opened(self) -> Any:  # noqa: ANN401
        self._reader = self._reader or pa.ipc.open_file(pa.memory_map(str(self.index)))
        return self._reader


def write_arrow_table(table: Path, index: Path, rows: Iterator[dict[str, Any]], *, schema: Any) -> None:  # noqa: ANN401
    """Write the rows of a table with the columns of `schema`, whole or not at all.

    A file that exists must be of the same table and columns, and the rows are then not read; one that is damaged is
    written anew, with a DescoreWarning. ConfigError if it is of another table, or if there is no such table."""
    digest = _digest_of(table)
    written = _schema_of(index) if index.is_file() else None
    if written is not None:
        if written.metadata[_DIGEST] != digest:
            raise ConfigError(f"{table}: has changed since the run began; bring it back or choose another run.out")
        if written.names != schema.names:
            raise ConfigError(f"{table}: was read for other columns when the run began; choose another run.out")
        return
    with atomic_path(index) as aside, pa.ipc.new_file(str(aside), schema.with_metadata({_DIGEST: digest})) as out:
        for batch in _batches(rows, schema):
            out.write_batch(batch)


def _schema_of(index: Path) -> Any:  # noqa: ANN401
    """The schema of an Arrow file, all of whose batches can be read; None, with a warning, if it is damaged."""
    try:
        with pa.memory_map(str(index)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for number in range(reader.num_record_batches):
                reader.get_batch(number).validate(full=True)
            if _DIGEST in (reader.schema.metadata or {}):
                return reader.schema
            reason = "it names no table"
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    warnings.warn(f"{index}: is damaged ({reason}); it is made anew from its table", DescoreWarning, stacklevel=4)
    return None


def _batches(rows: Iterator[dict[str, Any]], schema: Any) -> Iterator[Any]:  # noqa: ANN401
    while batch := list(islice(rows, _ROWS)):
        yield pa.RecordBatch.from_pylist(batch, schema=schema)
        del batch  # before the next one is read


def _digest_of(table: Path) -> bytes:
    if not table.is_file():
        raise ConfigError(f"{table}: no such file; expected a table of examples")
    with table.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


_TEXTS = {
    "prompt": pa.string(),
    "video_a": pa.binary(),  # the bytes of a file's name need not be UTF-8
    "video_b": pa.binary(),
    "chain_a": pa.string(),
    "chain_b": pa.string(),
}
_MARKS = ("marks_a", "marks_b")
"""As JSON; null without marks."""
_NUMBERS = {"preference": pa.int8(), "rating_a": pa.float32(), "rating_b": pa.float32()}
"""The columns of each dimension, as preference.NAME; null without a label."""
_NEEDS_DECIDED = "loss.kind bradley-terry and margin learn from a or b; use loss.kind=ties"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedPair:
    """A held-out pair without its pixels, and the rewards of its clips."""

    number: int
    """Its place in the table."""
    prompt: str
    videos: tuple[str, str]
    """Paths of a and b."""
    preference_K: NDArray[np.int8]
    """1 for a, -1 for b, 0 for a tie, MISSING without a label."""
    has_chains: bool
    """Whether the table has chains for it."""
    rewards: Mapping[ChainSource, NDArray[np.float64]] = field(default_factory=dict)
    """By chain source, the rewards of a and b (2, K); nan where there is none."""


class PairTable(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic in name only
    """The pairs of a table, by number. An item one of whose videos cannot be read is an `Unreadable`.

    A key may have an epoch, which the pair carries to the collator. An epoch set on the data set would reach one
    process's copy of it; one that comes with the item is right in every worker process."""

    def __init__(self, table: Path, *, index: Path, sampling: VideoSampling, dimensions: Sequence[str]) -> None:
        """`index` is the Arrow file that `index_pairs` wrote for this table and these dimensions."""
        self.table = table
        self.sampling = sampling
        self.dimensions = tuple(dimensions)
        self.rows = ArrowTable(index)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_chains(self) -> bool:
        """Whether any pair has chains. A pair has both or neither."""
        return bool(self.rows.column("chain_a").null_count < len(self))

    def __getitem__(self, key: Key) -> TrainingPair | Unreadable:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        cells = self.rows[number]
        a, b = self._side(cells, "a"), self._side(cells, "b")
        if isinstance(a, Unreadable):
            return a
        if isinstance(b, Unreadable):
            return b
        return TrainingPair(
            a=a,
            b=b,
            preference_K=self._numbers(cells, "preference", missing=MISSING).astype(np.int8),
            rating_a_K=self._numbers(cells, "rating_a", missing=math.nan),
            rating_b_K=self._numbers(cells, "rating_b", missing=math.nan),
            number=number,
            epoch=epoch,
        )

    def unjudged(self, number: int) -> JudgedPair:
        """A pair without its pixels, and without rewards so far."""
        cells = self.rows[number]
        return JudgedPair(
            number=number,
            prompt=cells["prompt"],
            videos=(self._path(cells, "a"), self._path(cells, "b")),
            preference_K=self._numbers(cells, "preference", missing=MISSING).astype(np.int8),
            has_chains=cells["chain_a"] is not None,
        )

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Characters of each pair's prompt and its longer chain (N), by which the widths of sequences differ."""
        lengths_N: NDArray[np.int32] = self.rows.column("length").to_numpy()
        return lengths_N

    @property
    def rating_scale(self) -> RatingScale:
        """Mean and standard deviation of all ratings of the table, of a and b alike.

        DataError for a dimension without two different ratings."""
        scales = [self._scale(name) for name in self.dimensions]
        return RatingScale(mean_K=tuple(mean for mean, _ in scales), std_K=tuple(std for _, std in scales))

    def _side(self, cells: Mapping[str, Any], side: str) -> TrainingExample | Unreadable:
        video = self._path(cells, side)
        try:
            clip = read_clip(video, sampling=self.sampling)
        except VideoError as fault:
            return Unreadable(table=str(self.table), line=cells["line"], video=video, reason=fault.reason)
        text = cells.get(f"marks_{side}")
        marks = None if text is None else json.loads(text)
        return TrainingExample(clip=clip, prompt=cells["prompt"], chain=cells[f"chain_{side}"], marks=marks)

    def _path(self, cells: Mapping[str, Any], side: str) -> str:
        return str(self.table.parent / os.fsdecode(cells[f"video_{side}"]))  # text in the files of older versions

    def _numbers(self, cells: Mapping[str, Any], column: str, *, missing: float) -> NDArray[np.float32]:
        values = (cells[f"{column}.{name}"] for name in self.dimensions)
        return np.array([missing if value is None else value for value in values], dtype=np.float32)

    def _scale(self, name: str) -> tuple[float, float]:
        ratings = [self.rows.column(f"{column}.{name}").cast(pa.float64()) for column in ("rating_a", "rating_b")]
        both = pa.chunked_array([chunk for side in ratings for chunk in side.chunks])
        mean, std = pc.mean(both).as_py(), pc.stddev(both).as_py()
        if not std:
            values = "no rating" if std is None else f"no rating but {mean:g}"
            reason = f"dimension {name!r} has {values}; expected two different ones at least"
            raise DataError(str(self.table), 1, reason)
        return mean, std


def index_pairs(
    table: Path, index: Path, *, dimensions: Sequence[str], marks: bool = False, decided: bool = False
) -> None:
    """Check a table and write the Arrow file of its pairs, with their `marks` on request. A file that exists must be of
    the same table. `decided`: the loss learns only from pairs that are no tie.

    Dimension "overall" is the column preference (rating_a, rating_b), any other NAME the column preference.NAME.
    DataError with file and line for a row that cannot be used, for a dimension that the table has no column for, no
    label in, or no decided pair where it needs one; ConfigError if the table is another than the file's."""
    numbers = [(f"{column}.{name}", kind) for column, kind in _NUMBERS.items() for name in dimensions]
    texts = _TEXTS | dict.fromkeys(_MARKS if marks else (), pa.string())
    schema = pa.schema([("line", pa.int64()), *texts.items(), *numbers, ("length", pa.int32())])
    write_arrow_table(table, index, _labelled_rows(table, dimensions, decided=decided), schema=schema)


def _labelled_rows(table: Path, dimensions: Sequence[str], *, decided: bool) -> Iterator[dict[str, Any]]:
    """The row of each pair, in order. Each dimension must have a label in one of them, with `decided` a decided one."""
    columns = pair_columns_of(columns_of(table), file=str(table))
    _refuse_unknown(dimensions, columns, table=table)
    unlabelled, undecided = set(dimensions), set(dimensions) if decided else set()
    for pair in _valid_pairs(table, columns):
        yield _flat(pair, dimensions)
        unlabelled -= {*pair.preference, *pair.a.ratings, *pair.b.ratings}
        undecided -= {name for name, choice in pair.preference.items() if choice != "tie"}
    if unlabelled:
        raise DataError(str(table), 1, f"no row has a label for {', '.join(sorted(unlabelled))}; expected one at least")
    if undecided:
        named = ", ".join(repr(name) for name in sorted(undecided))
        raise DataError(str(table), 1, f"no decided pair in {named}; {_NEEDS_DECIDED}")


def _valid_pairs(table: Path, columns: PairColumns) -> Iterator[Pair]:
    """The pairs; the first invalid row is an error that names the command which lists all of them."""
    try:
        for pair in read_pairs(table, columns=columns, resolve=False):
            _refuse_lone_chain(pair, table=table)
            yield pair
    except DataError as fault:
        reason = f"{fault.reason}; descore data check {table} lists all"
        raise DataError(fault.file, fault.line, reason) from fault


def _flat(pair: Pair, dimensions: Sequence[str]) -> dict[str, Any]:
    chains = pair.a.chain, pair.b.chain
    labels: dict[str, Mapping[str, float]] = {
        "preference": {name: PREFERENCE_SIGN[choice] for name, choice in pair.preference.items()},
        "rating_a": pair.a.ratings,
        "rating_b": pair.b.ratings,
    }
    videos = os.fsencode(pair.video_a), os.fsencode(pair.video_b)
    texts = dict(zip(_TEXTS, (pair.prompt, *videos, *chains), strict=True))
    numbers = {f"{column}.{name}": labels[column].get(name) for column in _NUMBERS for name in dimensions}
    marks = {name: _as_json(side.marks) for name, side in zip(_MARKS, (pair.a, pair.b), strict=True)}
    length = len(pair.prompt) + max(len(chain or "") for chain in chains)
    return {"line": pair.line, **texts, **marks, **numbers, "length": length}


def _as_json(marks: Mapping[str, Mark] | None) -> str | None:
    return None if marks is None else json.dumps(marks)


def _refuse_unknown(dimensions: Sequence[str], columns: PairColumns, *, table: Path) -> None:
    known = [*columns.preference, *columns.a.ratings, *columns.b.ratings]
    unknown = [name for name in dimensions if name not in known]
    if unknown:
        wanted = ", ".join("preference" if name == OVERALL else f"preference.{name}" for name in unknown)
        raise DataError(str(table), 1, f"no column {wanted}; the dimensions here are {', '.join(dict.fromkeys(known))}")


def _refuse_lone_chain(pair: Pair, *, table: Path) -> None:
    """The chains of a pair are read together or not at all: a lone one would give away which clip it is."""
    if (pair.a.chain is None) != (pair.b.chain is None):
        filled, empty = ("a", "b") if pair.b.chain is None else ("b", "a")
        reason = f"chain_{empty} is empty and chain_{filled} is not; expected both or neither"
        raise DataError(str(table), pair.line or 1, reason)
