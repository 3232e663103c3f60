"""Pairs from a table of any length, at random access and without memory.

In: a table of pairs in the project's schema (`descore.data.schema`), and the named dimensions that are to be learned.
Out: a data set whose items are read when asked for, each with the labels, chains and marks that its row tells. The
table is checked once, row by row. Knows tables and videos; knows nothing of tokens or models.

Shapes: N pairs, K named dimensions."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch.utils.data import Dataset

from descore.data.schema import OVERALL, PairColumns, pair_columns_of, read_pairs
from descore.data.tables import columns_of
from descore.errors import DataError, VideoError
from descore.training.collate import MISSING, RatingScale, TrainingPair, Unreadable
from descore.training.dataset import ArrowTable, Key, write_arrow_table
from descore.types import PREFERENCE_SIGN, Clip, Mark, Pair
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

_TEXTS = ("prompt", "video_a", "video_b", "chain_a", "chain_b")
_MARKS = ("marks_a", "marks_b")
"""As JSON; null where nobody said."""
_NUMBERS = {"preference": pa.int8(), "rating_a": pa.float32(), "rating_b": pa.float32()}
"""What a row has for each dimension, in a column 'preference.NAME' and so on; null where nobody said."""
_NEEDS_DECIDED = "loss.kind bradley-terry and margin learn from a or b; use loss.kind=ties"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSide:
    """One clip of a pair, the prompt that both were generated from, and its chain and marks where there are any."""

    clip: Clip
    prompt: str
    chain: str | None
    marks: Mapping[str, Mark] | None = None
    """One for each of DIMENSIONS, where the table has them and its index was written with them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnreadPair:
    """What a row tells of a pair without its videos."""

    number: int
    prompt: str
    videos: tuple[str, str]
    """Paths of a and b."""
    preference_K: NDArray[np.int8]
    has_chains: bool


class PairTable(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic in name only
    """The pairs of a table, by number. An item one of whose videos cannot be read is an `Unreadable`.

    A key may bring its epoch, which the pair then carries to the collator: a number that comes with the item is right
    in every worker process, however far it reads ahead or however long it lives, where an epoch that the data set were
    told would reach one process's copy of it."""

    def __init__(self, table: Path, *, index: Path, sampling: VideoSampling, dimensions: Sequence[str]) -> None:
        """`index` is the Arrow file that `index_pairs` wrote for this table and these dimensions."""
        self.table = table
        self.sampling = sampling
        self.dimensions = tuple(dimensions)
        self.rows = ArrowTable(index)

    def __len__(self) -> int:
        return len(self.rows)

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

    @property
    def digest(self) -> str:
        """Of the table's contents."""
        return self.rows.digest

    def unread(self, number: int) -> UnreadPair:
        """A pair without its videos, where they cannot be read."""
        cells = self.rows[number]
        return UnreadPair(
            number=number,
            prompt=cells["prompt"],
            videos=(str(self.table.parent / cells["video_a"]), str(self.table.parent / cells["video_b"])),
            preference_K=self._numbers(cells, "preference", missing=MISSING).astype(np.int8),
            has_chains=cells["chain_a"] is not None,
        )

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Of each pair, the characters of its prompt and its longer chain (N): what its rows' widths differ by."""
        found: NDArray[np.int32] = self.rows.column("length").to_numpy()
        return found

    @property
    def rating_scale(self) -> RatingScale:
        """Mean and standard deviation of all ratings of the table, of a and b alike.

        DataError for a dimension without two different ratings."""
        scales = [self._scale(name) for name in self.dimensions]
        return RatingScale(mean_K=tuple(mean for mean, _ in scales), std_K=tuple(std for _, std in scales))

    def _side(self, cells: Mapping[str, Any], side: str) -> PairSide | Unreadable:
        video = str(self.table.parent / cells[f"video_{side}"])
        try:
            clip = read_clip(video, sampling=self.sampling)
        except VideoError as fault:
            return Unreadable(table=str(self.table), line=cells["line"], video=video, reason=fault.reason)
        told = cells.get(f"marks_{side}")
        marks = None if told is None else json.loads(told)
        return PairSide(clip=clip, prompt=cells["prompt"], chain=cells[f"chain_{side}"], marks=marks)

    def _numbers(self, cells: Mapping[str, Any], what: str, *, missing: float) -> NDArray[np.float32]:
        found = (cells[f"{what}.{name}"] for name in self.dimensions)
        return np.array([missing if value is None else value for value in found], dtype=np.float32)

    def _scale(self, name: str) -> tuple[float, float]:
        ratings = [self.rows.column(f"{what}.{name}").cast(pa.float64()) for what in ("rating_a", "rating_b")]
        both = pa.chunked_array([chunk for column in ratings for chunk in column.chunks])
        mean, std = pc.mean(both).as_py(), pc.stddev(both).as_py()
        if not std:
            found = "no rating" if std is None else f"no rating but {mean:g}"
            raise DataError(str(self.table), 1, f"dimension {name!r} has {found}; expected two different ones at least")
        return mean, std


def index_pairs(
    table: Path, index: Path, *, dimensions: Sequence[str], marks: bool = False, decided: bool = False
) -> None:
    """Check a table and write the Arrow file of its pairs, with their `marks` if these are asked for. One that is there
    already must be of the same table. `decided`: what is learned from it needs pairs that are no tie.

    Dimension "overall" is the column preference (rating_a, rating_b), any other NAME the column preference.NAME.
    DataError with file and line for a row that cannot be used, for a dimension that the table has no column for, no
    label in, or no decided pair where it needs one; ConfigError if the table is another than the file's."""
    numbers = [(f"{what}.{name}", kind) for what, kind in _NUMBERS.items() for name in dimensions]
    texts = [(name, pa.string()) for name in (*_TEXTS, *(_MARKS if marks else ()))]
    schema = pa.schema([("line", pa.int64()), *texts, *numbers, ("length", pa.int32())])
    write_arrow_table(table, index, _labelled_rows(table, dimensions, decided=decided), schema=schema)


def _labelled_rows(table: Path, dimensions: Sequence[str], *, decided: bool) -> Iterator[dict[str, Any]]:
    """What the index holds of each pair, in order. Each dimension must have a label in one of them, or, if that is
    asked for, a decided one."""
    columns = pair_columns_of(columns_of(table), file=str(table))
    _refuse_unknown(dimensions, columns, table=table)
    unseen, undecided = set(dimensions), set(dimensions) if decided else set()
    for pair in _valid_pairs(table, columns):
        yield _flat(pair, dimensions)
        unseen -= {*pair.preference, *pair.a.ratings, *pair.b.ratings}
        undecided -= {name for name, choice in pair.preference.items() if choice != "tie"}
    if unseen:
        raise DataError(str(table), 1, f"no row has a label for {', '.join(sorted(unseen))}; expected one at least")
    if undecided:
        named = ", ".join(repr(name) for name in sorted(undecided))
        raise DataError(str(table), 1, f"no decided pair in {named}; {_NEEDS_DECIDED}")


def _valid_pairs(table: Path, columns: PairColumns) -> Iterator[Pair]:
    """The pairs; the first row that cannot be used is an error which says how to see all of them."""
    try:
        for pair in read_pairs(table, columns=columns, resolve=False):
            _refuse_lone_chain(pair, table=table)
            yield pair
    except DataError as fault:
        told = f"{fault.reason}; descore data check {table} lists all"
        raise DataError(fault.file, fault.line, told) from fault


def _flat(pair: Pair, dimensions: Sequence[str]) -> dict[str, Any]:
    chains = pair.a.chain, pair.b.chain
    labels: dict[str, Mapping[str, float]] = {
        "preference": {name: PREFERENCE_SIGN[choice] for name, choice in pair.preference.items()},
        "rating_a": pair.a.ratings,
        "rating_b": pair.b.ratings,
    }
    texts = dict(zip(_TEXTS, (pair.prompt, pair.video_a, pair.video_b, *chains), strict=True))
    numbers = {f"{what}.{name}": labels[what].get(name) for what in _NUMBERS for name in dimensions}
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
    """The chains of a pair are read together or not at all: a lone one would tell which clip it is."""
    if (pair.a.chain is None) != (pair.b.chain is None):
        there, lacks = ("a", "b") if pair.b.chain is None else ("b", "a")
        reason = f"chain_{lacks} is empty and chain_{there} is not; expected both or neither"
        raise DataError(str(table), pair.line or 1, reason)
