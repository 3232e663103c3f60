"""Strips of frames of the clips that a report shows, so that it never opens the benchmark again.

In: pairs, and how to open their videos. Out: JPEG files. Knows pixels and files; knows nothing of rewards."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from descore.data.sampling import VideoSampling
from descore.data.video import read_clip
from descore.errors import DescoreError
from descore.types import Clip, Pair, RatedClip

FRAMES, HEIGHT, GAP, QUALITY = 4, 96, 4, 80
"""Frames in a strip; its height and the space between frames, in pixels; JPEG quality of 100."""

_SAMPLING = VideoSampling(
    fps=0.01, min_frames=FRAMES, max_frames=FRAMES, min_pixels=1, max_pixels=512 * 512, size_multiple=1
)


def write_strips(
    folder: Path, clips: Sequence[RatedClip], *, pairs: Sequence[Pair], open_: Callable[[str], Any]
) -> None:
    """Write N.jpg for both clips of each pair, N being the clip's place among `clips`. Strips of an earlier writing are
    replaced; a video that cannot be read has none."""
    place = {(clip.video, clip.prompt): index for index, clip in enumerate(clips)}
    shown = {place[video, pair.prompt]: video for pair in pairs for video in (pair.video_a, pair.video_b)}
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for index, video in sorted(shown.items()):
        try:
            clip = _read(open_(video))
        except DescoreError:
            continue  # its record says already what is wrong with it
        draw_strip(clip).save(aside / f"{index}.jpg", quality=QUALITY)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def draw_strip(clip: Clip) -> Image.Image:
    """Up to FRAMES frames side by side, evenly spaced from the first to the last, HEIGHT pixels high."""
    chosen = np.unique(np.linspace(0, len(clip.frames) - 1, FRAMES).round().astype(int))
    width = max(1, round(HEIGHT * clip.size[0] / clip.size[1]))
    strip = Image.new("RGB", (len(chosen) * (width + GAP) - GAP, HEIGHT), "white")
    for place, index in enumerate(chosen):
        strip.paste(Image.fromarray(clip.frames[index]).resize((width, HEIGHT)), (place * (width + GAP), 0))
    return strip


def _read(video: Any) -> Clip:  # noqa: ANN401  # whatever a benchmark opens
    return video if isinstance(video, Clip) else read_clip(video, sampling=_SAMPLING)
