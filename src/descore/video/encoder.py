"""Write frames as video: an MP4 file of an array, or a folder of pictures as a video in memory.

In: frames and their rate. Out: a file, or bytes that `read_clip` reads."""

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

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def write_mp4(
    target: str | Path | BinaryIO,
    frames_THWC: NDArray[np.uint8],
    *,
    fps: int,
    codec: str = "libx264",
    hold: int = 1,
    options: dict[str, str] | None = None,
) -> None:
    """Encode RGB frames (T, H, W, 3) at `fps` frames a second. The last one is shown for the time of `hold` frames.

    codec: libx264 plays everywhere; mpeg4 is the encoder that every FFmpeg has. options: the codec's own."""
    height, width = frames_THWC.shape[1:3]
    where = str(target) if isinstance(target, str | Path) else target
    with av.open(where, "w", format="mp4") as container:
        # Without B-frames the last packet is the last frame's, so its duration sets how long that frame is shown.
        stream = cast(av.VideoStream, container.add_stream(codec, rate=fps, options={"bf": "0", **(options or {})}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        packets = [packet for picture in frames_THWC for packet in stream.encode(_frame(picture))]
        packets += stream.encode(None)
        packets[-1].duration = hold
        container.mux(packets)


def encode_folder(folder: Path, *, fps: float) -> bytes:
    """A lossless Matroska video of the pictures in a folder, in the order of the numbers in their names.

    VideoError if there are no pictures, one cannot be read, or they differ in size."""
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES), key=_in_order)
    if not files:
        raise VideoError(str(folder), "no frames; expected .jpg or .png files")
    pictures = [_read(file) for file in files]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise VideoError(str(folder), f"frames of different sizes, such as {sizes[0]} and {sizes[1]}")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        (stream.width, stream.height), stream.pix_fmt = sizes[0], "bgr0"
        for picture in pictures:
            container.mux(stream.encode(_frame(np.asarray(picture))))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _frame(picture_HWC: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")


def _in_order(file: Path) -> tuple[tuple[int, ...], str]:
    """A key that sorts by the numbers in a name: frame 2 comes before frame 10."""
    return tuple(int(number) for number in re.findall(r"\d+", file.stem)), file.name


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise VideoError(str(file), f"no readable picture ({error})") from None
