"""Read any video into a clip: a file, its bytes, or frames in memory.

In: a video and how to sample it. Out: a `Clip` of the frames shown at evenly spaced times, at the size that the model
sees. A video that cannot be read whole raises a `VideoError` of one line; it never gives a shorter clip. Tensors are
read without importing torch."""

import io
import math
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from descore.errors import ConfigError, VideoError, short_repr
from descore.types import Clip
from descore.video.decoder import FrameConverter, clip_of, decode_clip, fitting_size, over_white
from descore.video.sampling import PAIR, Timeline, VideoSampling, choose_frames

if TYPE_CHECKING:
    import torch

    Frames = NDArray[Any] | torch.Tensor | Sequence[Image.Image]
    Video = str | Path | bytes | BinaryIO | Frames | Clip


__all__ = ["VideoSampling", "read_clip"]

LOWEST_FPS, HIGHEST_FPS = 1e-6, 1e6
"""Frames per second, from a frame in eleven days to high-speed footage."""


def read_clip(video: "Video", *, sampling: VideoSampling, fps: float | None = None) -> Clip:
    """Sample a video into a clip.

    `video` is a path or file:// address; a file's bytes, or a file that is open in binary mode; frames as an array or
    tensor, (T, H, W, 3) or (T, 3, H, W), uint8 or floats from 0 to 1, also as a list of such frames or in a batch of
    one; a list of PIL images; or a Clip, which is returned as it is if it fits `sampling`. `fps`, frames per second, is
    needed for frames from memory and refused for the others, which state their own times.

    VideoError if the video cannot be read, ConfigError if `fps` is missing or out of place."""
    if isinstance(video, Clip):
        _refuse_fps(fps, "a clip has its times")
        return _check_fit(video, sampling=sampling)
    if isinstance(video, str | Path):
        _refuse_fps(fps, "a file states its own times")
        return _read_file(video, sampling=sampling)
    if isinstance(video, bytes | bytearray | memoryview):
        _refuse_fps(fps, "a file states its own times")
        return _read_bytes(bytes(video), sampling=sampling)
    if isinstance(video, io.IOBase):
        _refuse_fps(fps, "a file states its own times")
        return _read_open_file(video, sampling=sampling)
    if isinstance(video, list | tuple) and video and all(map(_is_array, video)):
        return _read_array(_stacked(video), fps=_check_fps(fps), sampling=sampling)
    if isinstance(video, list | tuple):
        return _read_images(video, fps=_check_fps(fps), sampling=sampling)
    return _read_array(_as_array(video), fps=_check_fps(fps), sampling=sampling)


def rgb_frames(video: "Frames") -> list[NDArray[np.uint8]]:
    """Frames from memory, as `read_clip` takes them with an fps, as pictures (H, W, 3) of their own size.

    VideoError for what is none."""
    if isinstance(video, list | tuple) and video and not any(map(_is_array, video)):
        return [_rgb_of_image(image) for image in _checked_images(video)]
    given = _stacked(video) if isinstance(video, list | tuple) and video else _as_array(video)
    return [_rgb_of_array(frame) for frame in _checked_frames(given)]


def _refuse_fps(fps: object, reason: str) -> None:
    if fps is not None:
        given = short_repr(fps)
        raise ConfigError(f"fps={given} given, but {reason}; to sample more or fewer frames set the sampling's fps")


def _check_fps(fps: Any) -> float:  # noqa: ANN401  # whatever a user gives
    if fps is None:
        raise ConfigError("frames from memory have no times; give their fps, in frames per second")
    try:
        rate = math.nan if isinstance(fps, str | bytes | bytearray | bool) else float(fps)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not LOWEST_FPS <= rate <= HIGHEST_FPS:
        bounds = f"from {LOWEST_FPS:g} to {HIGHEST_FPS:g}"
        raise ConfigError(f"fps must be a positive number of frames per second, {bounds}, got {short_repr(fps)}")
    return rate


def _read_file(name: str | Path, *, sampling: VideoSampling) -> Clip:
    source = str(name)
    path = local_path(source) if "://" in source else Path(name)
    try:
        if not path.is_file():  # a pipe or a device could block the reader forever
            raise VideoError(source, "not a file" if path.exists() else "no such file")
        if not path.stat().st_size:
            raise VideoError(source, "the file is empty")
        with path.open("rb") as file:
            return decode_clip(file, source=source, sampling=sampling)
    except OSError as error:
        raise VideoError(source, f"cannot be opened ({error.strerror or error})") from error


def local_path(address: str) -> Path:
    """The path of a file:// address; VideoError for an address of another kind."""
    parts = urlsplit(address)
    if parts.scheme.casefold() != "file":
        line = f"urllib.request.urlretrieve({address!r}, 'clip.mp4')"
        raise VideoError(address, f"an address; only files are read, so download it first, as with {line}")
    if parts.netloc not in ("", "localhost"):
        raise VideoError(address, f"a file on {parts.netloc}; expected file:///PATH, on this machine")
    return Path(unquote(parts.path))


def _read_open_file(file: io.IOBase, *, sampling: VideoSampling) -> Clip:
    source = "<file>"
    if isinstance(file, io.TextIOBase):
        raise VideoError(source, "opened as text; open it in binary mode: open(path, 'rb')")
    try:
        content: bytes = file.read()  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise VideoError(source, f"cannot be read ({error})") from error
    if not content:
        raise VideoError(source, "nothing left to read; to go to its start write file.seek(0)")
    return decode_clip(io.BytesIO(content), source=source, sampling=sampling)


def _read_bytes(content: bytes, *, sampling: VideoSampling) -> Clip:
    if not content:
        raise VideoError("<bytes>", "no bytes at all")
    return decode_clip(io.BytesIO(content), source="<bytes>", sampling=sampling)


def _read_images(images: Sequence[Any], *, fps: float, sampling: VideoSampling) -> Clip:
    size = _checked_images(images)[0].size
    return _sample(images, _rgb_of_image, fps=fps, size=size, source="<images>", sampling=sampling)


def _checked_images(images: Sequence[Any]) -> Sequence[Image.Image]:
    """The images as they are. VideoError unless they are images of one size."""
    source = "<images>"
    odd = next((type(image).__name__ for image in images if not isinstance(image, Image.Image)), None)
    if odd or not images:
        raise VideoError(source, f"expected a list of PIL images or of frames, found {odd or 'an empty one'}")
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise VideoError(source, f"images of different sizes, such as {sizes[0]} and {sizes[1]}; make them alike")
    return images


def _read_array(frames: NDArray[Any], *, fps: float, sampling: VideoSampling) -> Clip:
    frames_THWC = _checked_frames(frames)
    size = frames_THWC.shape[2], frames_THWC.shape[1]
    return _sample(frames_THWC, _rgb_of_array, fps=fps, size=size, source="<array>", sampling=sampling)


def _checked_frames(frames: NDArray[Any]) -> NDArray[Any]:
    """Frames as (T, H, W, 3). VideoError unless they are frames of a type that can be read."""
    source = "<array>"
    frames_THWC = _channels_last(frames, source=source)
    if 0 in frames_THWC.shape:
        raise VideoError(source, f"frames of shape {frames.shape}: nothing in them")
    if frames_THWC.dtype != np.uint8 and not np.issubdtype(frames_THWC.dtype, np.floating):
        raise VideoError(source, f"frames of type {frames.dtype}; expected uint8, or floats from 0 to 1")
    return frames_THWC


def _sample(
    frames: Sequence[Any] | NDArray[Any],
    rgb_of: Callable[[Any], NDArray[np.uint8]],
    *,
    fps: float,
    size: tuple[int, int],
    source: str,
    sampling: VideoSampling,
) -> Clip:
    """Choose frames from memory and scale them."""
    timeline = Timeline.of(range(len(frames)), tick=1 / Fraction(fps), last=1)
    chosen = choose_frames(timeline, sampling=sampling)
    converter = FrameConverter(fitting_size(*size, source=source, sampling=sampling), rule=sampling.rule)
    pictures = [converter.convert(VideoFrame.from_ndarray(rgb_of(frames[index]), format="rgb24")) for index in chosen]
    return clip_of(pictures, chosen=chosen, timeline=timeline, source=source, source_size=size, sampling=sampling)


def _rgb_of_image(image: Image.Image) -> NDArray[np.uint8]:
    return over_white(np.asarray(image.convert("RGBA")))


def _rgb_of_array(frame_HWC: NDArray[Any]) -> NDArray[np.uint8]:
    if frame_HWC.dtype != np.uint8:
        least, most = float(frame_HWC.min()), float(frame_HWC.max())
        if not (least >= 0 and most <= 1):  # also where there is a NaN
            raise VideoError("<array>", f"floats from {least:g} to {most:g}; expected 0 to 1, or uint8 for 0 to 255")
        frame_HWC = (frame_HWC * 255).round().astype(np.uint8)
    return np.ascontiguousarray(frame_HWC)


def _channels_last(frames: NDArray[Any], *, source: str) -> NDArray[Any]:
    """Frames as (T, H, W, 3), out of a batch of one too."""
    if frames.ndim == 5 and frames.shape[0] == 1:
        frames = frames[0]
    elif frames.ndim == 5:
        raise VideoError(source, f"a batch of {frames.shape[0]} videos; give each by itself: frames[0], frames[1], ...")
    if frames.ndim == 4 and frames.shape[3] == 3:
        return frames
    if frames.ndim == 4 and frames.shape[1] == 3:
        return frames.transpose(0, 2, 3, 1)
    hint = "; write frames.swapaxes(0, 1)" if frames.ndim == 4 and frames.shape[0] == 3 else ""
    raise VideoError(source, f"frames of shape {frames.shape}; expected (T, H, W, 3) or (T, 3, H, W){hint}")


def _is_array(value: object) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def _stacked(frames: Sequence[Any]) -> NDArray[Any]:
    """Frames of one shape, (H, W, 3) or (3, H, W), as one array."""
    arrays = [_as_array(frame) for frame in frames]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise VideoError("<array>", f"frames of different shapes, such as {shapes[0]} and {shapes[1]}; make them alike")
    if arrays[0].ndim != 3:
        raise VideoError("<array>", f"a list of arrays of shape {shapes[0]}; expected (H, W, 3) or (3, H, W) for each")
    return np.stack(arrays)


def _as_array(video: object) -> NDArray[Any]:
    if isinstance(video, np.ndarray):
        return video
    # Who passes a tensor has imported torch already; reading a file must not import it.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(video, torch.Tensor):
        tensor = video.detach().cpu()
        # numpy has no bfloat16
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    kind = type(video).__name__
    raise VideoError(f"<{kind}>", "expected a path, bytes, an open file, frames as array or tensor, images, or a Clip")


def _check_fit(clip: Clip, *, sampling: VideoSampling) -> Clip:
    """The clip as it is, if `sampling` could have made it."""
    (width, height), multiple, count = clip.size, sampling.size_multiple, len(clip.times)
    if width % multiple or height % multiple or width * height > sampling.max_pixels:
        most = sampling.max_pixels
        expected = f"multiples of {multiple}, at most {most} pixels"
        raise VideoError(clip.source, f"a clip of {width}x{height} pixels; expected {expected}: read its video again")
    if sampling.is_numbered and count < PAIR:
        raise VideoError(clip.source, f"a clip of one frame; the rule {sampling.rule} takes pairs of them")
    if count > sampling.max_frames:
        raise VideoError(clip.source, f"a clip of {count} frames; expected at most {sampling.max_frames}")
    return clip
