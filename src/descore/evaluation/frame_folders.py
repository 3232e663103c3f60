"""A folder of frames, as some benchmarks hold a video, made into a film in memory.

In: a folder of pictures and how many of them are a second. Out: the bytes of a lossless Matroska film, which the reader
of videos takes like any file. Knows Pillow and PyAV; knows nothing of benchmarks."""

import io
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from descore.errors import VideoError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def film_of(folder: Path, *, fps: float) -> bytes:
    """The pictures in the order of the numbers in their names. VideoError if there are none, or they are not alike."""
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES), key=_in_order)
    if not files:
        raise VideoError(str(folder), "no frames; expected .jpg or .png files")
    pictures = [_read(file) for file in files]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise VideoError(str(folder), f"frames of different sizes, such as {sizes[0]} and {sizes[1]}")
    film = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(film, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=rate)
        (stream.width, stream.height), stream.pix_fmt = sizes[0], "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return film.getvalue()


def _in_order(file: Path) -> tuple[tuple[int, ...], str]:
    """By the numbers in the name: frame 2 comes before frame 10."""
    return tuple(int(number) for number in re.findall(r"\d+", file.stem)), file.name


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as fault:
        raise VideoError(str(file), f"no readable picture ({fault})") from None
