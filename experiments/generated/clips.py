"""Clips of up to 16 frames from generated clips, films and photographs, all handled alike.

A repository's size, rate and compression say nothing of how good its clips are. So every clip is cropped, scaled,
sampled at a random rate, sped up or slowed down a little, perhaps mirrored, and in the end encoded lightly. Harms come
before the encoder, as a generator's do: both sides of a pair go through the same encoder.

Shapes in names: N stored frames, T frames, H rows, W columns, C = 3 colour channels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from descore.errors import ConfigError
from descore.types import Clip
from descore.video.sampling import Timeline, VideoSampling, choose_frames
from experiments.footage.camera import LEAST_SCALE, film_photograph
from experiments.footage.clips import LEAST_DETAIL, MULTIPLE, Footage, Photograph, Shot, detail, movement, sizes
from experiments.footage.store import FPS as FOOTAGE_FPS
from experiments.generated.store import PLAIN, SPLITS, Frames, Split, read_index

PIXELS = 128 * 128
"""Default of the most pixels in a frame."""
FRAMES = 16
"""Most frames of a clip."""
LEAST_FRAMES = 4
RATES = 4.0, 8.0
"""Frames a second: a clip is sampled at a rate in between, or more thinly where it would have too many frames."""
LEAST_MOVEMENT = 0.3
"""Least `movement` of a clip, in levels. With less it looks frozen, or repeats frames by itself."""

MOST_UNEVEN = 3.0
"""Most `unevenness` of a clip that a chain may call smooth."""

P_FOOTAGE = 0.5
"""Share of training clips that are films and photographs, where there is a store of them."""
P_PHOTOGRAPH = 0.5
"""Share of photographs among these."""
P_WHOLE = 0.4
"""Share of clips that are shown from the first to the last frame."""

_SPEEDS = 0.8, 1.25
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 4.0
_LEAST_CROP = 0.8  # of the largest crop of its shape
_ASPECT = 1.4  # by how much a crop is wider or higher than the clip, at most
_CRF = 16, 27
_TRIES = 6

Times = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedClip:
    """A stored clip."""

    name: str
    repository: str
    split: Split
    generator: str
    """Empty where it is not stated."""
    prompt: str
    """Empty where it is not known."""
    pair: str
    """What clips of one prompt share; empty for others."""
    at: int
    """Place of its first byte in the repository's file."""
    frames: int
    size: tuple[int, int]
    """Width and height of the stored frames."""
    times: Times
    """Of each frame, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a clip, cropped, scaled and sampled, but not encoded."""

    clip: Clip
    crf: int
    """x264's quality to encode it at."""
    item: str
    """What it shows a part of: a generated clip, a photograph, or a shot of a film, by name."""
    prompt: str
    """What it was generated from; empty where that is not known."""
    plain_source: bool = True
    """Whether what it is a part of looks sound by itself."""

    @property
    def plain(self) -> bool:
        """Whether it looks sound by itself, so that a chain may say so: its source does, it is sharp and moves
        evenly."""
        if not self.plain_source or unevenness(self.clip.frames) > MOST_UNEVEN:
            return False
        return detail(self.clip.frames[::4]) >= LEAST_DETAIL

    def finished(self, frames_THWC: Frames | None = None) -> Clip:
        """The clip, or the clip with these frames instead, encoded."""
        frames_THWC = self.clip.frames if frames_THWC is None else frames_THWC
        return replace(self.clip, frames=encoded(frames_THWC, crf=self.crf))


class Generated:
    """An open store of generated clips. Frames are memory-mapped; a pickled store is opened anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = read_index(folder)
        for row in self._index["repositories"].values():
            if not (folder / row["file"]).exists():
                raise ConfigError(f"{folder / row['file']}: not found, but the index names it; make the store again")

    @classmethod
    def open(cls, folder: str | Path) -> "Generated":
        """ConfigError if the folder holds no store, or one of another schema."""
        return cls(Path(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return Generated, (self.folder,)

    @cached_property
    def clips(self) -> dict[Split, tuple[GeneratedClip, ...]]:
        """Those of each split. No repository is in two."""
        splits: tuple[Split, ...] = ("train", "choose", "test")
        return {split: tuple(clip for clip in self._clips() if clip.split == split) for split in splits}

    @cached_property
    def licences(self) -> dict[str, str]:
        """By repository."""
        return {name: row["licence"] for name, row in self._index["repositories"].items()}

    def frames(self, clip: GeneratedClip) -> Frames:
        """All frames of a clip, (N, H, W, 3), uint8."""
        shape = clip.frames, clip.size[1], clip.size[0], 3
        return self._flat[clip.repository][clip.at :][: math.prod(shape)].reshape(shape)

    def _clips(self) -> Iterator[GeneratedClip]:
        for repository, row in self._index["repositories"].items():
            for clip in row["clips"]:
                kept = {key: clip[key] for key in ("name", "generator", "prompt", "pair", "at", "frames")}
                size, times = (clip["width"], clip["height"]), tuple(clip["times"])
                yield GeneratedClip(repository=repository, split=SPLITS[repository], size=size, times=times, **kept)

    @cached_property
    def _flat(self) -> dict[str, Frames]:
        rows = self._index["repositories"].items()
        return {name: np.load(self.folder / row["file"], mmap_mode="r") for name, row in rows}


@dataclass(frozen=True)
class Sources:
    """Generated clips, and films and photographs for training beside them."""

    generated: Generated
    footage: Footage | None = None

    def window(
        self,
        split: Split,
        *,
        rng: np.random.Generator,
        pixels: int = PIXELS,
        frames: int = FRAMES,
        of: frozenset[str] | None = None,
    ) -> Window:
        """A random window of a split; of _TRIES the first that moves, or the one that moves most. of: generated clips
        of these repositories alone."""
        best, most = None, -1.0
        for _ in range(_TRIES):
            window = self._any_window(split, rng=rng, pixels=pixels, frames=frames, of=of)
            moves = movement(window.clip.frames)
            if moves > most:
                best, most = window, moves
            if most >= LEAST_MOVEMENT:
                break
        assert best is not None
        return best

    def _any_window(
        self, split: Split, *, rng: np.random.Generator, pixels: int, frames: int, of: frozenset[str] | None
    ) -> Window:
        if split == "train" and of is None and self.footage is not None and rng.random() < P_FOOTAGE:
            if self.footage.photographs and rng.random() < P_PHOTOGRAPH:
                photograph = self.footage.photographs[int(rng.integers(len(self.footage.photographs)))]
                return photograph_window(self.footage, photograph, rng=rng, pixels=pixels, frames=frames)
            shots = self.footage.shots["train"]
            shot = shots[int(rng.integers(len(shots)))]
            return shot_window(self.footage, shot, rng=rng, pixels=pixels, frames=frames)
        clips = [clip for clip in self.generated.clips[split] if of is None or clip.repository in of]
        if not clips:
            raise ConfigError(f"{self.generated.folder}: no clips for '{split}'; make the store again with all clips")
        clip = clips[int(rng.integers(len(clips)))]
        return clip_window(self.generated, clip, rng=rng, pixels=pixels, frames=frames)


def clip_window(
    store: Generated, clip: GeneratedClip, *, rng: np.random.Generator, pixels: int = PIXELS, frames: int = FRAMES
) -> Window:
    """A random window of a generated clip."""
    frames_NHWC = store.frames(clip)
    window = _window(frames_NHWC, clip.times, clip.name, clip.prompt, rng=rng, pixels=pixels, frames=frames)
    return replace(window, plain_source=clip.repository in PLAIN)


def shot_window(footage: Footage, shot: Shot, *, rng: np.random.Generator, pixels: int, frames: int) -> Window:
    """A random window of a film."""
    start = shot.starts[int(rng.integers(len(shot.starts)))]
    after = min(shot.last + 1, start + round(_MOST_SECONDS * FOOTAGE_FPS))
    part_NHWC = footage.film_frames(shot.film)[start:after]
    times = tuple(number / FOOTAGE_FPS for number in range(len(part_NHWC)))
    item = f"{shot.film} from {shot.first}"
    return _window(part_NHWC, times, item, "", rng=rng, pixels=pixels, frames=frames)


def photograph_window(
    footage: Footage, photograph: Photograph, *, rng: np.random.Generator, pixels: int, frames: int
) -> Window:
    """A random window of a photograph under a moving camera."""
    rate, seconds = rng.uniform(*RATES), rng.uniform(_LEAST_SECONDS, _MOST_SECONDS)
    count = min(max(math.floor(rate * seconds), LEAST_FRAMES), frames)
    times = tuple(float(time) for time in np.arange(count) * (seconds / count))
    room = int(photograph.width / LEAST_SCALE), int(photograph.height / LEAST_SCALE)
    size = _size(pixels, room, rng)
    frames_THWC = film_photograph(footage.picture(photograph), size, times=times, rng=rng)
    source_size = photograph.width, photograph.height
    return _finish(frames_THWC, times, f"{photograph.album} at {photograph.name}", "", source_size, rng)


def _window(
    frames_NHWC: Frames,
    times: Times,
    item: str,
    prompt: str,
    *,
    rng: np.random.Generator,
    pixels: int,
    frames: int,
) -> Window:
    chosen = sampled(times, frames=frames, rng=rng)
    high, wide = frames_NHWC.shape[1:3]
    size = _size(pixels, (wide, high), rng)
    scale = min(wide / size[0], high / size[1]) * rng.uniform(_LEAST_CROP, 1)
    scale = max(scale, 1.0) if min(wide / size[0], high / size[1]) >= 1 else scale
    width, height = size[0] * scale, size[1] * scale
    left, top = rng.uniform(0, wide - width), rng.uniform(0, high - height)
    box = left, top, left + width, top + height
    pictures = (Image.fromarray(frames_NHWC[index]) for index in chosen)
    cut_THWC = np.stack([np.asarray(p.resize(size, Image.Resampling.BICUBIC, box=box)) for p in pictures])
    return _finish(cut_THWC, tuple(times[i] for i in chosen), item, prompt, (wide, high), rng)


def _size(pixels: int, within: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """A random size that nearly fills the pixels and is shaped like the picture."""
    if pixels < MULTIPLE**2:
        raise ConfigError(f"generated clips: found {pixels} pixels a frame, expected at least {MULTIPLE**2}")
    options = sizes(pixels, within=within)
    aspect = within[0] / within[1]
    alike = [size for size in options if 1 / _ASPECT <= size[0] / size[1] / aspect <= _ASPECT] or options
    return alike[int(rng.integers(len(alike)))]


def sampled(times: Times, *, frames: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Indices of the frames of a random part, as a model samples a file: at a random rate, evenly, none twice."""
    first, last = 0, len(times) - 1
    if rng.random() >= P_WHOLE:
        seconds = rng.uniform(_LEAST_SECONDS, max(times[-1], _LEAST_SECONDS))
        begin = rng.uniform(0, max(times[-1] - seconds, 0))
        first, after = np.searchsorted(times, [begin, begin + seconds])
        last = min(int(after), last)
        first = max(min(int(first), last + 1 - LEAST_FRAMES), 0)
    sampling = VideoSampling(fps=rng.uniform(*RATES), min_frames=LEAST_FRAMES, max_frames=frames)
    ticks = [round((time - times[first]) * 1e6) for time in times[first : last + 1]]
    timeline = Timeline.of(ticks, tick=Fraction(1, 10**6), last=0)
    return tuple(first + index for index in choose_frames(timeline, sampling=sampling))


def _finish(
    frames_THWC: Frames, times: Times, item: str, prompt: str, source_size: tuple[int, int], rng: np.random.Generator
) -> Window:
    if rng.random() < 0.5:
        frames_THWC = np.ascontiguousarray(frames_THWC[:, :, ::-1])
    speed = rng.uniform(*_SPEEDS)
    steps = max(len(times) - 1, 1)
    span = (times[-1] - times[0]) / speed or 1.0
    clip = Clip(
        frames=frames_THWC,
        times=tuple(round((time - times[0]) / speed, 6) for time in times),
        source=item,
        source_fps=steps / span,
        source_size=source_size,
        source_frames=len(times),
        duration=span * (steps + 1) / steps,
    )
    return Window(clip=clip, crf=int(rng.integers(_CRF[0], _CRF[1] + 1)), item=item, prompt=prompt)


def unevenness(frames_THWC: Frames) -> float:
    """Change of brightness in the step with most over that in the median one: 1 for a steady motion, more for a cut."""
    grey_THW = frames_THWC[:, ::2, ::2].mean(axis=3, dtype=np.float32)
    change_S = np.abs(np.diff(grey_THW, axis=0)).mean(axis=(1, 2))
    return float(change_S.max() / max(float(np.median(change_S)), LEAST_MOVEMENT))


def encoded(frames_THWC: Frames, *, crf: int) -> Frames:
    """The frames as H.264 gives them back. crf: x264's quality, 0 to 51; 23 is its default."""
    height, width = frames_THWC.shape[1:3]
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 8), Fraction(8)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    decoded = [frame for packet in _packets(encoder, frames_THWC) for frame in decoder.decode(packet)]
    decoded += decoder.decode(None)
    back = VideoReformatter()
    return np.stack([np.asarray(back.reformat(frame, format="rgb24").to_ndarray(), np.uint8) for frame in decoded])


def _packets(encoder: av.VideoCodecContext, frames_THWC: NDArray[np.uint8]) -> Iterator[Any]:
    there = VideoReformatter()
    for number, picture_HWC in enumerate(frames_THWC):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
        frame = there.reformat(frame, format="yuv420p")
        frame.pts = number
        yield from encoder.encode(frame)
    yield from encoder.encode(None)
