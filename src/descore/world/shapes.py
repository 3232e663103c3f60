"""The things of a scene as shares of covered pixels, antialiased, each in a small patch around it.

In: a shape, a style, places and radii in pixels. Out: patches and where they belong in the picture. Knows geometry;
knows nothing of colours, backdrops or time.

Shapes in names: K drawings (one for each thing in each frame), P pixels along a patch's side."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from descore.world.script import Shape

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_STAR_NOTCH = 0.45  # where two arms meet, in radii
_ARM = 0.33  # half the width of a cross's bar, in radii
_TREMBLE = np.float32(0.03)  # how far a hand strays, in radii
_WITHIN = np.float32(0.88)  # the size of shapes with a line around them: the line has to stay within the circle, too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patches:
    """The pixels around each drawing."""

    left_K: Ints
    top_K: Ints
    """First column and row in the picture. No patch reaches beyond it."""
    x_K1P: Floats
    y_KP1: Floats
    """Where each pixel's middle lies, from the thing's middle, in radii."""
    radius_K11: Floats
    """Pixels."""

    @property
    def side(self) -> int:
        """P."""
        return int(self.x_K1P.shape[-1])


def patches(*, x_K: Floats, y_K: Floats, radius_K: Floats, height: int, width: int) -> Patches:
    """Square patches that hold circles of these middles (pixels from the top left corner) and radii (pixels)."""
    side = min(int(np.ceil(2 * radius_K.max())) + 3, height, width)
    left_K = np.clip(np.floor(x_K - side / 2 + 0.5), 0, width - side).astype(np.int64)
    top_K = np.clip(np.floor(y_K - side / 2 + 0.5), 0, height - side).astype(np.int64)
    middle_P = np.arange(side) + 0.5
    x_KP = (left_K[:, None] + middle_P - x_K[:, None]) / radius_K[:, None]
    y_KP = (top_K[:, None] + middle_P - y_K[:, None]) / radius_K[:, None]
    return Patches(
        left_K=left_K,
        top_K=top_K,
        x_K1P=x_KP[:, None, :].astype(np.float32),
        y_KP1=y_KP[:, :, None].astype(np.float32),
        radius_K11=radius_K[:, None, None].astype(np.float32),
    )


def filled(shape: Shape, on: Patches) -> Floats:
    """(K, P, P): the share of each pixel that the shape covers, 0 to 1."""
    return _share(_distance(shape, on.x_K1P, on.y_KP1), on)


def outlined(shape: Shape, on: Patches) -> tuple[Floats, Floats]:
    """(inside, line), each (K, P, P): the same for what lies within the edge, and for a line along it. More of the
    line lies outside than inside, or a small star would be all line."""
    distance_KPP = _distance(shape, on.x_K1P / _WITHIN, on.y_KP1 / _WITHIN) * _WITHIN
    return _share(distance_KPP, on), _line(distance_KPP, on, inward=0.1)


def sketched(shape: Shape, on: Patches, *, hatch: float, phases: tuple[float, float]) -> tuple[Floats, Floats]:
    """(fill, line), each (K, P, P): slanted crayon strokes, one each `hatch` pixels, that leave some of the ground
    free, and an unsteady line around them. phases: how the hand trembles, in radians."""
    first, second = (np.float32(phase) for phase in phases)
    x_KPP = (on.x_K1P + _TREMBLE * np.sin(4 * on.y_KP1 + first)) / _WITHIN
    y_KPP = (on.y_KP1 + _TREMBLE * np.sin(4 * on.x_K1P + second)) / _WITHIN
    distance_KPP = _distance(shape, x_KPP, y_KPP) * _WITHIN
    slant_KPP = (x_KPP + y_KPP) * (on.radius_K11 * np.float32(np.pi * 2**0.5 / hatch))
    fill_KPP = _share(distance_KPP, on) * (np.float32(0.7) + np.float32(0.3) * np.sin(slant_KPP))
    return fill_KPP, _line(distance_KPP, on, inward=0.04)


def _share(distance_KPP: Floats, on: Patches) -> Floats:
    """A pixel is covered as far as it lies inside the edge, to within half a pixel."""
    share_KPP: Floats = np.clip(np.float32(0.5) - distance_KPP * on.radius_K11, 0, 1)
    return share_KPP


def _line(distance_KPP: Floats, on: Patches, *, inward: float) -> Floats:
    """The share of each pixel that lies in a line along the edge, this many radii inward and out to the circle.
    What lies so near to the edges of a sharp tip reaches far beyond the tip: there the circle cuts it off."""
    from_circle_KPP = np.sqrt(on.x_K1P**2 + on.y_KP1**2) - 1
    outer_KPP = np.maximum(distance_KPP - (1 - _WITHIN), from_circle_KPP)
    return _share(np.maximum(outer_KPP, -distance_KPP - np.float32(inward)), on)


def _distance(shape: Shape, x: Floats, y: Floats) -> Floats:
    """Signed distance to the shape's edge, negative inside, in radii. Every shape fits into the unit circle."""
    if shape is Shape.CIRCLE:
        return np.sqrt(x * x + y * y) - np.float32(0.88)
    if shape is Shape.SQUARE:
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.70)
    if shape is Shape.TRIANGLE:
        slanted = np.float32(0.8660254) * np.abs(x) - np.float32(0.5) * y
        return np.maximum(slanted, y) - np.float32(0.5)
    if shape is Shape.CROSS:
        wide, long = np.float32(_ARM), np.float32(0.94)
        across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
        return np.maximum(across - wide, along - long)
    return _star_distance(x, y)


def _star_distance(x: Floats, y: Floats) -> Floats:
    """Five points: fold the plane onto the half arm that points up, then the distance to the line from its tip to its
    notch. A fold mirrors what lies beyond a line through the middle."""
    x, y = np.abs(x), np.negative(y)
    for angle in (2 * np.pi / 5, np.pi / 5):
        # The line runs at this angle from straight up; (across, down) is its normal, away from straight up.
        across, down = np.float32(np.cos(angle)), np.float32(-np.sin(angle))
        beyond: Floats = np.maximum(across * x + down * y, np.float32(0))
        x, y = np.abs(x - 2 * beyond * across), y - 2 * beyond * down
    notch_x, notch_y = _STAR_NOTCH * np.sin(np.pi / 5), _STAR_NOTCH * np.cos(np.pi / 5)
    length = float(np.hypot(notch_x, 1 - notch_y))
    normal_x, normal_y = np.float32((1 - notch_y) / length), np.float32(notch_x / length)
    return np.asarray(x * normal_x + y * normal_y - normal_y, np.float32)
