"""Decode films and photographs into a folder of small frames, the store, with an index of where clips may begin.

    index.json        a row for each film and album; one that is listed is complete, so an interrupted store resumes
    FILM.npy          uint8 frames (N, H, W, 3) at FPS
    ALBUM.npy         uint8 pictures (H, W, 3) of several sizes, one after the other, flat
    PACKAGE.copyright the copyright file of a Debian package

Shapes in names: N stored frames, H rows, W columns, S steps between frames, K blocks of the picture.
"""

import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from descore.errors import ConfigError
from descore.io import atomic_path, atomic_write
from descore.video.decoder import FrameConverter
from experiments.footage.packages import Log, fetch, packed_file, packed_folder
from experiments.footage.sources import Album, Film

SCHEMA = 1
FPS = 8
"""Frames a second in the store; clips take every second one."""
SHORT_SIDE = 160
"""Largest short side of a film's frames, in pixels; a smaller film keeps its size."""
PHOTOGRAPH_SIDE = 384
"""Largest short side of a photograph, in pixels; a smaller one keeps its size."""
LEAST_SIDE = 192
"""Smallest short side of a photograph that is kept, in pixels."""
STRIDE = 2
CLIP_FRAMES = 8
"""Of a clip: 2 seconds at 4 frames a second."""
SPAN = STRIDE * (CLIP_FRAMES - 1) + 1
"""Stored frames from a clip's first to its last."""

CUT = 0.3
"""Two frames are of two shots if the histograms of most blocks of the picture differ by this share of their pixels."""
LEAST_SPREAD = 16.0
"""Standard deviation of brightness, in levels: below it, a frame is black, a title on a plain ground, or fog."""
LEAST_CHANGE = 2.0
"""Mean change of brightness from frame to frame of a clip, in levels: below it, nothing moves."""

_MADE_WITH = {"schema": SCHEMA, "fps": FPS, "short_side": SHORT_SIDE}
_GRACE = 1e-3  # seconds: containers round times
_BLOCKS, _BINS = 4, 4  # blocks along each side of the picture; bins along each colour channel

Frames = NDArray[np.uint8]


def make_store(folder: Path, films: Sequence[Film], albums: Sequence[Album] = (), *, log: Log) -> dict[str, Any]:
    """Download and decode the films and albums that the folder lacks. Returns the index."""
    index: dict[str, Any] = _MADE_WITH | {"films": {}, "albums": {}}
    index |= read_index(folder) if (folder / "index.json").exists() else {}
    new_films = [film for film in films if film.name not in index["films"]]
    new_albums = [album for album in albums if album.name not in index["albums"]]
    archives = [film.archive for film in new_films] + [album.archive for album in new_albums]
    fetch(list(dict.fromkeys(archives)), folder / "archives", log=log)
    for film in new_films:
        log(f"decoding {film.title}")
        content = packed_file(film.archive, film.path, folder / "archives")
        index["films"][film.name] = _store_film(film, content, folder)
        _write_index(folder, index)
    for album in new_albums:
        log(f"decoding the album {album.title}")
        index["albums"][album.name] = _store_album(album, folder)
        _write_index(folder, index)
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a store. ConfigError if the folder holds none, or one of another schema."""
    path = folder / "index.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found, expected a store; make one: python -m experiments.footage --out DIR")
    index: dict[str, Any] = json.loads(path.read_text())
    made_with = {key: index.get(key) for key in _MADE_WITH}
    if made_with != _MADE_WITH:
        raise ConfigError(f"{path}: made with {made_with}, expected {_MADE_WITH}; make it again elsewhere")
    return index


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    atomic_write(folder / "index.json", json.dumps(index, indent=1) + "\n")


def _store_film(film: Film, content: bytes, folder: Path) -> dict[str, Any]:
    path = folder / f"{film.name}.npy"
    with atomic_path(path) as partial:
        frames_NHWC = _decode(content, partial)
        shots = shots_of(frames_NHWC, {"train": film.train, "test": film.test})
        count, height, width = frames_NHWC.shape[:3]
        frames_NHWC.flush()
        del frames_NHWC
    return {
        "title": film.title,
        "about": film.about,
        "licence": film.licence,
        "credit": film.credit,
        "from": f"{film.archive.file}: {' / '.join(film.path)}",
        "file": path.name,
        "frames": count,
        "width": width,
        "height": height,
        "shots": shots,
    }


def _decode(content: bytes, path: Path) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Write the film's frames at FPS: for each instant, the first frame that starts then or later."""
    with av.open(io.BytesIO(content), "r") as film:
        starts = [float(p.pts * p.time_base) for p in film.demux(video=0) if p.pts is not None and p.size]
    count = math.floor((max(starts) + _GRACE) * FPS) + 1
    with av.open(io.BytesIO(content), "r") as film:
        stream = film.streams.video[0]
        stream.thread_type = "AUTO"
        width, height = stream.width * float(stream.sample_aspect_ratio or 1), stream.height
        scale = min(1.0, SHORT_SIDE / min(width, height))
        size = round(width * scale), round(height * scale)
        frames_NHWC = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size[1], size[0], 3))
        written = 0
        for picture in _evenly(film.decode(stream), FrameConverter(size)):
            frames_NHWC[written] = picture
            written += 1
    assert written == count, f"{written} of {count} frames: the archive is verified, so the film is whole"
    return frames_NHWC


def _evenly(frames: Iterator[av.VideoFrame], converter: FrameConverter) -> Iterator[Frames]:
    due = 0
    for frame in frames:
        if frame.time is not None and frame.time + _GRACE >= due / FPS:
            picture = converter.convert(frame)
            while frame.time + _GRACE >= due / FPS:
                yield picture
                due += 1


def shots_of(frames_NHWC: Frames, spans: dict[str, tuple[tuple[float, float], ...]]) -> list[dict[str, Any]]:
    """For each split, the shots within its spans (seconds) in which a clip can begin.

    A row has split, first and last frame, and `starts`: first and last of each run of frames at which a clip of
    CLIP_FRAMES may begin, to lie within shot and span, move, and show something in every frame."""
    apart_S, spread_N, change_N = _measures(frames_NHWC)
    edges = [0, *(np.nonzero(apart_S > CUT)[0] + 1).tolist(), len(frames_NHWC)]
    rows = []
    for split, parts in spans.items():
        for begin, end in parts:
            low, high = math.ceil(begin * FPS), math.floor(min(end * FPS, len(frames_NHWC)))
            for first, after in itertools.pairwise(edges):
                first, last = max(first, low), min(after, high) - 1
                starts = [s for s in range(first, last - SPAN + 2) if _is_worth(spread_N, change_N, s)]
                if starts:
                    rows.append({"split": split, "first": first, "last": last, "starts": _runs(starts)})
    return rows


def _is_worth(spread_N: NDArray[np.float64], change_N: NDArray[np.float64], start: int) -> bool:
    shown = slice(start, start + SPAN, STRIDE)
    return bool(spread_N[shown].min() >= LEAST_SPREAD and change_N[shown][:-1].mean() >= LEAST_CHANGE)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """First and last of each run of consecutive numbers."""
    breaks = np.nonzero(np.diff(numbers) > 1)[0]
    firsts, lasts = [0, *(breaks + 1)], [*breaks, len(numbers) - 1]
    return [[numbers[first], numbers[last]] for first, last in zip(firsts, lasts, strict=True)]


def _measures(
    frames_NHWC: Frames,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How far each frame is apart from the next, 0 to 1; each frame's spread of brightness; and its change to the frame
    STRIDE later. Frames are read one after the other, at half their size: a film need not fit into memory."""
    apart, spread, change = [], [], []
    grey: list[NDArray[np.float32]] = []
    last_KB: NDArray[np.float64] | None = None
    for frame in frames_NHWC:
        small_HWC = frame[::2, ::2]
        blocks_KB = _block_histograms(small_HWC)
        if last_KB is not None:
            apart.append(float(np.median(np.abs(blocks_KB - last_KB).sum(axis=1) / 2)))
        last_KB = blocks_KB
        grey = [*grey[-STRIDE:], small_HWC.mean(axis=2, dtype=np.float32)]
        spread.append(float(grey[-1].std()))
        if len(grey) > STRIDE:
            change.append(float(np.abs(grey[-1] - grey[0]).mean()))
    change += [0.0] * (len(spread) - len(change))
    return np.array(apart), np.array(spread), np.array(change)


def _block_histograms(picture_HWC: Frames) -> NDArray[np.float64]:
    """(K, bins): the share of each block's pixels in each bin of colour."""
    height, width = (length // _BLOCKS for length in picture_HWC.shape[:2])
    binned_HWC = picture_HWC[: _BLOCKS * height, : _BLOCKS * width] // (256 // _BINS)
    bin_HW = binned_HWC @ np.array([_BINS**2, _BINS, 1])
    block_HW = np.add.outer(np.arange(_BLOCKS).repeat(height) * _BLOCKS, np.arange(_BLOCKS).repeat(width))
    counts = np.bincount((block_HW * _BINS**3 + bin_HW).ravel(), minlength=_BLOCKS**2 * _BINS**3)
    share_KB: NDArray[np.float64] = counts.reshape(_BLOCKS**2, -1) / (height * width)
    return share_KB


def _store_album(album: Album, folder: Path) -> dict[str, Any]:
    """Write the album's files. Its row in the index has each picture's size and offset in the file."""
    pictures = dict(_pictures(album, folder / "archives"))
    assert pictures, f"{album.name}: the archive is verified, so the pictures are in it"
    path = folder / f"{album.name}.npy"
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate([picture_HWC.ravel() for picture_HWC in pictures.values()]))
    licences = folder / f"{album.archive.package}.copyright"
    licences.write_bytes(packed_file(album.archive, album.copyright_path, folder / "archives"))
    return {
        "title": album.title,
        "about": album.about,
        "licence": album.licence,
        "credit": album.credit,
        "from": f"{album.archive.file}: {' / '.join(album.path)}",
        "copyright": licences.name,
        "file": path.name,
        "pictures": list(_offsets(pictures)),
    }


def _pictures(album: Album, archives: Path) -> Iterator[tuple[str, Frames]]:
    """The photographs to keep, by path in the album without extension."""
    for path, content in packed_folder(album.archive, album.path, archives):
        name = str(PurePosixPath(path.removeprefix(f"{album.path[-1]}/")).with_suffix(""))
        if path.endswith((".jpg", ".jpeg", ".webp")) and name not in album.without:
            picture = Image.open(io.BytesIO(content))
            if picture.mode == "RGB" and min(picture.size) >= LEAST_SIDE:
                yield name, _small(picture)


def _small(picture: Image.Image) -> Frames:
    upright = ImageOps.exif_transpose(picture)
    scale = min(1.0, PHOTOGRAPH_SIDE / min(upright.size))
    size = round(upright.width * scale), round(upright.height * scale)
    return np.asarray(upright.resize(size, Image.Resampling.LANCZOS))


def _offsets(pictures: Mapping[str, Frames]) -> Iterator[dict[str, Any]]:
    at = 0
    for name, picture_HWC in pictures.items():
        yield {"name": name, "at": at, "width": picture_HWC.shape[1], "height": picture_HWC.shape[0]}
        at += picture_HWC.size
