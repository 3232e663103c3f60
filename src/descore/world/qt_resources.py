"""Read the files in a binary resource file of Qt (.rcc), in which programs ship their pictures.

In: its bytes. Out: path and content of each file. Knows the format as Qt's `rcc` writes it, versions 1 to 3: a header
of big-endian offsets, then a tree of nodes, a table of names, and the files' contents, each behind its length.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from descore.errors import ConfigError

_ZLIB, _FOLDER, _ZSTD = 1, 2, 4


def qt_files(content: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Path and reader of each file, folder by folder. ConfigError for another format or compression with Zstandard."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", content)
    if magic != b"qres" or not 1 <= version <= 3:
        raise ConfigError(f"Qt resources: found {magic!r}, version {version}, expected b'qres', version 1 to 3")
    node_size = 14 if version == 1 else 22  # later ones end with a time
    waiting = [(0, "")]
    while waiting:
        node, folder = waiting.pop()
        name, flags = struct.unpack_from(">IH", content, tree + node * node_size)
        path = f"{folder}/{_name(content, names + name)}" if node else ""
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", content, tree + node * node_size + 6)
            waiting += [(child, path) for child in reversed(range(first, first + count))]
        else:
            (offset,) = struct.unpack_from(">I", content, tree + node * node_size + 10)
            yield path, partial(_file, content, contents + offset, flags)


def _name(content: bytes, at: int) -> str:
    """Behind its length in UTF-16 units and its hash."""
    (length,) = struct.unpack_from(">H", content, at)
    return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _file(content: bytes, at: int, flags: int) -> bytes:
    (length,) = struct.unpack_from(">I", content, at)
    found = content[at + 4 : at + 4 + length]
    if flags & _ZSTD:
        raise ConfigError("Qt resources: found a file compressed with Zstandard, expected zlib or none")
    return zlib.decompress(found[4:]) if flags & _ZLIB else found
