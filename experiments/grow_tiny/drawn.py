"""Drawn clips as a video file would show them: at a file's rate, of which frames are sampled.

`descore.synthetic` draws 8 frames at 4 a second. A model that has seen no other takes 16 frames at 8 a second for slow,
and frames that stand unevenly, as 8 of 21 a second do, for a motion that halts."""

from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np

from descore.synthetic.degradations import degrade
from descore.synthetic.rendering import DRAWN_FPS, DRAWN_FRAMES, drawn_clip
from descore.synthetic.splits import Example, Plan, draw_plan
from descore.video.sampling import Timeline, VideoSampling, choose_frames

SIDE = 128
"""Pixels along each edge of a drawn frame; a frame of real footage has at most as many pixels."""
PATCH = 16
SAMPLING = VideoSampling(
    fps=8.0, min_frames=4, max_frames=16, min_pixels=64 * 64, max_pixels=SIDE * SIDE, size_multiple=2 * PATCH
)
"""How the model samples a file."""
FILE_RATES = (5, 6, 8, 10, 12, 15, 16, 20, 22, 24)
"""Frames a second of a file. Rates of 25 and more look like 24 once sampled, and take longer to draw."""
P_FILE = 0.5
"""Share of drawn clips that are shown as of a file; the others as `descore.synthetic` draws them."""
_SEED = 4212


def draw(plan: Plan, *, number: int) -> Example:
    """Draw a plan at a rate that goes by the number: both clips of a pair have one."""
    rng = np.random.default_rng([_SEED, number])
    if rng.random() >= P_FILE:
        return draw_plan(plan, size=(SIDE, SIDE))
    return draw_as_file(plan, rate=FILE_RATES[int(rng.integers(len(FILE_RATES)))])


def draw_as_file(plan: Plan, *, rate: int) -> Example:
    """Draw a plan as if frames were sampled of a file with so many frames a second. Flaws come behind the sampling, so
    that they are as visible as they are said to be."""
    count = round(rate * DRAWN_FRAMES / DRAWN_FPS)
    timeline = Timeline.of(range(count), tick=Fraction(1, rate), last=1)
    kept = choose_frames(timeline, sampling=SAMPLING)
    rng = np.random.default_rng(plan.seed)
    clip = drawn_clip(plan.shown, rng=rng, frames=count, width=SIDE, height=SIDE)
    frames_THWC = clip.frames[list(kept)]
    for flaw in plan.flaws:
        frames_THWC = degrade(frames_THWC, flaw.name, strength=flaw.strength, rng=rng)
    shown = replace(
        clip,
        frames=frames_THWC,
        times=tuple(timeline.seconds(index) for index in kept),
        source_fps=float(rate),
        duration=timeline.duration,
    )
    values: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}
    return Example(clip=shown, **values)
