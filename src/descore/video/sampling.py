"""Which frames of a video are taken, and at what size.

In: when each frame of a video starts, and its picture's width and height. Out: indices of frames, and a size."""

import itertools
import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pydantic import ConfigDict, PositiveFloat, PositiveInt

from descore.config_model import ConfigModel
from descore.errors import VideoError, VideoLimitError

MAX_ASPECT = 200
"""The longer edge over the shorter, at most. Beyond it a picture is a strip in which nothing can be judged."""

GRACE = 0.02
"""The share of one sampling interval that may be missing at the end of a video for its last sample to count."""

NEARLY = 10
"""A frame counts as shown at a time if it starts at most 1/10 of the shortest frame later: containers round times,
Matroska to milliseconds, so a frame that is due at a time may be stated to start just after it."""

SamplingRule = Literal["uniform", "qwen_vl_utils", "videoalign"]

PAIR = 2
"""Frames that Qwen's models merge to one; qwen-vl-utils takes whole pairs."""


class VideoSampling(ConfigModel):
    """How a video becomes a clip, and the bounds within which a file is worth decoding.

    Stored with a checkpoint: a model scores well only on clips sampled as those that it was trained with."""

    model_config = ConfigDict(title="video sampling")

    rule: SamplingRule = "uniform"
    """How frames and their size are chosen: uniform, at evenly spaced times, scaled as they are decoded; or
    qwen_vl_utils, as version 0.0.14 of that package has it, which the official code reads videos with: an even count,
    at evenly spaced frame numbers, without regard to pixel aspect, HDR, interlacing or transparency; or videoalign, the
    same save that a count is rounded to the nearest pair of frames, as VideoAlign's code has it."""
    fps: PositiveFloat = 2.0
    """Frames per second of video to aim for."""
    min_frames: PositiveInt = 4
    """Frames to take at least, if the video has so many."""
    max_frames: PositiveInt = 32
    """Frames to take at most; a longer video is sampled more thinly. 32 frames of 448 x 448 pixels are 3,136 tokens
    of Qwen3-VL (two frames and 32 x 32 pixels make a token), half of the 6,144 that the paper trains with."""
    min_pixels: PositiveInt = 128 * 128
    """Pixels per frame that a smaller picture is enlarged to. Qwen3-VL asks for 128 tokens a video; eight frames of
    this size have 64."""
    max_pixels: PositiveInt = 448 * 448
    """Pixels per frame, at most. Where the two cannot both be kept, this one is."""
    size_multiple: PositiveInt = 32
    """Pixels that width and height are multiples of: the backbone's patch (16) times its merge (2)."""
    max_source_pixels: PositiveInt = 8192 * 4352
    """Pixels of one source frame, at most; a header that declares more is refused before anything is decoded.
    Holds every 8K format."""
    max_decode: PositiveInt = 4096 * 2304 * 60 * 120
    """Source pixels times source frames, at most, refused before decoding: two minutes of 4K at 60 frames per second,
    or ten of full HD at 50. What this does not catch, `timeout` does."""
    timeout: PositiveFloat = 60.0
    """Seconds that reading one video may take. Looked at between packets, so a single packet may overrun it."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """No upper bound below its lower one; a pair of frames at least, where they are taken in pairs."""
        if self.is_numbered and self.max_frames < PAIR:
            yield "max_frames", f"must be at least {PAIR} with the rule {self.rule}, got {self.max_frames}"
        if self.max_frames < self.min_frames:
            yield "max_frames", f"must be at least min_frames ({self.min_frames}), got {self.max_frames}"
        for name, least in (("min_pixels", self.min_pixels), ("size_multiple squared", self.size_multiple**2)):
            if self.max_pixels < least:
                yield "max_pixels", f"must be at least {name} ({least}), got {self.max_pixels}"

    @property
    def is_numbered(self) -> bool:
        """Whether frames are taken in pairs by their numbers, and pictures as they are stored."""
        return self.rule != "uniform"


class DamagedError(VideoError):
    """A frame that is needed cannot be decoded, or only with errors that the decoder conceals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """How one video is read: its name in messages, its bounds, and the mode of decoding."""

    source: str
    sampling: VideoSampling
    deadline: float
    """When reading must be done, on the monotonic clock."""
    container: str | None = None
    """FFmpeg's name of the format that the file is known to have; None: FFmpeg detects it."""
    careful: bool = False
    """Decode in one thread and check each frame's flags. Otherwise frames are decoded in parallel, where FFmpeg may
    flag a patched-up frame too late, so the decoder is set to fail at any error instead."""

    def error(self, reason: str) -> VideoError:
        """An error that names this video."""
        return VideoError(self.source, reason)

    def beyond(self, reason: str) -> VideoLimitError:
        """An error that names this video, of more pixels or frames than are decoded."""
        return VideoLimitError(self.source, reason)

    def damaged(self, reason: str) -> DamagedError:
        """An error that careful decoding may avoid."""
        return DamagedError(self.source, f"damaged: {reason}")

    def check_time(self) -> None:
        """Raise once the deadline has passed."""
        if time.monotonic() > self.deadline:
            raise self.error(f"not read within {self.sampling.timeout:g} s; raise `timeout` or shorten the video")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When each frame of a video starts, in whole ticks, so that no rounding decides which frame is taken."""

    ticks: Sequence[int]
    """Start of each frame, strictly ascending from 0."""
    tick: Fraction
    """Seconds of one tick."""
    length: int
    """Ticks from the start of the first frame to the end of the last."""

    @classmethod
    def of(cls, ticks: Sequence[int], *, tick: Fraction, last: int) -> "Timeline":
        """The timeline whose last frame lasts `last` ticks, or, where that is 0, as long as the others on average."""
        mean = round(ticks[-1] / (len(ticks) - 1)) if len(ticks) > 1 else 1
        return cls(ticks=ticks, tick=tick, length=ticks[-1] + max(last or mean, 1))

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return float(self.length * self.tick)

    @property
    def fps(self) -> float:
        """Mean frames per second."""
        return float(len(self.ticks) / (self.length * self.tick))

    def seconds(self, index: int) -> float:
        """When a frame starts, in seconds."""
        return float(self.ticks[index] * self.tick)


def choose_frames(timeline: Timeline, *, sampling: VideoSampling) -> tuple[int, ...]:
    """Indices of the frames shown at evenly spaced times from the first frame's start to the last's, both included.

    There are floor(duration * fps) times, within min_frames and max_frames. A frame shown at several times is taken
    once, so a video with long frames may give fewer frames than times; if fewer than min_frames, frames evenly spaced
    by number are taken instead. With the other rules, frames are evenly spaced by number."""
    if sampling.is_numbered:
        return _evenly_numbered(len(timeline.ticks), fps=timeline.fps, sampling=sampling)
    count = len(timeline.ticks)
    # 5 s at 2 fps are 10 frames, also where the container rounds the duration down to 4.999 s.
    wanted = math.floor(timeline.duration * sampling.fps + GRACE)
    wanted = min(max(wanted, sampling.min_frames), sampling.max_frames)
    last = timeline.ticks[-1]
    nearly = Fraction(min((b - a for a, b in itertools.pairwise(timeline.ticks)), default=0), NEARLY)
    targets = [Fraction(last * k, wanted - 1) for k in range(wanted)] if wanted > 1 else [Fraction(last, 2)]
    shown = {bisect_right(timeline.ticks, math.floor(target + nearly)) - 1 for target in targets}
    least = min(sampling.min_frames, count)
    if len(shown) < least:
        shown = {(count - 1) * k // (least - 1) for k in range(least)}
    return tuple(sorted(shown))


def _evenly_numbered(count: int, *, fps: float, sampling: VideoSampling) -> tuple[int, ...]:
    """Indices of an even number of frames: `smart_nframes` of qwen-vl-utils 0.0.14, and its rounded linspace. In
    floating point and with torch as there, since both decide where a fraction is close. A video of one frame, which
    the package refuses, gives that. VideoAlign's copy of an older version rounds to the nearest pair."""
    import torch  # reading by the other rule needs no torch

    least, most = -(-sampling.min_frames // PAIR) * PAIR, sampling.max_frames // PAIR * PAIR
    wanted = min(max(count / fps * sampling.fps, least), most, count if count < PAIR else count // PAIR * PAIR)
    pairs = round(wanted / PAIR) if sampling.rule == "videoalign" else math.floor(wanted / PAIR)
    wanted = max(pairs * PAIR, 1)
    return tuple(torch.linspace(0, count - 1, wanted).round().long().tolist())


def fit_size(width: int, height: int, *, sampling: VideoSampling) -> tuple[int, int]:
    """Width and height in multiples of size_multiple, with the aspect of a picture as far as these permit.

    A picture within min_pixels and max_pixels keeps its size, and any other is scaled to the nearer of the two. Of the
    four grid points around that size, the best within the bounds is taken: its cost is the change of the aspect plus
    half the change of the area, both as logarithms. No edge is below one multiple. With the other rules, each edge is
    rounded by itself."""
    if sampling.is_numbered:
        return _edges_rounded(width, height, sampling=sampling)
    multiple = sampling.size_multiple
    area = min(max(width * height, sampling.min_pixels), sampling.max_pixels)
    scale = max(math.sqrt(area / (width * height)), multiple / min(width, height))
    wide, high = width * scale, height * scale
    around = [(w, h) for w in _neighbours(wide, multiple) for h in _neighbours(high, multiple)]
    small = [(w, h) for w, h in around if w * h <= sampling.max_pixels]
    if not small:  # a strip of one multiple: its long edge is shortened
        long = sampling.max_pixels // multiple**2 * multiple
        return (long, multiple) if width >= height else (multiple, long)

    def cost(size: tuple[int, int]) -> float:
        in_width, in_height = math.log(size[0] / wide), math.log(size[1] / high)
        return abs(in_width - in_height) + abs(in_width + in_height) / 2

    allowed = [(w, h) for w, h in small if w * h >= sampling.min_pixels] or small
    return min(allowed, key=lambda size: (cost(size), size))


def _edges_rounded(width: int, height: int, *, sampling: VideoSampling) -> tuple[int, int]:
    """Each edge to its nearest multiple (halves to even), or, where the area leaves the bounds, the picture scaled to
    the bound and each edge to the multiple inside of it: `smart_resize` of qwen-vl-utils 0.0.14, save that no edge
    becomes 0."""
    multiple = sampling.size_multiple
    edges = [max(multiple, round(edge / multiple) * multiple) for edge in (width, height)]
    if math.prod(edges) > sampling.max_pixels:
        shrink = math.sqrt(width * height / sampling.max_pixels)
        edges = [max(1, math.floor(edge / shrink / multiple)) * multiple for edge in (width, height)]
    elif math.prod(edges) < sampling.min_pixels:
        grow = math.sqrt(sampling.min_pixels / (width * height))
        edges = [math.ceil(edge * grow / multiple) * multiple for edge in (width, height)]
    return edges[0], edges[1]


def _neighbours(length: float, multiple: int) -> set[int]:
    below = max(1, math.floor(length / multiple)) * multiple
    return {below, max(below, math.ceil(length / multiple) * multiple)}
