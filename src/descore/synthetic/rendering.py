"""Paint a scene as a short clip, antialiased, and bit for bit the same for the same generator state.

Exact sizes, paths, textures and brightness are drawn from the generator. Colour, shape, light and style take nothing
from it before things and texture are made, so two scenes that differ in those alone show the same things in the same
places before the same backdrop.

Shapes in names: T frames, N things, K = T * N, H rows, W columns, P pixels along a patch, C = 3 colour channels.
Lengths without a unit are shares of the picture's short side."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError
from descore.synthetic.scene import Colour, Light, Scene, Shape, Style
from descore.synthetic.staging import CELLS, Staging, backdrop_texture, camera_view, stage
from descore.types import Clip

_Floats = NDArray[np.float32]
_Ints = NDArray[np.int64]
_Picture = NDArray[np.uint8]

DRAWN_FPS = 4.0
"""Frames per second of drawn clips: 8 frames last 2 seconds."""

DRAWN_FRAMES = 8
DRAWN_SIDE = 64
SMALLEST = 32
"""Least width and height, in pixels."""

PALETTE: dict[Colour, tuple[int, int, int]] = {
    Colour.RED: (240, 30, 40),
    Colour.ORANGE: (255, 135, 0),
    Colour.YELLOW: (255, 236, 40),
    Colour.GREEN: (60, 230, 60),
    Colour.BLUE: (60, 110, 255),
    Colour.PURPLE: (200, 60, 240),
    Colour.WHITE: (250, 250, 250),
}
"""RGB of each colour by day, before the clip's brightness is applied."""

_BRIGHTNESS = (0.92, 1.04)
# Dusk dims and warms the backdrop more than the things, so that yellow does not pass for orange.
_DUSK_ON_THINGS = np.asarray((0.80, 0.70, 0.62), np.float32)
_DUSK_ON_BACKDROP = np.asarray((0.52, 0.43, 0.36), np.float32)
_DUSK_GLOW = np.asarray((17, 5, 0), np.float32)
_GREY = np.asarray((0.299, 0.587, 0.114), np.float32)  # luma of ITU-R BT.601
_GREY_GROUND = 0.75  # grey backdrops are darker, for there only light and shade set the things apart
_PAPER = np.asarray((222, 214, 196), np.float32)
_INK = np.asarray((38, 34, 40), np.float32)
_SHADE = 0.5  # how much darker it is inside an outline
_HATCH = 0.05
_STROKE_ROWS = 9  # cells
_BLOCKS = 32  # blocks of a pixelated picture along its short side
_CLEARLY = 130.0  # between two colours of a change, in RGB
_CLEARLY_IN_GREY = 40.0  # between two levels of grey
_STAR_NOTCH = 0.45  # where two arms meet, in radii
_ARM = 0.33  # half the width of a cross's bar, in radii
_TREMBLE = np.float32(0.03)  # amplitude of an unsteady hand, in radii
_WITHIN = np.float32(0.88)  # size of shapes with a line around them: the line stays within the circle, too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patches:
    """Square patches of pixels, one around each thing in each frame."""

    left_K: _Ints
    top_K: _Ints
    """First column and row in the picture. No patch reaches beyond the picture."""
    x_K1P: _Floats
    y_KP1: _Floats
    """Centre of each pixel, relative to the thing's centre, in radii."""
    radius_K11: _Floats
    """Pixels."""

    @property
    def side(self) -> int:
        """P."""
        return int(self.x_K1P.shape[-1])


def drawn_clip(
    scene: Scene,
    *,
    rng: np.random.Generator,
    frames: int = DRAWN_FRAMES,
    fps: float = DRAWN_FPS,
    height: int = DRAWN_SIDE,
    width: int = DRAWN_SIDE,
) -> Clip:
    """The scene as a Clip of `frames` frames, `fps` a second. Errors as in `render_scene`."""
    return Clip(
        frames=render_scene(scene, rng=rng, frames=frames, height=height, width=width),
        times=tuple(frame / fps for frame in range(frames)),
        source="<drawn>",
        source_fps=fps,
        source_size=(width, height),
        source_frames=frames,
        duration=frames / fps,
    )


def render_scene(
    scene: Scene,
    *,
    rng: np.random.Generator,
    frames: int = DRAWN_FRAMES,
    height: int = DRAWN_SIDE,
    width: int = DRAWN_SIDE,
) -> _Picture:
    """(T, H, W, 3) RGB. All things stay inside the picture in every frame.

    A zoom changes their size by a factor of 1.6; small and large refer to the middle of the clip. ConfigError for no
    frames or an edge below SMALLEST."""
    if frames < 1 or min(height, width) < SMALLEST:
        raise ConfigError(
            f"cannot draw {frames} frames of {width}x{height}; expected at least 1 frame of {SMALLEST}x{SMALLEST}"
        )
    side = min(height, width)
    staging = stage(scene, rng=rng, frames=frames, half_2=(width / side / 2, height / side / 2))
    brightness, other = rng.random(2)
    first, second = rng.uniform(0, 2 * np.pi, 2)
    gain = np.float32(_BRIGHTNESS[0] + brightness * (_BRIGHTNESS[1] - _BRIGHTNESS[0]))
    picture_THWC = _backdrop(scene, staging, rng, gain, (width, height))
    _add_things(picture_THWC, scene, staging, gain=gain, other=other, phases=(first, second))
    return _pixelated(picture_THWC) if scene.style is Style.PIXELATED else picture_THWC


def second_colour(colour: Colour, *, draw: float, grey: bool) -> Colour:
    """The colour that a changing thing takes, clearly different from its first; if `grey`, as a level of grey.
    draw: at least 0 and below 1, picks one of them."""
    rgb_by_colour = {each: np.asarray(rgb, np.float32) for each, rgb in PALETTE.items()}
    if grey:
        rgb_by_colour = {each: _without_colour(rgb) for each, rgb in rgb_by_colour.items()}
    least = _CLEARLY_IN_GREY * 3**0.5 if grey else _CLEARLY
    others = [each for each in Colour if np.linalg.norm(rgb_by_colour[each] - rgb_by_colour[colour]) >= least]
    return others[int(draw * len(others))]


def _backdrop(
    scene: Scene, staging: Staging, rng: np.random.Generator, gain: np.float32, size: tuple[int, int]
) -> _Picture:
    """(T, H, W, C): the scene without its things."""
    reach_2 = np.asarray(size) / min(size) / staging.zoom_T.min() + 2 * np.abs(staging.camera_T2).max(axis=0)
    columns, rows = (int(2 * np.ceil(reach * CELLS / 2)) + 4 for reach in reach_2)
    texture_YXC = backdrop_texture(scene.setting, rng=rng, rows=rows, columns=columns)
    if scene.style is Style.SKETCHED:
        texture_YXC = _on_paper(texture_YXC, rng)
    if scene.light is Light.DUSK:
        texture_YXC = texture_YXC * _DUSK_ON_BACKDROP + _DUSK_GLOW
    if scene.style is Style.GREY:
        texture_YXC = _without_colour(texture_YXC) * _GREY_GROUND
    rounded_YXC = _rounded(texture_YXC * gain)
    look_T2 = staging.camera_T2 * CELLS
    still = np.ptp(staging.zoom_T) == 0 and not look_T2.any()
    looks = list(zip(staging.zoom_T.tolist(), look_T2.tolist(), strict=True))[: 1 if still else None]
    views = [camera_view(rounded_YXC, zoom=zoom, look=(x, y), size=size) for zoom, (x, y) in looks]
    return np.repeat(views, len(staging.zoom_T), axis=0) if still else np.stack(views)


def _add_things(
    picture_THWC: _Picture,
    scene: Scene,
    staging: Staging,
    *,
    gain: np.float32,
    other: float,
    phases: tuple[float, float],
) -> None:
    _, height, width, _ = picture_THWC.shape
    seen_T = np.flatnonzero(staging.seen_T)
    if not seen_T.size:
        return
    side, things = min(height, width), staging.place_TN2.shape[1]
    at_K2 = (staging.seen_at[seen_T] * side + (width / 2, height / 2)).reshape(-1, 2).astype(np.float32)
    radius_K = np.repeat(staging.zoom_T[seen_T] * staging.radius * side, things).astype(np.float32)
    on = patches(x_K=at_K2[:, 0], y_K=at_K2[:, 1], radius_K=radius_K, height=height, width=width)

    colours = [scene.colour, second_colour(scene.colour, draw=other, grey=scene.style is Style.GREY)]
    toned_2C = np.stack([_toned(np.asarray(PALETTE[colour], np.float32), scene) for colour in colours])
    frame_K = np.repeat(seen_T, things)
    colour_KC = toned_2C[staging.changed_T[frame_K].astype(int)] * gain
    for cover_KPP, layer_KC in _layers(scene, on, side, colour_KC, phases):
        _blend(picture_THWC, frame_K, on, cover_KPP, layer_KC)


def _layers(
    scene: Scene, on: Patches, side: int, colour_KC: _Floats, phases: tuple[float, float]
) -> list[tuple[_Floats, _Floats]]:
    """Layers to paint, bottom first: cover (K, P, P) and colour (K, C)."""
    ink_KC = np.broadcast_to(_toned(_INK, scene), colour_KC.shape)
    if scene.style is Style.OUTLINED:
        inside_KPP, line_KPP = outlined(scene.shape, on)
        return [(_SHADE * inside_KPP, ink_KC), (line_KPP, colour_KC)]
    if scene.style is Style.SKETCHED:
        fill_KPP, line_KPP = sketched(scene.shape, on, hatch=_HATCH * side, phases=phases)
        return [(fill_KPP, colour_KC), (line_KPP, ink_KC)]
    return [(filled(scene.shape, on), colour_KC)]


def _blend(picture_THWC: _Picture, frame_K: _Ints, on: Patches, cover_KPP: _Floats, colour_KC: _Floats) -> None:
    for k, frame in enumerate(frame_K):
        top, left = on.top_K[k], on.left_K[k]
        under_PPC = picture_THWC[frame, top : top + on.side, left : left + on.side]
        under_PPC[...] = _rounded(under_PPC + cover_KPP[k, :, :, None] * (colour_KC[k] - under_PPC))


def _toned(colour_C: _Floats, scene: Scene) -> _Floats:
    """A thing's colour in this light and style."""
    lit_C = colour_C * _DUSK_ON_THINGS if scene.light is Light.DUSK else colour_C
    return _without_colour(lit_C) if scene.style is Style.GREY else lit_C


def _without_colour(values: _Floats) -> _Floats:
    """Grey, half luma and half the brightest channel: by luma alone, purple things would be lost on the sand."""
    grey = ((values * _GREY).sum(axis=-1) + values.max(axis=-1)) / 2
    return np.repeat(grey[..., None], 3, axis=-1)


def _on_paper(texture_YXC: _Floats, rng: np.random.Generator) -> _Floats:
    """A pale wash on grainy paper, under slanted pencil strokes: one diagonal in four or so, anew each few rows, since
    an even pattern would hide how far the camera moves."""
    rows, columns, _ = texture_YXC.shape
    band_Y1 = np.arange(rows)[:, None] // _STROKE_ROWS
    slant_YX = (np.arange(rows)[:, None] + np.arange(columns)[None, :]) % columns
    bands = rows // _STROKE_ROWS + 1
    strokes_BX = 0.35 * rng.random((bands, columns)) * (rng.random((bands, columns)) < 0.28)
    pencil_YX = 1 - strokes_BX[band_Y1, slant_YX] - 0.06 * rng.random((rows, columns))
    wash_YXC = np.float32(0.4) * _PAPER + np.float32(0.75) * texture_YXC
    return np.asarray(wash_YXC * pencil_YX[..., None], np.float32)


def _pixelated(picture_THWC: _Picture) -> _Picture:
    """The picture in square blocks, each of its mean colour; those at the right and lower edge may be cut."""
    _, height, width, _ = picture_THWC.shape
    block = max(2, round(min(height, width) / _BLOCKS))
    rows, columns = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(np.add.reduceat(picture_THWC, rows, axis=1, dtype=np.uint32), columns, axis=2)
    areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    blocks = _rounded((sums / areas[..., None]).astype(np.float32))
    return blocks.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]


def _rounded(values: _Floats) -> _Picture:
    within: _Floats = np.clip(values + np.float32(0.5), 0, 255)
    return within.astype(np.uint8)


# Shapes: the share of each pixel that a thing covers.


def patches(*, x_K: _Floats, y_K: _Floats, radius_K: _Floats, height: int, width: int) -> Patches:
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


def filled(shape: Shape, on: Patches) -> _Floats:
    """(K, P, P): the share of each pixel that the shape covers, 0 to 1."""
    return _share(_distance(shape, on.x_K1P, on.y_KP1), on)


def outlined(shape: Shape, on: Patches) -> tuple[_Floats, _Floats]:
    """(inside, line), each (K, P, P): the shares of each pixel inside the edge and in a line along it. More of the line
    lies outside than inside, or a small star would be all line."""
    distance_KPP = _distance(shape, on.x_K1P / _WITHIN, on.y_KP1 / _WITHIN) * _WITHIN
    return _share(distance_KPP, on), _line(distance_KPP, on, inward=0.1)


def sketched(shape: Shape, on: Patches, *, hatch: float, phases: tuple[float, float]) -> tuple[_Floats, _Floats]:
    """(fill, line), each (K, P, P): slanted crayon strokes, one each `hatch` pixels, that leave some of the ground
    free, and an unsteady line around them. phases: how the hand trembles, in radians."""
    first, second = (np.float32(phase) for phase in phases)
    x_KPP = (on.x_K1P + _TREMBLE * np.sin(4 * on.y_KP1 + first)) / _WITHIN
    y_KPP = (on.y_KP1 + _TREMBLE * np.sin(4 * on.x_K1P + second)) / _WITHIN
    distance_KPP = _distance(shape, x_KPP, y_KPP) * _WITHIN
    slant_KPP = (x_KPP + y_KPP) * (on.radius_K11 * np.float32(np.pi * 2**0.5 / hatch))
    fill_KPP = _share(distance_KPP, on) * (np.float32(0.7) + np.float32(0.3) * np.sin(slant_KPP))
    return fill_KPP, _line(distance_KPP, on, inward=0.04)


def _share(distance_KPP: _Floats, on: Patches) -> _Floats:
    """A pixel is covered as far as it lies inside the edge, to within half a pixel."""
    share_KPP: _Floats = np.clip(np.float32(0.5) - distance_KPP * on.radius_K11, 0, 1)
    return share_KPP


def _line(distance_KPP: _Floats, on: Patches, *, inward: float) -> _Floats:
    """The share of each pixel in a line along the edge, from this many radii inside it out to the circle. A line around
    a sharp tip would reach far beyond the tip; the circle cuts it off."""
    from_circle_KPP = np.sqrt(on.x_K1P**2 + on.y_KP1**2) - 1
    outer_KPP = np.maximum(distance_KPP - (1 - _WITHIN), from_circle_KPP)
    return _share(np.maximum(outer_KPP, -distance_KPP - np.float32(inward)), on)


def _distance(shape: Shape, x: _Floats, y: _Floats) -> _Floats:
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


def _star_distance(x: _Floats, y: _Floats) -> _Floats:
    """Five points: fold the plane onto the half arm that points up, then the distance to the line from its tip to its
    notch. A fold mirrors what lies beyond a line through the middle."""
    x, y = np.abs(x), np.negative(y)
    for angle in (2 * np.pi / 5, np.pi / 5):
        # The line runs at this angle from straight up; (across, down) is its normal, away from straight up.
        across, down = np.float32(np.cos(angle)), np.float32(-np.sin(angle))
        beyond: _Floats = np.maximum(across * x + down * y, np.float32(0))
        x, y = np.abs(x - 2 * beyond * across), y - 2 * beyond * down
    notch_x, notch_y = _STAR_NOTCH * np.sin(np.pi / 5), _STAR_NOTCH * np.cos(np.pi / 5)
    length = float(np.hypot(notch_x, 1 - notch_y))
    normal_x, normal_y = np.float32((1 - notch_y) / length), np.float32(notch_x / length)
    return np.asarray(x * normal_x + y * normal_y - normal_y, np.float32)
