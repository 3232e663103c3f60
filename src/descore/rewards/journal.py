"""What a run of bulk scoring has scored so far: an append-only file beside its table, so that a killed run goes on.

    scores.parquet.journal      first line: the settings; then a result a line, in the order in which they came

In: results by key, which names a prompt and a video's contents. Out: the last result of a key. A key of a result with
an error counts as new when the journal is opened again, so that it is tried again."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from descore.data.write import check_writable
from descore.errors import ConfigError, DataError
from descore.io import append_records, check_place, lock_file, make_directory, parse_json_object

JOURNAL_SUFFIX = ".journal"

_RECENT = 4096
"""Keys that are kept in a dict, which takes ten times the memory, before they are sorted in."""


def result_key(*, prompt: str, video: str, path: str) -> int:
    """64 bits of a prompt, a video's name, and its file's size and time of change: equal for what need not be scored
    twice."""
    try:
        stat = os.stat(path)  # noqa: PTH116  # of every row, and a Path takes longer than the call
        contents: tuple[int, int] | None = (stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        contents = None
    digest = hashlib.blake2b(json.dumps([prompt, video, contents]).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def default_out(source: Path) -> Path:
    """Where scores are written: beside the table or folder, with `.scores` in the name; a table keeps its suffix."""
    if source.is_dir():
        folder = source.absolute()
        return (
            (source / ".." / f"{folder.name}.scores.jsonl")
            if source.name in ("", "..")
            else source.with_name(f"{folder.name}.scores.jsonl")
        )
    suffix = source.suffix if source.suffix.lower() in (".csv", ".parquet") else ".jsonl"
    return source.with_name(f"{source.stem}.scores{suffix}")


def check_out(out: Path, *, overwrite: bool) -> None:
    """ConfigError if scores cannot be written there, as far as is known without the model."""
    check_writable(out)
    check_place(out)
    if not overwrite and out.exists() and not journal_of(out).exists():
        raise ConfigError(f"{out}: exists already; choose another --out, or write over it with --overwrite")


def journal_of(out: Path) -> Path:
    """The journal of a scored table."""
    return out.with_name(out.name + JOURNAL_SUFFIX)


class Journal:
    """The results of one run, by key."""

    def __init__(self, path: Path, index: "_PlaceIndex") -> None:
        self._path = path
        self._index = index

    @classmethod
    @contextmanager
    def open(cls, out: Path, *, settings: Mapping[str, Any], overwrite: bool = False) -> Iterator[Self]:
        """The journal of the table `out`, locked until the block ends; begun if it is not there.

        overwrite: begin anew. ConfigError if another process holds it, it is of other settings, or there is a table
        without a journal."""
        path = journal_of(out)
        check_out(out, overwrite=overwrite)
        make_directory(out.parent)
        with lock_file(path, name=out):
            is_new = overwrite or not path.stat().st_size
            if is_new:
                os.truncate(path, 0)
                append_records(path, [{"settings": dict(settings)}])
            else:
                append_records(path, [])  # cuts off a line that a kill left unfinished
            yield cls(path, _read_index(path, settings, out=out))

    def __contains__(self, key: int) -> bool:
        return self._index.find(key) is not None

    def append(self, results: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Add results, and return once they are on the disk."""
        places = append_records(self._path, [{"key": f"{key:016x}", **cells} for key, cells in results])
        for (key, _), place in zip(results, places, strict=True):
            self._index.add(key, place)

    def read(self, keys: Iterator[int]) -> Iterator[dict[str, Any]]:
        """The results of keys, all of which must be there."""
        with self._path.open("rb") as file:
            for key in keys:
                place = self._index.find(key)
                assert place is not None, "a row was passed over"
                file.seek(place)
                record = json.loads(file.readline())
                assert int(record.pop("key"), 16) == key, "the journal was changed under its reader"
                yield record


def _read_index(path: Path, settings: Mapping[str, Any], *, out: Path) -> "_PlaceIndex":
    index, place = _PlaceIndex(), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            record = parse_json_object(line.rstrip(), file=path, line=number)
            if number == 1:
                check_settings(record, settings, out=out)
            elif "key" not in record or "error" not in record:
                raise DataError(str(path), number, "has no key and error; expected a result; see --overwrite")
            elif record["error"] is None:
                index.add(int(record["key"], 16), place)
            place += len(line)
    return index


def check_settings(record: Mapping[str, Any], settings: Mapping[str, Any], *, out: Path) -> None:
    """ConfigError if a journal's first record has other `settings` than these, by what differs."""
    there, here = record.get("settings"), json.loads(json.dumps(settings))
    if not isinstance(there, dict):
        raise DataError(str(journal_of(out)), 1, "has no settings; expected the journal of a run; see --overwrite")
    unequal = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if unequal:
        values = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in unequal)
        raise ConfigError(
            f"{out}: holds another run ({values}); choose another --out, the same options, or --overwrite"
        )


class _PlaceIndex:
    """From keys to places in a file, in 16 bytes each."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._keys = np.empty(0, np.uint64)
        self._places = np.empty(0, np.int64)

    def add(self, key: int, place: int) -> None:
        self._recent[key] = place
        if len(self._recent) >= _RECENT:
            self._sort_in()

    def find(self, key: int) -> int | None:
        if key in self._recent:
            return self._recent[key]
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        return int(self._places[at]) if at < len(self._keys) and int(self._keys[at]) == key else None

    def _sort_in(self) -> None:
        """Sort recent keys in. Of equal keys the first counts, which is the most recent."""
        recent = np.fromiter(self._recent, np.uint64, len(self._recent))
        places = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._keys, first = np.unique(np.concatenate([recent, self._keys]), return_index=True)
        self._places = np.concatenate([places, self._places])[first]
        self._recent.clear()
