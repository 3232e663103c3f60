"""Stage a scene for one clip: where its things are and what the camera does in each frame, and the backdrop's texture.

Shapes in names: T frames, N things, 2 = (x, y), x to the right and y downwards; Y, X cells of a texture. Lengths are
shares of the picture's short side, places are relative to its centre. The clock runs from 0 at the first frame to 1 at
the last."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from descore.synthetic.scene import Action, Camera, Count, Scene, Setting, Size, Speed

CELLS = 64
"""Cells of a texture along the picture's short side, at zoom 1."""

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Float32s = NDArray[np.float32]
_Texture = Callable[[np.random.Generator, int, int], _Float32s]

# Three large things that move under a zoom just fit; all other bounds follow from that and from the ratios of 1.7
# between small and large, slow and fast.
_SMALL = (0.074, 0.080)
_LARGE = (0.142, 0.165)
_LARGE_OF_THREE = (0.137, 0.143)
_LENGTH = {Speed.SLOW: (0.17, 0.20), Speed.FAST: (0.36, 0.41)}
_DROP = (0.27, 0.32)
_PAN = (0.19, 0.22)
_ZOOM = 1.6  # size at the large end over size at the small end
_SHAKE = (0.025, 0.045)
_MARGIN = 0.02
_GAP = 0.045
_OFF_CENTRE = 0.12  # how far from the middle a lone thing may pass while the camera zooms
_MOMENT = (0.25, 0.65)

_NUMBER = {Count.ONE: 1, Count.TWO: 2, Count.THREE: 3}
_STEP = {Action.LEFT: (-1, 0), Action.RIGHT: (1, 0), Action.UP: (0, -1), Action.DOWN: (0, 1)}
_TRIES = 256

_STAR = ((0, 0, 1.0), (0, 1, 0.5), (0, -1, 0.5), (1, 0, 0.5), (-1, 0, 0.5))
_PEBBLE = tuple((y, x, 0.7 if y == 1 else 1.0) for y in (-1, 0, 1) for x in (-2, -1, 0, 1, 2) if abs(x) + abs(y) < 3)
_CREST = ((0, -2, 0.5), (0, -1, 1.0), (0, 0, 1.0), (0, 1, 1.0), (0, 2, 0.5))
"""Marks that are scattered over a texture: row, column, strength."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Staging:
    """What the scene leaves open, decided for one clip."""

    zoom_T: _Floats
    """Scale of the picture; 1 in the middle of the clip, which sizes refer to."""
    camera_T2: _Floats
    """The point of the world that the camera looks at."""
    place_TN2: _Floats
    """The centre of each thing in the world; in the picture it is at zoom * (place - camera)."""
    radius: float
    """Radius of the circle around each thing, at zoom 1."""
    seen_T: _Bools
    """Whether the things are present."""
    changed_T: _Bools
    """Whether they have their second colour."""

    @property
    def seen_at(self) -> _Floats:
        """(T, N, 2): the centre of each thing in the picture."""
        return self.zoom_T[:, None, None] * (self.place_TN2 - self.camera_T2[:, None])


def stage(scene: Scene, *, rng: np.random.Generator, frames: int, half_2: tuple[float, float]) -> Staging:
    """Random places and times for the scene. half_2: half of the picture's width and height.

    Every thing is inside the picture in every frame, and apart from the others. A single frame shows the middle of
    the clip."""
    clock_T = np.linspace(0, 1, frames) if frames > 1 else np.array([0.5])
    radius = rng.uniform(*_radii(scene))
    zoom_T, camera_T2 = _camera(scene.camera, rng, clock_T)
    path_T2 = _path(scene, rng, clock_T)
    past_T = clock_T >= rng.uniform(*_MOMENT)

    room_T2 = (np.asarray(half_2) - _MARGIN) / zoom_T[:, None] - radius
    low_2 = (camera_T2 - path_T2 - room_T2).max(axis=0)
    high_2 = (camera_T2 - path_T2 + room_T2).min(axis=0)
    if scene.count is Count.ONE and scene.camera in (Camera.ZOOM_IN, Camera.ZOOM_OUT):
        # A zoom moves things away from the centre or towards it; for one that passes the centre this cancels no motion.
        middle_2 = -path_T2.mean(axis=0)
        low_2, high_2 = (np.clip(middle_2 + off, low_2, high_2) for off in (-_OFF_CENTRE, _OFF_CENTRE))
    start_N2 = _spread(low_2, high_2, number=_NUMBER[scene.count], apart=2 * radius + _GAP, rng=rng)
    return Staging(
        zoom_T=zoom_T,
        camera_T2=camera_T2,
        place_TN2=start_N2 + path_T2[:, None],
        radius=radius,
        seen_T=past_T if scene.action is Action.APPEAR else ~(past_T & (scene.action is Action.VANISH)),
        changed_T=past_T & (scene.action is Action.CHANGE),
    )


def _radii(scene: Scene) -> tuple[float, float]:
    if scene.size is Size.SMALL:
        return _SMALL
    return _LARGE_OF_THREE if scene.count is Count.THREE else _LARGE


def _camera(camera: Camera, rng: np.random.Generator, clock_T: _Floats) -> tuple[_Floats, _Floats]:
    """(zoom_T, camera_T2)."""
    still_T = np.zeros(len(clock_T))
    direction = {Camera.PAN_LEFT: -1, Camera.PAN_RIGHT: 1, Camera.ZOOM_OUT: -1, Camera.ZOOM_IN: 1}.get(camera, 0)
    if camera in (Camera.PAN_LEFT, Camera.PAN_RIGHT):
        pan_T = direction * rng.uniform(*_PAN) * (clock_T - 0.5)
        return still_T + 1, np.stack([pan_T, still_T], axis=-1)
    if camera is Camera.SHAKE:
        # Nearly the other way each frame, so that no two frames in a row look from the same place.
        angle_T = np.cumsum(np.pi + rng.uniform(-1, 1, len(clock_T))) + rng.uniform(0, 2 * np.pi)
        reach_T = rng.uniform(*_SHAKE, len(clock_T))
        return still_T + 1, np.stack([reach_T * np.cos(angle_T), reach_T * np.sin(angle_T)], axis=-1)
    return _ZOOM ** (direction * (clock_T - 0.5)), np.zeros((len(clock_T), 2))


def _path(scene: Scene, rng: np.random.Generator, clock_T: _Floats) -> _Floats:
    """(T, 2): displacement of the things from their start, or from the ground on which they bounce."""
    if scene.action is Action.BOUNCE:
        return np.stack([np.zeros(len(clock_T)), _bounce(rng, clock_T)], axis=-1)
    length = rng.uniform(*_LENGTH[scene.speed])
    path_T2: _Floats = length * clock_T[:, None] * np.asarray(_STEP.get(scene.action, (0, 0)))
    return path_T2


def _bounce(rng: np.random.Generator, clock_T: _Floats) -> _Floats:
    """(T,): height over the ground, negative upwards. A fall from rest, a hit, a rise that ends at rest at time 1.

    Both are under one gravity, so a rise that lasts e times the fall is e squared as high."""
    drop, hit = rng.uniform(*_DROP), rng.uniform(0.5, 0.56)
    fall_T = drop * (1 - (clock_T / hit) ** 2)
    rise_T = drop * (((1 - hit) / hit) ** 2 - ((1 - clock_T) / hit) ** 2)
    return -np.where(clock_T < hit, fall_T, rise_T)


def _spread(low_2: _Floats, high_2: _Floats, *, number: int, apart: float, rng: np.random.Generator) -> _Floats:
    """(N, 2): random points of a box, no two nearer than `apart`; a zigzag if _TRIES random sets have none."""
    tries_KN2 = rng.uniform(low_2, high_2, (_TRIES, number, 2))
    mirrored_2 = rng.random(2) < 0.5
    gap_KNN = np.linalg.norm(tries_KN2[:, :, None] - tries_KN2[:, None], axis=-1) + 9 * np.eye(number)
    fits_K = gap_KNN.min(axis=(1, 2)) >= apart
    if fits_K.any():
        found_N2: _Floats = tries_KN2[fits_K.argmax()]
        return found_N2
    along = int(np.argmax(high_2 - low_2))
    share_N2 = np.empty((number, 2))
    share_N2[:, along] = np.linspace(0, 1, number)
    share_N2[:, 1 - along] = np.arange(number) % 2
    spread_N2: _Floats = low_2 + np.where(mirrored_2, 1 - share_N2, share_N2) * (high_2 - low_2)
    return spread_N2


# The backdrop.


def backdrop_texture(setting: Setting, *, rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """(Y, X, C): RGB, 0 to 255, as seen by day."""
    rgb_YXC: _Float32s = np.clip(_TEXTURES[setting](rng, rows, columns), 0, 255)
    return rgb_YXC


def camera_view(
    texture_YXC: NDArray[np.uint8], *, zoom: float, look: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """(H, W, C): the view of a camera that looks at this point, in cells from the texture's centre. size: width and
    height in pixels."""
    rows, columns = texture_YXC.shape[:2]
    width, height = size
    step = CELLS / (min(size) * zoom)  # cells in a pixel
    left = columns / 2 + look[0] - step * width / 2
    top = rows / 2 + look[1] - step * height / 2
    affine = (step, 0.0, left, 0.0, step, top)
    picture = Image.fromarray(texture_YXC)
    return np.asarray(picture.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def _night_sky(rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """Nearly black, with a faint haze, many points of light and a few larger ones."""
    light_YX = (rng.random((rows, columns)) > 0.98).astype(np.float32) * rng.random((rows, columns), np.float32)
    light_YX = np.maximum(light_YX, _scattered(rng, rows, columns, mark=_STAR, each=260))
    sky_YXC = _tinted((12, 12, 34), _blotches(rng, rows, columns, cell=12), (5, 5, 12))
    lit_YXC: _Float32s = sky_YXC + light_YX[..., None] * np.asarray((150, 150, 130), np.float32)
    return lit_YXC


def _meadow(rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """Dark green, with upright blades and tufts in sun and shade."""
    noise = np.cumsum(rng.standard_normal((rows + 7, columns), np.float32), axis=0)
    blades_YX = (noise[7:] - noise[:-7]) / np.float32(7**0.5)
    return _tinted((24, 72, 26), 1.3 * blades_YX + 1.5 * _blotches(rng, rows, columns, cell=7), (6, 14, 4))


def _beach(rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """Sand: dull yellowish grains, slanted dunes, and pebbles."""
    grains_YX = rng.standard_normal((rows, columns), np.float32)
    phase, y_Y1, x_1X = rng.uniform(0, 2 * np.pi), np.arange(rows)[:, None], np.arange(columns)[None, :]
    bend_YX = _blotches(rng, rows, columns, cell=16)
    dunes_YX = np.sin(0.45 * y_Y1 + 0.12 * x_1X + 1.5 * bend_YX + phase).astype(np.float32)
    pebbles_YX = _scattered(rng, rows, columns, mark=_PEBBLE, each=220)
    return _tinted((124, 103, 72), 0.7 * grains_YX + 1.2 * dunes_YX - 5 * pebbles_YX, (10, 9, 8))


def _sea(rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """Dark teal, with level waves that swell and break here and there."""
    phase, y_Y1, x_1X = rng.uniform(0, 2 * np.pi), np.arange(rows)[:, None], np.arange(columns)[None, :]
    bend_YX = 1.2 * np.sin(0.22 * x_1X + rng.uniform(0, 2 * np.pi)) + _blotches(rng, rows, columns, cell=10)
    waves_YX = np.sin(0.8 * y_Y1 + bend_YX + phase).astype(np.float32)
    crests_YX = _scattered(rng, rows, columns, mark=_CREST, each=130)
    return _tinted((10, 70, 84), waves_YX + 2 * crests_YX, (9, 27, 30))


def _brick_wall(rng: np.random.Generator, rows: int, columns: int) -> _Float32s:
    """Dull reddish brown bricks, 12 by 6 cells, each of its own shade, in grey mortar."""
    shift_y, shift_x = rng.integers(0, 12, 2)
    y_Y1, x_1X = np.arange(rows)[:, None] + shift_y, np.arange(columns)[None, :] + shift_x
    course_Y1 = y_Y1 // 6
    x_YX = x_1X + 6 * (course_Y1 % 2)
    shade_YX = rng.standard_normal((rows // 6 + 4, columns // 12 + 4), np.float32)[course_Y1, x_YX // 12]
    brick_YXC = _tinted((94, 50, 40), shade_YX, (14, 9, 8))
    mortar_YX1 = ((y_Y1 % 6 == 0) | (x_YX % 12 == 0))[..., None]
    wall_YXC: _Float32s = np.where(mortar_YX1, np.float32(112), brick_YXC)
    return wall_YXC


_TEXTURES: dict[Setting, _Texture] = {
    Setting.NIGHT_SKY: _night_sky,
    Setting.MEADOW: _meadow,
    Setting.BEACH: _beach,
    Setting.SEA: _sea,
    Setting.BRICK_WALL: _brick_wall,
}


def _tinted(base: tuple[int, int, int], light_YX: _Float32s, amount: tuple[int, int, int]) -> _Float32s:
    return np.asarray(base, np.float32) + light_YX[..., None] * np.asarray(amount, np.float32)


def _blotches(rng: np.random.Generator, rows: int, columns: int, *, cell: int) -> _Float32s:
    """(Y, X): smooth noise of about unit deviation, with features of about two `cell`s."""
    coarse = rng.standard_normal((rows // cell + 2, columns // cell + 2), np.float32)
    picture = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)


def _scattered(
    rng: np.random.Generator, rows: int, columns: int, *, mark: tuple[tuple[int, int, float], ...], each: int
) -> _Float32s:
    """(Y, X): marks at random places, one for each `each` cells, each of its own strength from 0.5 to 1."""
    count = rows * columns // each
    row_M, column_M = rng.integers(2, rows - 2, count), rng.integers(2, columns - 2, count)
    strength_M = rng.uniform(0.5, 1, count)
    light_YX = np.zeros((rows, columns), np.float32)
    for down, right, share in mark:
        light_YX[row_M + down, column_M + right] = share * strength_M
    return light_YX
