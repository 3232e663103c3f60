"""Tell a file that was cut off, where its packets do not: Matroska and GIF are read to wherever they end.

In: an open binary file. Out: bytes that are missing at least, 0 if none.
Knows the outermost structure of the two formats; knows nothing of decoding."""

import io
from typing import BinaryIO

GIF_END = b"\x3b"


def missing_bytes(file: BinaryIO, *, kind: str) -> int:
    """How many bytes a file lacks, at least, by what it says of itself. `kind` is FFmpeg's name of the format."""
    length = file.seek(0, io.SEEK_END)
    if kind == "matroska,webm":
        return max(0, _matroska_end(file) - length)
    if kind == "gif":
        file.seek(max(0, length - 4096))
        # Zeros behind the end mark are padding that some writers leave.
        return 0 if file.read().rstrip(b"\0").endswith(GIF_END) else 1
    return 0


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends that holds everything (RFC 8794: an id, a length, content); 0 if it does not say."""
    file.seek(0)
    head = file.read(4096)
    at = 0
    while at < len(head) - 12:
        body = at + _width(head[at])
        width = _width(head[body])
        length = int.from_bytes(head[body : body + width], "big") & ((1 << 7 * width) - 1)
        is_segment = head[at : at + 4] == b"\x18\x53\x80\x67"
        if is_segment and length == (1 << 7 * width) - 1:  # all ones: written live, the length was not known
            return 0
        at = body + width + length
        if is_segment:
            return at
    return 0


def _width(first: int) -> int:
    """Bytes of a number whose first byte is this: one more than its leading zero bits."""
    return min(8, 9 - first.bit_length())
