"""Decode the frames of a video file that are sampled, and no others.

In: an open binary file and how to sample it. Out: a Clip, or a VideoError of one line.

The packets state the exact time of every frame without decoding. The frames are chosen by these times, and only the
packets that they need are decoded. Where the packets do not state the times, or a frame that they state cannot be
decoded, every frame is decoded twice instead: for its time, then for its picture. No frame ever replaces another."""

import itertools
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from descore.errors import VideoError
from descore.types import Clip
from descore.video.packets import PacketRow, PacketTable, VideoFile, ffmpeg_error_text, open_video
from descore.video.sampling import (
    MAX_ASPECT,
    PAIR,
    DamagedError,
    DecodeJob,
    SamplingRule,
    Timeline,
    VideoSampling,
    choose_frames,
    fit_size,
)

TRUSTED_KEYS = frozenset(
    {"h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"}
)
"""Decoders (FFmpeg's names) that need nothing from before a key packet. GIF is not among them: each of its frames is
drawn over the one before."""

SKIP_WORTHWHILE = 8
"""Packets: a shorter gap is decoded through, since restarting the decoder discards what its threads have begun."""

PICTURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|....ftyp(avif|avis)", re.DOTALL)
"""How a file begins that may be a still image, or an animation with bounds of its own."""

HDR = frozenset({ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67})
"""Transfer functions whose pictures are mapped to SDR: PQ and HLG."""

WHITE = 255

# Bicubic, as the video processor of the backbone scales. As there, swscale's filter widens with the step, so that
# shrinking averages pixels instead of skipping them. The flags ask for full colour resolution: without them pictures
# come out darker by a level or two, and differ between processors.
FILTER = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def decode_clip(file: BinaryIO, *, source: str, sampling: VideoSampling) -> Clip:
    """Sample a video file into a clip. `source` names it in messages."""
    job = DecodeJob(source=source, sampling=sampling, deadline=time.monotonic() + sampling.timeout)
    file.seek(0)
    if PICTURE.match(file.read(16)):
        from descore.video import pictures

        return pictures.decode_pictures(file, job=job)
    return decode_video(file, job=job)


def decode_video(file: BinaryIO, *, job: DecodeJob) -> Clip:
    """Sample a video file that FFmpeg reads; a second time with more care if it seems damaged."""
    try:
        return _decode(file, job=job)
    except DamagedError:
        return _decode(file, job=replace(job, careful=True))


def _decode(file: BinaryIO, *, job: DecodeJob) -> Clip:
    with open_video(file, job=job) as video:
        return _decode_by_time(video) or _decode_by_order(video)


def clip_of(
    pictures: Sequence[NDArray[np.uint8]],
    *,
    chosen: Sequence[int],
    timeline: Timeline,
    source: str,
    source_size: tuple[int, int],
    sampling: VideoSampling,
) -> Clip:
    """The clip of the chosen frames of a timeline, each picture (H, W, 3)."""
    numbered = sampling.is_numbered
    if numbered and len(chosen) < PAIR:
        raise VideoError(source, f"one frame; the checkpoint's rule {sampling.rule} takes pairs of them")
    return Clip(
        frames=np.stack(pictures),
        times=tuple(timeline.seconds(index) for index in chosen),
        source=source,
        source_fps=timeline.fps,
        source_size=source_size,
        source_frames=len(timeline.ticks),
        duration=timeline.duration,
        frame_numbers=tuple(chosen) if numbered else None,
    )


def fitting_size(width: int, height: int, *, source: str, sampling: VideoSampling) -> tuple[int, int]:
    """The clip's width and height for a source's. VideoError for a picture that is too narrow."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise VideoError(source, f"pictures of {width}x{height} pixels; one edge is over {MAX_ASPECT} times the other")
    return fit_size(width, height, sampling=sampling)


def _decode_by_time(video: VideoFile) -> Clip | None:
    """The clip of the frames at the packets' times; None if the packets do not state them, or one is not decoded."""
    table = PacketTable.of(video.rows, tick=video.tick)
    timeline = table.timeline
    if timeline is None:
        return None
    chosen = choose_frames(timeline, sampling=video.job.sampling)
    wanted = [table.first + timeline.ticks[index] for index in chosen]
    collector = _FrameCollector(video, wanted)
    runs = needed_packets(table, set(wanted), decoder=video.decoder.name)
    collector.run((frame.pts, frame) for frame in video.decode(runs))
    if collector.is_full:
        return collector.clip(chosen, timeline)
    if not video.job.careful:
        raise video.job.damaged(collector.progress)
    return None


def needed_packets(table: PacketTable, wanted: set[int], *, decoder: str) -> list[list[int]]:
    """Runs of packets, by number, whose decoding gives the frames shown at the wanted times.

    Each run begins at a key packet, before which the decoder is restarted. Non-reference packets are left out unless
    their own frame is wanted."""
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


def _entry(rows: Sequence[PacketRow], index: int, *, at_least: int) -> int:
    """The last key packet from which the frame of packet `index` can be decoded."""
    pts = rows[index].pts
    assert pts is not None
    for entry in range(index, at_least, -1):
        key = rows[entry]
        # A frame shown before the key frame but stored after it may depend on packets before the key packet.
        if key.key and key.pts is not None and key.pts <= pts:
            return entry
    return at_least


def _decode_by_order(video: VideoFile) -> Clip:
    """Decode every frame for its time, choose, and decode again for the pictures."""
    all_packets = [range(len(video.rows))]
    timeline = _timeline_of_frames(video, all_packets)
    chosen = choose_frames(timeline, sampling=video.job.sampling)
    collector = _FrameCollector(video, chosen)
    collector.run(enumerate(video.decode(all_packets)))
    if not collector.is_full:
        raise video.job.damaged(collector.progress)
    return collector.clip(chosen, timeline)


def _timeline_of_frames(video: VideoFile, all_packets: Sequence[Sequence[int]]) -> Timeline:
    """The times of the decoded frames, or, where they have none, the stream's frame rate."""
    times = _decoded_times(video, all_packets)
    known = [pts for pts in times if pts is not None]
    if len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known)):
        stated = max((row.pts for row in video.rows if row.pts is not None and not row.hidden), default=known[-1])
        if known[-1] < stated:
            decoded, whole = (float((pts - known[0]) * video.tick) for pts in (known[-1], stated))
            raise video.job.damaged(f"only the first {decoded:.2f} of {whole:.2f} s could be decoded")
        return Timeline.of([pts - known[0] for pts in known], tick=video.tick, last=video.rows[-1].duration)
    rate = video.stream.guessed_rate or video.stream.average_rate
    if not rate:
        raise video.job.error("the file states neither its frames' times nor a frame rate; convert it to mp4 first")
    return Timeline.of(range(len(times)), tick=1 / rate, last=1)


def _decoded_times(video: VideoFile, all_packets: Sequence[Sequence[int]]) -> list[int | None]:
    """The time of each decoded frame, in the order in which they are shown."""
    times: list[int | None] = []
    try:
        for frame in video.decode(all_packets):
            if frame.is_corrupt:
                raise video.job.damaged(f"only {len(times)} of its {len(video.rows)} frames could be decoded")
            times.append(frame.pts)
    except av.FFmpegError as error:
        reason = f"only {len(times)} of its {len(video.rows)} frames could be decoded ({ffmpeg_error_text(error)})"
        raise video.job.damaged(reason) from error
    if not times or (len(times) < len(video.rows) and not video.job.careful):
        raise video.job.damaged(f"{len(times)} of its {len(video.rows)} frames could be decoded")
    return times


class _FrameCollector:
    """Collects the wanted frames of a video as they are decoded, converted to pictures."""

    def __init__(self, video: VideoFile, wanted: Sequence[int]) -> None:
        self.video = video
        self.wanted = frozenset(wanted)
        self.pictures: list[NDArray[np.uint8]] = []
        self.source_size = (0, 0)
        self._stored_size = (0, 0)
        self._converter: FrameConverter | None = None

    @property
    def is_full(self) -> bool:
        """Whether every wanted frame was decoded."""
        return len(self.pictures) == len(self.wanted)

    @property
    def progress(self) -> str:
        """How many were, for messages."""
        return f"{len(self.pictures)} of the {len(self.wanted)} sampled frames could be decoded"

    def run(self, frames: Iterable[tuple[int | None, VideoFrame]]) -> None:
        """Collect the wanted ones of numbered frames, until all are there."""
        damaged, last = False, None
        try:
            for number, frame in frames:
                if number is None or (last is not None and number <= last):
                    return  # times that do not ascend in the order of showing are invalid
                last = number
                # What is predicted from a damaged frame is damaged too, up to the next key frame.
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if number not in self.wanted:
                    continue
                if damaged:
                    raise self.video.job.damaged(f"only {self.progress}")
                self._add(frame)
                if self.is_full:
                    return
        except av.FFmpegError as error:
            raise self.video.job.damaged(f"only {self.progress} ({ffmpeg_error_text(error)})") from error

    def clip(self, chosen: Sequence[int], timeline: Timeline) -> Clip:
        """The clip, once every wanted frame is there."""
        job = self.video.job
        return clip_of(
            self.pictures,
            chosen=chosen,
            timeline=timeline,
            source=job.source,
            source_size=self.source_size,
            sampling=job.sampling,
        )

    def _add(self, frame: VideoFrame) -> None:
        if self._converter is None:
            self._converter = self._converter_for(frame)
        if (frame.width, frame.height) != self._stored_size:
            was, now = self._stored_size, (frame.width, frame.height)
            raise self.video.job.error(f"the picture's size changes from {was[0]}x{was[1]} to {now[0]}x{now[1]} pixels")
        self.pictures.append(self._converter.convert(frame))

    def _converter_for(self, frame: VideoFrame) -> "FrameConverter":
        orientation = orientation_of(frame)
        self._stored_size = (frame.width, frame.height)
        job = self.video.job
        aspect = None if job.sampling.is_numbered else self.video.stream.sample_aspect_ratio
        self.source_size = _shown_size(frame, orientation=orientation, pixel_aspect=aspect)
        size = fitting_size(*self.source_size, source=job.source, sampling=job.sampling)
        return FrameConverter(size, orientation=orientation, rule=job.sampling.rule)


class Orientation(NamedTuple):
    """How a stored picture becomes the shown one: first transposed, then mirrored."""

    transpose: bool
    mirror_x: bool
    mirror_y: bool

    def apply(self, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture (H, W, C)."""
        turned = picture_HWC.transpose(1, 0, 2) if self.transpose else picture_HWC
        return turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after turning; also before it, since turning swaps them or leaves them."""
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Orientation(transpose=False, mirror_x=False, mirror_y=False)


def orientation_of(frame: VideoFrame) -> Orientation:
    """A frame's orientation by its display matrix, to the nearest quarter turn."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV returns no side data at all if it does not know one kind among them
        return _quarter_turns(frame.rotation)
    if matrix is None:
        return UPRIGHT
    # Stored (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]  # a buffer
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(transpose=False, mirror_x=a < 0, mirror_y=d < 0)


def _quarter_turns(degrees: int) -> Orientation:
    """The orientation for an angle, counterclockwise."""
    quarters = round(degrees / 90) % 4
    turns = UPRIGHT, Orientation(True, False, True), Orientation(False, True, True), Orientation(True, True, False)
    return turns[quarters]


def _shown_size(frame: VideoFrame, *, orientation: Orientation, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame as a player shows it: with square pixels, upright."""
    aspect = pixel_aspect if pixel_aspect else Fraction(1)
    return orientation.size(max(1, round(frame.width * aspect)), frame.height)


class FrameConverter:
    """Scales, converts and turns frames of one video to one size.

    Colours follow the frame's own tags for matrix and range. An untagged matrix is taken for BT.601, whatever the
    size: the usual writers of generated clips convert from RGB so, and tag nothing. With the other rules pixels
    are those of torchcodec and decord, scaled by torch."""

    def __init__(
        self, size: tuple[int, int], *, orientation: Orientation = UPRIGHT, rule: SamplingRule = "uniform"
    ) -> None:
        self.size = size
        self.orientation = orientation
        self.rule = rule
        self._scaler = VideoReformatter()

    def convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame's picture, (H, W, 3), on white where it is transparent."""
        if self.rule != "uniform":
            from descore.video import pictures

            return pictures.resized_by_torch(frame, self.size, orientation=self.orientation)
        if _may_be_transparent(frame):
            # Before scaling, or the hidden colour of transparent pixels would bleed into their neighbours.
            rgba = frame.reformat(format="rgba", dst_color_range=ColorRange.JPEG)
            frame = VideoFrame.from_ndarray(over_white(_pixels(rgba)), format="rgb24")
        if frame.interlaced_frame:
            from descore.video import pictures

            frame = pictures.deinterlaced(frame)
        if (transfer := frame.color_trc) not in HDR:
            return self.orientation.apply(_pixels(self._scale(frame, "rgb24")))
        from descore.video import pictures

        wide_HWC = self._scale(frame, "rgb48le").to_ndarray()
        return self.orientation.apply(pictures.tone_mapped(np.asarray(wide_HWC, np.uint16), transfer=transfer))

    def _scale(self, frame: VideoFrame, pixels: str) -> VideoFrame:
        width, height = self.orientation.size(*self.size)
        return self._scaler.reformat(
            frame, width=width, height=height, format=pixels, interpolation=FILTER, dst_color_range=ColorRange.JPEG
        )


def over_white(rgba_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a picture with alpha (H, W, 4) on white, the page that transparent clips are made for."""
    colour, alpha = rgba_HWC[..., :3], rgba_HWC[..., 3:]
    if (alpha == WHITE).all():
        return np.ascontiguousarray(colour)
    mixed = colour.astype(np.uint16) * alpha + WHITE * (WHITE - alpha.astype(np.uint16))
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(), np.uint8)


def _may_be_transparent(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
