"""The results of a run on a Ray cluster, as its nodes have written them: Parquet shards in the journal's folder.

    scores.journal/
        settings.jsonl   what the run's rewards depend on
        rows.parquet     the work list
        results/         shards of results
        checkpoint/      Ray's: the ids of the rows of each shard that is whole

In: the folder. Out: how many results there are, and the result of a key. A shard counts once Ray has committed its
checkpoint. Of several results of a key one with a reward counts, else the last."""

import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from descore.rewards.ray_stages import ID, KEY, MODEL_SECONDS

_OPEN_SHARDS = 16
"""Shards that are kept in memory while the table is written: rows that follow one another are in few of them."""


class ResultShards:
    """The shards that are whole."""

    def __init__(self, journal: Path) -> None:
        self.results, self.checkpoint = journal / "results", journal / "checkpoint"
        self._counts: dict[str, tuple[int, int]] = {}

    def paths(self) -> list[Path]:
        """The shards, in the order in which they were written."""
        if not self.checkpoint.is_dir() or not self.results.is_dir():
            return []
        whole = {entry.name.removesuffix(".parquet") for entry in os.scandir(self.checkpoint)}
        # BASE-0.parquet has the checkpoint BASE.parquet.
        entries = [entry for entry in os.scandir(self.results) if entry.name.rpartition("-")[0] in whole]
        return [Path(entry.path) for entry in sorted(entries, key=lambda one: (one.stat().st_mtime_ns, one.name))]

    def counts(self) -> tuple[int, int]:
        """How many results there are, and how many of these are errors; from the ends of files, each read once."""
        for path in self.paths():
            if path.name not in self._counts:
                self._counts[path.name] = _counts_of(path)
        return sum(rows for rows, _ in self._counts.values()), sum(failed for _, failed in self._counts.values())


def _counts_of(path: Path) -> tuple[int, int]:
    metadata = import_module("pyarrow.parquet").read_metadata(path)
    column = metadata.schema.to_arrow_schema().get_field_index("error")
    groups = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
    return metadata.num_rows, metadata.num_rows - sum(group.statistics.null_count for group in groups)


class ResultIndex:
    """From keys to results, in 25 bytes each."""

    def __init__(self, shards: ResultShards) -> None:
        self._paths = shards.paths()
        self._opened: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        columns = [self._read_columns(number) for number in range(len(self._paths))]
        keys, has_reward, places = (
            np.concatenate([np.empty(0, kind), *(part[column] for part in columns)])
            for column, kind in enumerate((np.uint64, np.bool_, np.int64))
        )
        order = np.lexsort((places, has_reward, keys))  # of a key's results the last is the one that counts
        self._keys, self._has_reward, self._places = keys[order], has_reward[order], places[order]

    def _read_columns(self, number: int) -> tuple[Any, Any, Any]:
        table = import_module("pyarrow.parquet").read_table(self._paths[number], columns=[KEY, "error"])
        places = (np.int64(number) << 32) + np.arange(table.num_rows)
        return table[KEY].to_numpy(), table["error"].is_null().to_numpy(), places

    def tries(self, key: int) -> tuple[int, bool]:
        """How often a key has failed, and whether it has a reward."""
        first, end = (int(np.searchsorted(self._keys, np.uint64(key), side=side)) for side in ("left", "right"))
        has_reward = first < end and bool(self._has_reward[end - 1])
        return end - first - has_reward, has_reward

    def read(self, keys: Iterable[int]) -> Iterator[dict[str, Any] | None]:
        """The results of keys, without the columns that are the run's own; None for a key that has none."""
        for key in keys:
            end = int(np.searchsorted(self._keys, np.uint64(key), side="right"))
            if not end or int(self._keys[end - 1]) != key:
                yield None
                continue
            place = int(self._places[end - 1])
            yield dict(self._rows_of(place >> 32)[place & 0xFFFFFFFF])

    def _rows_of(self, number: int) -> list[dict[str, Any]]:
        if number not in self._opened:
            table = import_module("pyarrow.parquet").read_table(self._paths[number])
            self._opened[number] = table.drop_columns([ID, KEY, MODEL_SECONDS]).to_pylist()
            if len(self._opened) > _OPEN_SHARDS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        return self._opened[number]

    def model_seconds(self, *, apart_from: Collection[str]) -> float:
        """That models were busy with the results in other shards than these."""
        parquet, new = import_module("pyarrow.parquet"), (path for path in self._paths if path.name not in apart_from)
        return sum(
            float(parquet.read_table(path, columns=[MODEL_SECONDS])[MODEL_SECONDS].to_numpy().sum()) for path in new
        )
