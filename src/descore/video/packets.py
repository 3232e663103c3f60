"""A video file opened, read through without decoding, and checked; and its frames decoded on demand.

In: an open binary file and its bounds. Out: one row per packet, and frames. Every fault is a VideoError.
Knows PyAV; knows nothing of which frames are taken, or what becomes of them."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import av
from av import VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition

from descore.errors import VideoError
from descore.video.sampling import Timeline, VideoSampling

if TYPE_CHECKING:
    from av import Packet

    VideoPacket = Packet[VideoStream]


TRUSTED_KEYS = frozenset(
    {"h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"}
)
"""Decoders (FFmpeg's names) that need nothing from before a packet flagged as key. GIF, for one, is not among them:
its frames are drawn over what was there before."""

SKIP_WORTHWHILE = 8
"""Packets: a shorter gap is decoded through, since restarting the decoder empties its threads' work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One packet."""

    pts: int | None
    """When its frame is shown, in ticks; None if the container does not say."""
    duration: int
    """How long, in ticks; 0 if the container does not say."""
    key: bool
    """Decoding can start here."""
    hidden: bool
    """Decoded for others' sake, not shown (cut off by an edit list)."""
    non_reference: bool
    """No other frame is predicted from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All packets of a video stream, in decoding order."""

    rows: Sequence[Row]
    first: int
    """Presentation time of the first frame shown, in ticks: time 0 of the clip."""
    timeline: Timeline | None
    """None if the rows do not tell every frame's time."""


def table_of(rows: Sequence[Row], *, tick: Fraction) -> Table:
    """Order the frames by the times that the packets state, beginning with the first one that can be decoded."""
    start = next((index for index, row in enumerate(rows) if row.key), 0)
    shown = [row for row in rows[start:] if not row.hidden]
    times = [row.pts for row in shown if row.pts is not None]
    if not times or len(times) < len(shown) or len(set(times)) < len(times):
        return Table(rows=rows, first=min(times, default=0), timeline=None)
    key = rows[start]
    # Frames shown before the first key frame, though stored behind it, lean on one that is not in the file.
    first = min(times) if key.hidden or key.pts is None else key.pts
    ticks = sorted(pts - first for pts in times if pts >= first)
    last = next(row for row in shown if row.pts == first + ticks[-1])
    return Table(rows=rows, first=first, timeline=timeline_of(ticks, tick=tick, last=last.duration))


def timeline_of(ticks: Sequence[int], *, tick: Fraction, last: int) -> Timeline:
    """A timeline whose last frame lasts `last` ticks, or as long as the others on average where that is 0."""
    mean = round(ticks[-1] / (len(ticks) - 1)) if len(ticks) > 1 else 1
    return Timeline(ticks=ticks, tick=tick, length=ticks[-1] + max(last or mean, 1))


def needed_packets(table: Table, wanted: set[int], *, decoder: str) -> list[list[int]]:
    """Runs of packets, by number, whose decoding gives the frames shown at the wanted times.

    Each run begins at a key packet, and the decoder starts afresh before it. Spare packets are left out unless they
    are wanted themselves."""
    rows, runs = table.rows, list[range]()
    entry = 0
    for index, row in enumerate(rows):
        if row.pts not in wanted:
            continue
        entry = _entry(rows, index, at_least=entry) if decoder in TRUSTED_KEYS else 0
        if runs and entry < runs[-1].stop + SKIP_WORTHWHILE:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(entry, index + 1))
    return [[index for index in run if not rows[index].non_reference or rows[index].pts in wanted] for run in runs]


def _entry(rows: Sequence[Row], index: int, *, at_least: int) -> int:
    """The last key packet from which the frame of packet `index` can be decoded."""
    pts = rows[index].pts
    assert pts is not None
    for entry in range(index, at_least, -1):
        key = rows[entry]
        # A frame shown before the key frame, though stored behind it, may lean on what is stored before.
        if key.key and key.pts is not None and key.pts <= pts:
            return entry
    return at_least


def is_non_reference_h264(packet: memoryview, *, length_bytes: int) -> bool:
    """Whether an H.264 picture, stored with its units' lengths before them, is no other's reference.

    The standard says so in each slice: nal_ref_idc is 0 for all slices of a picture that none is predicted from
    (ITU-T H.264, 7.4.1)."""
    at, slices = 0, 0
    while at + length_bytes < len(packet):
        header = packet[at + length_bytes]
        if 1 <= header & 31 <= 5:
            slices += 1
            if header & 96:
                return False
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return slices > 0


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


KEPT_BYTES = 256 * 2**20
"""Packets up to this size in all are kept from the first reading; those of a larger file are read again."""

PROGRESSIVE = 1
"""FFmpeg's number for a stream without fields."""

LENGTHS_FIRST = b"\x01"
"""How an H.264 header begins if each unit has its length before it (ISO/IEC 14496-15)."""


class DamagedError(VideoError):
    """A frame that is needed cannot be decoded, or not without patching it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """One video being read: its name in messages, its bounds, and the way of decoding it."""

    source: str
    sampling: VideoSampling
    deadline: float
    """On the monotonic clock."""
    careful: bool = False
    """Decode in one thread and look at each frame's flags. Otherwise frames are decoded side by side, when FFmpeg's
    flags on patched-up frames may come too late, and the decoder is told to fail at anything odd instead."""

    def fault(self, reason: str) -> VideoError:
        """An error that names this video."""
        return VideoError(self.source, reason)

    def damaged(self, reason: str) -> DamagedError:
        """An error that careful decoding may not have."""
        return DamagedError(self.source, f"damaged: {reason}")

    def check_time(self) -> None:
        """Give up once the time is spent."""
        if time.monotonic() > self.deadline:
            raise self.fault(f"not read within {self.sampling.timeout:g} s; raise `timeout` or shorten the video")


@contextmanager
def open_film(file: BinaryIO, *, job: DecodeJob) -> Iterator["VideoFile"]:
    """Open a video file, read it through and check it."""
    try:
        with _open(file, job=job) as container:
            yield VideoFile(file, container, job=job)
    except (av.FFmpegError, OSError) as error:
        raise job.fault(f"not a video, or cut off or damaged ({words_of(error)})") from error


def words_of(error: Exception) -> str:
    """What an error of FFmpeg or the system says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


@contextmanager
def _open(file: BinaryIO, *, job: DecodeJob) -> Iterator[InputContainer]:
    file.seek(0)
    # A playlist could name any file or address, so no protocol is allowed: only the open file itself is read.
    options = {"protocol_whitelist": "none"}
    with av.open(
        _Nameless(file), "r", timeout=job.sampling.timeout, metadata_errors="replace", container_options=options
    ) as container:
        yield container


class _Nameless:
    """A file without its name: what it holds decides what it is, not what it is called."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class VideoFile:
    """The video stream of an open container."""

    def __init__(self, file: BinaryIO, container: InputContainer, *, job: DecodeJob) -> None:
        self.job = job
        self._file, self._container = file, container
        self.stream = self._find_stream()
        assert self.stream.time_base is not None
        self.tick: Fraction = self.stream.time_base
        """Seconds of one tick of the packets' and frames' times."""
        self.decoder = self.stream.codec_context
        # Whole frames side by side: most files have one slice a frame, so threads within a frame would idle.
        self.decoder.thread_type = "NONE" if job.careful else "AUTO"  # type: ignore[assignment]  # takes names too
        strict = {} if job.careful else {"err_detect": "explode"}
        self.decoder.options = {"max_pixels": str(job.sampling.max_source_pixels), **strict}
        self._kept: list[VideoPacket] | None = []
        self._kept_bytes = 0
        self.rows = self._read_rows()
        """One for each packet, in decoding order."""
        self._check_rows()

    def decode(self, runs: Sequence[Sequence[int]]) -> Iterator[VideoFrame]:
        """Decode runs of packets, given by number; the frames come in the order in which they are shown."""
        needed = {index for run in runs for index in run}
        ends = {run[-1] for run in runs}
        self.decoder.flush_buffers()
        for index, packet in enumerate(self._packets()):
            if index not in needed:
                continue
            self.job.check_time()
            yield from self.decoder.decode(packet)
            if index in ends:
                yield from self.decoder.decode(None)
                self.decoder.flush_buffers()

    def _find_stream(self) -> VideoStream:
        kind = self._container.format.name
        if kind.endswith("_pipe") or kind in ("image2", "tty"):
            raise self.job.fault(f"a still image or text ({kind}), not a video")
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            found = " and ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            raise self.job.fault(f"no video stream; the file ({kind}) holds {found}")
        stream = streams[0]
        if stream.codec_context is None:
            raise self.job.fault("its video codec is not one that this FFmpeg can decode")
        width, height, most = stream.width, stream.height, self.job.sampling.max_source_pixels
        if width < 1 or height < 1:
            raise self.job.fault("the file states no picture size, or an impossible one")
        if width * height > most:
            raise self.job.fault(f"pictures of {width}x{height} pixels, more than max_source_pixels ({most})")
        return stream

    def _read(self, container: InputContainer) -> "Iterator[VideoPacket]":
        for packet in container.demux(container.streams.video):
            self.job.check_time()
            # An empty packet is PyAV's end mark, or in AVI a frame that is not there.
            if packet.size and packet.stream_index == self.stream.index:
                yield packet

    def _packets(self) -> "Iterator[VideoPacket]":
        """All packets once more."""
        if self._kept is not None:
            yield from self._kept
            return
        with _open(self._file, job=self.job) as container:
            yield from self._read(container)

    def _read_rows(self) -> list[Row]:
        rows: list[Row] = []
        is_spare = self._spare_test()
        # AVI states the order of decoding only. With B-frames that is not the order of showing.
        has_times = self._container.format.name != "avi" or not self.decoder.has_b_frames
        try:
            for packet in self._read(self._container):
                if packet.is_corrupt:
                    raise self.job.fault(f"cut off or damaged: only {len(rows)} frames are whole")
                rows.append(_row(packet, non_reference=is_spare(packet), pts=packet.pts if has_times else None))
                self._keep(packet)
        except av.FFmpegError as error:
            raise self.job.fault(
                f"cut off or damaged: only {len(rows)} frames can be read ({words_of(error)})"
            ) from error
        return rows

    def _keep(self, packet: "VideoPacket") -> None:
        if self._kept is None:
            return
        self._kept_bytes += packet.size
        if self._kept_bytes > KEPT_BYTES:
            self._kept = None
        else:
            self._kept.append(packet)

    def _check_rows(self) -> None:
        """The file is whole, and not too much to decode."""
        if not self.rows:
            raise self.job.fault("no frames in its video stream; is it cut off?")
        width, height, frames = self.stream.width, self.stream.height, len(self.rows)
        if width * height * frames > (most := self.job.sampling.max_decode):
            raise self.job.fault(f"{frames} frames of {width}x{height} pixels, more than max_decode ({most}) in all")
        kind = self._container.format.name
        if missing_bytes(self._file, kind=kind) or (kind.startswith("mov,") and self._is_short()):
            raise self.job.fault(f"cut off: the file ends after {frames} frames, before the end that it states")

    def _is_short(self) -> bool:
        """Whether the index of an MP4 file promises more than two frames beyond what is there."""
        known = [(row.pts, row.pts + row.duration) for row in self.rows if row.pts is not None]
        if not known or not self.stream.duration:
            return False
        span = max(end for _, end in known) - min(start for start, _ in known)
        return self.stream.duration > span * (1 + 2 / len(known))

    def _spare_test(self) -> "Callable[[VideoPacket], bool]":
        """What tells that a packet's frame is no other's reference: only for H.264, where the standard says so."""
        head = self.decoder.extradata or b""
        # A second field could have a packet of its own, and be spare although its frame is wanted.
        if self.decoder.name != "h264" or head[:1] != LENGTHS_FIRST or self.decoder.field_order != PROGRESSIVE:
            return lambda _: False
        length_bytes = (head[4] & 3) + 1
        return lambda packet: is_non_reference_h264(memoryview(packet), length_bytes=length_bytes)


def _row(packet: "VideoPacket", *, non_reference: bool, pts: int | None) -> Row:
    return Row(
        pts=pts,
        duration=packet.duration or 0,
        key=packet.is_keyframe,
        hidden=packet.is_discard,
        non_reference=non_reference,
    )
