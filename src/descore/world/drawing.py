"""Draw a scene as a short clip, antialiased and bit for bit the same for the same generator state.

In: a scene, a generator for what the scene leaves open (size, path, texture, brightness), a frame count and a size.
Out: uint8 frames, or a Clip. Knows nothing of prompts or texts.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels. Lengths without a unit are shares of the
picture's short side, measured from its middle, x to the right and y downwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError
from descore.types import Clip
from descore.world.scenes import Camera, Colour, Motion, Scene, Setting, Shape, Style

FPS = 4.0
"""Frames per second that drawn clips pretend to have: 8 frames last 2 seconds."""

FRAMES = 8
SIDE = 64

PALETTE: dict[Colour, tuple[int, int, int]] = {
    Colour.RED: (240, 30, 40),
    Colour.ORANGE: (255, 135, 0),
    Colour.YELLOW: (255, 236, 40),
    Colour.GREEN: (60, 230, 60),
    Colour.BLUE: (60, 110, 255),
    Colour.PURPLE: (200, 60, 240),
    Colour.WHITE: (250, 250, 250),
}
"""RGB of each colour before the clip's brightness is applied."""

Floats = NDArray[np.float32]
Texture = Callable[[np.random.Generator, int, int], Floats]

_TEXELS = 64  # texture cells along the short side, whatever the picture's size
_MARGIN = 0.012
_ZOOM = 1.6  # size at the large end over size at the small end
_WIDEST = _ZOOM**-0.5
_RING = 0.2  # width of an outline, in radii
_STEP = {Motion.LEFT: (-1, 0), Motion.RIGHT: (1, 0), Motion.UP: (0, -1), Motion.DOWN: (0, 1), Motion.STILL: (0, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Take:
    """What the scene leaves open, drawn once for a clip."""

    zoom_T: Floats
    x_T: Floats
    y_T: Floats
    radius: float
    brightness: float


def drawn_clip(
    scene: Scene, *, rng: np.random.Generator, frames: int = FRAMES, height: int = SIDE, width: int = SIDE
) -> Clip:
    """The scene as a Clip of `frames` frames at FPS."""
    return Clip(
        frames=render(scene, rng=rng, frames=frames, height=height, width=width),
        times=tuple(frame / FPS for frame in range(frames)),
        source="<drawn>",
        source_fps=FPS,
        source_size=(width, height),
        source_frames=frames,
        duration=frames / FPS,
    )


def render(
    scene: Scene, *, rng: np.random.Generator, frames: int = FRAMES, height: int = SIDE, width: int = SIDE
) -> NDArray[np.uint8]:
    """(T, H, W, 3) RGB. The shape stays inside the picture in every frame."""
    if frames < 1 or min(height, width) < 16:
        raise ConfigError(f"cannot draw {frames} frames of {width}x{height}; expected at least 1 frame of 16x16")
    take = _take(scene, rng, frames)
    backdrop_THWC = _backdrop(_TEXTURES[scene.setting], take.zoom_T, rng, height, width)
    cover_THW1 = _cover(scene, take, height, width)[..., None]
    colour_C = np.asarray(PALETTE[scene.colour], np.float32)
    picture_THWC = backdrop_THWC + cover_THW1 * (colour_C - backdrop_THWC)
    bright_THWC: Floats = np.clip(picture_THWC * np.float32(take.brightness) + np.float32(0.5), 0, 255)
    return bright_THWC.astype(np.uint8)


def _take(scene: Scene, rng: np.random.Generator, frames: int) -> _Take:
    radius, distance, start, offset, brightness = (float(draw) for draw in rng.random(5))
    radius = 0.175 + 0.04 * radius
    clock_T = np.linspace(0, 1, frames)
    direction = {Camera.STILL: 0, Camera.ZOOM_IN: 1, Camera.ZOOM_OUT: -1}[scene.camera]
    zoom_T = _ZOOM ** (direction * (clock_T - 0.5))
    room_first, room_last = ((0.5 - _MARGIN) / _ZOOM ** (direction * half) - radius for half in (-0.5, 0.5))

    # The path crosses the middle, so that a zoom, which pushes things away from the middle, never undoes a motion.
    length = 0.32 + 0.1 * distance
    earliest, latest = max(-room_first, -0.7 * length), min(room_last - length, -0.3 * length)
    along_T = earliest + start * (latest - earliest) + length * clock_T
    aside = (2 * offset - 1) * min(room_first, room_last, 0.2)
    aside_other = (2 * start - 1) * min(room_first, room_last, 0.2)

    step_x, step_y = _STEP[scene.motion]
    x_T = step_x * along_T if step_x else np.full(frames, aside)
    y_T = step_y * along_T if step_y else np.full(frames, aside_other if not step_x else aside)
    return _Take(
        zoom_T=zoom_T.astype(np.float32),
        x_T=(x_T * zoom_T).astype(np.float32),
        y_T=(y_T * zoom_T).astype(np.float32),
        radius=radius,
        brightness=0.88 + 0.14 * brightness,
    )


def _cover(scene: Scene, take: _Take, height: int, width: int) -> Floats:
    """(T, H, W): the share of each pixel that the shape covers, from its signed distance to the edge."""
    side = min(height, width)
    radius_T11 = (take.radius * side * take.zoom_T)[:, None, None]
    x_T1W = _centred(width)[None, None, :] - side * take.x_T[:, None, None]
    y_TH1 = _centred(height)[None, :, None] - side * take.y_T[:, None, None]
    distance_THW = _distance(scene.shape, x_T1W / radius_T11, y_TH1 / radius_T11)
    if scene.style is Style.OUTLINED:
        distance_THW = np.abs(distance_THW + np.float32(_RING / 2)) - np.float32(_RING / 2)
    return np.clip(np.float32(0.5) - distance_THW * radius_T11, 0, 1)


def _centred(count: int) -> Floats:
    """Pixel centres measured from the middle, in pixels."""
    return np.arange(count, dtype=np.float32) + np.float32(0.5 - count / 2)


def _distance(shape: Shape, x: Floats, y: Floats) -> Floats:
    """Signed distance to the shape's edge, negative inside, in radii. Every shape fits into the unit circle."""
    if shape is Shape.CIRCLE:
        return np.sqrt(x * x + y * y) - np.float32(0.86)
    if shape is Shape.SQUARE:
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.707)
    if shape is Shape.TRIANGLE:
        slanted = np.float32(0.8660254) * np.abs(x) - np.float32(0.5) * y
        return np.maximum(slanted, y) - np.float32(0.5)
    return _star_distance(x, y)


def _star_distance(x: Floats, y: Floats) -> Floats:
    """Five points: fold the plane onto half an arm, then the distance to the line from its tip to its notch."""
    sector = np.pi / 5
    angle = np.arctan2(x, -y)
    folded = np.abs(np.mod(angle + np.float32(sector), np.float32(2 * sector)) - np.float32(sector))
    length = np.sqrt(x * x + y * y)
    # The line from the tip (0, 1) to the notch at radius `notch`, half a sector away; (nx, ny) is its normal.
    notch = 0.46
    along_x, along_y = notch * np.sin(sector), notch * np.cos(sector) - 1
    norm = float(np.hypot(along_x, along_y))
    nx, ny = np.float32(-along_y / norm), np.float32(along_x / norm)
    return np.asarray(length * (np.sin(folded) * nx + np.cos(folded) * ny) - ny, np.float32)


def _backdrop(texture: Texture, zoom_T: Floats, rng: np.random.Generator, height: int, width: int) -> Floats:
    """(T, H, W, 3), or (1, H, W, 3) while nothing zooms. One texture, sampled bilinearly, rows and columns apart."""
    unit = min(height, width) / _TEXELS
    rows, columns = (int(np.ceil(count / unit / _WIDEST)) + 3 for count in (height, width))
    texture_YXC = texture(rng, rows, columns)
    zooms = zoom_T if np.ptp(zoom_T) > 0 else zoom_T[:1]
    frames = []
    for zoom in zooms:
        row_H = _centred(height) / np.float32(unit * zoom) + np.float32((rows - 1) / 2)
        column_W = _centred(width) / np.float32(unit * zoom) + np.float32((columns - 1) / 2)
        frames.append(_sample(_sample(texture_YXC, row_H).swapaxes(0, 1), column_W).swapaxes(0, 1))
    return np.stack(frames)


def _sample(values: Floats, position: Floats) -> Floats:
    """Linear interpolation along the first axis."""
    below = position.astype(np.int64)
    share = (position - below)[:, None, None]
    return values[below] * (1 - share) + values[below + 1] * share


def _tinted(base: tuple[int, int, int], light_YX: Floats, amount: tuple[int, int, int]) -> Floats:
    return np.asarray(base, np.float32) + light_YX[..., None] * np.asarray(amount, np.float32)


def _night_sky(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Nearly black, with faint points of light."""
    light_YX = (rng.random((rows, columns)) > 0.975).astype(np.float32) * rng.random((rows, columns), np.float32)
    return _tinted((12, 12, 34), light_YX, (190, 190, 170))


def _meadow(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dark green, with upright blades."""
    noise = np.cumsum(rng.standard_normal((rows + 7, columns), np.float32), axis=0)
    return _tinted((24, 70, 26), (noise[7:] - noise[:-7]) / np.float32(7**0.5), (8, 20, 6))


def _beach(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Sand: dull yellowish grains."""
    return _tinted((138, 116, 82), rng.standard_normal((rows, columns), np.float32), (10, 9, 8))


def _sea(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dark teal, with level waves."""
    phase, sway = rng.uniform(0, 2 * np.pi, 2)
    y_Y1, x_1X = np.arange(rows)[:, None], np.arange(columns)[None, :]
    light_YX = np.sin(y_Y1 * 0.9 + phase + 1.2 * np.sin(x_1X * 0.22 + sway)).astype(np.float32)
    return _tinted((10, 70, 84), light_YX, (8, 26, 28))


def _brick_wall(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dull reddish brown bricks, 12 by 6 cells, in grey mortar."""
    shift_y, shift_x = rng.integers(0, 12, 2)
    y_Y1, x_1X = np.arange(rows)[:, None] + shift_y, np.arange(columns)[None, :] + shift_x
    course_Y1 = y_Y1 // 6
    x_YX = x_1X + 6 * (course_Y1 % 2)
    shade_YX = rng.standard_normal((rows // 6 + 4, columns // 12 + 4), np.float32)[course_Y1, x_YX // 12]
    brick_YXC = _tinted((96, 52, 42), shade_YX, (9, 6, 5))
    mortar_YX1 = ((y_Y1 % 6 == 0) | (x_YX % 12 == 0))[..., None]
    return np.where(mortar_YX1, np.float32(128), brick_YXC)


_TEXTURES = {
    Setting.NIGHT_SKY: _night_sky,
    Setting.MEADOW: _meadow,
    Setting.BEACH: _beach,
    Setting.SEA: _sea,
    Setting.BRICK_WALL: _brick_wall,
}
