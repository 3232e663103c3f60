"""Decode films into a compact store: small frames at an even rate, and the places where a clip may begin.

In: films and albums of photographs. Out: of a film `NAME.npy`, uint8 frames (N, H, W, 3), and a row of `index.json`.
Knows decoding, cuts and what makes a stretch worth showing; knows nothing of packages, texts or degradations.

A film or album is finished once the index names it, so a store that was interrupted goes on with the next. Files are
written aside and renamed. A store from before there were albums is as one without any.

Shapes in names: N stored frames, H rows, W columns, S steps between frames, K blocks of the picture.
"""

import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError
from descore.video.decoder import FrameConverter
from descore.world.album_store import store_album
from descore.world.albums import Album
from descore.world.films import Film
from descore.world.packages import Say, fetch, packed_file

SCHEMA = 1
FPS = 8
"""Frames a second in the store; clips take every second one."""
SHORT_SIDE = 160
"""Pixels of the short side, at most: a smaller film keeps its size."""
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

Frames = NDArray[np.uint8]


def make_store(folder: Path, films: Sequence[Film], albums: Sequence[Album] = (), *, say: Say) -> dict[str, Any]:
    """Fetch films and albums and store those that the folder does not have yet. Returns the index."""
    index = _empty_index() | (read_index(folder) if (folder / "index.json").exists() else {})
    missing = [film for film in films if film.name not in index["films"]]
    unseen = [album for album in albums if album.name not in index["albums"]]
    archives = [film.archive for film in missing] + [album.archive for album in unseen]
    fetch(list(dict.fromkeys(archives)), folder / "archives", say=say)
    for film in missing:
        say(f"decoding {film.title}")
        content = packed_file(film.archive, film.path, folder / "archives")
        index["films"][film.name] = _store_film(film, content, folder)
        _write_index(folder, index)
    for album in unseen:
        say(f"decoding the album {album.title}")
        index["albums"][album.name] = store_album(album, folder)
        _write_index(folder, index)
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a store; ConfigError if there is none or it is of another schema."""
    path = folder / "index.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found, expected a store of footage; make one: descore world footage --out DIR")
    index: dict[str, Any] = json.loads(path.read_text())
    found = {key: index.get(key) for key in _MADE_WITH}
    if found != _MADE_WITH:
        raise ConfigError(f"{path}: made with {found}, expected {_MADE_WITH}; make it again elsewhere")
    return index


_MADE_WITH = {"schema": SCHEMA, "fps": FPS, "short_side": SHORT_SIDE}


def _empty_index() -> dict[str, Any]:
    return _MADE_WITH | {"films": {}, "albums": {}}


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    aside = folder / "index.json.partial"
    aside.write_text(json.dumps(index, indent=1) + "\n")
    aside.replace(folder / "index.json")


def _store_film(film: Film, content: bytes, folder: Path) -> dict[str, Any]:
    path, aside = folder / f"{film.name}.npy", folder / f"{film.name}.npy.partial"
    frames_NHWC = _decode(content, aside)
    shots = shots_of(frames_NHWC, {"train": film.train, "test": film.test})
    count, height, width = frames_NHWC.shape[:3]
    frames_NHWC.flush()
    del frames_NHWC
    aside.replace(path)
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
    """The frame at each FPS-th of a second, the first that starts then or later, written as it comes."""
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
        filled = 0
        for picture in _evenly(film.decode(stream), FrameConverter(size)):
            frames_NHWC[filled] = picture
            filled += 1
    assert filled == count, f"{filled} of {count} frames: the archive is verified, so the film is whole"
    return frames_NHWC


_GRACE = 1e-3  # seconds: containers round times


def _evenly(frames: Iterator[av.VideoFrame], converter: FrameConverter) -> Iterator[Frames]:
    due = 0
    for frame in frames:
        if frame.time is not None and frame.time + _GRACE >= due / FPS:
            picture = converter.paint(frame)
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


_BLOCKS, _BINS = 4, 4  # blocks along each side of the picture; bins along each colour channel


def _block_histograms(picture_HWC: Frames) -> NDArray[np.float64]:
    """(K, bins): the share of each block's pixels in each bin of colour."""
    height, width = (length // _BLOCKS for length in picture_HWC.shape[:2])
    binned_HWC = picture_HWC[: _BLOCKS * height, : _BLOCKS * width] // (256 // _BINS)
    bin_HW = binned_HWC @ np.array([_BINS**2, _BINS, 1])
    block_HW = np.add.outer(np.arange(_BLOCKS).repeat(height) * _BLOCKS, np.arange(_BLOCKS).repeat(width))
    counts = np.bincount((block_HW * _BINS**3 + bin_HW).ravel(), minlength=_BLOCKS**2 * _BINS**3)
    share_KB: NDArray[np.float64] = counts.reshape(_BLOCKS**2, -1) / (height * width)
    return share_KB
