"""A copy of a video that every browser plays: H.264 in MP4, frame by frame at the times of the source.

In: a file in any format that is read. Out: a file, at most `PLAYABLE.max_pixels` a frame, without sound. Runs in a
decoding process, and imports neither torch nor a web framework."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from descore.types import Clip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

PLAYABLE = VideoSampling(
    fps=30.0, min_frames=2, max_frames=480, min_pixels=2 * 2, max_pixels=640 * 640, size_multiple=2
)
"""16 seconds have all of 30 frames a second; a longer video is sampled more thinly."""

_TICKS = 90_000
"""Of a second."""


def write_playable(path: str, *, target: Path, timeout: float) -> Clip:
    """Write the copy to `target`; the clip has no frames left. VideoError for a video that cannot be read."""
    clip = read_clip(path, sampling=PLAYABLE.model_copy(update={"timeout": timeout}))
    height, width = clip.frames.shape[1:3]
    ticks = [round(time * _TICKS) for time in clip.times]
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as container:
        # Without B-frames the last packet is the last frame's, so its duration sets how long that frame is shown.
        options = {"bf": "0", "crf": "18", "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        packets = []
        for picture, tick in zip(clip.frames, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = max(1, round(clip.duration * _TICKS) - ticks[-1])
        container.mux(packets)
    return clip.without_frames()
