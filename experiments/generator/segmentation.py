"""Tell a shape from its backdrop by colour, without a learned network.

In: frames (T, H, W, 3). Out: the share of every pixel that the shape covers, or None where there is no shape.

A pixel at an edge is a mixture of backdrop and shape. Its place on the line between their two colours is the share that
the shape covers; what lies off the line belongs to neither.

Shapes: T frames, H rows, W columns, C = 3 colour channels. Areas are shares of the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from descore.synthetic.rendering import PALETTE
from descore.synthetic.scene import Colour

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

AREA = (0.011, 0.135)
"""Of a shape: from less than half of the smallest star to twice the largest circle."""
PRESENT = 0.75
"""Share of the frames in which a clip with a shape has one."""
OFF_LINE = 0.4
"""How far a pixel may lie off the line, as a share of the line's length."""
OVERSHOOT = 1.3
"""How far a pixel may lie beyond the shape's colour, likewise."""
PALETTE_REACH = 110.0
"""Largest distance of a shape's colour from the palette's, in RGB: about that of red and orange."""
NEAR = 2
"""Pixels around a shape's inside that its edge may take, for 64 pixels of picture."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """A clip's shape."""

    colour: Colour | None
    """The palette's colour that is nearest, None if none is near."""
    cover_THW: Floats
    """The share of each pixel that the shape covers, 0 to 1."""
    inside_THW: Bools
    """Where it covers more than half."""
    present_T: Bools
    """Whether a frame shows it."""
    several: bool
    """Whether there are further shapes of this colour in most frames."""


def segment(frames_THWC: NDArray[np.uint8]) -> Segmented | None:
    """The clip's shape, or None if fewer than PRESENT of its frames show one."""
    pixels_THWC = frames_THWC.astype(np.float32)
    backdrop_C = np.median(pixels_THWC, axis=(0, 1, 2))
    first_C = _likeliest_colour(pixels_THWC, backdrop_C)
    inside_THW, _, _ = _largest(_cover(pixels_THWC, backdrop_C, first_C) > 0.5)
    if not inside_THW.any():
        return None
    core_THW = _eroded(inside_THW)
    colour_C = np.median(pixels_THWC[core_THW if core_THW.any() else inside_THW], axis=0)
    cover_THW = _cover(pixels_THWC, backdrop_C, colour_C)
    inside_THW, area_T, second_T = _largest(cover_THW > 0.5)
    present_T = (area_T >= AREA[0]) & (area_T <= AREA[1])
    if present_T.mean() < PRESENT:
        return None
    near_THW = around(inside_THW, NEAR) & present_T[:, None, None]
    return Segmented(
        colour=_nearest(colour_C),
        cover_THW=np.where(near_THW, np.minimum(cover_THW, 1), 0).astype(np.float32),
        inside_THW=inside_THW & present_T[:, None, None],
        present_T=present_T,
        several=bool((second_T >= AREA[0]).mean() > 0.5),
    )


def centres(found: Segmented) -> Floats:
    """(T, 2): x and y of the shape's centre in each frame, in pixels from the upper left corner; nan where it is not
    shown."""
    cover_THW = found.cover_THW
    height, width = cover_THW.shape[1:]
    area_T = np.where(found.present_T, cover_THW.sum(axis=(1, 2)), np.nan)
    x_T = (cover_THW.sum(axis=1) * (np.arange(width) + 0.5)).sum(axis=1) / area_T
    y_T = (cover_THW.sum(axis=2) * (np.arange(height) + 0.5)).sum(axis=1) / area_T
    return np.stack([x_T, y_T], axis=-1).astype(np.float32)


def around(mask_THW: Bools, pixels: int) -> Bools:
    """The mask with so many pixels around it, for 64 pixels of picture, in each frame."""
    times = max(1, round(pixels * mask_THW.shape[1] / 64))
    grown: Bools = ndimage.binary_dilation(mask_THW, structure=np.ones((1, 3, 3)), iterations=times)
    return grown


def _eroded(mask_THW: Bools) -> Bools:
    inner: Bools = ndimage.binary_erosion(mask_THW, structure=np.ones((1, 3, 3)))
    return inner


def _cover(pixels_THWC: Floats, backdrop_C: Floats, colour_C: Floats) -> Floats:
    """(T, H, W): the place of each pixel between backdrop and colour, from 0; 0 for what lies off the line or beyond
    its end."""
    line_C = colour_C - backdrop_C
    length = max(float(np.linalg.norm(line_C)), 1.0)
    from_THWC = pixels_THWC - backdrop_C
    place_THW = from_THWC @ line_C / length**2
    off_THW = np.linalg.norm(from_THWC - place_THW[..., None] * line_C, axis=-1) / length
    on_line_THW = (off_THW <= OFF_LINE) & (place_THW <= OVERSHOOT)
    return np.where(on_line_THW, np.maximum(place_THW, 0), 0).astype(np.float32)


def _likeliest_colour(pixels_THWC: Floats, backdrop_C: Floats) -> Floats:
    """The palette's colour to which most pixels of one part in each frame belong, each the less the further it lies
    from that colour."""

    def belonging(colour_C: Floats) -> float:
        length = max(float(np.linalg.norm(colour_C - backdrop_C)), 1.0)
        inside_THW, _, _ = _largest(_cover(pixels_THWC, backdrop_C, colour_C) > 0.5)
        apart = np.linalg.norm(pixels_THWC[inside_THW] - colour_C, axis=-1) / length
        return float(np.maximum(0, 1 - apart / 0.6).sum())

    return max(_PALETTE.values(), key=belonging)


def _nearest(rgb_C: Floats) -> Colour | None:
    apart = {colour: float(np.linalg.norm(rgb_C - own_C)) for colour, own_C in _PALETTE.items()}
    best = min(apart, key=lambda colour: apart[colour])
    return best if apart[best] <= PALETTE_REACH else None


def _largest(mask_THW: Bools) -> tuple[Bools, Floats, Floats]:
    """Each frame's largest part, and the areas of the largest and of the second."""
    kept_THW = np.zeros_like(mask_THW)
    first_T, second_T = np.zeros((2, len(mask_THW)), np.float32)
    for frame, mask_HW in enumerate(mask_THW):
        label_HW, count = ndimage.label(mask_HW)
        if not count:
            continue
        size_K = np.bincount(label_HW.ravel())[1:]
        order_K = np.argsort(-size_K, kind="stable")
        kept_THW[frame] = label_HW == 1 + order_K[0]
        first_T[frame] = size_K[order_K[0]] / mask_HW.size
        second_T[frame] = size_K[order_K[1]] / mask_HW.size if count > 1 else 0
    return kept_THW, first_T, second_T


_PALETTE = {colour: np.asarray(rgb, np.float32) for colour, rgb in PALETTE.items()}
