"""Sharp, moving clips of 8 frames from a store of footage: of films, and of photographs that a moving camera films.

Photographs are for training alone: tests need things that move by themselves, which only films have. So the test clips
of a store are the same with photographs and without.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from descore.errors import ConfigError
from descore.types import Clip
from experiments.footage.camera import LEAST_SCALE, film_photograph
from experiments.footage.store import CLIP_FRAMES, FPS, SPAN, STRIDE, read_index

FootageSplit = Literal["train", "test"]

CLIP_FPS = FPS / STRIDE
"""Frames a second of a clip: 8 of them are 2 seconds."""
PIXELS = 128 * 128
"""Default of the most pixels in a frame."""
MULTIPLE = 32
"""Pixels that width and height are multiples of."""
LEAST_DETAIL = 32.0
"""Least `detail` of a clip that may be called sharp, in levels. What lies out of the camera's focus has less."""
LEAST_MOVEMENT = 0.8
"""Least `movement` of a clip that may be called smooth, in levels. With less, the clip looks frozen."""

P_PHOTOGRAPH = 0.6
"""Share of training clips that show photographs, where the store has any."""

_LEAST_AREA = 0.7  # of the pixels allowed
_WIDEST = 2.0  # the longer side over the shorter
_CROPS = 8  # tried, at most, for one with detail and movement

_TIMES = tuple(frame / CLIP_FPS for frame in range(CLIP_FRAMES))

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A stretch of film without a cut, and the frames at which a clip may begin."""

    film: str
    first: int
    """Number of its first frame in the store."""
    last: int
    starts: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Length of all that clips of this shot can show."""
        return len({frame for start in self.starts for frame in range(start, start + SPAN)}) / FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFilm:
    """A film in the store."""

    name: str
    title: str
    about: str
    """A true description of any part of it."""
    licence: str
    credit: str
    frames: int
    size: tuple[int, int]
    """Width and height of the stored frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAlbum:
    """An album of photographs in the store."""

    name: str
    title: str
    about: str
    """A true description of any of them."""
    licence: str
    credit: str
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """A picture in an album."""

    album: str
    name: str
    at: int
    """Place of its first byte in the album's file."""
    width: int
    height: int


class Footage:
    """An open store. Frames are memory-mapped; a pickled store is opened anew by the process that unpickles it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = read_index(folder)
        for row in (*self._index["films"].values(), *self._albums.values()):
            if not (folder / row["file"]).exists():
                raise ConfigError(f"{folder / row['file']}: not found, but the index names it; make the store again")

    @classmethod
    def open(cls, folder: str | Path) -> "Footage":
        """ConfigError if the folder holds no store, or one of another schema."""
        return cls(Path(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return Footage, (self.folder,)

    @cached_property
    def films(self) -> dict[str, StoredFilm]:
        """By name."""
        return {
            name: StoredFilm(
                name=name,
                size=(row["width"], row["height"]),
                **{key: row[key] for key in ("title", "about", "licence", "credit", "frames")},
            )
            for name, row in self._index["films"].items()
        }

    @cached_property
    def albums(self) -> dict[str, StoredAlbum]:
        """By name."""
        return {
            name: StoredAlbum(
                name=name,
                pictures=len(row["pictures"]),
                **{key: row[key] for key in ("title", "about", "licence", "credit")},
            )
            for name, row in self._albums.items()
        }

    def about(self, clip: Clip) -> str:
        """A true description, in a few words, of a clip from this store."""
        name = clip.source.partition(" at ")[0]
        return (self.films.get(name) or self.albums[name]).about

    @cached_property
    def shots(self) -> dict[FootageSplit, tuple[Shot, ...]]:
        """The shots of each split. No scene is in both."""
        splits: tuple[FootageSplit, ...] = ("train", "test")
        return {split: tuple(self._shots(split)) for split in splits}

    def window(self, split: FootageSplit, *, rng: np.random.Generator, pixels: int = PIXELS) -> Clip:
        """A random clip of 8 frames at 4 a second: a crop of a shot, or a photograph under a moving camera; mirrored
        every second time.

        pixels: the most pixels in a frame, at least 32 x 32; nothing is enlarged. A clip with too little detail or
        movement is drawn again; after _CROPS of them the best is taken."""
        shots = self.shots[split]
        if not shots:
            raise ConfigError(f"{self.folder}: no footage for '{split}'; make the store again with all films")
        if pixels < MULTIPLE**2:
            raise ConfigError(f"footage: found {pixels} pixels a frame, expected at least {MULTIPLE**2}")
        photographed = split == "train" and bool(self.photographs) and rng.random() < P_PHOTOGRAPH
        best, most = None, -1.0
        for _ in range(_CROPS):
            clip = (
                self._random_move(self.photographs[int(rng.integers(len(self.photographs)))], rng, pixels)
                if photographed
                else self._random_crop(shots[int(rng.integers(len(shots)))], rng, pixels)
            )
            worth = min(detail(clip.frames) / LEAST_DETAIL, movement(clip.frames) / LEAST_MOVEMENT)
            if worth > most:
                best, most = clip, worth
            if most >= 1:
                break
        assert best is not None
        return best

    def film_frames(self, film: str) -> Frames:
        """All stored frames of a film, (N, H, W, 3) at FPS."""
        return self._frames[film]

    def picture(self, photograph: Photograph) -> Frames:
        """A photograph, (H, W, 3)."""
        shape = photograph.height, photograph.width, 3
        return self._pictures[photograph.album][photograph.at :][: math.prod(shape)].reshape(shape)

    def _shots(self, split: FootageSplit) -> list[Shot]:
        return [
            Shot(
                film=name,
                first=row["first"],
                last=row["last"],
                starts=tuple(start for low, high in row["starts"] for start in range(low, high + 1)),
            )
            for name, film in self._index["films"].items()
            for row in film["shots"]
            if row["split"] == split
        ]

    def _random_crop(self, shot: Shot, rng: np.random.Generator, pixels: int) -> Clip:
        stored_NHWC = self._frames[shot.film]
        start = shot.starts[int(rng.integers(len(shot.starts)))]
        high, wide = stored_NHWC.shape[1:3]
        options = sizes(pixels, within=(wide, high))
        width, height = options[int(rng.integers(len(options)))]
        scale = rng.uniform(1, min(wide / width, high / height))
        left, top = (int(rng.uniform(0, room)) for room in (wide - scale * width, high - scale * height))
        box = (left, top, left + round(scale * width), top + round(scale * height))
        cut_THWC = stored_NHWC[start : start + SPAN : STRIDE, box[1] : box[3], box[0] : box[2]]
        if rng.random() < 0.5:
            cut_THWC = cut_THWC[:, :, ::-1]
        return _clip(
            _shrunk(cut_THWC, (width, height)),
            source=f"{shot.film} at {start / FPS:.3f} s",
            source_size=(cut_THWC.shape[2], cut_THWC.shape[1]),
        )

    def _random_move(self, photograph: Photograph, rng: np.random.Generator, pixels: int) -> Clip:
        stored_HWC = self.picture(photograph)
        room = int(photograph.width / LEAST_SCALE), int(photograph.height / LEAST_SCALE)
        options = sizes(pixels, within=room)
        size = options[int(rng.integers(len(options)))]
        frames_THWC = film_photograph(stored_HWC, size, times=_TIMES, rng=rng)
        if rng.random() < 0.5:
            frames_THWC = np.ascontiguousarray(frames_THWC[:, :, ::-1])
        source = f"{photograph.album} at {photograph.name}"
        return _clip(frames_THWC, source=source, source_size=(photograph.width, photograph.height))

    @property
    def _albums(self) -> dict[str, Any]:
        albums: dict[str, Any] = self._index.get("albums", {})
        return albums

    @cached_property
    def photographs(self) -> tuple[Photograph, ...]:
        """Those of all albums, for training."""
        return tuple(
            Photograph(album=name, **picture) for name, row in self._albums.items() for picture in row["pictures"]
        )

    @cached_property
    def _pictures(self) -> dict[str, Frames]:
        return {name: np.load(self.folder / row["file"], mmap_mode="r") for name, row in self._albums.items()}

    @cached_property
    def _frames(self) -> dict[str, Frames]:
        films = self._index["films"].items()
        return {name: np.load(self.folder / row["file"], mmap_mode="r") for name, row in films}


def _clip(frames_THWC: Frames, *, source: str, source_size: tuple[int, int]) -> Clip:
    return Clip(
        frames=frames_THWC,
        times=_TIMES,
        source=source,
        source_fps=CLIP_FPS,
        source_size=source_size,
        source_frames=CLIP_FRAMES,
        duration=CLIP_FRAMES / CLIP_FPS,
    )


def sizes(pixels: int, *, within: tuple[int, int]) -> list[tuple[int, int]]:
    """Widths and heights in multiples of 32 that nearly fill the pixels, are not too long, and fit into a picture.

    Where none does, the largest square that fits both."""
    sides = range(MULTIPLE, max(within) + 1, MULTIPLE)
    fitting = [
        (width, height)
        for width in sides
        for height in sides
        if width <= within[0] and height <= within[1]
        if _LEAST_AREA * pixels <= width * height <= pixels and max(width, height) <= _WIDEST * min(width, height)
    ]
    square = min(int(pixels**0.5), *within) // MULTIPLE * MULTIPLE
    return fitting or [(square, square)]


def detail(frames_THWC: Frames) -> float:
    """How much brightness changes from a pixel to the next, in levels, at the 99th percentile; of the frame with least.

    Every second row is looked at."""
    grey_THW = frames_THWC[:, ::2].mean(axis=3, dtype=np.float32)
    change_THW = np.abs(np.diff(grey_THW, axis=2))
    return float(np.percentile(change_THW.reshape(len(grey_THW), -1), 99, axis=1).min())


def movement(frames_THWC: Frames) -> float:
    """Mean change of brightness from frame to frame, in levels; of the step with least.

    Every second row is looked at."""
    grey_THW = frames_THWC[:, ::2].mean(axis=3, dtype=np.float32)
    return float(np.abs(np.diff(grey_THW, axis=0)).mean(axis=(1, 2)).min())


def _shrunk(frames_THWC: Frames, size: tuple[int, int]) -> Frames:
    pictures = (Image.fromarray(np.ascontiguousarray(picture)) for picture in frames_THWC)
    return np.stack([np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) for picture in pictures])
