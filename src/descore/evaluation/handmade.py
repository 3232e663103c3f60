"""Hand-made features as scorers: the baselines that every figure of a reward model is read against.

In: a clip. Out: one number, higher is meant to be better. Knows pixels; knows nothing of prompts, of people or of how
well a feature does.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from descore.data.sampling import VideoSampling
from descore.errors import VideoError
from descore.types import Clip

SAMPLING = VideoSampling(
    fps=240.0, min_frames=1, max_frames=64, min_pixels=1, max_pixels=1280 * 720, size_multiple=1, timeout=60.0
)
"""Every frame of a short clip, at the size that it has: scaling blurs, and left-out frames are no jerks. Of a longer
film 64 frames are taken, evenly spaced; a picture above 720p is scaled down."""

LUMA = (0.299, 0.587, 0.114)
"""Grey from red, green and blue (ITU-R BT.601)."""

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number that is read off the pixels."""

    name: str
    measure: Callable[[Clip], float]
    """Raises VideoError where the number is not defined."""
    formula: str
    """What is measured, for people; part of a run's config, so that a changed feature starts a run of its own."""


def sharpness(clip: Clip) -> float:
    """Mean of |Laplacian| over frames and inner pixels, in grey levels: of the five-point Laplacian
    4 g[y, x] - g[y - 1, x] - g[y + 1, x] - g[y, x - 1] - g[y, x + 1]. 0 for a flat picture."""
    if min(clip.size) < 3:
        raise VideoError(clip.source, f"pictures of {clip.size[0]}x{clip.size[1]} pixels; sharpness needs 3x3 or more")
    sums = [float(np.abs(_laplacian(_grey(frame_HWC))).mean()) for frame_HWC in clip.frames]
    return sum(sums) / len(sums)


def jerk(clip: Clip) -> float:
    """Minus the mean |second temporal difference| over the mean |first one|, both over all pixels: 0 for a motion that
    changes every pixel at an even pace, about -2 for flicker between two pictures."""
    grey_THW = np.stack([_grey(frame_HWC) for frame_HWC in clip.frames])
    if len(grey_THW) < 3:
        raise VideoError(clip.source, f"{len(grey_THW)} frames; jerk needs 3 or more")
    change_THW = np.diff(grey_THW, axis=0)
    first, second = float(np.abs(change_THW).mean()), float(np.abs(np.diff(change_THW, axis=0)).mean())
    if first == 0:
        raise VideoError(clip.source, "nothing changes from frame to frame; jerk is not defined")
    return -second / first


def _grey(frame_HWC: NDArray[np.uint8]) -> Grey:
    return frame_HWC.astype(np.float32) @ np.asarray(LUMA, np.float32)


def _laplacian(grey_HW: Grey) -> Grey:
    inner = 4 * grey_HW[1:-1, 1:-1]
    return inner - grey_HW[:-2, 1:-1] - grey_HW[2:, 1:-1] - grey_HW[1:-1, :-2] - grey_HW[1:-1, 2:]


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(name="sharpness", measure=sharpness, formula="mean |Laplacian| of the grey frames"),
        Feature(
            name="jerk", measure=jerk, formula="- mean |second temporal difference| / mean |first| of the grey frames"
        ),
    )
}
"""By the name that `descore evaluate --model` takes."""
