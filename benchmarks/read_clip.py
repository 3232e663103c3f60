"""How fast a clip is read, against transformers' own reader, for the same frames at the same size.

Makes H.264 files of 1280 x 720 pixels in a temporary folder and reads each in two ways, in turn, in one process:

    descore        `read_clip`
    transformers   `load_video` with its PyAV backend and the same frame numbers, and where the size changes the resize
                   of Qwen3-VL's video processor (torchvision, bicubic, antialiased) to the same size

Prints the medians, their ratio, and the mean absolute difference of the pixels (of 255 levels), which is small only if
both took the same frames; a large one is an error.

    python -m benchmarks.read_clip [--repeats 5]"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import environment, interleaved, option_parser
from descore.model import import_torchvision
from descore.types import Clip
from descore.video.reader import VideoSampling, read_clip

import_torchvision()
from torchvision.transforms.v2 import InterpolationMode  # noqa: E402  # can be imported only now
from torchvision.transforms.v2 import functional as tv  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402

WIDTH, HEIGHT = 1280, 720
SAME = 3.0
"""Levels. The ways round colours differently, by one or two; neighbouring frames are further apart."""
UNSCALED = VideoSampling(max_frames=4, size_multiple=16, max_pixels=WIDTH * HEIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file and how it is sampled."""

    name: str
    seconds: int
    fps: int
    key_every: int
    """Frames from one key frame to the next."""
    sampling: VideoSampling


CASES = (
    Case(name="5 s, 2 fps", seconds=5, fps=24, key_every=250, sampling=VideoSampling()),
    Case(name="20 s, 2 fps", seconds=20, fps=30, key_every=250, sampling=VideoSampling(max_frames=64)),
    Case(name="20 s, 4 frames, unscaled", seconds=20, fps=30, key_every=250, sampling=UNSCALED),
    Case(name="the same, key frame each second", seconds=20, fps=30, key_every=30, sampling=UNSCALED),
)


def drawn_frames(count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3): a tinted texture that drifts, and three finer ones that drift across it."""
    rng = np.random.default_rng(0)
    ground = _texture(rng, height=HEIGHT + 320, width=WIDTH + 640, grain=8)
    patch = _texture(rng, height=320, width=320, grain=2)
    for index in range(count):
        down, right = 2 * index % 320, 3 * index % 640
        frame = ground[down : down + HEIGHT, right : right + WIDTH].copy()
        for number in range(3):
            x, y = 400 * number + 5 * index % 80, 40 + 100 * number + 3 * index % 80
            frame[y : y + 320, x : x + 320] = patch
        yield frame


def _texture(rng: np.random.Generator, *, height: int, width: int, grain: int) -> NDArray[np.uint8]:
    light = rng.integers(0, 256, (height // grain, width // grain, 1)).repeat(grain, axis=0).repeat(grain, axis=1)
    tint = np.linspace(0.6, 1.0, width)[None, :, None] * np.array([1.0, 0.9, 0.8])
    return (light * tint).astype(np.uint8)


def write_file(path: Path, case: Case) -> None:
    """Encode a case's video as usual encoders do: one slice a frame, B-frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=case.fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_type = "FRAME"
        x264 = f"sliced-threads=0:scenecut=0:bframes=3:keyint={case.key_every}"
        stream.options = {"preset": "veryfast", "x264-params": x264}
        for frame in drawn_frames(case.seconds * case.fps):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_with_transformers(path: Path, like: Clip) -> NDArray[np.uint8]:
    """The frames of a clip (T, H, W, 3), read in transformers' way."""
    indices = np.array([round(seconds * like.source_fps) for seconds in like.times])
    frames_THWC, _ = load_video(str(path), backend="pyav", sample_indices_fn=lambda **_: indices)
    width, height = like.size
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    resized_TCHW = tv.resize(frames_TCHW, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized_TCHW.permute(0, 2, 3, 1).numpy()


def measure(case: Case, path: Path, *, repeats: int) -> bool:
    """Print one row of the table; whether both ways saw the same frames."""
    clip = read_clip(path, sampling=case.sampling)
    apart = float(np.abs(clip.frames.astype(np.int16) - read_with_transformers(path, clip)).mean())
    variants = {
        "own": lambda: read_clip(path, sampling=case.sampling),
        "other": lambda: read_with_transformers(path, clip),
    }
    seconds = interleaved(variants, repeats=repeats)
    shape = f"{len(clip.times)} x {clip.size[0]}x{clip.size[1]}"
    own, other = 1000 * seconds["own"], 1000 * seconds["other"]
    print(f"{case.name:32} {shape:14} {own:8.0f} {other:13.0f} {other / own:6.2f} {apart:6.2f}", flush=True)
    return apart < SAME


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=3).parse_args().repeats
    print(environment())
    names = ("1280x720, H.264 (ms)", "frames", "descore", "transformers", "ratio", "apart")
    print("{:32} {:14} {:>8} {:>13} {:>6} {:>6}".format(*names))
    same = []
    with tempfile.TemporaryDirectory() as folder:
        written: dict[Case, Path] = {}
        for case in CASES:
            content = replace(case, name="", sampling=UNSCALED)
            if content not in written:
                written[content] = Path(folder) / f"{len(written)}.mp4"
                write_file(written[content], case)
            same.append(measure(case, written[content], repeats=repeats))
    if not all(same):
        sys.exit("the two ways did not see the same frames")


if __name__ == "__main__":
    main()
