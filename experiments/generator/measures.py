"""Measurements on a clip and its shape: outline, path, backdrop, edges, change. No learned network.

Shapes: T frames, H rows, W columns, C = 3 colour channels, K frames with a shape, P pixels along a patch. Tracks are in
shares of the picture's side; the clock runs from 0 at the first frame to 1 at the last."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from descore.synthetic.rendering import Patches, filled, patches
from descore.synthetic.scene import Action, Setting, Shape
from descore.synthetic.staging import CELLS, backdrop_texture, camera_view
from experiments.generator.segmentation import Bools, Floats, Segmented, centres
from experiments.generator.world import Frames

LEAST_OVERLAP = 0.55
"""Of an outline with the best template; with less it is none of the shapes."""
BLURS = (0.0, 1.0, 2.0)
"""Deviations of the templates' blur, in pixels for 64 of picture: a soft outline is not another shape."""

LENGTHS = (0.12, 0.45)
"""Of a path: of drawn ones, and of what a generator makes of them."""
DROPS, HITS = (0.18, 0.40), (0.45, 0.50, 0.55, 0.60)
"""Depth of a fall, and when it ends."""
OFF_PATH = 0.04
"""Root mean square distance of a track from a path, from which on it is another one."""

SETTING_REACH = 34.0
"""Largest distance of a backdrop's mean colour from a setting's, in RGB: sea and meadow are 60 apart."""

_LUMA = np.asarray((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_STEPS = {Action.LEFT: (-1, 0), Action.RIGHT: (1, 0), Action.UP: (0, -1), Action.DOWN: (0, 1)}


# The shape's outline.


def outline_overlaps(found: Segmented) -> dict[Shape, float]:
    """By shape, the mean over frames of the overlap of the outline with a template of its centre and area: the smaller
    share of each pixel, summed, by the larger; the best of BLURS."""
    cover_KHW = found.cover_THW[found.present_T]
    return {shape: max(_overlap(shape, cover_KHW, found, blur) for blur in BLURS) for shape in Shape}


def _overlap(shape: Shape, cover_KHW: Floats, found: Segmented, blur: float) -> float:
    height, width = cover_KHW.shape[1:]
    area_K = cover_KHW.sum(axis=(1, 2))
    x_K, y_K = centres(found)[found.present_T].T
    radius_K = np.sqrt(area_K / _unit_area(shape)).astype(np.float32)
    on = patches(x_K=x_K, y_K=y_K, radius_K=radius_K, height=height, width=width)
    template_KPP = filled(shape, on)
    if blur:
        deviation = blur * height / 64
        template_KPP = ndimage.gaussian_filter(template_KPP, (0, deviation, deviation), mode="constant")
    both_K = np.minimum(template_KPP, _cut(cover_KHW, on)).sum(axis=(1, 2))
    return float(np.mean(both_K / (area_K + template_KPP.sum(axis=(1, 2)) - both_K)))


def _cut(cover_KHW: Floats, on: Patches) -> Floats:
    cut = [
        cover_HW[top : top + on.side, left : left + on.side]
        for cover_HW, top, left in zip(cover_KHW, on.top_K, on.left_K, strict=True)
    ]
    return np.stack(cut)


@lru_cache
def _unit_area(shape: Shape) -> float:
    """Area of the shape at a radius of 1."""
    radius, side = np.full(1, 100, np.float32), 256
    on = patches(
        x_K=np.full(1, 128, np.float32), y_K=np.full(1, 128, np.float32), radius_K=radius, height=side, width=side
    )
    return float(filled(shape, on).sum()) / 100**2


def edge_width(found: Segmented) -> float:
    """Pixels, for 64 of picture, over which the cover goes from 1 to 0: one by its mean slope at the outline. About 1.5
    for a drawn shape, whose edges lie within a pixel, since slopes are taken over two."""
    cover_KHW, inside_KHW = found.cover_THW[found.present_T], found.inside_THW[found.present_T]
    cross = np.zeros((1, 3, 3), bool)
    cross[0, 1], cross[0, :, 1] = True, True
    inner_KHW = ndimage.binary_erosion(inside_KHW, cross, border_value=1)  # the picture's edge is no outline
    outline_KHW = ndimage.binary_dilation(inside_KHW, cross) & ~inner_KHW
    slope_KHW = np.hypot(*np.gradient(cover_KHW, axis=(1, 2)))
    slope = float(slope_KHW[outline_KHW].mean())
    return float(64 / cover_KHW.shape[1] / max(slope, 1e-6))


# The motion.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Path:
    """A family of paths: one direction, and how far."""

    action: Action
    unit_T2: Floats
    reach: tuple[float, float]


def action_of(track_T2: Floats) -> Action | None:
    """The action whose path is nearest to the track, with any start, and with the best length that it may have; None if
    none is within OFF_PATH. Frames without a place are left out."""
    known_T: Bools = np.asarray(~np.isnan(track_T2).any(axis=1))
    apart = [(_distance(track_T2, path, known_T), path.action) for path in _paths(len(track_T2))]
    least, action = min(apart, key=lambda both: both[0])
    return action if least <= OFF_PATH else None


def _distance(track_T2: Floats, path: _Path, known_T: Bools) -> float:
    """Root mean square distance of the track from the family's nearest path."""
    track_K2, unit_K2 = track_T2[known_T], path.unit_T2[known_T]
    track_K2, unit_K2 = track_K2 - track_K2.mean(axis=0), unit_K2 - unit_K2.mean(axis=0)
    length = np.clip((track_K2 * unit_K2).sum() / max(float((unit_K2**2).sum()), 1e-9), *path.reach)
    return float(np.sqrt(np.square(track_K2 - length * unit_K2).sum(axis=1).mean()))


@lru_cache
def _paths(frames: int) -> tuple[_Path, ...]:
    clock_T = np.linspace(0, 1, frames, dtype=np.float32)
    still = _Path(action=Action.STILL, unit_T2=np.zeros((frames, 2), np.float32), reach=(0, 0))
    straight = [
        _Path(action=action, unit_T2=clock_T[:, None] * np.asarray(step, np.float32), reach=LENGTHS)
        for action, step in _STEPS.items()
    ]
    bounces = [_Path(action=Action.BOUNCE, unit_T2=_bounce(clock_T, hit), reach=DROPS) for hit in HITS]
    return (still, *straight, *bounces)


def _bounce(clock_T: Floats, hit: float) -> Floats:
    """(T, 2): a fall from rest at height 1 that ends at `hit`, and a rise under the same gravity that ends at rest."""
    fall_T = 1 - (clock_T / hit) ** 2
    rise_T = ((1 - hit) ** 2 - (1 - clock_T) ** 2) / hit**2
    height_T = np.where(clock_T < hit, fall_T, rise_T)
    return np.stack([np.zeros_like(height_T), -height_T], axis=-1).astype(np.float32)


# The backdrop.


def setting_of(frames_THWC: Frames, backdrop_THW: Bools) -> Setting | None:
    """The setting whose mean colour is nearest to the backdrop's, None if none is within SETTING_REACH."""
    mean_C = frames_THWC[backdrop_THW].mean(axis=0)
    apart = {one: float(np.linalg.norm(mean_C - _drawn(one, frames_THWC.shape[1])[0])) for one in Setting}
    best = min(apart, key=apart.__getitem__)
    return best if apart[best] <= SETTING_REACH else None


def texture_likeness(frames_THWC: Frames, backdrop_THW: Bools, setting: Setting) -> float:
    """The detail of the backdrop and of the setting's drawn ones, the smaller by the larger: less where it is blurred,
    and where it is noisy."""
    own, drawn = _detail(frames_THWC, backdrop_THW), _drawn(setting, frames_THWC.shape[1])[1]
    return min(own, drawn) / max(own, drawn, 1e-6)


def backdrop_change(frames_THWC: Frames, backdrop_THW: Bools) -> float:
    """Change of the backdrop from frame to frame, root mean square in levels of grey. 0 for drawn clips, whose camera
    stands still."""
    grey_THW = frames_THWC.astype(np.float32) @ _LUMA
    both = [first & second for first, second in pairwise(backdrop_THW)]
    steps = [after[free] - before[free] for (before, after), free in zip(pairwise(grey_THW), both, strict=True)]
    return float(np.sqrt(np.mean(np.square(np.concatenate(steps)))))


def _detail(frames_THWC: Frames, backdrop_THW: Bools) -> float:
    """Mean |five-point Laplacian| of the grey levels."""
    grey_THW = frames_THWC.astype(np.float32) @ _LUMA
    kernel = np.asarray([[[0, -1, 0], [-1, 4, -1], [0, -1, 0]]], np.float32)
    return float(np.abs(ndimage.convolve(grey_THW, kernel, mode="nearest"))[backdrop_THW].mean())


@lru_cache
def _drawn(setting: Setting, side: int, count: int = 16) -> tuple[Floats, float]:
    """Mean colour and detail of drawn backdrops of the setting."""
    rng = np.random.default_rng(0)
    textures = [backdrop_texture(setting, rng=rng, rows=CELLS + 4, columns=CELLS + 4) for _ in range(count)]
    views = [camera_view((one + 0.5).astype(np.uint8), zoom=1, look=(0, 0), size=(side, side)) for one in textures]
    frames_THWC: NDArray[np.uint8] = np.stack(views)
    mean_C = frames_THWC.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    return mean_C, _detail(frames_THWC, np.ones(frames_THWC.shape[:3], bool))
