"""Written examples from a table of any length, at random access and without memory.

In: a table with columns prompt, video, chain; or of pairs, with video_a, chain_a, video_b, chain_b. Out: a data set
whose items are read when asked for. The table is checked once, row by row. Knows tables and videos; knows nothing of
tokens or models."""

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
from descore.errors import DataError, VideoError
from descore.training.collate import Unreadable
from descore.training.mapped import MappedRows, write_rows
from descore.training.order import Key
from descore.types import Clip

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
        self.rows = MappedRows(index)

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
    write_rows(table, index, read_examples(table), schema=_SCHEMA)


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
