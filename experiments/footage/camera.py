"""Film a photograph with a moving camera, as documentary films do: it pans, zooms, drifts or sways.

Each frame is cut out between pixels, so that the motion is as smooth as the camera's path.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels; 2 coordinates, x then y.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST_SCALE = 1.3
"""Pixels of the photograph to one of a frame, along each side, at least. The finest detail that a photograph has is
soft from focus and compression, and a cut between its pixels would be softer than one on them."""

_PAN = 0.05, 0.3  # short sides of the frame a second
_ZOOM = 0.04, 0.2  # share of the size a second
_SWAY = 0.004, 0.014  # of the short side, to each side: less than a tenth of what looks shaky from frame to frame
_SWAY_HERTZ = 0.15, 0.5
_EASE = 0.35  # by how much of its mean speed a camera is slower or faster at either end, at most

_KINDS = ("pan", "zoom", "drift", "hand")
_SHARES = (0.35, 0.2, 0.3, 0.15)

Frames = NDArray[np.uint8]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """Where the camera is at each frame, in pixels of the photograph."""

    centre_T2: Numbers
    scale_T: Numbers
    """Pixels of the photograph to one of a frame."""


def film_photograph(
    picture_HWC: Frames, size: tuple[int, int], *, times: tuple[float, ...], rng: np.random.Generator
) -> Frames:
    """Frames (T, H, W, 3) at these seconds. size: width and height, at most the photograph's over LEAST_SCALE."""
    height, width = picture_HWC.shape[:2]
    path = random_path((width, height), size, times=times, rng=rng)
    picture = Image.fromarray(picture_HWC)
    half_T2 = path.scale_T[:, None] * size / 2
    boxes_T4 = np.concatenate([path.centre_T2 - half_T2, path.centre_T2 + half_T2], axis=1)
    boxes_T4 = boxes_T4.clip(0, [width, height, width, height])
    return np.stack([np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=tuple(box))) for box in boxes_T4])


def random_path(
    within: tuple[int, int], size: tuple[int, int], *, times: tuple[float, ...], rng: np.random.Generator
) -> CameraPath:
    """A random path along which the camera never sees over the edge of a photograph of the size `within`. It moves less
    far where there is no room."""
    time_T = np.array(times) - times[0]
    within_2, size_2 = np.array(within, float), np.array(size, float)
    kind = _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]
    eased_T = _eased(time_T, rng)
    scale_T = _scale(_growth(kind, eased_T, rng), float((within_2 / size_2).min()), rng)
    shift_T2 = _shift(kind, time_T, eased_T, rng) * size_2.min() * scale_T.mean()
    return CameraPath(centre_T2=_centre(shift_T2, scale_T[:, None] * size_2, within_2, rng), scale_T=scale_T)


def _scale(growth_T: Numbers, most: float, rng: np.random.Generator) -> Numbers:
    """A random scale that grows by at most this much and stays between LEAST_SCALE and `most`."""
    room = math.log(most / LEAST_SCALE)
    growth_T = growth_T * min(1, room / max(np.ptp(growth_T), 1e-9))
    start = rng.random() * max(room - np.ptp(growth_T), 0)
    scale_T: Numbers = LEAST_SCALE * np.exp(start + growth_T - growth_T.min())
    return scale_T


def _centre(shift_T2: Numbers, cut_T2: Numbers, within_2: Numbers, rng: np.random.Generator) -> Numbers:
    """A random place that shifts by at most this much, so that cuts of these sizes stay inside the photograph."""
    room_2 = (within_2 - cut_T2).min(axis=0)
    shift_T2 = shift_T2 * np.minimum(1, room_2 / np.maximum(np.ptp(shift_T2, axis=0), 1e-9))
    low_2 = (cut_T2 / 2 - shift_T2).max(axis=0)
    high_2 = (within_2 - cut_T2 / 2 - shift_T2).min(axis=0)
    centre_T2: Numbers = low_2 + rng.random(2) * np.maximum(high_2 - low_2, 0) + shift_T2
    return centre_T2


def _eased(time_T: Numbers, rng: np.random.Generator) -> Numbers:
    """Time warped so that the camera is a little slower at one end and faster at the other."""
    whole = max(float(time_T[-1]), 1e-9)
    ease: float = rng.uniform(-_EASE, _EASE)
    return time_T + ease * time_T * (time_T - whole) / whole


def _growth(kind: str, eased_T: Numbers, rng: np.random.Generator) -> Numbers:
    """Logarithm of the scale at each time over that at first."""
    speed: float = {"zoom": 1.0, "drift": 0.5}.get(kind, 0.0) * rng.uniform(*_ZOOM) * rng.choice([-1, 1])
    return eased_T * speed


def _shift(kind: str, time_T: Numbers, eased_T: Numbers, rng: np.random.Generator) -> Numbers:
    """Offset from the first place, in short sides of the frame. Every second pan is level."""
    if kind == "hand":
        return np.stack([_sway(time_T, rng), _sway(time_T, rng)], axis=1)
    speed: float = {"pan": 1.0, "drift": 0.5}.get(kind, 0.0) * rng.uniform(*_PAN)
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else rng.choice([0, math.pi])
    return np.stack([eased_T * (speed * math.cos(angle)), eased_T * (speed * math.sin(angle))], axis=1)


def _sway(time_T: Numbers, rng: np.random.Generator) -> Numbers:
    """The sum of two slow waves, in short sides of the frame."""
    sway_T = np.zeros_like(time_T)
    for _ in range(2):
        hertz, phase, reach = rng.uniform(*_SWAY_HERTZ), rng.random(), rng.uniform(*_SWAY)
        sway_T += reach * np.sin(2 * math.pi * (hertz * time_T + phase))
    return sway_T
