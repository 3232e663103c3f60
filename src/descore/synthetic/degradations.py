"""Degrade a clip in one known way at a given strength, as encoders, video generators and bad copies do.

For the same generator state a greater strength is the same degradation carried further, and a strength near 0 is just
visible. Motion degradations do not change a single frame, and those that only reorder frames change nothing in a still
clip: measure `harm` before calling a clip degraded.

A strong discolouration can change a colour's name; coarseness looks like a pixelated style.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels. Sizes are shares of the picture's short side.
"""

import difflib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from descore.errors import ConfigError
from descore.types import Mark

Uint8Frames = NDArray[np.uint8]
Harms = Literal["picture", "motion"]

STRONG = 0.5
"""From this strength on a degradation has its strong words and limits its dimension's mark to 0 instead of 1."""

VISIBLE = 3.0
"""Least visible `harm`, in levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """A kind of degradation."""

    name: str
    harms: Harms
    """What it degrades: the picture, which lowers style, or the motion, which lowers dynamics."""
    mild: str
    """Words for strengths below STRONG, to follow "The picture is" or "The motion is"."""
    strong: str
    """Words for strengths from STRONG on."""
    apply: Callable[[Uint8Frames, float, np.random.Generator], Uint8Frames]
    """Frames (T, H, W, 3), strength, generator: new frames."""
    visible_alone: bool = True
    """Whether it is visible without knowing what the clip should show; a clip that runs backwards looks sound."""
    training_only: bool = False
    """Whether tests on real footage never show it."""

    def words(self, strength: float) -> str:
        """Its words at this strength."""
        return self.mild if strength < STRONG else self.strong

    @staticmethod
    def mark(strength: float) -> Mark:
        """The highest mark that it allows."""
        return 1 if strength < STRONG else 0


def degrade(frames_THWC: Uint8Frames, name: str, *, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """New frames with one degradation, uint8 (T, H, W, 3). strength: above 0, at most 1.

    Bit for bit the same for the same generator state and the same versions of the libraries."""
    if name not in DEGRADATIONS:
        nearest = difflib.get_close_matches(name, DEGRADATIONS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"degradation: found '{name}', expected one of {', '.join(DEGRADATIONS)}{hint}")
    if not 0 < strength <= 1:
        raise ConfigError(f"degradation: found strength {strength}, expected above 0 and at most 1")
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or not frames_THWC.size:
        raise ConfigError(
            f"degradation: found frames {frames_THWC.dtype} {frames_THWC.shape}, expected uint8 (T, H, W, 3)"
        )
    return np.ascontiguousarray(DEGRADATIONS[name].apply(frames_THWC, strength, rng))


def harm(before_THWC: Uint8Frames, after_THWC: Uint8Frames) -> float:
    """Change of the frame that changed most: root mean square in levels, 0 to 255."""
    change_THWC = before_THWC.astype(np.float32) - after_THWC
    return float(np.sqrt(np.square(change_THWC).mean(axis=(1, 2, 3)).max()))


def _short(frames_THWC: Uint8Frames) -> int:
    return int(min(frames_THWC.shape[1:3]))


# The picture. Every frame is degraded alike.


def _blur(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """A Gaussian, 1 to 3.8 pixels of deviation for a short side of 128; broad ones at half the size, to be quick."""
    deviation = _short(frames_THWC) * (0.008 + 0.022 * strength)
    size = frames_THWC.shape[2], frames_THWC.shape[1]

    def soften(picture: Image.Image) -> Image.Image:
        if deviation < 2 or min(size) < 4:
            return picture.filter(ImageFilter.GaussianBlur(deviation))
        half = picture.reduce(2).filter(ImageFilter.GaussianBlur(deviation / 2))
        return half.resize(size, Image.Resampling.BICUBIC)

    return _each_picture(frames_THWC, soften)


def _soften(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """As if enlarged from a smaller picture: from 1.25 to 3 times as small."""
    return _enlarged(frames_THWC, 1.25 + 1.75 * strength, Image.Resampling.BICUBIC)


def _smear(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """Texture is wiped away and edges stay, as where a generator paints: medians, mixed in by 40 to 100 %."""
    kept, wiped = 0.6 - 0.6 * strength, ImageFilter.MedianFilter(5)
    return _each_picture(frames_THWC, lambda picture: Image.blend(picture.filter(wiped), picture, kept))


def _coarsen(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """Fewer pixels, each shown as a square: 1.6 to 6 to a side."""
    return _enlarged(frames_THWC, 1.6 + 4.4 * strength, Image.Resampling.NEAREST)


def _enlarged(frames_THWC: Uint8Frames, factor: float, resampling: Image.Resampling) -> Uint8Frames:
    """Shrink by this factor and enlarge again."""
    height, width = frames_THWC.shape[1:3]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    return _each_picture(
        frames_THWC, lambda p: p.resize(small, Image.Resampling.BOX).resize((width, height), resampling)
    )


def _each_picture(frames_THWC: Uint8Frames, change: Callable[[Image.Image], Image.Image]) -> Uint8Frames:
    return np.stack([np.asarray(change(Image.fromarray(picture_HWC))) for picture_HWC in frames_THWC])


_BELL = np.array([NormalDist().inv_cdf((level + 0.5) / 256) for level in range(256)], np.float32)
"""A standard normal draw for each value of a random byte."""


def _add_noise(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Gaussian, another in each frame, of 8 to 50 levels' deviation."""
    noise_256 = np.rint(_BELL * (8 + 42 * strength)).astype(np.int16)
    bytes_THWC = np.frombuffer(rng.bytes(frames_THWC.size), np.uint8).reshape(frames_THWC.shape)
    noisy_THWC: NDArray[np.int16] = np.clip(frames_THWC + noise_256[bytes_THWC], 0, 255)
    return noisy_THWC.astype(np.uint8)


def _discolour(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """A cast of a random hue: an exponent for each channel, as if the light had a colour."""
    hue_C = rng.uniform(0, 2 * math.pi) + np.arange(3) * (2 * math.pi / 3)
    exponent_C1 = np.exp((0.15 + 0.6 * strength) * np.cos(hue_C))[:, None]
    table = np.rint(255 * (np.arange(256) / 255) ** exponent_C1).astype(int).ravel().tolist()
    return _each_picture(frames_THWC, lambda picture: picture.point(table))


def _compress(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """H.264 at a quantizer of 37 to 51, the coarsest that there is.

    Each frame is coded by itself, so that the motion is not degraded."""
    quantizer = round(37 + 14 * strength)
    height, width = frames_THWC.shape[1:3]
    even_THWC = np.pad(frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # Without the filter that smooths the blocks' edges, as the older encoders are.
    coder = "no-deblock=1:threads=1"
    options = {"qp": str(quantizer), "preset": "veryfast", "tune": "zerolatency", "g": "1", "x264-params": coder}
    return _through_encoder(even_THWC, options)[:, :height, :width]


def _through_encoder(frames_THWC: Uint8Frames, options: dict[str, str]) -> Uint8Frames:
    """Encode and decode in memory. Nut holds a stream without adding anything to it."""
    file = io.BytesIO()
    with av.open(file, "w", format="nut") as out:
        stream = out.add_stream("libx264", rate=4, options=options)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture_HWC in frames_THWC:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r", format="nut") as back:
        return np.stack([np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in back.decode(video=0)])


# The motion. What a frame shows stays sound; when, where or how bright it shows it does not.


def _flicker(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Every frame but the first is lighter or darker, in turn, by up to 8 to 55 %."""
    frames = len(frames_THWC)
    sign_T = rng.choice([-1, 1]) * (-1.0) ** np.arange(frames)
    gain_T = 1 + (0.08 + 0.47 * strength) * sign_T * rng.uniform(0.6, 1, frames)
    gain_T[0] = 1
    table_TL = np.clip(np.rint(gain_T[:, None] * np.arange(256)), 0, 255).astype(np.uint8)
    return np.stack([table_L[picture] for table_L, picture in zip(table_TL, frames_THWC, strict=True)])


def _freeze(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """The last frames all show the one before them; at full strength, all show the first."""
    last = len(frames_THWC) - 1
    return frames_THWC[np.minimum(np.arange(last + 1), last - _count(strength, last))]


_MOST_STOPS = 0.65
"""Share of the steps from frame to frame that can be lost; without any step left, a clip is frozen."""


def _drop(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Some frames are missing: the one before is held, then the clip jumps."""
    shown_T = np.arange(len(frames_THWC))
    shown_T[_stops(len(frames_THWC), strength, rng)] = 0
    return frames_THWC[np.maximum.accumulate(shown_T)]


def _stutter(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Some frames come twice, so that all that follows is late."""
    step_T = np.ones(len(frames_THWC), int)
    step_T[_stops(len(frames_THWC), strength, rng)] = 0
    shown_T: NDArray[np.int_] = np.cumsum(step_T) - 1
    return frames_THWC[shown_T]


def _stops(frames: int, strength: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Uint8Frames that repeat the one before. Those of a smaller strength are among those of a greater one."""
    steps = max(0, frames - 2)  # a stop at the very end would be a freeze: nothing moves on behind it
    order: NDArray[np.int64] = rng.permutation(steps)
    return 1 + order[: _count(strength, steps * _MOST_STOPS)]


def _jerk(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Time runs to and fro: each frame but the first is shown too early or too late, in turn, by 1 to 3 frames."""
    frames = len(frames_THWC)
    off_T = (1 + 2.2 * strength) * rng.uniform(0.6, 1, frames) * (-1.0) ** np.arange(frames)
    off_T[0] = 0
    shown_T: NDArray[np.int_] = np.clip(np.rint(np.arange(frames) + off_T).astype(int), 0, frames - 1)
    return frames_THWC[shown_T]


def _reverse(frames_THWC: Uint8Frames, strength: float, _: np.random.Generator) -> Uint8Frames:
    """The clip begins later, runs back to its first frame and on from there; at full strength it only runs back."""
    last = len(frames_THWC) - 1
    return frames_THWC[np.abs(np.arange(last + 1) - _count(strength, last))]


def _count(strength: float, most: float) -> int:
    """At least one, if there is any."""
    return max(1, math.ceil(strength * most - 1e-9)) if most else 0


def _shake(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Each frame but the first is shifted in a direction of its own, by up to 2 to 11 % of the short side.

    What comes in at the edges is mirrored."""
    frames, height, width = frames_THWC.shape[:3]
    most = _short(frames_THWC) * (0.02 + 0.09 * strength)
    angle, reach = rng.uniform(0, 2 * math.pi, frames), rng.uniform(0.6, 1, frames) * most
    edge = math.ceil(most)
    y_T, x_T = (edge + np.rint(reach * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    y_T[0] = x_T[0] = edge
    wide_THWC = np.pad(frames_THWC, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    return np.stack([wide[y : y + height, x : x + width] for wide, y, x in zip(wide_THWC, y_T, x_T, strict=True)])


def _wobble(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Shapes melt and bend: by up to 1.5 to 6 % of the short side, in waves about two thirds of it long."""
    return _swing(frames_THWC, reach=0.015 + 0.045 * strength, wave=0.65, rng=rng)


def _boil(frames_THWC: Uint8Frames, strength: float, rng: np.random.Generator) -> Uint8Frames:
    """Small parts swim while the whole stays: by up to 1 to 3 % of the short side, in waves a sixth of it long."""
    return _swing(frames_THWC, reach=0.01 + 0.02 * strength, wave=0.17, rng=rng)


def _swing(frames_THWC: Uint8Frames, *, reach: float, wave: float, rng: np.random.Generator) -> Uint8Frames:
    """Rows and columns swing in waves that are others in each frame but the first. Lengths are shares of the short
    side."""
    frames, height, width = frames_THWC.shape[:3]
    side = _short(frames_THWC)
    phase_2T1 = rng.uniform(0, 2 * math.pi, (2, frames, 1))
    reach_T1 = np.full((frames, 1), side * reach)
    reach_T1[0] = 0
    shift_TH, shift_TW = (
        np.rint(reach_T1 * np.sin(np.arange(count) * (2 * math.pi / (wave * side)) + phase_T1)).astype(int)
        for count, phase_T1 in zip((height, width), phase_2T1, strict=True)
    )
    return _slide(_slide(frames_THWC, shift_TH).swapaxes(1, 2), shift_TW).swapaxes(1, 2)


def _slide(frames_TLPC: Uint8Frames, shift_TL: NDArray[np.int_]) -> Uint8Frames:
    """Each of the L lines of a frame moved along itself; what comes in at its ends is mirrored."""
    frames, lines, points, channels = frames_TLPC.shape
    edge = int(np.abs(shift_TL).max())
    wide = np.pad(frames_TLPC, ((0, 0), (0, 0), (edge, edge), (0, 0)), mode="symmetric").reshape(frames, lines, -1)
    # A window for each whole pixel at which a line may begin: picking one copies a line at a stroke.
    windows = np.lib.stride_tricks.sliding_window_view(wide, points * channels, axis=2)[:, :, ::channels]
    picked = windows[np.arange(frames)[:, None], np.arange(lines), edge + shift_TL]
    return picked.reshape(frames_TLPC.shape)


_ROWS = (
    Degradation(name="blur", harms="picture", mild="slightly blurred", strong="badly blurred", apply=_blur),
    Degradation(name="noise", harms="picture", mild="slightly noisy", strong="badly noisy", apply=_add_noise),
    Degradation(name="compression", harms="picture", mild="slightly blocky", strong="badly blocky", apply=_compress),
    Degradation(
        name="discolouration",
        harms="picture",
        mild="slightly discoloured",
        strong="badly discoloured",
        apply=_discolour,
    ),
    Degradation(
        name="softness",
        harms="picture",
        mild="slightly blurred",
        strong="badly blurred",
        apply=_soften,
        training_only=True,
    ),
    Degradation(
        name="smear",
        harms="picture",
        mild="slightly blurred",
        strong="badly blurred",
        apply=_smear,
        training_only=True,
    ),
    Degradation(name="coarseness", harms="picture", mild="slightly coarse", strong="badly coarse", apply=_coarsen),
    Degradation(name="flicker", harms="motion", mild="slightly flickering", strong="badly flickering", apply=_flicker),
    Degradation(name="freeze", harms="motion", mild="briefly frozen", strong="frozen", apply=_freeze),
    Degradation(name="drops", harms="motion", mild="slightly jumping", strong="badly jumping", apply=_drop),
    Degradation(name="stutter", harms="motion", mild="slightly stuttering", strong="badly stuttering", apply=_stutter),
    Degradation(name="jerk", harms="motion", mild="slightly jerky", strong="badly jerky", apply=_jerk),
    Degradation(
        name="reversal", harms="motion", mild="partly reversed", strong="reversed", apply=_reverse, visible_alone=False
    ),
    Degradation(name="shake", harms="motion", mild="slightly shaky", strong="badly shaky", apply=_shake),
    Degradation(name="wobble", harms="motion", mild="slightly wobbly", strong="badly wobbly", apply=_wobble),
    Degradation(
        name="boiling", harms="motion", mild="slightly wobbly", strong="badly wobbly", apply=_boil, training_only=True
    ),
)

DEGRADATIONS: Mapping[str, Degradation] = MappingProxyType({row.name: row for row in _ROWS})
"""By name."""

SOUND: Mapping[Harms, str] = MappingProxyType({"picture": "sharp", "motion": "smooth"})
"""Words where nothing is degraded."""
