"""Files that are never half there: journals of JSON lines, atomic writes, and the lock of a directory.

A journal survives a kill in the middle of a line: readers skip a last line without its end, and the next append cuts it
off. An atomic write goes to `NAME.partial` beside its target and takes the target's name once it is on the disk."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from descore.errors import ConfigError, DataError, RepeatedKeyError, unique_keys

LOCK_FILE = ".lock"

_BLOCK = 1 << 16
"""Bytes read at a time in search of the end of the last whole line."""

WHOLE_FILE = 64 << 20
"""Bytes up to which a file is hashed whole."""
BLOCK, BLOCKS = 1 << 16, 256
"""Of a larger file, so many bytes at so many places are hashed, evenly spaced from its first byte to its last."""
_CHECKPOINT_FILES = {".json", ".txt", ".jinja", ".model", ".safetensors"}


def make_directory(folder: Path) -> None:
    """Make a directory with its parents, unless it is there. ConfigError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}; choose another folder with --out") from error


def check_place(path: Path) -> None:
    """ConfigError if no file or folder can be made at a path; folders above it that are not there are made with it."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{path}: {above} is no folder; choose another --out")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"{path}: the folder {above} cannot be written to; choose another --out")


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """Hold a directory for this process. The system releases the lock when the process ends, however it ends, so a
    killed run leaves none behind. ConfigError if another process holds it."""
    with lock_file(folder / LOCK_FILE, name=folder):
        yield


@contextmanager
def lock_file(path: Path, *, name: Path) -> Iterator[None]:
    """Hold a file for this process, as `lock_directory` does; it is made if it is not there. `name` is what an error
    names. ConfigError if another process holds it, or it cannot be opened."""
    with _report_os_errors(path):
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{name}: another process is writing this run; wait for it, or choose another folder"
            ) from None
        yield


JSON_ERRORS = (ValueError, RecursionError)
"""What Python's parser raises for texts that `json_error` explains."""


def json_error(error: ValueError | RecursionError, *, file: str | Path, line: int = 1) -> DataError:
    """The DataError for a text that begins on this line of a file and is no JSON that can be read: malformed, not
    UTF-8, nested too deeply, with a number of more digits than Python reads, or with a key twice."""
    if isinstance(error, json.JSONDecodeError):
        at_line = line + error.lineno - 1
        return DataError(str(file), at_line, f"is not JSON: {error.msg} at character {error.colno}")
    if isinstance(error, UnicodeDecodeError):
        return DataError(
            str(file), line, f"byte 0x{error.object[error.start]:02x} is not UTF-8; expected JSON in UTF-8"
        )
    if isinstance(error, RepeatedKeyError):
        return DataError(str(file), line, f"{error}; expected each once")
    if isinstance(error, RecursionError):
        return DataError(str(file), line, "has too many brackets inside each other; expected JSON of a few levels")
    return DataError(str(file), line, "has a number of too many digits; expected one that fits a float")


def parse_json(text: str | bytes, *, file: str | Path, line: int = 1) -> Any:  # noqa: ANN401  # whatever it holds
    """The value of a JSON text that begins on this line of a file. DataError with file and line if there is none."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except JSON_ERRORS as error:
        raise json_error(error, file=file, line=line) from None


def parse_json_object(text: str | bytes, *, file: str | Path, line: int = 1) -> dict[str, Any]:
    """The same for a text that must hold an object."""
    value = parse_json(text, file=file, line=line)
    if not isinstance(value, dict):
        raise DataError(str(file), line, f"found {type(value).__name__}, expected a JSON object")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. DataError if there is no such file, it cannot be read, or it holds anything else."""
    try:
        return parse_json_object(path.read_bytes(), file=path)
    except OSError as error:
        raise DataError(str(path), 1, f"cannot be read: {error.strerror or error}") from None


def read_records(path: Path, *, last: int | None = None) -> list[dict[str, Any]]:
    """The whole records of a journal, or the `last` so many of them; none if there is no such file.

    A last line without its end was cut off by a kill and is skipped. Any other line that is not a JSON object raises
    DataError."""
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            whole = ((number, line) for number, line in enumerate(file, start=1) if line.endswith(b"\n"))
            kept = deque(whole, maxlen=last)
    except OSError as error:
        raise DataError(str(path), 1, f"cannot be read: {error.strerror or error}") from None
    return [parse_json_object(line.rstrip(), file=path, line=number) for number, line in kept]


def append_records(path: Path, records: Iterable[Mapping[str, Any]], *, allow_nan: bool = False) -> list[int]:
    """Append records to a journal as lines of ASCII, and return once they are on the disk: the place that each begins
    at, in bytes.

    Without `allow_nan`, a number that is not finite raises ValueError. ConfigError if the disk is full."""
    lines = [json.dumps(record, allow_nan=allow_nan) + "\n" for record in records]
    with _report_os_errors(path), path.open("a+b") as file:
        start = _cut_unfinished_line(file)
        file.write("".join(lines).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    return list(accumulate(map(len, lines), initial=start))[:-1]


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a whole file (text as UTF-8), or leave what was there. ConfigError if it cannot be written."""
    with atomic_path(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, which replaces `path` when the block ends; its parents are made.

    After an error in the block the partial file is removed and `path` is as it was. A link stays, and what it leads to
    is replaced. ConfigError if it cannot be written, or is a device or a pipe."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise ConfigError(f"{path}: is {kind}, which a file cannot replace; choose another name")
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    aside = path.with_name(path.name + ".partial")
    with _report_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            _flush(aside)
            aside.replace(path)
            _flush(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory to fill, which replaces `path` when the block ends; its parents are made.

    After an error in the block the partial directory is removed and `path` is as it was. A kill between the two renames
    of a replacement leaves the former directory as `NAME.old`. ConfigError if it cannot be written."""
    aside, old = (path.with_name(path.name + suffix) for suffix in (".partial", ".old"))
    with _report_os_errors(path):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            for inner in (*aside.rglob("*"), aside):
                _flush(inner)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            aside.rename(path)
            _flush(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _report_os_errors(path: Path) -> Iterator[None]:
    """Raise a ConfigError of one line in place of an OSError, or of what safetensors raises for one, except where the
    reader of a pipe has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except _write_errors() as error:
        reason = getattr(error, "strerror", None) or str(error)
        name = getattr(error, "filename", None)
        where = "" if name is None else f": {name}"
        raise ConfigError(f"{path}: cannot be written ({reason}{where}); choose another place, or make room") from error


def _write_errors() -> tuple[type[Exception], ...]:
    """OSError, and what safetensors raises in its place, if that is loaded."""
    safetensors: Any = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


def _flush(path: Path) -> None:
    """Have the system write a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_unfinished_line(file: BinaryIO) -> int:
    """Cut off a last line without its end, and return where the file ends."""
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
    return end


def folder_digest(folder: Path) -> str:
    """The digest of a checkpoint's files that rewards depend on, with their names.

    Files up to WHOLE_FILE are hashed whole; of larger ones their size and 16 MiB spread over them."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _CHECKPOINT_FILES and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
        _hash_file(digest, path)
    return digest.hexdigest()[:16]


def _hash_file(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    if size <= WHOLE_FILE:
        digest.update(path.read_bytes())
        return
    with path.open("rb") as file:
        for place in range(BLOCKS):
            file.seek((size - BLOCK) * place // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
