"""From a request's video to a file on the disk, and from there to a clip in another process.

`store` writes what came in memory into a folder of the caller; `read_media` is what a decoding
process runs, so this imports neither torch nor a web framework."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, UnidentifiedImageError

from descore.errors import VideoError, VideoLimitError
from descore.rewards.decoding import ReadClip
from descore.serving.problems import ServiceError
from descore.types import Clip
from descore.video.reader import read_clip, rgb_frames
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.serving.schema import VideoInput
    from descore.serving.settings import ServerSettings

FORMATS = ("PNG", "JPEG", "WEBP")
"""Of pictures that are frames."""
FETCHED = "fetched"
"""The name of a file that comes from an address, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """A video that a decoding process can read."""

    path: Path
    """A file; where there is an fps a folder of pictures, or frames (T, C, H, W) in NumPy's format."""
    name: str
    """What the client calls it."""
    fps: float | None = None
    times: tuple[float, ...] | None = None
    """Of pictures that are a clip already."""
    frame_numbers: tuple[int, ...] | None = None

    def reader(self, sampling: VideoSampling) -> ReadClip:
        """A function from the path to the clip, for another process."""
        if self.times is None:
            return partial(read_media, sampling=sampling, fps=self.fps)
        return partial(_read_sampled, sampling=sampling, video=self)


def store(video: "VideoInput", *, bounds: "ServerSettings", folder: Path) -> StoredVideo:
    """The video as a file: one below the media root, or what is written into this empty folder.

    ServiceError for base64 that is none; ConfigError for a path outside the media root."""
    if video.upload is not None:
        return StoredVideo(path=video.upload, name=video.name or "<upload>", fps=video.fps)
    if video.path is not None:
        return StoredVideo(path=bounds.file_of(video.path), name=video.name or video.path)
    if video.url is not None:  # fetched already
        return StoredVideo(path=folder / FETCHED, name=video.name or _name_of(video.url))
    if video.base64 is not None:
        (folder / "video").write_bytes(_decoded(video.base64, key="video.base64"))
        return StoredVideo(path=folder / "video", name=video.name or "<base64>")
    for number, frame in enumerate(video.frames or ()):
        (folder / f"{number:08d}").write_bytes(_decoded(frame, key=f"video.frames.{number}"))
    return StoredVideo(
        path=folder,
        name=video.name or "<frames>",
        fps=video.fps,
        times=None if video.times is None else tuple(video.times),
        frame_numbers=None if video.frame_numbers is None else tuple(video.frame_numbers),
    )


def _name_of(url: str) -> str:
    """The last part of an address's path. What follows it may hold a secret."""
    return PurePosixPath(urlsplit(url).path).name or "<url>"


def _decoded(text: str, *, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise ServiceError("request", f"{key}: no base64 ({str(error).lower()})") from None


def read_media(path: str, *, sampling: VideoSampling, fps: float | None) -> Clip:
    """The clip of a file, or, with an fps, of a folder of pictures or an array. VideoError where there is none."""
    if fps is None:
        return read_clip(path, sampling=sampling)
    if Path(path).is_file():
        frames_TCHW = np.load(path, mmap_mode="r", allow_pickle=False)
        _check_array(path, frames_TCHW.shape, sampling)
        return read_clip(frames_TCHW, sampling=sampling, fps=fps)
    return read_clip(_pictures(path, sampling), sampling=sampling, fps=fps)


def _read_sampled(path: str, *, sampling: VideoSampling, video: StoredVideo) -> Clip:
    """The clip whose frames a folder of pictures has. VideoError for one that the sampling could not have made."""
    frames_THWC = np.stack(rgb_frames(_pictures(path, sampling)))
    assert video.times is not None
    assert video.fps is not None
    clip = Clip(
        frames=frames_THWC,
        times=video.times,
        source=path,
        source_fps=video.fps,
        source_size=(frames_THWC.shape[2], frames_THWC.shape[1]),
        source_frames=len(frames_THWC),
        duration=video.times[-1],
        frame_numbers=video.frame_numbers,
    )
    return read_clip(clip, sampling=sampling)


def _pictures(path: str, sampling: VideoSampling) -> list[Image.Image]:
    pictures = sorted(Path(path).iterdir())
    _check_size(pictures, sampling)
    return [_opened(picture) for picture in pictures]


def _check_array(path: str, shape: Sequence[int], sampling: VideoSampling) -> None:
    frames, _, height, width = shape
    if height * width > sampling.max_source_pixels:
        raise VideoLimitError(path, f"frames of {height * width} pixels, more than {sampling.max_source_pixels}")
    if frames * height * width > sampling.max_decode:
        raise VideoLimitError(path, f"frames of more than {sampling.max_decode} pixels in all")


def _check_size(pictures: Sequence[Path], sampling: VideoSampling) -> None:
    """Refuse too many pixels by the pictures' headers, before one of them is decoded."""
    pixels = 0
    for number, picture in enumerate(pictures):
        with _image(picture) as image:
            here = image.width * image.height
        if here > sampling.max_source_pixels:
            raise VideoLimitError(
                str(picture), f"frame {number} has {here} pixels, more than {sampling.max_source_pixels}"
            )
        pixels += here
        if pixels > sampling.max_decode:
            raise VideoLimitError(str(picture), f"frames of more than {sampling.max_decode} pixels in all")


def _opened(picture: Path) -> Image.Image:
    with _image(picture) as image:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's, of a damaged PNG
            raise _damaged(picture, error) from error
        return image.copy()


def _image(picture: Path) -> Image.Image:
    try:
        return Image.open(picture, formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(picture, error) from error


def _damaged(picture: Path, error: Exception) -> VideoError:
    kinds = ", ".join(FORMATS)
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return VideoError(str(picture), f"frame {int(picture.name)} is no whole picture of {kinds}{reason}")
