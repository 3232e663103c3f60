"""Harms that a still shows: shapes, texture, colours and coding. Every frame is harmed alike.

Each takes frames (T, H, W, 3), a strength above 0 and a generator, and gives new frames; `harms` checks and names them.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels; 2 coordinates, x then y. Sizes are shares of the
picture's short side."""

import io
import math
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from experiments.generated.fields import (
    Frames,
    each_picture,
    enlarged,
    mixed,
    random_sites,
    shifted,
    short_side,
    smoothstep,
    warped,
)


def warp(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Shapes are wrong: parts are bent and lumpy, the same in all frames."""
    height, width = frames_THWC.shape[1:3]
    mask_HW = np.zeros((height, width), np.float32)
    for site in random_sites(rng, 4)[: rng.integers(2, 5)]:
        radius = short_side(frames_THWC) * rng.uniform(0.25, 0.4)
        mask_HW = np.maximum(mask_HW, site.mask(height, width, radius=radius, soft=0.8))
    noise = rng.standard_normal((1, int(rng.integers(7, 11)), 1, 2)).astype(np.float32)
    cells = noise.shape[1]
    noise = np.concatenate([noise, rng.standard_normal((1, cells, cells - 1, 2)).astype(np.float32)], axis=2)
    shift_1HW2 = enlarged(noise, height, width) * mask_HW[..., None]
    return warped(frames_THWC, shift_1HW2 * np.float32(short_side(frames_THWC) * 0.075 * strength))


def double(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A thing is there again beside itself: one to three copies of a part."""
    height, width = frames_THWC.shape[1:3]
    side, result_THWC = short_side(frames_THWC), frames_THWC
    radius, angles = rng.uniform(0.16, 0.24), rng.uniform(0, 2 * math.pi) + np.arange(3) * 2.1
    source = random_sites(rng, 1)[0]
    for angle in angles[: 1 + round(2 * strength)]:
        x, y = (round(1.9 * radius * side * part) for part in (math.cos(angle), math.sin(angle)))
        copy = replace(source, x=source.x + x / width, y=source.y + y / height)
        mask_HW = copy.mask(height, width, radius=side * radius * (0.8 + 0.4 * strength), soft=0.35)
        result_THWC = mixed(result_THWC, shifted(frames_THWC, y, x), mask_HW * np.float32(min(1, 2.5 * strength)))
    return result_THWC


def ghost(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A second picture shines through: an earlier one, and a little beside its place."""
    back, angle, far = int(rng.integers(1, 4)), rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.1)
    earlier_THWC = frames_THWC[np.maximum(np.arange(len(frames_THWC)) - back, 0)]
    shift = [round(short_side(frames_THWC) * far * part) for part in (math.sin(angle), math.cos(angle))]
    ghost_THWC = shifted(earlier_THWC, shift[0], shift[1])
    share = np.full((1, 1, 1), 0.1 * min(1, 10 * strength) + 0.4 * strength, np.float32)
    return mixed(frames_THWC, ghost_THWC, share)


def smooth(frames_THWC: Frames, strength: float, _: np.random.Generator) -> Frames:
    """Texture is wiped away and only strong edges stay, like plastic."""
    blur = ImageFilter.BoxBlur(short_side(frames_THWC) * (0.012 + 0.022 * strength))
    blurred_THWC = each_picture(frames_THWC, lambda picture: picture.filter(blur).filter(blur))
    edge_THW = np.abs(frames_THWC[..., 1].astype(np.int16) - blurred_THWC[..., 1])  # of green
    least, width = 8 + 50 * strength, 30.0
    wiped_256 = (
        1 - smoothstep((np.arange(256, dtype=np.float32) - np.float32(least)) / np.float32(width))
    ) * np.float32(min(1, 2.5 * strength))
    return mixed(frames_THWC, blurred_THWC, wiped_256[edge_THW])


def smudge(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Some parts are smeared, as faces and hands often are."""
    height, width = frames_THWC.shape[1:3]
    side, mask_HW = short_side(frames_THWC), np.zeros((height, width), np.float32)
    for site in random_sites(rng, 4)[: rng.integers(1, 4)]:
        radius = rng.uniform(0.22, 0.32) * side * (0.7 + 0.6 * strength)
        mask_HW = np.maximum(mask_HW, site.mask(height, width, radius=radius))
    blurred = ImageFilter.BoxBlur(side * (0.003 + 0.038 * strength))
    smeared_THWC = each_picture(frames_THWC, lambda picture: picture.filter(blurred).filter(blurred))
    return mixed(frames_THWC, smeared_THWC, mask_HW)


def sharpen(frames_THWC: Frames, strength: float, _: np.random.Generator) -> Frames:
    """Halos along edges, and grain."""
    mask = ImageFilter.UnsharpMask(radius=short_side(frames_THWC) / 90, percent=round(420 * strength**1.2), threshold=0)
    return each_picture(frames_THWC, lambda picture: picture.filter(mask))


def cast(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A cast of a random hue, as if the light had a colour."""
    hue_C = rng.uniform(0, 2 * math.pi) + np.arange(3) * (2 * math.pi / 3)
    exponent_C1 = np.exp(0.85 * strength * np.cos(hue_C))[:, None]
    table = np.rint(255 * (np.arange(256) / 255) ** exponent_C1).astype(int).ravel().tolist()
    return each_picture(frames_THWC, lambda picture: picture.point(table))


def burn(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Too much contrast and colour, or washed out."""
    washed = rng.random() < 0.35
    contrast, colour = (
        (1 - 0.62 * strength, 1 - 0.75 * strength) if washed else (1 + 0.9 * strength, 1 + 1.6 * strength)
    )
    pixels_THWC = frames_THWC.astype(np.float32)
    grey_THW1 = pixels_THWC.mean(axis=3, keepdims=True)
    middle = float(grey_THW1.mean())
    pixels_THWC -= grey_THW1
    pixels_THWC *= np.float32(colour * contrast)
    pixels_THWC += (grey_THW1 - middle) * np.float32(contrast) + np.float32(middle + 0.5)
    return pixels_THWC.clip(0, 255).astype(np.uint8)


def blocks(frames_THWC: Frames, strength: float, _: np.random.Generator) -> Frames:
    """Blocks of coarse coding, as JPEG has them at a quality of 32 to 4."""
    quality = round(28 * (1 - strength) ** 1.8 + 4)

    def code(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return each_picture(frames_THWC, code)


def soften(frames_THWC: Frames, strength: float, _: np.random.Generator) -> Frames:
    """As if enlarged from a smaller picture, 1 to 5 times as small."""
    height, width = frames_THWC.shape[1:3]
    small = max(1, round(width / (1 + 4 * strength))), max(1, round(height / (1 + 4 * strength)))

    def shrink(picture: Image.Image) -> Image.Image:
        return picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)

    return each_picture(frames_THWC, shrink)


def grid(frames_THWC: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A fine regular pattern over the picture, as decoders of latents leave it."""
    height, width = frames_THWC.shape[1:3]
    period, phase = rng.uniform(2, 4.5), rng.uniform(0, 2 * math.pi, 2)
    across_W = np.cos(np.arange(width) * (2 * math.pi / period) + phase[0])
    down_H1 = np.cos(np.arange(height) * (2 * math.pi / period) + phase[1])[:, None]
    tint_3 = (1 + 0.4 * rng.standard_normal(3)).astype(np.float32)
    pattern_HW3 = ((across_W * down_H1).astype(np.float32)[..., None] * tint_3) * np.float32(38 * strength)
    patterned_THWC = np.asarray(frames_THWC + pattern_HW3, np.float32) + np.float32(0.5)
    return np.asarray(patterned_THWC.clip(0, 255), np.uint8)
