import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.errors import ConfigError
from descore.video.sampling import Timeline, VideoSampling, choose_frames, fit_size


def even(count, *, fps):
    return Timeline(ticks=range(count), tick=Fraction(1, fps), length=count)


@st.composite
def timelines(draw):
    gaps = draw(st.lists(st.integers(1, 400), min_size=0, max_size=80))
    ticks = [sum(gaps[:k]) for k in range(len(gaps) + 1)]
    return Timeline(ticks=ticks, tick=Fraction(1, draw(st.integers(1, 1000))), length=ticks[-1] + 1)


samplings = st.builds(
    lambda fps, least, more: VideoSampling(fps=fps, min_frames=least, max_frames=least + more),
    st.floats(0.1, 30),
    st.integers(1, 8),
    st.integers(0, 40),
)


def test_two_frames_a_second_from_first_to_last():
    # 5 s at 2 fps are 10 times from frame 0 to frame 119: 0, 13.2, 26.4, ... 119, each shown by the frame below it.
    chosen = choose_frames(even(120, fps=24), sampling=VideoSampling())
    assert chosen == (0, 13, 26, 39, 52, 66, 79, 92, 105, 119)


def test_milliseconds_lost_by_the_container_cost_no_frame():
    # Matroska rounds 5 s to 4.999: 9.998 samples are 10.
    timeline = Timeline(ticks=range(0, 5000, 50), tick=Fraction(1, 1000), length=4999)
    assert len(choose_frames(timeline, sampling=VideoSampling())) == 10


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (4, (0, 1, 2, 3)), (24, (0, 7, 15, 23))],
)
def test_short_video_gives_min_frames_or_all_that_it_has(frames, expected):
    assert choose_frames(even(frames, fps=24), sampling=VideoSampling(min_frames=4)) == expected


def test_long_video_is_sampled_more_thinly():
    # 100 s would be 200 frames; 5 are 0, 1/4, 1/2, 3/4 and all of the way to frame 2399: 599.75, 1199.5, 1799.25.
    assert choose_frames(even(2400, fps=24), sampling=VideoSampling(max_frames=5)) == (0, 599, 1199, 1799, 2399)


def test_rounded_times_do_not_lose_the_frame_that_is_due():
    # 24 fps in milliseconds; five times from 0 to 167 ms are 41.75 ms apart, and frame 1 is due at 41.67 but says 42.
    timeline = Timeline(ticks=(0, 42, 83, 125, 167), tick=Fraction(1, 1000), length=208)
    assert choose_frames(timeline, sampling=VideoSampling(fps=24)) == (0, 1, 2, 3, 4)


def test_single_frame_is_the_middle_one():
    assert choose_frames(even(9, fps=24), sampling=VideoSampling(min_frames=1, max_frames=1)) == (4,)


def test_variable_rate_takes_what_is_shown_then():
    # Frames at 0, 1, 2, 3 s, then a still until 9 s: 10 s at 0.5 fps are 5 times 0, 2.25, 4.5, 6.75, 9.
    timeline = Timeline(ticks=(0, 1000, 2000, 3000, 9000), tick=Fraction(1, 1000), length=10000)
    sampling = VideoSampling(fps=0.5, min_frames=1)
    assert choose_frames(timeline, sampling=sampling) == (0, 2, 3, 4)  # frame 3 is shown at 4.5 and at 6.75, taken once


def test_still_that_gives_too_few_is_sampled_by_number():
    # All motion is in the first tenth of a second: by time only the first and the last frame would be seen.
    timeline = Timeline(ticks=(0, 1, 2, 3, 4, 1000), tick=Fraction(1, 100), length=1001)
    assert choose_frames(timeline, sampling=VideoSampling(min_frames=4, max_frames=4)) == (0, 1, 3, 5)


@given(timelines(), samplings)
def test_frames_ascend_within_bounds_and_span_the_video(timeline, sampling):
    chosen = choose_frames(timeline, sampling=sampling)
    count = len(timeline.ticks)
    assert list(chosen) == sorted(set(chosen))
    assert min(sampling.min_frames, count) <= len(chosen) <= min(sampling.max_frames, count)
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (0, count - 1)


@given(timelines(), samplings)
def test_each_frame_is_the_one_shown_at_its_time(timeline, sampling):
    """A plain loop over the same evenly spaced times, in seconds and fractions."""
    wanted = math.floor(timeline.duration * sampling.fps + 0.02)
    wanted = min(max(wanted, sampling.min_frames), sampling.max_frames)
    starts = [tick * timeline.tick for tick in timeline.ticks]
    shown = set()
    for k in range(wanted):
        at = starts[-1] * Fraction(k, wanted - 1) if wanted > 1 else starts[-1] / 2
        at += min((b - a for a, b in itertools.pairwise(starts)), default=0) / 10
        shown.add(max(index for index, start in enumerate(starts) if start <= at))
    if len(shown) >= min(sampling.min_frames, len(starts)):
        assert choose_frames(timeline, sampling=sampling) == tuple(sorted(shown))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((448, 448), (448, 448)),  # as it is
        ((256, 256), (256, 256)),
        ((1280, 720), (576, 320)),  # 597 x 336 would have 200,704 pixels; 18 x 10 is nearest to 16 x 9 below it
        ((720, 1280), (320, 576)),
        ((100, 100), (128, 128)),  # enlarged to min_pixels
        ((320, 240), (320, 256)),  # 240 lies between 224 and 256; 256 bends the aspect less (1.25 against 1.43)
        ((3200, 32), (3200, 32)),
        ((6400, 32), (6272, 32)),  # 6400 would be over max_pixels: the long edge gives way
        ((32, 6400), (32, 6272)),
        ((200, 1), (6272, 32)),
    ],
)
def test_sizes(source, expected):
    assert fit_size(*source, sampling=VideoSampling()) == expected


edges = st.integers(1, 5000)


@given(edges, edges, st.sampled_from([1, 14, 28, 32]), st.integers(1, 10**5), st.integers(0, 10**6))
def test_size_is_on_the_grid_and_within_bounds(width, height, multiple, least, more):
    most = max(least + more, multiple**2)
    sampling = VideoSampling(size_multiple=multiple, min_pixels=least, max_pixels=most)
    w, h = fit_size(width, height, sampling=sampling)
    assert w % multiple == h % multiple == 0
    assert multiple <= min(w, h)
    assert w * h <= most
    assert sorted(fit_size(height, width, sampling=sampling)) == sorted((w, h))  # a square may go either way


@given(st.integers(200, 4000), st.integers(200, 4000))
def test_aspect_is_kept_to_within_a_grid_step(width, height):
    w, h = fit_size(width, height, sampling=VideoSampling(min_pixels=64 * 64))
    # Each edge is off by less than one step, so the aspect by less than a step of each edge.
    assert abs(math.log((w / h) / (width / height))) < math.log(1 + 32 / w) + math.log(1 + 32 / h) + 32 / w + 32 / h


@given(st.integers(33, 4000), st.integers(33, 4000))
def test_no_grid_size_is_better(width, height):
    """Compared with every size of the grid, not just with the four neighbours."""
    sampling = VideoSampling()
    if max(width, height) > 8 * min(width, height):
        return
    scale = math.sqrt(min(max(width * height, sampling.min_pixels), sampling.max_pixels) / (width * height))

    def cost(size):
        a, b = math.log(size[0] / (width * scale)), math.log(size[1] / (height * scale))
        return abs(a - b) + abs(a + b) / 2

    found = fit_size(width, height, sampling=sampling)
    grid = [(w, h) for w in range(32, 1500, 32) for h in range(32, 1500, 32)]
    near = [s for s in grid if abs(s[0] - width * scale) < 32 and abs(s[1] - height * scale) < 32]
    allowed = [s for s in near if sampling.min_pixels <= s[0] * s[1] <= sampling.max_pixels]
    assert cost(found) == pytest.approx(min(map(cost, allowed or [found])))


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        VideoSampling(fps=0, min_frames=8, max_frames=4.0, size_multiple=2.5, timeout=math.nan)
    assert str(error.value) == (
        "video sampling: fps must be positive, got 0; max_frames expected a whole number, found 4.0; "
        "size_multiple expected a whole number, found 2.5; timeout expected a number, found nan"
    )


def test_all_bounds_that_cross_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        VideoSampling(min_frames=8, max_frames=4, min_pixels=500_000, size_multiple=512)
    assert str(error.value) == (
        "video sampling: max_frames must be at least min_frames (8), got 4; "
        "max_pixels must be at least min_pixels (500000), got 200704; "
        "max_pixels must be at least size_multiple squared (262144), got 200704"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"fps": -1.0},
        {"fps": math.inf},
        {"fps": True},
        {"fps": "2"},
        {"min_frames": 0},
        {"max_frames": 2.0},
        {"min_pixels": 500_000},
        {"size_multiple": 512},
        {"max_pixels": 100, "min_pixels": 1},
        {"max_decode": 0},
        {"max_source_pixels": -1},
        {"timeout": 0},
    ],
)
def test_each_fault_is_refused(options):
    with pytest.raises(ConfigError, match="|".join(options) + "|_pixels"):
        VideoSampling(**options)
