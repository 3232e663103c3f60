"""Soft regions, courses over time and smooth displacements: what harms are made of.

All are drawn from a generator, with draws that do not depend on a harm's strength.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels; 2 coordinates, x then y, in pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


def short_side(frames_THWC: Frames) -> int:
    """The shorter edge, in pixels."""
    return int(min(frames_THWC.shape[1:3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An ellipse in the picture."""

    x: float
    """Centre, as a share of the width."""
    y: float
    """Centre, as a share of the height."""
    tilt: float
    """Radians."""
    aspect: float
    """The longer radius over the shorter."""

    def mask(self, height: int, width: int, *, radius: float, soft: float = 0.6) -> Floats:
        """(H, W): 1 inside, falling smoothly to 0 at the edge. radius: the mean one, in pixels. soft: share of the
        radius over which it falls."""
        x_W = np.arange(width, dtype=np.float32) + 0.5 - self.x * width
        y_H1 = (np.arange(height, dtype=np.float32) + 0.5 - self.y * height)[:, None]
        cos, sin, stretch = math.cos(self.tilt), math.sin(self.tilt), math.sqrt(self.aspect)
        along_HW, across_HW = cos * x_W + sin * y_H1, -sin * x_W + cos * y_H1
        distance_HW = np.sqrt((along_HW / stretch) ** 2 + (across_HW * stretch) ** 2) / max(radius, 1e-6)
        return smoothstep(np.asarray((1 - distance_HW) / soft, np.float32))


def random_sites(rng: np.random.Generator, count: int) -> list[Site]:
    """Sites, rather in the middle than at the edge, where things are."""
    return [
        Site(
            x=float(np.clip(rng.normal(0.5, 0.18), 0.12, 0.88)),
            y=float(np.clip(rng.normal(0.5, 0.18), 0.12, 0.88)),
            tilt=rng.uniform(0, math.pi),
            aspect=rng.uniform(1, 2),
        )
        for _ in range(count)
    ]


def smoothstep(x: Floats) -> Floats:
    """0 below 0, 1 above 1, and smooth in between."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def random_course(frames: int, rng: np.random.Generator) -> Floats:
    """(T,): 0 to 1 over time. It rises and stays, rises and falls, or comes and goes twice; the clip begins sound."""
    time_T = np.linspace(0, 1, frames, dtype=np.float32)
    kind, begin, length = rng.integers(3), rng.uniform(0, 0.35), rng.uniform(0.4, 0.65)
    within_T = ((time_T - begin) / length).clip(0, 1)
    if kind == 0:
        return smoothstep(within_T)
    return np.sin(within_T * math.pi * (1 if kind == 1 else 2)).astype(np.float32) ** (1 if kind == 1 else 2)


def drifting_noise(
    frames: int, cells: int, rng: np.random.Generator, *, knots: int, channels: int = 2
) -> NDArray[np.float32]:
    """(T, cells, cells, channels): normal noise that drifts from one of `knots` states to the next, at even times."""
    state_K = rng.standard_normal((knots, cells, cells, channels)).astype(np.float32)
    at_T = np.linspace(0, knots - 1, frames)
    low_T = np.minimum(at_T.astype(int), knots - 2)
    part_T = smoothstep((at_T - low_T).astype(np.float32))[:, None, None, None]
    mixed: NDArray[np.float32] = state_K[low_T] * (1 - part_T) + state_K[low_T + 1] * part_T
    return mixed


def enlarged(noise_Tgg2: Floats, height: int, width: int) -> Floats:
    """(T, H, W, 2): coarse noise, smooth in between: cubic to a quarter of the size, then linear."""
    coarse = torch.from_numpy(noise_Tgg2).movedim(3, 1)
    middle = (max(height // 4, noise_Tgg2.shape[1]), max(width // 4, noise_Tgg2.shape[2]))
    half = functional.interpolate(coarse, size=middle, mode="bicubic", align_corners=True)
    fine = functional.interpolate(half, size=(height, width), mode="bilinear", align_corners=True)
    return np.ascontiguousarray(fine.movedim(1, 3).numpy())


def warped(frames_THWC: Frames, shift_THW2: Floats) -> Frames:
    """Each pixel taken from as far away as the shift says, between pixels; what lies outside is mirrored. The shift may
    have one frame for all."""
    frames, height, width = frames_THWC.shape[:3]
    size = np.asarray((width, height), np.float32)
    x_W, y_H = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    at_HW2 = np.stack(np.broadcast_arrays(x_W, y_H[:, None]), axis=2)
    grid_THW2 = ((at_HW2 + shift_THW2 + 0.5) * (2 / size) - 1).astype(np.float32)
    grid = torch.from_numpy(grid_THW2).expand(frames, -1, -1, -1)
    pixels = torch.from_numpy(np.ascontiguousarray(frames_THWC)).movedim(3, 1).float()
    # Linear sampling would soften what is moved, and a model would learn that instead of the harm.
    moved = functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return np.ascontiguousarray(moved.clamp_(0, 255).add_(0.5).byte().movedim(1, 3).numpy())


def mixed(below_THWC: Frames, above_THWC: Frames, share: Floats) -> Frames:
    """Frames mixed by a share (0 to 1) of those above, (H, W), (T, H, W) or a number for each frame (T, 1, 1)."""
    below = below_THWC.astype(np.float32)
    below += (above_THWC - below) * np.asarray(share, np.float32)[..., None]
    below += 0.5
    return below.astype(np.uint8)


def shifted(frames_THWC: Frames, down: int, right: int) -> Frames:
    """Moved, with mirrored edges."""
    height, width = frames_THWC.shape[1:3]
    edge = max(abs(down), abs(right))
    wide_THWC = np.pad(frames_THWC, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    return wide_THWC[:, edge - down : edge - down + height, edge - right : edge - right + width]


def each_picture(frames_THWC: Frames, change: Callable[[Image.Image], Image.Image]) -> Frames:
    """Each picture changed by itself."""
    return np.stack([np.asarray(change(Image.fromarray(picture_HWC))) for picture_HWC in frames_THWC])
