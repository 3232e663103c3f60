"""A folder of frames, as some benchmarks hold a video, made into a film in memory.

In: a folder of pictures and how many of them are a second. Out: the bytes of a lossless Matroska film, which the reader
of videos takes like any file. Knows Pillow and PyAV; knows nothing of benchmarks."""

import io
import re
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from descore.errors import VideoError


def write_mp4(
    target: str | Path | BinaryIO,
    frames_THWC: NDArray[np.uint8],
    *,
    fps: int,
    codec: str = "libx264",
    hold: int = 1,
    options: dict[str, str] | None = None,
) -> None:
    """Encode the frames at `fps` frames a second; the last one is shown for `hold` frames' time.

    codec: libx264 for people; mpeg4 where only an encoder that every FFmpeg has will do. options: the codec's own."""
    height, width = frames_THWC.shape[1:3]
    where = str(target) if isinstance(target, str | Path) else target
    with av.open(where, "w", format="mp4") as film:
        # Without frames that look ahead, the last packet is the last frame, and how long it is shown can be said there.
        stream = cast(av.VideoStream, film.add_stream(codec, rate=fps, options={"bf": "0", **(options or {})}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        packets = [packet for picture in frames_THWC for packet in stream.encode(_frame(picture))]
        packets += stream.encode(None)
        packets[-1].duration = hold
        film.mux(packets)


def _frame(picture_HWC: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")


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
