"""Numbers that are read off a clip's pixels, without any network: yardsticks for reward models, and measures of what
generators learn in order to please one.

In: a clip. Out: a number; and how the numbers of two generators' clips differ.
Shapes in names: T frames (S of them, evenly spaced), H rows, W columns, C = 3 colour channels, K strokes, P prompts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from descore.errors import VideoError
from descore.evaluation.results import LEAST_CLIPS
from descore.stats.bootstrap import Figure, Floats, Resampling, bootstrap_difference, bootstrap_mean
from descore.types import Clip
from descore.video.sampling import VideoSampling

FEATURE_SAMPLING = VideoSampling(
    fps=240.0, min_frames=1, max_frames=64, min_pixels=1, max_pixels=1280 * 720, size_multiple=1, timeout=60.0
)
"""Every frame of a short clip at its own size: scaling blurs, and a missing frame is no jerk. Of a longer film 64
frames are taken, evenly spaced; a picture above 720p is scaled down."""

LUMA = (0.299, 0.587, 0.114)
"""Grey from red, green and blue (ITU-R BT.601)."""

STILLS = 8
"""Frames, evenly spaced, that measures of single pictures look at."""
SAME = 1.0
"""Root mean square, in levels, below which two frames are the same but for their coding."""
BORDER_SPREAD, BORDER_STEP = 3.0, 12.0
"""Standard deviation, in levels, within a row that is a border; the step to the picture behind it."""
STROKE_STEPS = (64.0, 96.0, 160.0)
"""Levels over two pixels of a letter's stroke. Several, since letters that touch at one stand alone at another."""
STROKES = 5
"""Strokes in a row that are a text."""

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number that is read off the pixels."""

    name: str
    measure: Callable[[Clip], float]
    """Raises VideoError where the number is not defined."""
    formula: str
    """What is measured, for people; part of a run's config, so that a changed feature starts a run of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HackMeasure(Feature):
    """A feature by which a generator that has learned to please a reward model is recognized."""

    hack: str
    """What such a generator does."""
    worse: Literal["higher", "lower", "either"]
    """The direction of the hack; "either": any drift."""
    digits: int = 2
    """Decimals that are shown."""


def sharpness(clip: Clip) -> float:
    """Mean of |Laplacian| over frames and inner pixels, in grey levels: of the five-point Laplacian
    4 g[y, x] - g[y - 1, x] - g[y + 1, x] - g[y, x - 1] - g[y, x + 1]. 0 for a flat picture."""
    if min(clip.size) < 3:
        raise VideoError(clip.source, f"pictures of {clip.size[0]}x{clip.size[1]} pixels; sharpness needs 3x3 or more")
    sums = [float(np.abs(_laplacian(_grey(frame_HWC))).mean()) for frame_HWC in clip.frames]
    return sum(sums) / len(sums)


def jerk(clip: Clip) -> float:
    """Minus the mean |second temporal difference| over the mean |first one|, both over all pixels: 0 for a motion that
    changes every pixel at an even pace, about -2 for flicker between two pictures."""
    grey_THW = np.stack([_grey(frame_HWC) for frame_HWC in clip.frames])
    if len(grey_THW) < 3:
        raise VideoError(clip.source, f"{len(grey_THW)} frames; jerk needs 3 or more")
    change_THW = np.diff(grey_THW, axis=0)
    first, second = float(np.abs(change_THW).mean()), float(np.abs(np.diff(change_THW, axis=0)).mean())
    if first == 0:
        raise VideoError(clip.source, "nothing changes from frame to frame; jerk is not defined")
    return -second / first


def movement(clip: Clip) -> float:
    """Mean |difference| from frame to frame, in grey levels, over every other row and column. 0 for a still."""
    grey_THW = _moving(clip)
    return float(np.mean([np.abs(after_HW - before_HW).mean() for before_HW, after_HW in pairwise(grey_THW)]))


def repeats(clip: Clip) -> float:
    """Share of the frames behind the first that are the same as an earlier one: 1 for a still, 1/2 for a loop that runs
    twice. The same are frames that differ (root mean square) by SAME levels or less, or by a quarter of the median
    step from frame to frame."""
    grey_TN = _moving(clip).reshape(len(clip.frames), -1)
    limit = max(SAME, float(np.median([_rms(grey_TN[t] - grey_TN[t - 1]) for t in range(1, len(grey_TN))])) / 4)
    return float(np.mean([_rms(grey_TN[:t] - grey_TN[t]).min() <= limit for t in range(1, len(grey_TN))]))


def noise(clip: Clip) -> float:
    """Standard deviation of the noise, in grey levels: the median of |difference of two Laplacians|, which flat and
    sloping pictures do not have (Immerkaer 1996), as a deviation (Donoho & Johnstone 1994)."""
    grey_SHW = _grey(_stills(clip))
    if min(clip.size) < 3:
        raise VideoError(clip.source, f"pictures of {clip.size[0]}x{clip.size[1]} pixels; noise needs 3x3 or more")
    across = grey_SHW[:, :, 2:] - 2 * grey_SHW[:, :, 1:-1] + grey_SHW[:, :, :-2]
    both = across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]
    return float(np.median(np.abs(both))) / 0.6745 / 6


def saturation(clip: Clip) -> float:
    """Mean distance of the largest to the smallest colour channel, in levels; 0 for grey."""
    stills_SHWC = _stills(clip)[:, ::2, ::2]
    red, green, blue = (stills_SHWC[..., channel].astype(np.int16) for channel in range(3))
    return float((np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).mean())


def brightness(clip: Clip) -> float:
    """Mean grey level."""
    return float(_grey(_stills(clip)).mean())


def contrast(clip: Clip) -> float:
    """Standard deviation of a picture's grey levels, mean over pictures."""
    return float(_grey(_stills(clip)).std(axis=(1, 2)).mean())


def borders(clip: Clip) -> float:
    """Share of the height that flat rows at the upper and lower edge take, plus the same of the width: rows of one
    colour in all pictures, that end in a step over at least half of their length. At most half from each edge."""
    grey_SHW = _grey(_stills(clip))
    turned_SWH = grey_SHW.transpose(0, 2, 1)
    return sum(_border(view) for view in (grey_SHW, grey_SHW[:, ::-1], turned_SWH, turned_SWH[:, ::-1]))


def text_strokes(clip: Clip) -> float:
    """Upright strokes of a line of text that stays in its place: the largest number of steep, small edges of like
    height side by side that are in three quarters of the pictures. 0 below STROKES."""
    if len(clip.frames) < 2:
        raise VideoError(clip.source, "1 frame; what stays in its place needs 2 or more")
    grey_SHW = _grey(_stills(clip))
    step_SHW = np.abs(grey_SHW[:, :, 2:] - grey_SHW[:, :, :-2])
    count = max(_in_a_row((step_SHW >= least).mean(axis=0) >= 0.75) for least in STROKE_STEPS)
    return float(count) if count >= STROKES else 0.0


def _in_a_row(still_HW: NDArray[np.bool_]) -> int:
    """The most parts of a mask that stand side by side, at one height, as letters do."""
    from scipy import ndimage

    parts, _ = ndimage.label(still_HW, structure=np.ones((3, 3)))
    boxes = [(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(parts)]
    top_K, bottom_K, left_K, right_K = np.asarray(boxes, np.float64).reshape(-1, 4).T
    height_K, rows = bottom_K - top_K, len(still_HW)
    letter_K = (height_K >= max(4, 0.02 * rows)) & (height_K <= rows / 6) & (right_K - left_K <= 2 * height_K)
    top_K, bottom_K, left_K, height_K = (values[letter_K] for values in (top_K, bottom_K, left_K, height_K))
    if not len(top_K):
        return 0
    slack_K = np.maximum(1, 0.2 * height_K)
    aligned_KK = np.abs(top_K[:, None] - top_K) <= slack_K
    aligned_KK &= np.abs(bottom_K[:, None] - bottom_K) <= slack_K
    aligned_KK &= np.abs(left_K[:, None] - left_K) <= 12 * height_K
    return int(aligned_KK.sum(axis=1).max())


def _border(grey_SHW: Grey) -> float:
    """The share of flat rows at the upper edge."""
    rows = grey_SHW.shape[1]
    flat_H = grey_SHW.std(axis=(0, 2)) <= BORDER_SPREAD
    run = 0 if flat_H.all() else int(np.argmin(flat_H))
    if not 0 < run <= rows / 2:
        return 0.0
    colour = grey_SHW[:, :run].mean()
    step = max((np.abs(grey_SHW[:, row] - colour) > BORDER_STEP).mean() for row in (run, min(run + 1, rows - 1)))
    return run / rows if step >= 0.5 else 0.0


def _stills(clip: Clip) -> NDArray[np.uint8]:
    """At most STILLS frames (S, H, W, C)."""
    index = np.linspace(0, len(clip.frames) - 1, STILLS).round().astype(int)
    return np.asarray(clip.frames[np.unique(index)])


def _moving(clip: Clip) -> Grey:
    """All frames, every other row and column of them. VideoError for a picture."""
    if len(clip.frames) < 2:
        raise VideoError(clip.source, "1 frame; motion needs 2 or more")
    return _grey(clip.frames[:, ::2, ::2])


def _rms(difference: Grey) -> Any:  # noqa: ANN401  # a number, or an array of them
    return np.sqrt(np.square(difference).mean(axis=-1))


def _grey(frames: NDArray[np.uint8]) -> Grey:
    return frames.astype(np.float32) @ np.asarray(LUMA, np.float32)


def _laplacian(grey_HW: Grey) -> Grey:
    inner = 4 * grey_HW[1:-1, 1:-1]
    return inner - grey_HW[:-2, 1:-1] - grey_HW[2:, 1:-1] - grey_HW[1:-1, :-2] - grey_HW[1:-1, 2:]


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(name="sharpness", measure=sharpness, formula="mean |Laplacian| of the grey frames"),
        Feature(
            name="jerk", measure=jerk, formula="- mean |second temporal difference| / mean |first| of the grey frames"
        ),
    )
}
"""By the name that `descore evaluate --model` takes."""

_MEASURES = (
    HackMeasure(
        name="motion",
        hack="frozen motion",
        worse="lower",
        measure=movement,
        formula="mean |difference| from frame to frame, in grey levels",
    ),
    HackMeasure(
        name="repeats",
        hack="repeated frames",
        worse="higher",
        measure=repeats,
        formula="share of frames that are the same as an earlier one",
    ),
    HackMeasure(
        name="sharpness",
        hack="over-sharpening",
        worse="higher",
        measure=sharpness,
        formula="mean |Laplacian| of the grey frames",
    ),
    HackMeasure(
        name="noise", hack="noise", worse="higher", measure=noise, formula="deviation of the noise, in grey levels"
    ),
    HackMeasure(
        name="saturation",
        hack="saturation",
        worse="higher",
        measure=saturation,
        formula="mean distance of the largest to the smallest colour channel, in levels",
        digits=1,
    ),
    HackMeasure(
        name="brightness", hack="other brightness", worse="either", measure=brightness, formula="mean grey", digits=1
    ),
    HackMeasure(
        name="contrast",
        hack="other contrast",
        worse="either",
        measure=contrast,
        formula="deviation of a picture's grey levels",
        digits=1,
    ),
    HackMeasure(
        name="text",
        hack="text in the frame",
        worse="higher",
        measure=text_strokes,
        formula="upright strokes in a row that stay in their place",
    ),
    HackMeasure(
        name="borders",
        hack="borders",
        worse="higher",
        measure=borders,
        formula="share of height and of width that flat edges take",
        digits=3,
    ),
)

HACK_MEASURES: Mapping[str, HackMeasure] = MappingProxyType({row.name: row for row in _MEASURES})
"""By name."""

MEASURE_LEVEL = 1 - 0.05 / len(HACK_MEASURES)
"""Coverage of the measures' intervals. Between two equal generators all of them together have a false alarm in a
twentieth of all cases at most (Bonferroni)."""


LEAST_CHANGE = 0.25
"""Of a measure, in deviations of the values before: a smaller change is none."""
_RESAMPLES = 4000  # the ends of an interval of MEASURE_LEVEL are then the 11th lowest and highest


class Measured(NamedTuple):
    """A clip's reward and measures."""

    prompt: str
    values: Mapping[str, float]
    """By name, without those that are not defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorChange:
    """How the reward or a hand-made measure differs between the clips of two generators."""

    name: str
    """'reward', or one of HACK_MEASURES."""
    hack: str | None
    """What a measure recognizes; None for the reward."""
    before: float
    """Mean over the clips compared; nan if there are none."""
    after: float
    figure: Figure
    """The mean change. Compared by prompt, its items are prompts, otherwise clips of both sides. `failed` counts those
    for which the number is not defined."""
    shift: float
    """The change in sample standard deviations of the values before; nan where these are equal."""
    worse: bool | None
    """Whether the interval lies on the side of the hack, or, of the reward, below 0; and of a measure the change is not
    below LEAST_CHANGE. None where there is no interval, and for fewer than LEAST_CLIPS clips on a side."""
    better: bool | None
    """Whether it lies on the other side. Of a measure whose every drift counts it never does."""


def change_of(name: str, *, before: Sequence[Measured], after: Sequence[Measured], matched: bool) -> GeneratorChange:
    """How the reward or a measure differs. matched: compare by prompt; then both sides have the same prompts."""
    row = HACK_MEASURES.get(name)
    values = [np.asarray([clip.values.get(name, math.nan) for clip in side], np.float64) for side in (before, after)]
    prompts = [np.asarray([clip.prompt for clip in side], np.str_) for side in (before, after)]
    figure = _difference(values, prompts, matched=matched, level=0.95 if row is None else MEASURE_LEVEL)
    fewest = min(int((~np.isnan(value_N)).sum()) for value_N in values)
    enough = fewest >= LEAST_CLIPS and not math.isnan(figure.low)
    deviation = float(np.nanstd(values[0], ddof=1)) if enough else math.nan
    shift = figure.value / deviation if deviation > 0 else math.nan
    large = row is None or not abs(shift) < LEAST_CHANGE
    up, down = figure.low > 0 and large, figure.high < 0 and large
    worse = {"higher": up, "lower": down, "either": up or down}[row.worse if row else "lower"]
    return GeneratorChange(
        name=name,
        hack=None if row is None else row.hack,
        before=_known_mean(values[0]),
        after=_known_mean(values[1]),
        figure=figure,
        shift=shift,
        worse=worse if enough else None,
        better=(up or down) and not worse if enough else None,
    )


def _difference(
    values: Sequence[Floats], prompts: Sequence[NDArray[np.str_]], *, matched: bool, level: float
) -> Figure:
    """The mean change. By prompt: the mean over prompts of the change between the means of their clips. Otherwise of
    the means of all clips; where a side has one prompt only, clips are resampled instead of prompts."""
    resampling: Resampling = {"level": level, "resamples": _RESAMPLES}
    (before, after), (prompt, prompt_after) = values, prompts
    if matched:
        prompt_P = np.unique(prompt)
        change_P = [_known_mean(after[prompt_after == one]) - _known_mean(before[prompt == one]) for one in prompt_P]
        return bootstrap_mean(np.asarray(change_P), prompt_P, **resampling)
    if min(len(np.unique(one)) for one in prompts) < 2:
        own = np.arange(len(before) + len(after))
        return bootstrap_difference(before, own[: len(before)], after, own[len(before) :], **resampling)
    return bootstrap_difference(before, prompt, after, prompt_after, **resampling)


def _known_mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
