"""Decode the chosen frames of a video file, and nothing else.

In: an open binary file and how to sample it. Out: a Clip, or a VideoError that says in one line what is wrong.
Knows PyAV; knows nothing of paths, frames from memory or models.

The file is read once without decoding, which gives the exact time of every frame cheaply. From these the frames are
chosen, and only the packets that they need are decoded. Where the packets do not tell the frames' times, or a promised
frame does not appear, every frame is decoded twice instead: for its time, then for its picture. No frame ever stands
in for another."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av import Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from descore.data.packets import Row, Table, is_spare_h264, needed_packets, table_of, timeline_of
from descore.data.pictures import Painter, shown_size, turn_of
from descore.data.sampling import MAX_ASPECT, Timeline, VideoSampling, choose_frames, fit_size
from descore.errors import VideoError
from descore.types import Clip

KEPT_BYTES = 256 * 2**20
"""Packets up to this size in all are kept from the first reading; those of a larger file are read again."""

PROGRESSIVE = 1
"""FFmpeg's number for a stream without fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One video being read: its name in messages, and its bounds."""

    source: str
    sampling: VideoSampling
    deadline: float

    def fault(self, reason: str) -> VideoError:
        return VideoError(self.source, reason)

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise self.fault(f"not read within {self.sampling.timeout:g} s; raise `timeout` or shorten the video")


def decode_clip(file: BinaryIO, *, source: str, sampling: VideoSampling) -> Clip:
    """Sample a video file into a clip. `source` names it in messages."""
    job = _Job(source=source, sampling=sampling, deadline=time.monotonic() + sampling.timeout)
    try:
        with _open(file, job) as container:
            return _Film(file, container, job).clip()
    except (av.FFmpegError, OSError) as error:
        raise job.fault(f"not a video that can be decoded ({_words(error)})") from error


@contextmanager
def _open(file: BinaryIO, job: _Job) -> Iterator[InputContainer]:
    file.seek(0)
    # A playlist could name any file or address, so no protocol is allowed: only the open file itself is read.
    options = {"protocol_whitelist": "none"}
    with av.open(file, "r", timeout=job.sampling.timeout, metadata_errors="replace", options=options) as container:
        yield container


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


class _Film:
    """The video stream of an open container."""

    def __init__(self, file: BinaryIO, container: InputContainer, job: _Job) -> None:
        self.file, self.container, self.job = file, container, job
        self.stream = self._find_stream()
        self.decoder = self.stream.codec_context
        # Whole frames side by side: most files have one slice a frame, so threads within a frame would idle.
        self.decoder.thread_type = "AUTO"  # type: ignore[assignment]  # PyAV takes the name too
        self.decoder.options = {"max_pixels": str(job.sampling.max_source_pixels)}
        self.kept: list[Packet[VideoStream]] | None = []
        self.table = self._read_table()

    def clip(self) -> Clip:
        """The sampled clip, from the packets' times if they hold, otherwise from the frames' own."""
        return self._by_time() or self._by_order()

    def _by_time(self) -> Clip | None:
        """Take the frames that the packets promise; None if they promise nothing, or a frame does not appear."""
        timeline = self.table.timeline
        if timeline is None:
            return None
        chosen = choose_frames(timeline, sampling=self.job.sampling)
        wanted = [self.table.first + timeline.ticks[index] for index in chosen]
        runs = needed_packets(self.table, set(wanted), decoder=self.decoder.name)
        pictures = self._take(wanted, ((frame.pts, frame) for frame in self._decode(runs)))
        return self._clip(pictures, chosen, timeline) if len(pictures) == len(wanted) else None

    def _by_order(self) -> Clip:
        """Decode every frame for its time, choose, and decode again for the pictures."""
        every = [list(range(len(self.table.rows)))]
        starts = [frame.pts for frame in self._decode(every)]
        if not starts:
            raise self.job.fault(f"none of its {len(self.table.rows)} frames can be decoded")
        timeline = self._timeline_of_frames(starts)
        chosen = choose_frames(timeline, sampling=self.job.sampling)
        pictures = self._take(chosen, enumerate(self._decode(every)))
        return self._clip(pictures, chosen, timeline)

    def _find_stream(self) -> VideoStream:
        kind = self.container.format.name
        if kind.endswith("_pipe") or kind in ("image2", "tty"):
            raise self.job.fault(f"not a video but a still image or text ({kind}); expected mp4, mov, mkv, webm, gif …")
        streams = [s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            found = ", ".join(sorted({s.type for s in self.container.streams})) or "no stream at all"
            raise self.job.fault(f"no video stream: the file ({kind}) has {found}")
        stream = streams[0]
        if stream.codec_context is None:
            raise self.job.fault("its video codec is unknown to FFmpeg")
        self._check_picture(stream.width, stream.height)
        return stream

    def _check_picture(self, width: int, height: int) -> None:
        if not width or not height:
            raise self.job.fault("the header states no picture size")
        if width * height > (most := self.job.sampling.max_source_pixels):
            raise self.job.fault(f"pictures of {width}x{height} pixels; at most {most:,} pixels are decoded")

    def _read_table(self) -> Table:
        """Read all packets without decoding, and check that they are worth decoding."""
        rows: list[Row] = []
        size = 0
        is_spare = self._spare_test()
        for packet in self._read(self.container, self.stream):
            hidden = packet.is_discard
            rows.append(
                Row(
                    pts=packet.pts,
                    duration=packet.duration or 0,
                    key=packet.is_keyframe,
                    hidden=hidden,
                    spare=is_spare(packet),
                )
            )
