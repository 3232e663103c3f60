"""Check that a file is whole by what its container states: lengths, page numbers, checksums, end marks.

In: an open binary file and FFmpeg's name of its format. Out: its fault in a few words, or None. Nothing is decoded.
What a container does not state cannot be checked: docs/data.md lists it.

Also what an HEVC packet states of itself: whether it can be left out."""

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from av import Packet, VideoStream
    from av.stream import Stream

SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
"""The Matroska elements that may be of unknown length, since a recorder that cannot go back does not know it."""

CHECKSUM = b"\xbf\x84"
"""How a Matroska element begins that has a checksum of what follows."""

VIDEO_IN_OGG = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video")
"""How the first page of a video stream begins in Ogg; streams of other kinds are not checked."""

OGG_HEADER = 27
"""Bytes of an Ogg page before the lengths of its pieces (RFC 3533, 6)."""

OGG_FIRST, OGG_LAST = 2, 4
"""The flags of a stream's first and last page."""

GIF_EXTENSION, GIF_PICTURE, GIF_END = b"\x21\x2c\x3b"

PICTURE_START, PICTURE_END = b"\xff\xd8\xff", b"\xff\xd9"

FFV1_TRAILER = 8
"""Bytes behind a slice: three of length, one of state, four of checksum."""

LAST_NON_REFERENCE, LAST_HEVC_SLICE = 14, 31
"""Types of units in HEVC, of which the even ones up to the first hold pictures that are no reference."""

BOX_BYTES = 64
"""Of an MP4's box, as many bytes as what is read of it takes."""

TS_PACKET = 188
TS_SYNC = 0x47
TS_CLOCK = 1 << 33
"""Where the clock of a transport stream starts anew by itself, in ticks of 1/90000 s."""

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def fault_of(file: BinaryIO, *, kind: str) -> str | None:
    """What is wrong with a file of this format, by what it states about itself; None if nothing is."""
    check = CHECKS.get(kind)
    return check(file) if check else None


def _matroska_fault(file: BinaryIO) -> str | None:
    """Elements state their length, clusters a checksum too if their writer gave one (RFC 8794, 11.3.1)."""
    length = _length(file)
    for start, body, end in _matroska_elements(file, length):
        if end > length:
            return f"cut off: {end - length} of the bytes that it states are missing"
        if start == body:
            continue
        file.seek(body)
        if file.read(2) == CHECKSUM:
            stated = int.from_bytes(file.read(4), "little")
            if zlib.crc32(file.read(end - body - 6)) != stated:
                return f"damaged: the checksum of the cluster at byte {start} does not hold"
    return None


def _matroska_elements(file: BinaryIO, length: int) -> Iterator[tuple[int, int, int]]:
    """Where each element begins, where a cluster's content begins, and where it ends (RFC 8794: an id, a length,
    content). Those that may be of unknown length are entered."""
    at, stop = 0, length
    while at < stop:
        file.seek(at)
        head = file.read(12)
        width = _width(head[0])
        if width > 4:  # no id: padding or foreign content, which players pass over
            return
        if len(head) <= width:
            yield at, at, length + 1
            return
        name, size_width = head[:width], _width(head[width])
        size = int.from_bytes(head[width : width + size_width], "big") & ((1 << 7 * size_width) - 1)
        start, at = at, at + width + size_width
        unknown = size == (1 << 7 * size_width) - 1
        if name == SEGMENT and not unknown:
            yield start, start, at + size
            stop = min(stop, at + size)
        elif not (unknown and name in (SEGMENT, CLUSTER)):
            yield start, at if name == CLUSTER else start, at + size
            at += size


def _width(first: int) -> int:
    """Bytes of the number that begins with this byte: one more than the byte's leading zero bits."""
    return min(8, 9 - first.bit_length())


@dataclass(slots=True)
class _OggStream:
    """What is known of one video stream of an Ogg file so far."""

    number: int
    """Of its last page."""
    ended: bool = False


def _ogg_fault(file: BinaryIO) -> str | None:
    """Pages number themselves, have a checksum, and the last one of each stream is marked (RFC 3533, 6)."""
    streams: dict[int, _OggStream] = {}
    for at, page in _ogg_pages(file):
        start = OGG_HEADER + page[26] if len(page) > OGG_HEADER else len(page)
        if len(page) < start + sum(page[OGG_HEADER:start]):
            return f"cut off: the file ends within a page, at byte {at + len(page)}"
        serial, number = int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
        if page[5] & OGG_FIRST and page[start:].startswith(VIDEO_IN_OGG):
            streams[serial] = _OggStream(number - 1)
        if (stream := streams.get(serial)) is None:
            continue
        if int.from_bytes(page[22:26], "little") != _ogg_checksum(page):
            return f"damaged: the checksum of the page at byte {at} does not hold"
        if number != (stream.number + 1) % (1 << 32):
            return f"damaged: page {stream.number + 1} is missing before byte {at}"
        stream.number, stream.ended = number, bool(page[5] & OGG_LAST)
    return None if all(stream.ended for stream in streams.values()) else "cut off: no page is marked as the last"


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each page with where it begins; what lies between pages is passed over."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(OGG_HEADER + 255)
        if not head.startswith(b"OggS"):
            step = head.find(b"OggS")
            if step < 0 and len(head) < OGG_HEADER + 255:
                return
            at += step if step > 0 else len(head) - 3
            continue
        size = OGG_HEADER + 255 if len(head) <= OGG_HEADER else OGG_HEADER + head[26]
        size += sum(head[OGG_HEADER:size])
        file.seek(at)
        page = file.read(size)
        yield at, page
        at += size


def _ogg_checksum(page: bytes) -> int:
    """The CRC of a page, its own field taken for zero."""
    return _checksum(page[:22] + bytes(4) + page[26:])


def _checksum(content: bytes) -> int:
    """The CRC of zlib's polynomial with all bits in the other order, from 0."""
    register = zlib.crc32(content.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(register.to_bytes(4, "little").translate(REVERSED), "big")


def ffv1_fault(packets: Iterable[bytes]) -> str | None:
    """Slices of FFV1 state their length and, if their writer chose so, a checksum that makes the whole's 0 (RFC 9043,
    4.9)."""
    checks = [_has_whole_slices(packet) for packet in packets]
    # A stream without checksums has none in any frame.
    if all(check is None for check in checks) or all(checks):
        return None
    return f"damaged: the checksums of {len(checks) - checks.count(True)} of {len(checks)} frames do not hold"


def _has_whole_slices(packet: bytes) -> bool | None:
    """Whether each slice's checksum holds; None if the slices have none."""
    end, whole = len(packet), True
    while end > FFV1_TRAILER:
        start = end - FFV1_TRAILER - int.from_bytes(packet[end - FFV1_TRAILER : end - FFV1_TRAILER + 3], "big")
        if start < 0:
            return None
        whole, end = whole and not _checksum(packet[start:end]), start
    return whole if not end else None


def _gif_fault(file: BinaryIO) -> str | None:
    pictures = gif_pictures(file)
    return f"cut off: the file ends after {-pictures} frames, before its end mark" if pictures <= 0 else None


def gif_pictures(file: BinaryIO) -> int:
    """How many pictures a GIF has before its end mark, with a minus if it has no such mark. What is behind the mark
    does not count."""
    file.seek(0)
    content = file.read()
    at, pictures = 13 + _palette(content[10:11]), 0
    while at < len(content) and (mark := content[at]) != GIF_END:
        if mark == GIF_PICTURE:
            pictures += 1
            at += 11 + _palette(content[at + 9 : at + 10])
        elif mark == GIF_EXTENSION:
            at += 2
        elif mark:
            return -pictures
        else:  # padding
            at += 1
            continue
        while at < len(content) and content[at]:
            at += 1 + content[at]
        at += 1
    return pictures if at < len(content) else -pictures


def _palette(flags: bytes) -> int:
    """Bytes of the palette that these flags state."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


def _mjpeg_fault(file: BinaryIO) -> str | None:
    file.seek(max(0, _length(file) - 2**20))
    tail = file.read()
    whole = tail.rfind(PICTURE_END) > tail.rfind(PICTURE_START)
    return None if whole else "cut off: the last picture has no end mark"


def _ts_fault(file: BinaryIO) -> str | None:
    """A transport stream is whole packets of one size, with 4 bytes before or 16 behind them in some recordings."""
    file.seek(0)
    head = file.read(3 * 204)
    for before, size in ((0, TS_PACKET), (4, 192), (0, 204)):
        if len(head) == 3 * 204 and all(head[before + number * size] == TS_SYNC for number in range(3)):
            whole, rest = divmod(_length(file), size)
            return f"cut off: the file ends within a packet, behind {whole} whole ones" if rest else None
    return None


CHECKS: Mapping[str, Callable[[BinaryIO], str | None]] = MappingProxyType(
    {"matroska,webm": _matroska_fault, "ogg": _ogg_fault, "gif": _gif_fault, "mjpeg": _mjpeg_fault, "mpegts": _ts_fault}
)
"""By FFmpeg's name of the format."""


def stated_seconds(file: BinaryIO) -> float:
    """The length of the whole that the header of a fragmented MP4 states (ISO/IEC 14496-12, 8.8.2), or 0."""
    header, extended = _box(file, b"moov", b"mvhd"), _box(file, b"moov", b"mvex", b"mehd")
    if not header or not extended:
        return 0.0
    scale_at = 20 if header[0] else 12
    scale = int.from_bytes(header[scale_at : scale_at + 4], "big")
    return int.from_bytes(extended[4 : 12 if extended[0] else 8], "big") / scale if scale else 0.0


def _box(file: BinaryIO, *path: bytes) -> bytes:
    """The first bytes of an MP4's box, by the types of the boxes that it is in (ISO/IEC 14496-12, 4.2); empty without
    one. A search for the type alone would find it in compressed pictures too."""
    start, end = 0, file.seek(0, io.SEEK_END)
    for kind in path:
        while start + 8 <= end:
            file.seek(start)
            head = file.read(16)
            size, content = int.from_bytes(head[:4], "big"), 8
            if size == 1:
                size, content = int.from_bytes(head[8:], "big"), 16
            size = size or end - start
            if size < content:
                return b""
            if head[4:8] == kind:
                start, end = start + content, min(end, start + size)
                break
            start += size
        else:
            return b""
    file.seek(start)
    return file.read(min(BOX_BYTES, end - start))


def end_of(packets: "Iterable[Packet[Stream]]") -> float:
    """When the last of all streams ends, in seconds."""
    known = [(packet.pts + (packet.duration or 0)) * packet.time_base for packet in packets if packet.pts is not None]
    return float(max(known, default=0))


def joined_parts(file: BinaryIO) -> list[range]:
    """The bytes of each of the transport streams that were joined into one: their clocks start anew."""
    starts, clock, table = [0], -1, 0
    file.seek(0)
    for at, packet in enumerate(iter(lambda: file.read(TS_PACKET), b"")):
        if len(packet) < TS_PACKET or packet[0] != TS_SYNC:
            break  # with other packet sizes, or damaged
        if not packet[1] & 0x1F and not packet[2]:
            table = at * TS_PACKET  # each stream begins with the table of its programs
        if not (packet[3] & 32 and packet[4] > 6 and packet[5] & 16):
            continue
        now = int.from_bytes(packet[6:11], "big") >> 7
        if clock >= 0 and (now - clock) % TS_CLOCK > TS_CLOCK // 2:
            starts.append(table)
        clock = now
    return [range(start, end) for start, end in zip(starts, [*starts[1:], _length(file)], strict=True)]


class Part:
    """Some of the bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, part: range) -> None:
        self._file, self._part, self._at = file, part, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        left = len(self._part) - self._at
        self._file.seek(self._part.start + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._part)}[whence]
        self._at = min(max(0, base + offset), len(self._part))
        return self._at

    def tell(self) -> int:
        """Where the next bytes are."""
        return self._at


class Shifted:
    """Packets with their times moved so that the first one is shown at `start`."""

    def __init__(self, packets: "Iterator[Packet[VideoStream]]", *, start: int) -> None:
        self._packets = packets
        self._start = self.end = start
        """When the last one's time is over, in ticks."""

    def __iter__(self) -> "Iterator[Packet[VideoStream]]":
        first: int | None = None
        for packet in self._packets:
            if packet.pts is not None:
                first = packet.pts if first is None else first
                packet.pts += self._start - first
                self.end = max(self.end, packet.pts + (packet.duration or 0))
            yield packet


def _length(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def jpeg_pictures(content: bytes) -> int:
    """How many pictures a file that begins as a JPEG shows in turn: 1 is a still image, also with a second picture
    that belongs to it (a preview, a depth map), 2 stands for a video."""
    if b"MPF\0" in content[: 2**16]:  # CIPA DC-007: the pictures behind the first one belong to it
        return 1
    at = 2
    while (mark := content[at : at + 2])[:1] == b"\xff" and mark != b"\xff\xda":
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    end = re.compile(rb"\xff\xd9").search(content, at)
    return 2 if end and content[end.end() :].lstrip(b"\0")[:3] == PICTURE_START else 1


def is_non_reference_hevc(packet: memoryview, *, length_bytes: int, layers: int) -> bool:
    """Whether no other picture is predicted from an HEVC picture, whose units have their lengths before them.

    All its slices are then of the even types up to 14, and of the highest of the stream's temporal layers (ITU-T H.265,
    7.4.2.2)."""
    at, slices = 0, 0
    while at + length_bytes + 1 < len(packet):
        kind, layer = packet[at + length_bytes] >> 1 & 63, packet[at + length_bytes + 1] & 7
        if kind <= LAST_HEVC_SLICE:
            slices += 1
            if kind % 2 or kind > LAST_NON_REFERENCE or layer != layers:
                return False
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return slices > 0
