"""Photographs of single things, cut out of their grounds, that move over footage: their name and way are known.

The pictures are stamps of the paint program Tux Paint, each with a line of text that names it.

    cutouts.npy        uint8 pictures (H, W, 4), red, green, blue and cover, one after the other, flat
    cutouts.json       name, size and place of each

Shapes in names: T frames, H rows, W columns, C = 3 colours and cover last where there are 4, 2 = x (to the right) and
y (down). Lengths are shares of the frame's short side."""

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from descore.errors import ConfigError
from descore.io import atomic_path, atomic_write
from descore.types import Clip
from experiments.footage.clips import FootageSplit
from experiments.footage.packages import Archive, Log, fetch, packed_file, packed_folder

TUX_PAINT = Archive(
    package="tuxpaint-stamps-default",
    version="2022.06.04-1",
    file="tuxpaint-stamps-default_2022.06.04-1_all.deb",
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
_PATH = ("data.tar.xz", "./usr/share/tuxpaint/stamps")
_COPYRIGHT = ("data.tar.xz", f"./usr/share/doc/{TUX_PAINT.package}/copyright")
KINDS = ("animals", "food", "hobbies", "household", "plants", "sports", "vehicles")
"""Folders of stamps that are taken; others are symbols, costumes, weapons, and things too large to move."""
WITHOUT = ("hedgehog", "edward_bear", "pizza", "Cherry_Stella", "Strawberry2", "rugby_goal_posts", "rambutan")
"""Stamps that are drawn, or of things that do not move."""
HOLD_OUT_EVERY = 8
"""One picture in so many is for testing."""
_NAME = re.compile(r"(An? [a-z][a-z -]*[a-z])\s*[.(!,]", re.IGNORECASE)
_LEAST_SIDE, _MOST_SIDE = 80, 320
_LONGEST_NAME = 4  # words

WAYS = ("stands", "left", "right", "up", "down")
_DIRECTIONS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], float)
P_STANDS = 0.2
P_STILL = 0.6
"""Share of clips whose ground stands still; over the others, camera or film move."""
_SIZE = 0.35, 0.75
_SPEED = 0.1, 0.45  # a second
_MOST_WAY = 0.55
_BOB = 0.0, 0.03
_BOB_HERTZ = 0.5, 2.0
_GAIN = 0.75, 1.1

Frames = NDArray[np.uint8]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOut:
    """A picture in the store."""

    name: str
    """With its article, as in "a duck"."""
    at: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOutClip:
    """A clip of a thing over footage, and what is known of it."""

    clip: Clip
    name: str
    way: int
    """Its direction in the picture, a number of WAYS."""
    still: bool
    """Whether camera and ground stand still."""
    place_T2: Numbers
    """Its centre."""
    cover_THW: NDArray[np.float32]
    """Its cover of each pixel, 0 to 1."""


class CutOuts:
    """The cut-out pictures of a store."""

    def __init__(self, folder: Path) -> None:
        path = folder / "cutouts.json"
        if not path.exists():
            raise ConfigError(f"{path}: not found; add cut-outs to the store: python -m experiments.footage --out DIR")
        self.folder = folder
        rows = [CutOut(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        self.rows = {
            "train": tuple(row for number, row in enumerate(rows) if number % HOLD_OUT_EVERY),
            "test": tuple(rows[::HOLD_OUT_EVERY]),
        }
        """Of each split."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CutOuts, (self.folder,)

    @cached_property
    def _pixels(self) -> Frames:
        pixels: Frames = np.load(self.folder / "cutouts.npy", mmap_mode="r")
        return pixels

    def picture(self, row: CutOut) -> Image.Image:
        """Colours and cover."""
        shape = row.height, row.width, 4
        return Image.fromarray(np.asarray(self._pixels[row.at :][: math.prod(shape)].reshape(shape)), "RGBA")


def make_cut_outs(folder: Path, *, log: Log) -> None:
    """Download and store the cut-outs that the folder lacks."""
    if (folder / "cutouts.json").exists():
        return
    fetch([TUX_PAINT], folder / "archives", log=log)
    log("decoding cut-outs")
    pictures, rows, at = list[Frames](), list[dict[str, Any]](), 0
    for name, picture in _named_pictures(folder / "archives"):
        rows.append({"name": name, "at": at, "width": picture.width, "height": picture.height})
        pictures.append(np.asarray(picture).ravel())
        at += pictures[-1].size
    with atomic_path(folder / "cutouts.npy") as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(pictures))
    copyright_file = packed_file(TUX_PAINT, _COPYRIGHT, folder / "archives")
    (folder / f"{TUX_PAINT.package}.copyright").write_bytes(copyright_file)
    atomic_write(folder / "cutouts.json", json.dumps(rows, indent=1) + "\n")


def _named_pictures(archives: Path) -> Iterator[tuple[str, Image.Image]]:
    """Photographs with cover whose text names one thing, in the archive's order."""
    content = {
        PurePosixPath(path).relative_to(_PATH[1]): content
        for path, content in packed_folder(TUX_PAINT, _PATH, archives)
        if path.endswith((".png", ".txt"))
    }
    for path, picture in content.items():
        name = name_of(content.get(path.with_suffix(".txt"), b"").decode("utf-8", "replace"))
        if path.suffix == ".png" and name and path.parts[0] in KINDS and path.stem not in WITHOUT:
            opened = Image.open(io.BytesIO(picture))
            if opened.mode == "RGBA" and min(opened.size) >= _LEAST_SIDE and "cartoon" not in path.parts:
                opened.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
                yield name, opened


def name_of(text: str) -> str:
    """The thing that a stamp's text names, with its article; empty if it names none in a few words."""
    named = _NAME.match(text)
    name = named[1] if named else ""
    return name.lower() if 0 < len(name.split()) <= _LONGEST_NAME else ""


def moving_cut_out(
    cut_outs: CutOuts, ground: Clip, *, rng: np.random.Generator, split: FootageSplit = "train"
) -> CutOutClip:
    """A random thing of a split that stands or moves straight over a clip, or over its first frame."""
    still = bool(rng.random() < P_STILL)
    frames_THWC = np.repeat(ground.frames[:1], len(ground.times), axis=0) if still else ground.frames.copy()
    row = cut_outs.rows[split][int(rng.integers(len(cut_outs.rows[split])))]
    short = min(frames_THWC.shape[1:3])
    thing = _scaled(cut_outs.picture(row), short * rng.uniform(*_SIZE), rng)
    way = 0 if rng.random() < P_STANDS else int(rng.integers(1, len(WAYS)))
    size_2 = np.array([frames_THWC.shape[2], frames_THWC.shape[1]]) / short
    place_T2 = random_way(np.array(ground.times), way, size_2, rng)
    cover_THW = np.zeros(frames_THWC.shape[:3], np.float32)
    for frame, place_2 in enumerate(place_T2):
        frames_THWC[frame], cover_THW[frame] = _laid_over(frames_THWC[frame], thing, place_2 * short)
    clip = replace(ground, frames=frames_THWC, source=f"{row.name} over {ground.source}")
    return CutOutClip(clip=clip, name=row.name, way=way, still=still, place_T2=place_T2, cover_THW=cover_THW)


def random_way(time_T: Numbers, way: int, size_2: Numbers, rng: np.random.Generator) -> Numbers:
    """Where the thing's centre is at each time. What moves sideways bobs a little."""
    seconds_T = time_T - time_T.mean()
    travel = min(rng.uniform(*_SPEED) * np.ptp(time_T), _MOST_WAY)
    place_T2 = np.outer(seconds_T * travel / max(np.ptp(time_T), 1e-9), _DIRECTIONS[way])
    if way in (1, 2):
        phase, hertz = rng.random(), rng.uniform(*_BOB_HERTZ)
        place_T2[:, 1] += rng.uniform(*_BOB) * np.sin(2 * math.pi * (hertz * time_T + phase))
    middle: Numbers = size_2 * rng.uniform(0.38, 0.62, 2)
    return place_T2 + middle


def _scaled(picture: Image.Image, length: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W, 4), 0 to 1: the picture with its longer edge this many pixels, mirrored every second time, a little
    darker or brighter. Colours are multiplied by cover, so that no ground shines through at the edges."""
    scale = length / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    whole_HW4 = np.asarray(picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS), np.float32) / 255
    whole_HW4[..., :3] *= rng.uniform(*_GAIN)
    return np.ascontiguousarray(whole_HW4[:, ::-1] if rng.random() < 0.5 else whole_HW4)


def _laid_over(ground_HWC: Frames, thing_HW4: NDArray[np.float32], at_2: Numbers) -> tuple[Frames, NDArray[np.float32]]:
    """The ground with the thing's centre at this pixel, between pixels by linear interpolation; and its cover."""
    high, wide = ground_HWC.shape[:2]
    canvas_HW4 = np.zeros((high, wide, 4), np.float32)
    left_top = at_2 - np.array([thing_HW4.shape[1], thing_HW4.shape[0]]) / 2
    (left, top), (across, down) = np.floor(left_top).astype(int), left_top - np.floor(left_top)
    for step_x, share_x in ((0, 1 - across), (1, across)):
        for step_y, share_y in ((0, 1 - down), (1, down)):
            _add(canvas_HW4, thing_HW4 * np.float32(share_x * share_y), left + step_x, top + step_y)
    cover_HW1 = canvas_HW4[..., 3:].clip(0, 1)
    laid_HWC = ground_HWC * (1 - cover_HW1) + 255 * canvas_HW4[..., :3]
    return laid_HWC.round().clip(0, 255).astype(np.uint8), cover_HW1[..., 0]


def _add(canvas_HW4: NDArray[np.float32], thing_HW4: NDArray[np.float32], left: int, top: int) -> None:
    """Add the part of the thing that lies inside the canvas."""
    high, wide = canvas_HW4.shape[:2]
    rows = slice(max(top, 0), max(top + len(thing_HW4), 0))
    columns = slice(max(left, 0), max(left + thing_HW4.shape[1], 0))
    inside_HW4 = canvas_HW4[rows, columns]
    from_top, from_left = max(-top, 0), max(-left, 0)
    inside_HW4 += thing_HW4[from_top:, from_left:][: min(high, len(inside_HW4)), : min(wide, inside_HW4.shape[1])]
