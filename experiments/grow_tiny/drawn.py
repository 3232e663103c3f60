"""Drawn clips as a video file would show them: at a file's rate, of which frames are sampled.

`descore.synthetic` draws 8 frames at 4 a second. Files have other rates, at which the same speed is another change from
frame to frame, and their sampled frames stand unevenly."""

from fractions import Fraction

import numpy as np

from descore.synthetic.rendering import DRAWN_FPS, DRAWN_FRAMES
from descore.synthetic.splits import Example, Plan, draw_plan
from descore.video.sampling import Timeline, VideoSampling, choose_frames

SIDE = 128
"""Pixels along each edge of a drawn frame; a frame of real footage has at most as many pixels."""
PATCH = 16
SAMPLING = VideoSampling(
    fps=8.0, min_frames=4, max_frames=16, min_pixels=64 * 64, max_pixels=SIDE * SIDE, size_multiple=2 * PATCH
)
"""How the model samples a file."""
FILE_RATES = (8, 12, 15, 16, 24)
"""Frames a second of a file, as generators write them. Rates of 25 and more look like 24 once sampled, and take longer
to draw."""
P_FILE = 0.5
"""Share of drawn clips that are shown as of a file; the others as `descore.synthetic` draws them."""
_SEED = 4212


def draw(plan: Plan, *, number: int, p_file: float = P_FILE) -> Example:
    """Draw a plan at a rate that goes by the number: both clips of a pair have one."""
    rng = np.random.default_rng([_SEED, number])
    if rng.random() >= p_file:
        return draw_plan(plan, size=(SIDE, SIDE))
    return draw_as_file(plan, rate=FILE_RATES[int(rng.integers(len(FILE_RATES)))])


def draw_as_file(plan: Plan, *, rate: int, sampling: VideoSampling = SAMPLING) -> Example:
    """Draw a plan as if frames were sampled of a file with so many frames a second."""
    count = round(rate * DRAWN_FRAMES / DRAWN_FPS)
    timeline = Timeline.of(range(count), tick=Fraction(1, rate), last=1)
    kept = choose_frames(timeline, sampling=sampling)
    return draw_plan(plan, size=(SIDE, SIDE), frames=count, fps=rate, kept=kept)
