"""How fast a clip is read, beside transformers' own way, for the same frames at the same size.

Makes H.264 files of 1280 x 720 pixels in a temporary folder and reads each in two ways, in turn, in one process:

    descore        `read_clip`
    transformers   `load_video` with its PyAV backend, told the very same frame numbers, and where the size changes the
                   resize of Qwen3-VL's video processor (torchvision, bicubic, antialiased) to the very same size

Prints the medians, their ratio, and the mean absolute difference between the two ways' pixels (of 255 levels): small
only if both took the same frames. Exits with 1 if it is not.

    python benchmarks/read_clip.py [--repeats 5]"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import transformers
from descore.data.video import VideoSampling, read_clip
from descore.model.torchvision_import import import_torchvision
from descore.types import Clip
from numpy.typing import NDArray

import_torchvision()
from torchvision.transforms.v2 import InterpolationMode  # noqa: E402  # only once it can be imported
from torchvision.transforms.v2 import functional as tv  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402

WIDTH, HEIGHT = 1280, 720
SAME = 3.0
"""Levels: two ways of rounding and of scaling colour differ by less, two neighbouring frames by much more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file and how it is sampled."""

    name: str
    seconds: int
    fps: int
    key_every: int
    """Frames."""
    sampling: VideoSampling


FULL_SIZE = {"size_multiple": 16, "max_pixels": WIDTH * HEIGHT}
CASES = (
    Case(name="5 s, 2 fps", seconds=5, fps=24, key_every=250, sampling=VideoSampling()),
    Case(name="20 s, 2 fps", seconds=20, fps=30, key_every=250, sampling=VideoSampling(max_frames=64)),
    Case(
        name="20 s, 4 frames, unscaled",
        seconds=20,
        fps=30,
        key_every=250,
        sampling=VideoSampling(max_frames=4, **FULL_SIZE),
    ),
    Case(
        name="20 s, 4 frames, unscaled, key each second",
        seconds=20,
        fps=30,
        key_every=30,
        sampling=VideoSampling(max_frames=4, **FULL_SIZE),
    ),
)


def drawn_frames(count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of a drifting texture over which smaller ones drift the other way."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // 8 + 40, WIDTH // 8 + 160, 3), dtype=np.uint8)
    ground = coarse.repeat(8, axis=0).repeat(8, axis=1)
    fine = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    for index in range(count):
        down, right = (2 * index) % 320, (3 * index) % 1280
        frame = ground[down : down + HEIGHT, right : right + WIDTH].copy()
        for number in range(3):
            x, y = 400 * number + (5 * index) % 80, 40 + 100 * number + (3 * index) % 80
            frame[y : y + 320, x : x + 320] = fine
        yield frame


def write_file(path: Path, case: Case) -> None:
    """Encode a case's video as usual encoders do: one slice a frame, B-frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=case.fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_type = "FRAME"
        stream.options = {
            "preset": "veryfast",
            "bf": "3",
            "g": str(case.key_every),
            "x264-params": "sliced-threads=0:scenecut=0",
        }
        for frame in drawn_frames(case.seconds * case.fps):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_with_transformers(path: Path, like: Clip) -> NDArray[np.uint8]:
    """The frames of a clip (T, H, W, 3), read in transformers' way."""
    indices = [round(seconds * like.source_fps) for seconds in like.times]
    frames_THWC, _ = load_video(str(path), backend="pyav", sample_indices_fn=lambda metadata, **_: np.array(indices))
    width, height = like.size
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    resized_TCHW = tv.resize(frames_TCHW, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized_TCHW.permute(0, 2, 3, 1).numpy()


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def measure(case: Case, folder: Path, *, repeats: int) -> bool:
    """Print one row of the table; whether both ways saw the same frames."""
    path = folder / "video.mp4"
    write_file(path, case)
    clip = read_clip(path, sampling=case.sampling)
    theirs = read_with_transformers(path, clip)
    apart = float(np.abs(clip.frames.astype(np.int16) - theirs.astype(np.int16)).mean())
    rounds = [
        (timed(lambda: read_clip(path, sampling=case.sampling)), timed(lambda: read_with_transformers(path, clip)))
        for _ in range(repeats)
    ]
    own, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    shape = f"{len(clip.times)} x {clip.size[0]}x{clip.size[1]}"
    print(f"{case.name:42} {shape:14} {own:8.0f} {other:13.0f} {other / own:6.2f} {apart:8.2f}", flush=True)
    return apart < SAME


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description="Time read_clip beside transformers' video loading.")
    parser.add_argument("--repeats", type=int, default=5, help="readings of each file in each way (default 5)")
    repeats = parser.parse_args().repeats
    print(
        f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, PyAV {av.__version__}, "
        f"FFmpeg's libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; medians of {repeats}"
    )
    columns = ("frames", "descore", "transformers", "ratio", "apart")
    print("{:42} {:14} {:>8} {:>13} {:>6} {:>8}".format("1280x720, H.264 (ms)", *columns))
    with tempfile.TemporaryDirectory() as folder:
        same = [measure(case, Path(folder), repeats=repeats) for case in CASES]
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
