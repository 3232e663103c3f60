"""Frames as a pipeline has them in memory become clips, without leaving their device.

In: videos as arrays, tensors, images, files or clips, and the order of their axes, their range and their fps. Out: the
clip that `read_clip` makes of the same frames: the same ones are chosen, and scaled alike within one grey level.

Shapes: B videos, T frames, C = 3 colours, H and W pixels; the letters of a layout."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.model.chat import TensorClip
from descore.types import Clip
from descore.video.decoder import clip_of, fitting_size
from descore.video.pictures import antialiased
from descore.video.reader import VideoSampling, read_clip
from descore.video.sampling import Timeline, choose_frames

FrameArray: TypeAlias = NDArray[Any] | Tensor
Range: TypeAlias = tuple[float, float]

LAYOUT = "BTCHW"
"""The axes by their letters, in the order that frames are brought into."""

USUAL_LAYOUTS = ("BTCHW", "BCTHW", "BTHWC")
"""Those that are recognized by where the 3 colours are, if they can be in one place only."""

RANGES: tuple[Range, ...] = ((0, 1), (-1, 1), (0, 255))
"""Black and white of floating point frames; uint8 is always 0 to 255."""

OVERSHOOT = 0.02
"""The share of the range that values may lie beyond it, as those of a VAE do."""

BICUBIC = -0.6
"""The cubic's slope at distance 1 as FFmpeg's scaler has it; Pillow's and torch's is -0.5, OpenCV's -0.75."""

RGB_LUMA = (0.299, 0.587, 0.114)
"""The brightness of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """How frames in memory are to be understood. Faults raise ConfigError."""

    layout: str | None = None
    """The axes' letters in their order: all of B, T, C, H, W, without B for the items of a list, and without T for
    single pictures. None: as the 3 colours show, if they can be in one place only."""
    range: Range | None = None
    """Black and white of floating point frames, one of RANGES."""
    overshoot: float = OVERSHOOT
    """Values beyond the range by up to this share of it are clamped; a clip with others has no reward."""

    def __post_init__(self) -> None:
        if self.layout is not None:
            check_layout(self.layout)
        is_pair = isinstance(self.range, tuple | list)
        if self.range is not None and not (is_pair and tuple(self.range) in RANGES):
            raise ConfigError(f"range is {self.range!r}, expected {', '.join(map(str, RANGES))}: black and white")
        if not (isinstance(self.overshoot, int | float) and 0 <= self.overshoot < 1):
            raise ConfigError(f"overshoot is {self.overshoot!r}, expected a share of the range, from 0 to below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClip:
    """A clip that is ready for the model, and what was done to its values."""

    clip: Clip
    clamped: int
    """Values of the chosen frames that lay beyond their range and were clamped."""
    chosen: tuple[int, ...] = ()
    """Indices of the chosen frames, of a video in memory."""


def check_layout(layout: str) -> None:
    """ConfigError unless a layout names H, W and C once each, B and T at most once, and nothing else."""
    is_text = isinstance(layout, str)
    if is_text and set("CHW") <= set(layout) <= set(LAYOUT) and len(set(layout)) == len(layout):
        return
    known = ", ".join(USUAL_LAYOUTS)
    raise ConfigError(f"layout is {layout!r}; expected the letters of {LAYOUT} in the axes' order, such as {known}")


def split_videos(videos: Any, *, layout: str | None) -> list[Any]:  # noqa: ANN401  # what read_clip takes, and more
    """The videos one by one. Frames come as (T, C, H, W), or as a list of (C, H, W), on their device and uncopied; what
    is no array is left as it is."""
    if is_array(videos):
        return list(_in_order(videos, layout, name="videos"))
    if isinstance(videos, list | tuple):
        return [_item(video, layout, name=f"videos[{index}]") for index, video in enumerate(videos)]
    kind = type(videos).__name__
    raise ConfigError(f"videos is a {kind}; expected a list with one for each prompt, or a tensor of 5 axes")


def is_array(value: object) -> bool:
    """Whether it is an array of numpy or a tensor of torch."""
    return isinstance(value, np.ndarray | Tensor)


def _item(video: Any, layout: str | None, *, name: str) -> Any:  # noqa: ANN401
    without_batch = layout.replace("B", "") if layout else None
    if is_array(video):
        if video.ndim == 5 and video.shape[0] == 1:
            video = video[0]
        return _in_order(video[None], f"B{without_batch}" if without_batch else None, name=name)[0]
    if isinstance(video, list | tuple) and video and all(map(is_array, video)):
        alone = without_batch.replace("T", "") if without_batch else None
        shapes = sorted({tuple(frame.shape) for frame in video})
        if len(shapes) > 1:
            raise ConfigError(f"{name}: frames of different shapes, such as {shapes[0]} and {shapes[1]}")
        types = sorted({str(frame.dtype).removeprefix("torch.") for frame in video})
        if len(types) > 1:  # 128 is grey in one, and far beyond white in another
            raise ConfigError(f"{name}: frames of different types, such as {types[0]} and {types[1]}")
        return [_in_order(frame[None, None], f"BT{alone}" if alone else None, name=name)[0][0] for frame in video]
    return video


def _in_order(frames: FrameArray, layout: str | None, *, name: str) -> FrameArray:
    """A view of the frames as (B, T, C, H, W)."""
    shape = tuple(frames.shape)
    layout = layout or _recognized(shape, name=name)
    if "B" not in layout:
        raise ConfigError(f"layout {layout} names no B, but {name} is one array; put a single video into a list")
    if len(layout) != len(shape):
        raise ConfigError(f"{name} has shape {shape}, {len(shape)} axes; layout {layout} names {len(layout)}")
    if "T" not in layout:
        frames, layout = frames[:, None], f"{layout[0]}T{layout[1:]}"
        if layout[0] != "B":
            raise ConfigError(f"layout {layout} without T must begin with B")
    order = [layout.index(letter) for letter in LAYOUT]
    ordered: FrameArray = frames.permute(order) if isinstance(frames, Tensor) else frames.transpose(order)
    if ordered.shape[2] != 3:
        raise ConfigError(f"{name} has shape {shape}: {ordered.shape[2]} colours by layout {layout}, expected 3 (RGB)")
    return ordered


def _recognized(shape: Sequence[int], *, name: str) -> str:
    """The usual layout in which exactly 3 colours are in their place."""
    if len(shape) != len(LAYOUT):
        raise ConfigError(
            f"{name} has shape {tuple(shape)}; expected {len(LAYOUT)} axes, or layout= with a letter each"
        )
    fitting = [layout for layout in USUAL_LAYOUTS if shape[layout.index("C")] == 3]
    if len(fitting) != 1:
        what = f"may be {' or '.join(fitting)}" if fitting else "has no axis of 3 colours in a usual place"
        raise ConfigError(f"{name} has shape {tuple(shape)}, which {what}; write layout={(fitting or [LAYOUT])[0]!r}")
    return fitting[0]


def prepare(
    video: Any,  # noqa: ANN401
    *,
    source: str,
    fps: float | None,
    form: FrameFormat,
    sampling: VideoSampling,
    device: torch.device,
) -> PreparedClip:
    """The clip of one of `split_videos`, its pixels on `device`. `fps`, frames per second, is that of frames in memory.

    VideoError for a video that cannot be read, ConfigError for frames without their fps or range."""
    if is_array(video) or (isinstance(video, list | tuple) and video and all(map(is_array, video))):
        return _prepare_frames(video, source=source, fps=fps, form=form, sampling=sampling, device=device)
    from_memory = isinstance(video, list | tuple)
    clip = read_clip(video, sampling=sampling, fps=checked_fps(fps) if from_memory else None)
    pixels_TCHW = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).to(device)
    return PreparedClip(clip=_with_pixels(clip, pixels_TCHW), clamped=0)


def _prepare_frames(
    video: Any,  # noqa: ANN401
    *,
    source: str,
    fps: float | None,
    form: FrameFormat,
    sampling: VideoSampling,
    device: torch.device,
) -> PreparedClip:
    if not len(video) or 0 in video[0].shape:
        raise VideoError(source, "no frames, or frames without pixels")
    timeline = Timeline.of(range(len(video)), tick=1 / Fraction(checked_fps(fps)), last=1)
    chosen = choose_frames(timeline, sampling=sampling)
    levels_TCHW, clamped = grey_levels(_pick(video, chosen), form=form, source=source)
    height, width = levels_TCHW.shape[2:]
    size = fitting_size(width, height, source=source, sampling=sampling)
    pixels_TCHW = _scaler(sampling)(levels_TCHW, size=size).to(device)
    clip = clip_of(
        list(pixels_TCHW.permute(0, 2, 3, 1).cpu().numpy()),
        chosen=chosen,
        timeline=timeline,
        source=source,
        source_size=(width, height),
        sampling=sampling,
    )
    return PreparedClip(clip=_with_pixels(clip, pixels_TCHW), clamped=clamped, chosen=tuple(chosen))


def _scaler(sampling: VideoSampling) -> Callable[..., Tensor]:
    """Scales frames of uint8 or floats to `size=` as the file reader does by a rule."""
    return antialiased if sampling.is_numbered else resize


def differentiable_clip(
    video: Any,  # noqa: ANN401
    prepared: PreparedClip,
    *,
    form: FrameFormat,
    sampling: VideoSampling,
) -> TensorClip:
    """The prepared clip of the same floating point frames with pixels that keep their fractions and their gradient:
    floats of 0 to 255, as precise as the frames and at least float32, on the clip's device.

    Before they are scaled, values differ from the prepared ones by rounding alone: at most half a grey level. Values
    that are clamped have no gradient, neither those beyond the range nor those that scaling brings beyond it."""
    clip = prepared.clip
    assert isinstance(clip, TensorClip)
    levels_TCHW = _levels(_at_least_float32(_pick(video, prepared.chosen)), black_white=form.range or RANGES[0])
    return replace(clip, pixels=_scaler(sampling)(levels_TCHW, size=clip.size).to(clip.pixels.device))


def checked_fps(fps: float | None) -> float:
    """The frames per second of frames in memory. ConfigError unless they are positive and finite."""
    if fps is None:
        raise ConfigError("frames from memory have no times; write fps=, the frames per second that they are shown at")
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps must be a positive number of frames per second, got {fps!r}")
    return float(fps)


def _with_pixels(clip: Clip, pixels_TCHW: Tensor) -> TensorClip:
    fields = {name: getattr(clip, name) for name in Clip.__dataclass_fields__}
    return TensorClip(pixels=pixels_TCHW, **fields)


def _pick(video: Any, chosen: Sequence[int]) -> Tensor:  # noqa: ANN401
    """The chosen frames (T, C, H, W), a copy of these alone."""
    if isinstance(video, list):
        return torch.stack([_as_tensor(video[index]) for index in chosen])
    return _as_tensor(video[list(chosen)])


def _as_tensor(frames: FrameArray) -> Tensor:
    if isinstance(frames, Tensor):
        return frames
    native = frames.astype(frames.dtype.newbyteorder("="), order="C", copy=False)
    try:
        return torch.from_numpy(native)
    except TypeError as fault:
        raise ConfigError(f"frames of type {frames.dtype}; expected uint8, or floats with their range=") from fault


def grey_levels(frames: Tensor, *, form: FrameFormat, source: str) -> tuple[Tensor, int]:
    """Frames as uint8 of the same shape, and how many values were clamped. VideoError for values that are not finite or
    beyond the overshoot, ConfigError for floats of an unknown range and for other types."""
    if frames.dtype == torch.uint8:
        return frames, 0
    if not frames.is_floating_point():
        raise ConfigError(f"{source}: frames of type {frames.dtype}; expected uint8, or floats with their range=")
    if form.range is None:
        raise ConfigError(
            f"{source}: floating point frames; write their black and white: range=(0, 1), as diffusers gives them, or "
            "range=(-1, 1), as a VAE does"
        )
    wide = _at_least_float32(frames.detach())
    black, white = form.range
    least, most = torch.stack(torch.aminmax(wide)).tolist()
    if not (math.isfinite(least) and math.isfinite(most)):
        raise VideoError(source, "frames with values that are not finite")
    margin = form.overshoot * (white - black)
    if least < black - margin or most > white + margin:
        reason = f"values from {least:g} to {most:g}, beyond range=({black:g}, {white:g}) by over {margin:g}"
        raise VideoError(source, f"{reason}; give the range that they have, or clamp them")
    _warn_of_another_range(least, most, form.range)
    clamped = int(((wide < black) | (wide > white)).sum()) if least < black or most > white else 0
    return _levels(wide, black_white=form.range, clamps=clamped > 0).round().to(torch.uint8), clamped


def _at_least_float32(frames: Tensor) -> Tensor:
    return frames.float() if frames.element_size() < 4 else frames


def _levels(frames: Tensor, *, black_white: Range, clamps: bool = True) -> Tensor:
    """Floating point frames as grey levels of 0 to 255, not rounded."""
    black, white = black_white
    unit = frames if black == 0 else frames / 2 + 0.5
    levels = unit.clamp(0, white) if clamps else unit
    return levels if white == 255 else levels * 255


def _warn_of_another_range(least: float, most: float, black_white: Range) -> None:
    """Frames of 0 to 1 lie within the wider ranges too: they would be taken for bright or for black ones."""
    if black_white[0] < 0 <= least or (black_white[1] > 1 >= most > 0):
        shown = f"a clip has values from {least:.3g} to {most:.3g} only, though range={black_white}"
        warnings.warn(f"{shown}; if its frames are 0 to 1, write range=(0, 1)", DescoreWarning, stacklevel=2)


def resize(frames_TCHW: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Frames of uint8 or floats at another size (width, height), on their device: bicubic, antialiased, as the file
    reader scales, within a level where no edge is under 8 pixels.

    uint8 is rounded to uint8, floats of 0 to 255 are clamped and keep their fractions and gradients."""
    width, height = size
    if (width, height) == (frames_TCHW.shape[3], frames_TCHW.shape[2]):
        return frames_TCHW
    levels = frames_TCHW.float() if frames_TCHW.dtype == torch.uint8 else frames_TCHW
    scaled = _both_ways(levels, width=width, height=height).clamp(0, 255)
    return scaled.round().to(torch.uint8) if frames_TCHW.dtype == torch.uint8 else scaled


def _both_ways(frames_TCHW: Tensor, *, width: int, height: int) -> Tensor:
    """Columns, then rows resampled. Where an even width is at least halved, FFmpeg's scaler first takes the mean colour
    of each two neighbours, and only the brightness at full width."""
    source = frames_TCHW.shape[3]
    if source % 2 or 2 * width > source:
        return _along(_along(frames_TCHW, axis=2, length=height), axis=3, length=width)
    weight_C = torch.tensor(RGB_LUMA, device=frames_TCHW.device, dtype=frames_TCHW.dtype)
    frames_TCHW = _along(frames_TCHW, axis=2, length=height)
    luma_T1HW = (frames_TCHW * weight_C.view(3, 1, 1)).sum(dim=1, keepdim=True)
    colour_TCHW = frames_TCHW - luma_T1HW
    colour_TCHW = (colour_TCHW[..., ::2] + colour_TCHW[..., 1::2]) / 2
    return _along(luma_T1HW, axis=3, length=width) + _along(colour_TCHW, axis=3, length=width)


def _along(frames: Tensor, *, axis: int, length: int) -> Tensor:
    """One axis resampled: each output is a weighted sum of a few inputs. An embedding bag sums so, in full precision,
    where trainers lower that of matrix products."""
    if frames.shape[axis] == length:
        return frames
    index_LK, weight_LK = _taps(frames.shape[axis], length)
    rows = frames.movedim(axis, 0)
    summed = embedding_bag(
        index_LK.to(frames.device),
        rows.flatten(1),
        per_sample_weights=weight_LK.to(frames.device, frames.dtype),
        mode="sum",
    )
    return summed.view(length, *rows.shape[1:]).movedim(0, axis)


def _taps(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Indices and weights (target, K) of the inputs that make each output: the cubic convolution kernel (Keys 1981),
    which widens where it shrinks. Beyond an edge the last pixel is repeated; K, the first index, cut
    towards 0, which drops a tap beside the left edge, and the step in 1/65536 of a pixel are FFmpeg's."""
    wide = max(source / target, 1.0)
    taps = max(min(1 + math.ceil(4 * wide), source - 2), 1) if wide > 1 else 5
    step = ((source << 16) + target // 2) // target / (1 << 16)
    center_L = (np.arange(target) + 0.5) * step - 0.5
    index_KL = np.trunc(center_L - (taps - 2) / 2) + np.arange(taps)[:, None]
    a, d = BICUBIC, np.abs(index_KL - center_L) / wide
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    weight_KL = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    weight_KL /= weight_KL.sum(axis=0)
    index_LK = index_KL.clip(0, source - 1).astype(np.int64).T
    return torch.from_numpy(index_LK.copy()), torch.from_numpy(weight_KL.T.copy())
