"""An append-only file of JSON lines that survives being killed, and the lock of the directory that it lies in.

In: records. Out: the same records, in order, also after a SIGKILL in the middle of a line. Knows lines, fsync and
flock; knows nothing of what the records say."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from descore.errors import ConfigError, DataError
from descore.evaluation.records import to_line

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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole record. A last line without its end is one that a kill cut off, and is left out; any other line that
    is no JSON object raises DataError. A file that is not there has no records."""
    content = path.read_bytes() if path.is_file() else b""
    return [_parse(path, number, line) for number, line in enumerate(content.split(b"\n")[:-1], start=1)]


def mend(path: Path) -> None:
    """Drop a last line that a kill cut off: the whole lines are written aside, and put in place."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_whole(path, whole)


def append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records, and return when they are on the disk."""
    with path.open("a", encoding="ascii") as file:
        file.writelines(to_line(record) + "\n" for record in records)
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


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as fault:  # neither JSON nor UTF-8
        raise DataError(str(path), number, f"is not JSON ({fault}); expected a record of a run") from None
    if not isinstance(record, dict):
        raise DataError(str(path), number, f"found {type(record).__name__}, expected a JSON object")
    return record
