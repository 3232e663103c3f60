"""A short name for the contents of a checkpoint or a table, so that two things of one name are told apart.

In: a checkpoint's name or a file. Out: the first 16 hex digits of a SHA-256. Knows bytes; knows nothing of what they
mean."""

import hashlib
from pathlib import Path

from descore.model.checkpoint import find_checkpoint

WHOLE = 64 << 20
"""Bytes up to which a file counts whole."""
BLOCK, BLOCKS = 1 << 16, 256
"""Of a larger file, so many bytes at so many places, evenly spaced from its first byte to its last."""

_KINDS = {".json", ".txt", ".jinja", ".model", ".safetensors"}


def checkpoint_digest(source: str) -> str:
    """The digest of a checkpoint's settings, rubric, tokenizer, head and weights, with their names.

    Small files count whole, the head among them, which every training of ours moves. Of weights, size and 16 MiB
    spread over the file count: training moves every tensor that it trains, so the places need not be many, while a
    header alone is the same before and after, and reading 16 GB twice to start a run would be slow."""
    folder = find_checkpoint(source)
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _KINDS and path.is_file()):
        found.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
        _add(found, path)
    return found.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """The digest of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _add(found: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    if size <= WHOLE:
        found.update(path.read_bytes())
        return
    with path.open("rb") as file:
        for place in range(BLOCKS):
            file.seek((size - BLOCK) * place // (BLOCKS - 1))
            found.update(file.read(BLOCK))
