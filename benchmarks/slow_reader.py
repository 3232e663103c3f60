"""A decoder's stub for `benchmarks.bulk`, in a module that imports no torch: each worker process imports it."""

import time

import numpy as np

from descore.types import Clip
from descore.video.sampling import VideoSampling

DECODE = 0.2
"""Seconds a clip."""


def read_stub(video: str, *, sampling: VideoSampling) -> Clip:
    """Decode nothing for DECODE seconds."""
    time.sleep(DECODE)
    return Clip(
        frames=np.zeros((8, 128, 128, 3), np.uint8),
        times=tuple(n / sampling.fps for n in range(8)),
        source=video,
        source_fps=sampling.fps,
        source_size=(128, 128),
        source_frames=8,
        duration=4.0,
    )
