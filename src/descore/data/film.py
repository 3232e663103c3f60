"""A video file opened, read through without decoding, and checked; and its frames decoded on demand.

In: an open binary file and its bounds. Out: one row per packet, and frames. Every fault is a VideoError.
Knows PyAV; knows nothing of which frames are taken, or what becomes of them."""

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

from descore.data.endings import missing_bytes
from descore.data.packets import Row, is_spare_h264
from descore.data.sampling import VideoSampling
from descore.errors import VideoError

if TYPE_CHECKING:
    from av import Packet

    VideoPacket = Packet[VideoStream]

KEPT_BYTES = 256 * 2**20
"""Packets up to this size in all are kept from the first reading; those of a larger file are read again."""

PROGRESSIVE = 1
"""FFmpeg's number for a stream without fields."""

LENGTHS_FIRST = b"\x01"
"""How an H.264 header begins if each unit has its length before it (ISO/IEC 14496-15)."""


class DamagedError(VideoError):
    """A frame that is needed cannot be decoded, or not without patching it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
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
def open_film(file: BinaryIO, *, job: Job) -> Iterator["Film"]:
    """Open a video file, read it through and check it."""
    try:
        with _open(file, job=job) as container:
            yield Film(file, container, job=job)
    except (av.FFmpegError, OSError) as error:
        raise job.fault(f"not a video, or cut off or damaged ({words_of(error)})") from error


def words_of(error: Exception) -> str:
    """What an error of FFmpeg or the system says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


@contextmanager
def _open(file: BinaryIO, *, job: Job) -> Iterator[InputContainer]:
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


class Film:
    """The video stream of an open container."""

    def __init__(self, file: BinaryIO, container: InputContainer, *, job: Job) -> None:
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
                rows.append(_row(packet, spare=is_spare(packet), pts=packet.pts if has_times else None))
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
        return lambda packet: is_spare_h264(memoryview(packet), length_bytes=length_bytes)


def _row(packet: "VideoPacket", *, spare: bool, pts: int | None) -> Row:
    return Row(
        pts=pts,
        duration=packet.duration or 0,
        key=packet.is_keyframe,
        hidden=packet.is_discard,
        spare=spare,
    )
