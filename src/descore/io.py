"""An append-only file of JSON lines that survives being killed, and the lock of the directory that it lies in.

In: records. Out: the same records, in order, also after a SIGKILL in the middle of a line: what is appended next cuts
off the line that has no end, and readers pass it over. Knows lines, fsync and flock; knows nothing of what the records
say."""

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from descore.errors import ConfigError, DataError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a directory for this process. The system lets go of it when the process ends, however it ends, so that no
    lock outlives a killed run. A directory that another process holds raises ConfigError."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another process is writing this run; wait for it, or choose another --out"
            ) from None
        yield


def read_lines(path: Path, *, last: int | None = None) -> list[dict[str, Any]]:
    """Every whole record, or the `last` so many of them. A last line without its end is one that a kill cut off, and is
    left out; any other line that is no JSON object raises DataError. A file that is not there has no records."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        whole = ((number, line) for number, line in enumerate(file, start=1) if line.endswith(b"\n"))
        kept = deque(whole, maxlen=last)
    return [_parse(path, number, line) for number, line in kept]


def append(path: Path, records: Iterable[Mapping[str, Any]], *, nan: bool = False) -> None:
    """Add records as lines of ASCII, and return when they are on the disk. Numbers that are not finite are refused,
    but with `nan`."""
    lines = "".join(json.dumps(record, allow_nan=nan) + "\n" for record in records)
    with path.open("a+b") as file:
        _cut_unfinished(file)
        file.write(lines.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside and put it in place, so that it is never half there."""
    aside = path.with_name(path.name + ".partial")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


_BLOCK = 1 << 16
"""Bytes that are looked at in one go for the end of the last whole line."""


def _cut_unfinished(file: BinaryIO) -> None:
    """Drop a last line without its end."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - (1 if end == size else _BLOCK))
        file.seek(begin)
        place = file.read(end - begin).rfind(b"\n")
        if place >= 0:
            end = begin + place + 1
            break
        end = begin
    if end < size:
        file.truncate(end)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as fault:  # neither JSON nor UTF-8
        raise DataError(str(path), number, f"is not JSON ({fault}); expected a record of a run") from None
    if not isinstance(record, dict):
        raise DataError(str(path), number, f"found {type(record).__name__}, expected a JSON object")
    return record
