"""Open a video file, read its packets without decoding, and check that it is whole.

In: an open binary file and the bounds within which it is read. Out: one row per packet, the time of each frame as the
packets state it, and decoded frames on demand. Every fault is a VideoError."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import av
from av import VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext

from descore.errors import VideoError
from descore.video.sampling import DecodeJob, Timeline

if TYPE_CHECKING:
    from av import Packet

    from descore.video.containers import Part

    VideoPacket = Packet[VideoStream]
    ByteSource = BinaryIO | Part

KEPT_BYTES = 256 * 2**20
"""Packets up to this size in all are kept in memory; those of a larger file are read again to be decoded."""

THUMBNAILS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

STILL_CODECS = frozenset({"png", "mjpeg", "bmp", "webp", "gif", "tiff"})
"""Decoders of streams that are likely a thumbnail if there is a stream of another kind beside them."""

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""The decoders that read a WebM's transparency, where FFmpeg's own pass over it."""

CHECKED = frozenset({"matroska,webm", "ogg", "gif", "mjpeg", "mpegts"})
"""Containers that state whether they are whole in a way that FFmpeg does not check."""

STRICT = frozenset({"mjpeg"})
"""Decoders whose errors always mean damage: no frame depends on others, and they patch one up without a flag."""

_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Metadata that are no UTF-8 are no fault of a video. PyAV 19 keeps to that by itself, and has no such setting."""

NO_VIDEO = frozenset({"image2", "tty", "ico", "alias_pix", "brender_pix", "fits", "bin", "xbin", "adf", "idf"})
"""Formats of still images and text. None is opened: FFmpeg decodes a picture of any size to learn its format."""

PROGRESSIVE, UNSTATED = 1, 0
"""FFmpeg's numbers for a stream without fields, and for one that may have some."""

LENGTHS_FIRST, HEADS = b"\x01", {"h264": 4, "hevc": 21}
"""How a header begins if units have their lengths before them, and where it states a length's bytes (ISO 14496-15)."""


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
def _open(file: "ByteSource", *, job: DecodeJob) -> Iterator[InputContainer]:
    file.seek(0)
    # A playlist could name any file or address, so no protocol is allowed and only the open file itself is read.
    options = {"protocol_whitelist": "none", "format_whitelist": _video_formats()}
    try:
        container = av.open(
            _Nameless(file),
            "r",
            format=job.container,
            timeout=job.sampling.timeout,
            **_METADATA,
            container_options=options,
            options={"max_pixels": str(job.sampling.max_source_pixels)},  # of the decoder that looks at the streams
        )
    except av.ArgumentError as error:
        raise job.error("a still image or text, not a video") from error
    with container:
        yield container


@cache
def _video_formats() -> str:
    return ",".join(name for name in av.formats_available if name not in NO_VIDEO and not name.endswith("_pipe"))


class _Nameless:
    """A file without its name, so that FFmpeg detects the format by its content only."""

    def __init__(self, file: "ByteSource") -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class _CorruptPacketError(VideoError):
    """A packet that is not whole."""


def find_streams(container: InputContainer, *, job: DecodeJob) -> list[VideoStream]:
    """The streams that may be the video, the best one first: never a cover picture, a thumbnail or a still image."""
    kind = container.format.name
    shown = [stream for stream in container.streams.video if not stream.disposition & THUMBNAILS]
    if not shown:
        held = sorted({stream.type for stream in container.streams if stream.type != "video"})
        covers = ["a cover picture"] if container.streams.video else []
        raise job.error(f"no video stream; the file ({kind}) holds {' and '.join(held + covers) or 'nothing'}")
    if kind.startswith("mov,"):
        # The still image of an AVIF or HEIC file is a stream of one frame and no duration, beside those that move.
        shown = [stream for stream in shown if stream.frames != 1 or stream.duration is not None]
        if not shown:
            raise job.error(f"a still image ({container.metadata.get('major_brand', kind)}), not a video")
    known = sorted((stream for stream in shown if stream.codec_context is not None), key=_last_choice)
    if not known:
        raise job.error("its video codec is not one that this FFmpeg can decode")
    width, height, most = known[0].width, known[0].height, job.sampling.max_source_pixels
    if width < 1 or height < 1:
        raise job.beyond(f"the file states no picture size, or one beyond max_source_pixels ({most})")
    if width * height > most:
        raise job.beyond(f"pictures of {width}x{height} pixels, more than max_source_pixels ({most})")
    return known


def _last_choice(stream: VideoStream) -> tuple[bool, bool, bool]:
    """Order of choice: thumbnails that are not marked as such come last, then what is not the default stream, then
    masks, which have no colours."""
    decoder = stream.codec_context
    return decoder.name in STILL_CODECS, not stream.disposition & Disposition.default, decoder.pix_fmt == "gray"


class VideoFile:
    """The video stream of an open container."""

    def __init__(self, file: BinaryIO, container: InputContainer, *, job: DecodeJob) -> None:
        self.job = job
        self._file, self._container = file, container
        self.streams = find_streams(container, job=job)
        """The streams that may be the video, the best one first."""
        self.stream = self.streams[0]
        assert self.stream.time_base is not None
        self.tick: Fraction = self.stream.time_base
        """Seconds of one tick of the packets' and frames' times."""
        self.decoder = self._open_decoder()
        self._parts: list[range] = []
        self._kept: list[VideoPacket] | None = []
        self._kept_bytes = 0
        self._limit = self._check_container()
        self.rows = self._read_rows()
        """One row per packet, in decoding order."""
        self._check_rows()
        self._check_content()

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

    def _open_decoder(self) -> VideoCodecContext:
        decoder = self.stream.codec_context
        if self.stream.metadata.get("alpha_mode") == "1" and decoder.name in ALPHA_DECODERS:
            name = ALPHA_DECODERS[decoder.name]
            if name not in av.codecs_available:
                raise self.job.error(f"transparency that cannot be read: this FFmpeg lacks {name}; convert it first")
            decoder = cast(VideoCodecContext, VideoCodecContext.create(name, "r"))
        # Frame threads: most files have one slice per frame, so slice threads would idle.
        decoder.thread_type = "NONE" if self.job.careful else "AUTO"  # type: ignore[assignment]  # takes names too
        strict = {} if self.job.careful and decoder.name not in STRICT else {"err_detect": "crccheck+explode"}
        decoder.options = {"max_pixels": str(self.job.sampling.max_source_pixels), **strict}
        return decoder

    def _check_container(self) -> int | None:
        """Raise if the container states that it is not whole; how many packets count, if it has others behind them."""
        kind = self._container.format.name
        if kind not in CHECKED:
            return None
        from descore.video import containers

        at = self._file.tell()
        if fault := containers.fault_of(self._file, kind=kind):
            raise self.job.error(fault)
        limit = containers.gif_pictures(self._file) if kind == "gif" else None
        self._file.seek(at)
        return limit

    def _read(self, container: InputContainer, stream: VideoStream) -> "Iterator[VideoPacket]":
        for packet in container.demux(container.streams.video):
            self.job.check_time()
            # An empty packet is PyAV's end mark, or in AVI a dropped frame.
            if packet.size and packet.stream_index == stream.index:
                yield packet

    def _packets(self) -> "Iterator[VideoPacket]":
        """All packets, from memory or read again."""
        if self._kept is not None:
            yield from self._kept
        elif self._parts:
            yield from self._read_parts()
        else:
            with _open(self._file, job=self.job) as container:
                yield from islice(self._read(container, self.stream), self._limit)

    def _read_parts(self) -> "Iterator[VideoPacket]":
        """The packets of transport streams that were joined."""
        from descore.video import containers

        end = 0
        for part in self._parts:
            with _open(containers.Part(self._file, part), job=self.job) as container:
                packets = containers.Shifted(self._read(container, find_streams(container, job=self.job)[0]), start=end)
                yield from packets
                end = packets.end

    def _read_rows(self) -> list[PacketRow]:
        try:
            return self._rows_of(islice(self._read(self._container, self.stream), self._limit))
        except _CorruptPacketError:
            if self._container.format.name != "mpegts" or not self._is_joined():
                raise
        self._kept, self._kept_bytes = [], 0
        return self._rows_of(self._read_parts())

    def _is_joined(self) -> bool:
        """Whether the file is several transport streams, one behind another; it is then read in parts."""
        from descore.video import containers

        self._parts = containers.joined_parts(self._file)
        return len(self._parts) > 1

    def _rows_of(self, packets: "Iterable[VideoPacket]") -> list[PacketRow]:
        rows: list[PacketRow] = []
        is_non_reference = self._non_reference_test()
        # AVI states the decoding order only, which with B-frames is not the order in which frames are shown.
        has_times = self._container.format.name != "avi" or not self.decoder.has_b_frames
        try:
            for packet in packets:
                if packet.is_corrupt:
                    raise _CorruptPacketError(self.job.source, f"cut off or damaged: only {len(rows)} frames are whole")
                if not rows and packet.has_sidedata("encryption_info"):
                    raise self.job.error("encrypted; decrypt it first")
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
            raise self.job.beyond(f"{frames} frames of {width}x{height} pixels, more than max_decode ({most}) in all")
        if self._limit and frames < self._limit:
            raise self.job.error(f"damaged: only {frames} of its {self._limit} frames can be read")
        if self._container.format.name.startswith("mov,") and (self._is_short() or self._lacks_fragments()):
            raise self.job.error(f"cut off: the file ends after {frames} frames, before the end that it states")

    def _is_short(self) -> bool:
        """Whether the index of an MP4 file states a duration of more than two frames beyond the packets."""
        known = [(row.pts, row.pts + row.duration) for row in self.rows if row.pts is not None]
        if not known or not self.stream.duration:
            return False
        span = max(end for _, end in known) - min(start for start, _ in known)
        return self.stream.duration > span * (1 + 2 / len(known))

    def _lacks_fragments(self) -> bool:
        """Whether a fragmented MP4 ends before the length that its header states, by more than two frames."""
        self._file.seek(0)
        if b"mehd" not in self._file.read(2**16):
            return False
        from descore.video import containers

        with _open(self._file, job=self.job) as container:
            stated, end = containers.stated_seconds(self._file), containers.end_of(container.demux())
        return stated > end * (1 + 2 / len(self.rows))

    def _check_content(self) -> None:
        """Raise if the checksums within frames do not hold."""
        if self.decoder.name == "ffv1":
            from descore.video import containers

            if fault := containers.ffv1_fault(map(bytes, self._packets())):
                raise self.job.error(fault)

    def _non_reference_test(self) -> "Callable[[VideoPacket], bool]":
        """The function that tells whether no frame is predicted from a packet's: for H.264 and HEVC, which state it."""
        head, name = self.decoder.extradata or b"", self.decoder.name
        # A second field can have a packet of its own, which may be non-reference although its frame is wanted.
        fields = self.decoder.field_order not in (PROGRESSIVE, UNSTATED if name == "hevc" else PROGRESSIVE)
        if fields or head[:1] != LENGTHS_FIRST or name not in HEADS or len(head) <= HEADS[name]:
            return lambda _: False
        length_bytes, layers = (head[HEADS[name]] & 3) + 1, head[HEADS[name]] >> 3 & 7
        if name == "h264":
            return lambda packet: is_non_reference_h264(memoryview(packet), length_bytes=length_bytes)
        from descore.video.containers import is_non_reference_hevc

        return lambda packet: is_non_reference_hevc(memoryview(packet), length_bytes=length_bytes, layers=layers)


def is_non_reference_h264(packet: memoryview, *, length_bytes: int) -> bool:
    """Whether no other picture is predicted from an H.264 picture, whose units have their lengths before them: all its
    slices have nal_ref_idc 0 (ITU-T H.264, 7.4.1)."""
    at, slices = 0, 0
    while at + length_bytes < len(packet):
        header = packet[at + length_bytes]
        if 1 <= header & 31 <= 5:
            slices += 1
            if header & 96:
                return False
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return slices > 0
