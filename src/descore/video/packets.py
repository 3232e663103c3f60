"""Open a video file, read its packets without decoding, and check that it is whole.

In: an open binary file and the bounds within which it is read. Out: one row per packet, the time of each frame as the
packets state it, and decoded frames on demand. Every fault is a VideoError."""

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

KEPT_BYTES = 256 * 2**20
"""Packets up to this size in all are kept in memory; those of a larger file are read again to be decoded."""

GIF_END = b"\x3b"

PROGRESSIVE = 1
"""FFmpeg's number for a stream without fields."""

LENGTHS_FIRST = b"\x01"
"""How an H.264 header begins if each unit has its length before it (ISO/IEC 14496-15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketRow:
    """What the container states about one packet."""

    pts: int | None
    """When its frame is shown, in ticks; None if the container does not state it."""
    duration: int
    """How long it is shown, in ticks; 0 if the container does not state it."""
    key: bool
    """Whether decoding can start here."""
    hidden: bool
    """Whether its frame is decoded for other frames and not shown, since an edit list cuts it off."""
    non_reference: bool
    """Whether no other frame is predicted from its frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTable:
    """All packets of a video stream, in decoding order."""

    rows: Sequence[PacketRow]
    first: int
    """Presentation time of the first frame shown, in ticks: time 0 of the clip."""
    timeline: Timeline | None
    """None if the packets do not state every frame's time."""

    @classmethod
    def of(cls, rows: Sequence[PacketRow], *, tick: Fraction) -> "PacketTable":
        """Order the frames by the times of their packets, beginning with the first frame that can be decoded."""
        start = next((index for index, row in enumerate(rows) if row.key), 0)
        shown = [row for row in rows[start:] if not row.hidden]
        times = [row.pts for row in shown if row.pts is not None]
        if not times or len(times) < len(shown) or len(set(times)) < len(times):
            return cls(rows=rows, first=min(times, default=0), timeline=None)
        key = rows[start]
        # A frame shown before the first key frame but stored after it depends on one that is not in the file.
        first = min(times) if key.hidden or key.pts is None else key.pts
        ticks = sorted(pts - first for pts in times if pts >= first)
        last = next(row for row in shown if row.pts == first + ticks[-1])
        return cls(rows=rows, first=first, timeline=Timeline.of(ticks, tick=tick, last=last.duration))


class DamagedError(VideoError):
    """A frame that is needed cannot be decoded, or only with errors that the decoder conceals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """How one video is read: its name in messages, its bounds, and the mode of decoding."""

    source: str
    sampling: VideoSampling
    deadline: float
    """When reading must be done, on the monotonic clock."""
    careful: bool = False
    """Decode in one thread and check each frame's flags. Otherwise frames are decoded in parallel, where FFmpeg may
    flag a patched-up frame too late, so the decoder is set to fail at any error instead."""

    def error(self, reason: str) -> VideoError:
        """An error that names this video."""
        return VideoError(self.source, reason)

    def damaged(self, reason: str) -> DamagedError:
        """An error that careful decoding may avoid."""
        return DamagedError(self.source, f"damaged: {reason}")

    def check_time(self) -> None:
        """Raise once the deadline has passed."""
        if time.monotonic() > self.deadline:
            raise self.error(f"not read within {self.sampling.timeout:g} s; raise `timeout` or shorten the video")


@contextmanager
def open_video(file: BinaryIO, *, job: DecodeJob) -> Iterator["VideoFile"]:
    """Open a video file, read it through and check it."""
    try:
        with _open(file, job=job) as container:
            yield VideoFile(file, container, job=job)
    except (av.FFmpegError, OSError) as error:
        raise job.error(f"not a video, or cut off or damaged ({ffmpeg_error_text(error)})") from error


def ffmpeg_error_text(error: Exception) -> str:
    """The text of an error of FFmpeg or the system, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


@contextmanager
def _open(file: BinaryIO, *, job: DecodeJob) -> Iterator[InputContainer]:
    file.seek(0)
    # A playlist could name any file or address, so no protocol is allowed and only the open file itself is read.
    options = {"protocol_whitelist": "none"}
    with av.open(
        _Nameless(file), "r", timeout=job.sampling.timeout, metadata_errors="replace", container_options=options
    ) as container:
        yield container


class _Nameless:
    """A file without its name, so that FFmpeg detects the format by its content only."""

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
        # Frame threads: most files have one slice per frame, so slice threads would idle.
        self.decoder.thread_type = "NONE" if job.careful else "AUTO"  # type: ignore[assignment]  # takes names too
        strict = {} if job.careful else {"err_detect": "explode"}
        self.decoder.options = {"max_pixels": str(job.sampling.max_source_pixels), **strict}
        self._kept: list[VideoPacket] | None = []
        self._kept_bytes = 0
        self.rows = self._read_rows()
        """One row per packet, in decoding order."""
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
            raise self.job.error(f"a still image or text ({kind}), not a video")
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            found = " and ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            raise self.job.error(f"no video stream; the file ({kind}) holds {found}")
        stream = streams[0]
        if stream.codec_context is None:
            raise self.job.error("its video codec is not one that this FFmpeg can decode")
        width, height, most = stream.width, stream.height, self.job.sampling.max_source_pixels
        if width < 1 or height < 1:
            raise self.job.error("the file states no picture size, or an impossible one")
        if width * height > most:
            raise self.job.error(f"pictures of {width}x{height} pixels, more than max_source_pixels ({most})")
        return stream

    def _read(self, container: InputContainer) -> "Iterator[VideoPacket]":
        for packet in container.demux(container.streams.video):
            self.job.check_time()
            # An empty packet is PyAV's end mark, or in AVI a dropped frame.
            if packet.size and packet.stream_index == self.stream.index:
                yield packet

    def _packets(self) -> "Iterator[VideoPacket]":
        """All packets, from memory or read again."""
        if self._kept is not None:
            yield from self._kept
            return
        with _open(self._file, job=self.job) as container:
            yield from self._read(container)

    def _read_rows(self) -> list[PacketRow]:
        rows: list[PacketRow] = []
        is_non_reference = self._non_reference_test()
        # AVI states the decoding order only, which with B-frames is not the order in which frames are shown.
        has_times = self._container.format.name != "avi" or not self.decoder.has_b_frames
        try:
            for packet in self._read(self._container):
                if packet.is_corrupt:
                    raise self.job.error(f"cut off or damaged: only {len(rows)} frames are whole")
                rows.append(
                    PacketRow(
                        pts=packet.pts if has_times else None,
                        duration=packet.duration or 0,
                        key=packet.is_keyframe,
                        hidden=packet.is_discard,
                        non_reference=is_non_reference(packet),
                    )
                )
                self._keep(packet)
        except av.FFmpegError as error:
            raise self.job.error(
                f"cut off or damaged: only {len(rows)} frames can be read ({ffmpeg_error_text(error)})"
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
        """Raise if the file is not whole, or too much to decode."""
        if not self.rows:
            raise self.job.error("no frames in its video stream; is it cut off?")
        width, height, frames = self.stream.width, self.stream.height, len(self.rows)
        if width * height * frames > (most := self.job.sampling.max_decode):
            raise self.job.error(f"{frames} frames of {width}x{height} pixels, more than max_decode ({most}) in all")
        kind = self._container.format.name
        if missing_bytes(self._file, kind=kind) or (kind.startswith("mov,") and self._is_short()):
            raise self.job.error(f"cut off: the file ends after {frames} frames, before the end that it states")

    def _is_short(self) -> bool:
        """Whether the index of an MP4 file states a duration of more than two frames beyond the packets."""
        known = [(row.pts, row.pts + row.duration) for row in self.rows if row.pts is not None]
        if not known or not self.stream.duration:
            return False
        span = max(end for _, end in known) - min(start for start, _ in known)
        return self.stream.duration > span * (1 + 2 / len(known))

    def _non_reference_test(self) -> "Callable[[VideoPacket], bool]":
        """The function that tells whether no frame is predicted from a packet's: for H.264 only, whose standard has a
        flag for it."""
        head = self.decoder.extradata or b""
        # A second field can have a packet of its own, which may be non-reference although its frame is wanted.
        if self.decoder.name != "h264" or head[:1] != LENGTHS_FIRST or self.decoder.field_order != PROGRESSIVE:
            return lambda _: False
        length_bytes = (head[4] & 3) + 1
        return lambda packet: is_non_reference_h264(memoryview(packet), length_bytes=length_bytes)


def is_non_reference_h264(packet: memoryview, *, length_bytes: int) -> bool:
    """Whether no other picture is predicted from an H.264 picture, whose units have their lengths before them.

    nal_ref_idc is then 0 in all its slices (ITU-T H.264, 7.4.1)."""
    at, slices = 0, 0
    while at + length_bytes < len(packet):
        header = packet[at + length_bytes]
        if 1 <= header & 31 <= 5:
            slices += 1
            if header & 96:
                return False
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return slices > 0


def missing_bytes(file: BinaryIO, *, kind: str) -> int:
    """How many bytes a file lacks at least, by the length that it states. `kind` is FFmpeg's name of the format."""
    length = file.seek(0, io.SEEK_END)
    if kind == "matroska,webm":
        return max(0, _matroska_end(file) - length)
    if kind == "gif":
        file.seek(max(0, length - 4096))
        # Some writers leave zeros as padding after the end mark.
        return 0 if file.read().rstrip(b"\0").endswith(GIF_END) else 1
    return 0


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment with all content ends (RFC 8794: an id, a length, content); 0 if its length is not stated."""
    file.seek(0)
    head = file.read(4096)
    at = 0
    while at < len(head) - 12:
        body = at + _width(head[at])
        width = _width(head[body])
        length = int.from_bytes(head[body : body + width], "big") & ((1 << 7 * width) - 1)
        is_segment = head[at : at + 4] == b"\x18\x53\x80\x67"
        if is_segment and length == (1 << 7 * width) - 1:  # all ones: written live, when the length was not known
            return 0
        at = body + width + length
        if is_segment:
            return at
    return 0


def _width(first: int) -> int:
    """Bytes of the number that begins with this byte: one more than the byte's leading zero bits."""
    return min(8, 9 - first.bit_length())
