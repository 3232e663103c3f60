"""Textured backdrops, and the part of one that a camera sees.

In: a setting, a generator, a size in cells; or a finished texture and where the camera looks. Out: RGB values. Knows
nothing of things, light or styles.

Shapes in names: Y rows and X columns of a texture in cells, H and W of the picture in pixels, C = 3 colour channels.
CELLS cells are as long as the picture's short side, whatever its size. Every texture has features of several sizes,
so that its motion can be seen at 64x64: single cells and features of about a tenth of the picture."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from descore.world.script import Setting

CELLS = 64

Floats = NDArray[np.float32]
Texture = Callable[[np.random.Generator, int, int], Floats]

_STAR = ((0, 0, 1.0), (0, 1, 0.5), (0, -1, 0.5), (1, 0, 0.5), (-1, 0, 0.5))
_PEBBLE = tuple((y, x, 0.7 if y == 1 else 1.0) for y in (-1, 0, 1) for x in (-2, -1, 0, 1, 2) if abs(x) + abs(y) < 3)
_CREST = ((0, -2, 0.5), (0, -1, 1.0), (0, 0, 1.0), (0, 1, 1.0), (0, 2, 0.5))
"""Marks that are strewn over a texture: row, column, strength."""


def texture(setting: Setting, *, rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """(Y, X, C): RGB, 0 to 255, as seen by day."""
    rgb_YXC: Floats = np.clip(_TEXTURES[setting](rng, rows, columns), 0, 255)
    return rgb_YXC


def view(
    texture_YXC: NDArray[np.uint8], *, zoom: float, look: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """What a camera sees that looks at this point (cells from the texture's middle), (H, W, C). size: width
    and height."""
    rows, columns = texture_YXC.shape[:2]
    width, height = size
    step = CELLS / (min(size) * zoom)  # cells in a pixel
    left = columns / 2 + look[0] - step * width / 2
    top = rows / 2 + look[1] - step * height / 2
    affine = (step, 0.0, left, 0.0, step, top)
    picture = Image.fromarray(texture_YXC)
    return np.asarray(picture.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def _night_sky(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Nearly black, with a faint haze, many points of light and a few larger ones."""
    light_YX = (rng.random((rows, columns)) > 0.98).astype(np.float32) * rng.random((rows, columns), np.float32)
    light_YX = np.maximum(light_YX, _strewn(rng, rows, columns, mark=_STAR, each=260))
    sky_YXC = _tinted((12, 12, 34), _blotches(rng, rows, columns, cell=12), (5, 5, 12))
    lit_YXC: Floats = sky_YXC + light_YX[..., None] * np.asarray((150, 150, 130), np.float32)
    return lit_YXC


def _meadow(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dark green, with upright blades and tufts in sun and shade."""
    noise = np.cumsum(rng.standard_normal((rows + 7, columns), np.float32), axis=0)
    blades_YX = (noise[7:] - noise[:-7]) / np.float32(7**0.5)
    return _tinted((24, 72, 26), 1.3 * blades_YX + 1.5 * _blotches(rng, rows, columns, cell=7), (6, 14, 4))


def _beach(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Sand: dull yellowish grains, slanted dunes, and pebbles."""
    grains_YX = rng.standard_normal((rows, columns), np.float32)
    phase, y_Y1, x_1X = rng.uniform(0, 2 * np.pi), np.arange(rows)[:, None], np.arange(columns)[None, :]
    bend_YX = _blotches(rng, rows, columns, cell=16)
    dunes_YX = np.sin(0.45 * y_Y1 + 0.12 * x_1X + 1.5 * bend_YX + phase).astype(np.float32)
    pebbles_YX = _strewn(rng, rows, columns, mark=_PEBBLE, each=220)
    return _tinted((124, 103, 72), 0.7 * grains_YX + 1.2 * dunes_YX - 5 * pebbles_YX, (10, 9, 8))


def _sea(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dark teal, with level waves that swell and break here and there."""
    phase, y_Y1, x_1X = rng.uniform(0, 2 * np.pi), np.arange(rows)[:, None], np.arange(columns)[None, :]
    bend_YX = 1.2 * np.sin(0.22 * x_1X + rng.uniform(0, 2 * np.pi)) + _blotches(rng, rows, columns, cell=10)
    waves_YX = np.sin(0.8 * y_Y1 + bend_YX + phase).astype(np.float32)
    crests_YX = _strewn(rng, rows, columns, mark=_CREST, each=130)
    return _tinted((10, 70, 84), waves_YX + 2 * crests_YX, (9, 27, 30))


def _brick_wall(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Dull reddish brown bricks, 12 by 6 cells, each of its own shade, in grey mortar."""
    shift_y, shift_x = rng.integers(0, 12, 2)
    y_Y1, x_1X = np.arange(rows)[:, None] + shift_y, np.arange(columns)[None, :] + shift_x
    course_Y1 = y_Y1 // 6
    x_YX = x_1X + 6 * (course_Y1 % 2)
    shade_YX = rng.standard_normal((rows // 6 + 4, columns // 12 + 4), np.float32)[course_Y1, x_YX // 12]
    brick_YXC = _tinted((94, 50, 40), shade_YX, (14, 9, 8))
    mortar_YX1 = ((y_Y1 % 6 == 0) | (x_YX % 12 == 0))[..., None]
    wall_YXC: Floats = np.where(mortar_YX1, np.float32(112), brick_YXC)
    return wall_YXC


_TEXTURES: dict[Setting, Texture] = {
    Setting.NIGHT_SKY: _night_sky,
    Setting.MEADOW: _meadow,
    Setting.BEACH: _beach,
    Setting.SEA: _sea,
    Setting.BRICK_WALL: _brick_wall,
}


def _tinted(base: tuple[int, int, int], light_YX: Floats, amount: tuple[int, int, int]) -> Floats:
    return np.asarray(base, np.float32) + light_YX[..., None] * np.asarray(amount, np.float32)


def _blotches(rng: np.random.Generator, rows: int, columns: int, *, cell: int) -> Floats:
    """(Y, X): smooth noise of about unit deviation, with features of about two `cell`s."""
    coarse = rng.standard_normal((rows // cell + 2, columns // cell + 2), np.float32)
    picture = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)


def _strewn(
    rng: np.random.Generator, rows: int, columns: int, *, mark: tuple[tuple[int, int, float], ...], each: int
) -> Floats:
    """(Y, X): marks at random places, one for each `each` cells, each of its own strength from 0.5 to 1."""
    count = rows * columns // each
    row_M, column_M = rng.integers(2, rows - 2, count), rng.integers(2, columns - 2, count)
    strength_M = rng.uniform(0.5, 1, count)
    light_YX = np.zeros((rows, columns), np.float32)
    for down, right, share in mark:
        light_YX[row_M + down, column_M + right] = share * strength_M
    return light_YX
