"""Write frames as a small film that every player opens.

In: uint8 frames (T, H, W, 3) with even edges. Out: an mp4 file, or its bytes in a buffer.
Knows PyAV; knows nothing of scenes, models or screens."""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
from numpy.typing import NDArray


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
