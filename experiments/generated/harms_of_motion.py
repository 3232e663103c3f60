"""Harms that only time shows: what moves loses its shape, changes, jumps, stands still, flickers or shakes.

Each takes frames (T, H, W, 3), a strength above 0 and a generator, and gives new frames; `harms` checks and names them.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels; 2 coordinates, x then y. Sizes are shares of the
picture's short side."""

import math

import numpy as np
from PIL import Image

from experiments.generated.fields import (
    Floats,
    Frames,
    Site,
    drifting_noise,
    enlarged,
    mixed,
    random_course,
    random_sites,
    shifted,
    short_side,
    warped,
)


def melt(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Two or three parts lose their shape and drift: each sinks, and bends in a way that changes."""
    frames, height, width = frames_THWC.shape[:3]
    reach = short_side(frames_THWC) * 0.17 * strength
    shift_THW2 = np.zeros((frames, height, width, 2), np.float32)
    for site in random_sites(rng, 3)[: rng.integers(2, 4)]:
        mask_HW = site.mask(height, width, radius=short_side(frames_THWC) * rng.uniform(0.28, 0.45), soft=0.9)
        course_T = random_course(frames, rng)
        sag_2 = np.add(rng.normal(0, 0.35, 2), (0, -0.6))
        bend_THW2 = enlarged(drifting_noise(frames, 5, rng, knots=3), height, width)
        bend_THW2 += sag_2.astype(np.float32)
        shift_THW2 += bend_THW2 * (course_T[:, None, None] * mask_HW)[..., None]
    return warped(frames_THWC, shift_THW2 * np.float32(reach))


def morph(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A patch turns, swells or shrinks, and does so unsteadily."""
    frames, height, width = frames_THWC.shape[:3]
    site = random_sites(rng, 1)[0]
    radius = short_side(frames_THWC) * rng.uniform(0.3, 0.5)
    mask_HW = site.mask(height, width, radius=radius, soft=1.0)
    course_T = random_course(frames, rng) * rng.choice([-1, 1]) + 0.5 * rng.standard_normal(frames)
    course_T[0] = 0
    angle, swell = (2.2, 0.4) if rng.random() < 0.6 else (0.6, 1.1)
    return warped(frames_THWC, _turned(site, mask_HW, strength * course_T, angle=angle, swell=swell))


def _turned(site: Site, mask_HW: Floats, amount_T: Floats, *, angle: float, swell: float) -> Floats:
    """The shift of a patch that is turned by up to this angle and swollen by up to this share."""
    height, width = mask_HW.shape
    x_HW, y_HW = np.broadcast_arrays(np.arange(width) - site.x * width, (np.arange(height) - site.y * height)[:, None])
    amount_THW = np.asarray(amount_T, np.float32)[:, None, None] * mask_HW
    turn_THW, grow_THW = angle * amount_THW, 1 - np.clip(swell * amount_THW, -1.2, 0.8)
    cos_THW, sin_THW = np.cos(turn_THW) * grow_THW, np.sin(turn_THW) * grow_THW
    x_THW, y_THW = cos_THW * x_HW - sin_THW * y_HW - x_HW, sin_THW * x_HW + cos_THW * y_HW - y_HW
    return np.stack([x_THW, y_THW], axis=3).astype(np.float32)


def boil(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Texture swims: small parts are shifted, in each frame otherwise; everywhere or in a large part."""
    frames, height, width = frames_THWC.shape[:3]
    cells = int(rng.integers(10, 18))
    noise = rng.standard_normal((frames, cells, cells, 2)).astype(np.float32)
    site, everywhere = random_sites(rng, 1)[0], rng.random() < 0.5
    mask_HW = site.mask(height, width, radius=0.7 * short_side(frames_THWC))
    shift_THW2 = enlarged(noise, height, width) * np.float32(short_side(frames_THWC) * 0.026 * strength)
    return warped(frames_THWC, shift_THW2 if everywhere else shift_THW2 * mask_HW[..., None])


def swap(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A part turns into something else and perhaps back: mirrored, in other colours, or as another place looks."""
    frames, height, width = frames_THWC.shape[:3]
    site = random_sites(rng, 1)[0]
    mask_HW = site.mask(height, width, radius=short_side(frames_THWC) * (0.2 + 0.3 * strength), soft=0.45)
    first, later = rng.uniform(0.12, 0.7), rng.uniform(0.2, 0.5, 2)
    switches = (first + np.array([0, *np.cumsum(later)]))[: rng.integers(1, 4)]
    on_T = (np.searchsorted(switches, np.linspace(0, 1, frames)) % 2).astype(np.float32)
    other_THWC = _donor(frames_THWC, site, rng)
    return mixed(frames_THWC, other_THWC, on_T[:, None, None] * mask_HW * np.float32(min(1, 0.35 + 1.3 * strength)))


def _donor(frames_THWC: Frames, site: Site, rng: np.random.Generator) -> Frames:
    """What a part turns into."""
    height, width = frames_THWC.shape[1:3]
    kind, far, order = rng.integers(3), rng.uniform(0.3, 0.5, 2) * rng.choice([-1, 1], 2), rng.permutation(3)
    if kind == 0:  # mirrored about the site's middle
        return shifted(frames_THWC[:, :, ::-1], 0, round(2 * site.x * width) - width)
    if kind == 1:
        return frames_THWC[..., order if tuple(order) != (0, 1, 2) else order[::-1]]
    return shifted(frames_THWC, round(far[0] * height), round(far[1] * width))


def jump(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Frames are missing: what is shown stops and then leaps; or it leaps back and does the same again."""
    frames = len(frames_THWC)
    order, back = rng.permutation(np.arange(1, max(frames - 1, 2))), rng.random() < 0.4
    count = max(1, round(strength * 0.3 * frames)) if strength >= 0.05 else 0
    length = 1 + round(2.4 * strength)
    shown_T = np.arange(frames)
    for start in np.sort(order[:count]):
        if back:
            shown_T[start:] = np.maximum(shown_T[start:] - length, 0)
        else:
            shown_T[start : start + length] = shown_T[start - 1]
    return frames_THWC[np.maximum.accumulate(shown_T) if not back else shown_T]


def freeze(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A part, or at full strength nearly all, stands still for a while and the rest moves on."""
    frames, height, width = frames_THWC.shape[:3]
    site, start = random_sites(rng, 1)[0], int(rng.integers(0, max(1, frames // 4)))
    mask_HW = site.mask(height, width, radius=short_side(frames_THWC) * (0.25 + 1.05 * strength), soft=0.3)
    count = round((0.35 + 0.65 * strength) * (frames - start))
    share_T = np.zeros(frames, np.float32)
    share_T[start : start + count] = 1
    still_THWC = np.broadcast_to(frames_THWC[start], frames_THWC.shape)
    return mixed(frames_THWC, still_THWC, share_T[:, None, None] * mask_HW)


def flicker(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Frames are lighter or darker, and warmer or colder, than their neighbours; all of them or single ones."""
    frames = len(frames_THWC)
    sign_T = rng.choice([-1.0, 1.0], frames) * rng.uniform(0.5, 1, frames)
    single = rng.random() < 0.4
    sign_T = np.where(rng.random(frames) < 0.3, sign_T * 1.3, 0) if single else sign_T
    sign_T[int(rng.integers(1, frames))] = rng.choice([-1.0, 1.0])
    tint_T3 = rng.normal(0, 0.25, (frames, 3))
    gain_T3 = np.exp(strength * 0.5 * sign_T[:, None] * (1 + tint_T3))
    table_T3L = np.rint(gain_T3[..., None] * np.arange(256)).clip(0, 255).astype(np.uint8)
    return _looked_up(frames_THWC, table_T3L)


def patch_flicker(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A part is lighter or darker, or of other colours, from frame to frame."""
    frames, height, width = frames_THWC.shape[:3]
    site = random_sites(rng, 1)[0]
    mask_HW = site.mask(height, width, radius=short_side(frames_THWC) * rng.uniform(0.3, 0.5))
    gain_T3 = np.exp(strength * 0.55 * (rng.choice([-1, 1], (frames, 1)) * rng.uniform(0.5, 1, (frames, 1))))
    gain_T3 = gain_T3 * np.exp(strength * 0.15 * rng.standard_normal((frames, 3)))
    table_T3L = np.rint(gain_T3[..., None] * np.arange(256)).clip(0, 255).astype(np.uint8)
    return mixed(frames_THWC, _looked_up(frames_THWC, table_T3L), mask_HW)


def _looked_up(frames_THWC: Frames, table_T3L: Frames) -> Frames:
    tables = [table_3L.ravel().tolist() for table_3L in table_T3L]
    pictures = zip(frames_THWC, tables, strict=True)
    return np.stack([np.asarray(Image.fromarray(picture).point(table)) for picture, table in pictures])


def shake(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """The camera jerks: in each frame, or now and then and farther. What comes in at the edges is mirrored."""
    frames, height, width = frames_THWC.shape[:3]
    angle_T = rng.uniform(0, 2 * math.pi, frames)
    reach_T = np.asarray(rng.uniform(0.5, 1, frames))
    kick_T = np.asarray(rng.random(frames) < 0.35)
    kick_T[int(rng.integers(1, frames))] = True
    if rng.random() < 0.4:
        reach_T = np.where(kick_T, 1.5 * reach_T, 0)
    reach_T *= short_side(frames_THWC) * 0.085 * strength
    edge = math.ceil(reach_T.max()) + 1
    x_T, y_T = (edge + np.rint(reach_T * part_T).astype(int) for part_T in (np.cos(angle_T), np.sin(angle_T)))
    wide_THWC = np.pad(frames_THWC, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    return np.stack([wide[y : y + height, x : x + width] for wide, y, x in zip(wide_THWC, y_T, x_T, strict=True)])
