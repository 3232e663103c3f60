"""Decode the chosen frames of a video file, and nothing else.

In: an open binary file and how to sample it. Out: a Clip, or a VideoError that says in one line what is wrong.
Knows films and pictures; knows nothing of paths, frames from memory or models.

The packets give the exact time of every frame without decoding. From these the frames are chosen, and only the packets
that they need are decoded. Where the packets do not tell the frames' times, or a promised frame does not appear, every
frame is decoded twice instead: for its time, then for its picture. No frame ever stands in for another."""

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from descore.errors import VideoError
from descore.types import Clip
from descore.video.packets import (
    DamagedError,
    DecodeJob,
    VideoFile,
    needed_packets,
    open_film,
    table_of,
    timeline_of,
    words_of,
)
from descore.video.sampling import MAX_ASPECT, Timeline, VideoSampling, choose_frames, fit_size

WHITE = 255

# Bicubic, because the video processor of the backbone scales so; like there, swscale's filter widens with the step, so
# that shrinking averages instead of skipping pixels. The flags ask for colour in full: without them the picture comes
# out darker by a level or two, and is not the same on every processor.
FILTER = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Turn(NamedTuple):
    """How a stored picture becomes the shown one: first transposed, then mirrored."""

    transpose: bool
    mirror_x: bool
    mirror_y: bool

    def apply(self, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture (H, W, C)."""
        turned = picture_HWC.transpose(1, 0, 2) if self.transpose else picture_HWC
        return turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after turning; also before, since turning swaps them or does not."""
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Turn(transpose=False, mirror_x=False, mirror_y=False)


def turn_of(frame: VideoFrame) -> Turn:
    """How a frame is to be turned, from its display matrix; angles between are taken to the nearest quarter."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV names no side data at all if it does not know one kind among them
        return _quarter_turns(frame.rotation)
    if matrix is None:
        return UPRIGHT
    # Stored (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]  # a buffer
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Turn(transpose=False, mirror_x=a < 0, mirror_y=d < 0)


def _quarter_turns(degrees: int) -> Turn:
    """The turn for an angle, counterclockwise."""
    quarters = round(degrees / 90) % 4
    return (UPRIGHT, Turn(True, False, True), Turn(False, True, True), Turn(True, True, False))[quarters]


def shown_size(frame: VideoFrame, *, turn: Turn, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame as a player shows it: square pixels, turned upright."""
    aspect = pixel_aspect if pixel_aspect else Fraction(1)
    return turn.size(max(1, round(frame.width * aspect)), frame.height)


class FrameConverter:
    """Scales, converts and turns frames of one video to one size.

    Colours follow the frame's own tags for matrix and range. An untagged matrix is taken for BT.601, whatever the
    size: the usual writers of generated clips convert from RGB so, and tag nothing."""

    def __init__(self, size: tuple[int, int], *, turn: Turn = UPRIGHT) -> None:
        self.size = size
        self.turn = turn
        self._scaler = VideoReformatter()

    def paint(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame's picture, (H, W, 3), on white where it is transparent."""
        if _may_be_transparent(frame):
            # Before scaling, or the hidden colour of transparent pixels would bleed into their neighbours.
            rgba = frame.reformat(format="rgba", dst_color_range=ColorRange.JPEG)
            frame = VideoFrame.from_ndarray(over_white(_pixels(rgba)), format="rgb24")
        width, height = self.turn.size(*self.size)
        rgb = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=FILTER, dst_color_range=ColorRange.JPEG
        )
        return self.turn.apply(_pixels(rgb))


def over_white(rgba_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a picture with alpha (H, W, 4) on white: the page that transparent clips are made to lie on."""
    colour, alpha = rgba_HWC[..., :3], rgba_HWC[..., 3:]
    if (alpha == WHITE).all():
        return np.ascontiguousarray(colour)
    mixed = colour.astype(np.uint16) * alpha + WHITE * (WHITE - alpha.astype(np.uint16))
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(), np.uint8)


def _may_be_transparent(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def decode_clip(file: BinaryIO, *, source: str, sampling: VideoSampling) -> Clip:
    """Sample a video file into a clip. `source` names it in messages."""
    job = DecodeJob(source=source, sampling=sampling, deadline=time.monotonic() + sampling.timeout)
    try:
        return _decode(file, job=job)
    except DamagedError:
        return _decode(file, job=replace(job, careful=True))


def _decode(file: BinaryIO, *, job: DecodeJob) -> Clip:
    with open_film(file, job=job) as film:
        return _by_time(film) or _by_order(film)


def clip_of(
    pictures: Sequence[NDArray[np.uint8]],
    *,
    chosen: Sequence[int],
    timeline: Timeline,
    source: str,
    source_size: tuple[int, int],
) -> Clip:
    """The clip that the chosen frames of a timeline make, each (H, W, 3)."""
    return Clip(
        frames=np.stack(pictures),
        times=tuple(timeline.seconds(index) for index in chosen),
        source=source,
        source_fps=timeline.fps,
        source_size=source_size,
        source_frames=len(timeline.ticks),
        duration=timeline.duration,
    )


def fitting_size(width: int, height: int, *, source: str, sampling: VideoSampling) -> tuple[int, int]:
    """The clip's width and height for a source's; an error for a strip."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise VideoError(source, f"pictures of {width}x{height} pixels; one edge is over {MAX_ASPECT} times the other")
    return fit_size(width, height, sampling=sampling)


def _by_time(film: VideoFile) -> Clip | None:
    """Take the frames that the packets promise; None if they promise nothing, or a frame is not there to be shown."""
    table = table_of(film.rows, tick=film.tick)
    timeline = table.timeline
    if timeline is None:
        return None
    chosen = choose_frames(timeline, sampling=film.job.sampling)
    wanted = [table.first + timeline.ticks[index] for index in chosen]
    reel = _FrameCollector(film, wanted)
    reel.run((frame.pts, frame) for frame in film.decode(needed_packets(table, set(wanted), decoder=film.decoder.name)))
    if reel.is_full:
        return reel.clip(chosen, timeline)
    if not film.job.careful:
        raise film.job.damaged(reel.progress)
    return None


def _by_order(film: VideoFile) -> Clip:
    """Decode every frame for its time, choose, and decode again for the pictures."""
    every = [range(len(film.rows))]
    timeline = _timeline_of_frames(film, every)
    chosen = choose_frames(timeline, sampling=film.job.sampling)
    reel = _FrameCollector(film, chosen)
    reel.run(enumerate(film.decode(every)))
    if not reel.is_full:
        raise film.job.damaged(reel.progress)
    return reel.clip(chosen, timeline)


def _timeline_of_frames(film: VideoFile, every: Sequence[Sequence[int]]) -> Timeline:
    """The frames' own times where they have any, otherwise the stream's frame rate."""
    times = _decoded_times(film, every)
    known = [pts for pts in times if pts is not None]
    if len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known)):
        promised = max((row.pts for row in film.rows if row.pts is not None and not row.hidden), default=known[-1])
        if known[-1] < promised:
            had, whole = (float((pts - known[0]) * film.tick) for pts in (known[-1], promised))
            raise film.job.damaged(f"only the first {had:.2f} of {whole:.2f} s could be decoded")
        return timeline_of([pts - known[0] for pts in known], tick=film.tick, last=film.rows[-1].duration)
    rate = film.stream.guessed_rate or film.stream.average_rate
    if not rate:
        raise film.job.fault("the file states neither its frames' times nor a frame rate; convert it to mp4 first")
    return timeline_of(range(len(times)), tick=1 / rate, last=1)


def _decoded_times(film: VideoFile, every: Sequence[Sequence[int]]) -> list[int | None]:
    """The time that each frame has once it is decoded, in the order in which they are shown."""
    times: list[int | None] = []
    try:
        for frame in film.decode(every):
            if frame.is_corrupt:
                raise film.job.damaged(f"only {len(times)} of its {len(film.rows)} frames could be decoded")
            times.append(frame.pts)
    except av.FFmpegError as error:
        reason = f"only {len(times)} of its {len(film.rows)} frames could be decoded ({words_of(error)})"
        raise film.job.damaged(reason) from error
    if not times or (len(times) < len(film.rows) and not film.job.careful):
        raise film.job.damaged(f"{len(times)} of its {len(film.rows)} frames could be decoded")
    return times


class _FrameCollector:
    """The wanted frames of a film, painted as they come by."""

    def __init__(self, film: VideoFile, wanted: Sequence[int]) -> None:
        self.film = film
        self.wanted = frozenset(wanted)
        self.pictures: list[NDArray[np.uint8]] = []
        self.source_size = (0, 0)
        self._stored_size = (0, 0)
        self._painter: FrameConverter | None = None

    @property
    def is_full(self) -> bool:
        """Whether every wanted frame has come by."""
        return len(self.pictures) == len(self.wanted)

    @property
    def progress(self) -> str:
        """How many have."""
        return f"{len(self.pictures)} of the {len(self.wanted)} sampled frames could be decoded"

    def run(self, frames: Iterable[tuple[int | None, VideoFrame]]) -> None:
        """Paint the wanted ones among frames, each with its name, until all are there."""
        damaged, last = False, None
        try:
            for name, frame in frames:
                if name is None or (last is not None and name <= last):
                    return  # times that contradict the order of showing are made up
                last = name
                # What is predicted from a damaged frame is damaged too, up to the next key frame.
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if name not in self.wanted:
                    continue
                if damaged:
                    raise self.film.job.damaged(f"only {self.progress}")
                self._paint(frame)
                if self.is_full:
                    return
        except av.FFmpegError as error:
            raise self.film.job.damaged(f"only {self.progress} ({words_of(error)})") from error

    def clip(self, chosen: Sequence[int], timeline: Timeline) -> Clip:
        """The clip, once the reel is full."""
        source = self.film.job.source
        return clip_of(self.pictures, chosen=chosen, timeline=timeline, source=source, source_size=self.source_size)

    def _paint(self, frame: VideoFrame) -> None:
        if self._painter is None:
            self._painter = self._painter_for(frame)
        if (frame.width, frame.height) != self._stored_size:
            was, now = self._stored_size, (frame.width, frame.height)
            raise self.film.job.fault(f"the picture's size changes from {was[0]}x{was[1]} to {now[0]}x{now[1]} pixels")
        self.pictures.append(self._painter.paint(frame))

    def _painter_for(self, frame: VideoFrame) -> FrameConverter:
        turn = turn_of(frame)
        self._stored_size = (frame.width, frame.height)
        self.source_size = shown_size(frame, turn=turn, pixel_aspect=self.film.stream.sample_aspect_ratio)
        job = self.film.job
        return FrameConverter(fitting_size(*self.source_size, source=job.source, sampling=job.sampling), turn=turn)
