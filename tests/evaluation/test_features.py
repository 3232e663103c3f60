"""Features on frames small enough to check by hand, and measures of hacks on hacked clips."""

import numpy as np
import pytest
from benchmarks.hacks import HACKS, drawn_clips, separation

from descore.errors import VideoError
from descore.evaluation.features import FEATURE_SAMPLING, FEATURES, HACK_MEASURES, jerk, sharpness
from descore.types import Clip


def clip_of(*greys):
    """A clip of grey pictures, each a list of rows of grey levels."""
    grey_THW = np.asarray(greys, np.uint8)
    return Clip(
        frames=np.repeat(grey_THW[..., None], 3, axis=-1),
        times=tuple(range(len(greys))),
        source="<by hand>",
        source_fps=1.0,
        source_size=grey_THW.shape[:0:-1],
        source_frames=len(greys),
        duration=float(len(greys)),
    )


def flat(level):
    return [[level] * 3] * 3


DOT = [[0, 0, 0], [0, 100, 0], [0, 0, 0]]
EDGE = [[0, 0, 100, 100]] * 3


def test_sharpness_of_a_dot_is_four_times_its_height():
    assert sharpness(clip_of(DOT)) == pytest.approx(400)  # one inner pixel: 4 * 100 - 0 - 0 - 0 - 0


def test_sharpness_of_an_edge_is_its_height():
    assert sharpness(clip_of(EDGE)) == pytest.approx(100)  # two inner pixels: 4 * 0 - 100 and 4 * 100 - 300


def test_sharpness_is_the_mean_over_frames_and_0_if_flat():
    assert sharpness(clip_of(flat(77))) == pytest.approx(0, abs=1e-4)
    assert sharpness(clip_of(DOT, flat(0))) == pytest.approx(200)


def test_a_ramp_has_no_jerk_and_flicker_has_two():
    assert jerk(clip_of(flat(0), flat(50), flat(100))) == pytest.approx(0)  # differences 50, 50; their difference 0
    assert jerk(clip_of(flat(0), flat(50), flat(0))) == pytest.approx(-2)  # differences 50, -50; their difference -100


def test_a_jump_between_two_stills():
    # Differences 0, 60, 0 with mean size 20; second ones 60, -60 with mean size 60: hence -3.
    assert jerk(clip_of(flat(0), flat(0), flat(60), flat(60))) == pytest.approx(-3)


@pytest.mark.parametrize(
    ("name", "unmeasurable", "message"),
    [
        ("jerk", clip_of(flat(1), flat(1), flat(1)), "nothing changes"),
        ("jerk", clip_of(flat(1), flat(2)), "2 frames; jerk needs 3"),
        ("sharpness", clip_of([[1, 2], [3, 4]]), "2x2 pixels"),
    ],
)
def test_an_undefined_feature_is_an_error(name, unmeasurable, message):
    with pytest.raises(VideoError, match=message):
        FEATURES[name].measure(unmeasurable)


def test_clips_keep_their_size_and_their_frames():
    assert FEATURE_SAMPLING.size_multiple == FEATURE_SAMPLING.min_pixels == 1
    assert FEATURE_SAMPLING.fps >= 120


def measured(name, *greys):
    return HACK_MEASURES[name].measure(clip_of(*greys))


def test_motion_is_the_mean_step():
    assert measured("motion", flat(0), flat(10), flat(40)) == pytest.approx(20)
    assert measured("motion", flat(7), flat(7)) == 0


def test_repeats_of_a_still_a_loop_and_a_ramp():
    assert measured("repeats", *[flat(9)] * 5) == 1
    assert measured("repeats", *[flat(0), flat(40), flat(80)] * 2) == pytest.approx(3 / 5)
    assert measured("repeats", *[flat(20 * step) for step in range(6)]) == 0


def test_noise_is_the_deviation_of_the_noise():
    rng = np.random.default_rng(0)
    slope = 40 + np.add.outer(np.arange(96), np.arange(96))
    assert measured("noise", slope) == 0
    noisy = np.rint(np.clip(slope + rng.normal(0, 6, (4, 96, 96)), 0, 255))
    assert measured("noise", *noisy) == pytest.approx(6, rel=0.05)


def test_saturation_is_the_distance_of_the_channels():
    clip = clip_of(flat(0))
    clip.frames[...] = (200, 50, 80)
    assert HACK_MEASURES["saturation"].measure(clip) == pytest.approx(150)
    assert measured("saturation", flat(90)) == 0


def test_brightness_and_contrast_by_hand():
    assert measured("brightness", flat(10), flat(30)) == pytest.approx(20)
    assert measured("contrast", EDGE, [[3] * 4] * 3) == pytest.approx(25)  # deviations 50 and 0


def test_borders_are_shares_of_height_and_width():
    picture = np.random.default_rng(0).integers(60, 200, (20, 40))
    assert measured("borders", picture) == 0
    picture[:2] = picture[-3:] = 0
    assert measured("borders", picture) == pytest.approx(5 / 20)
    picture[:, :4] = 0
    assert measured("borders", picture) == pytest.approx(5 / 20 + 4 / 40)
    assert measured("borders", np.full((20, 40), 9)) == 0  # a picture of one colour has no border


def bars(*lefts):
    """White upright strokes, 2 pixels wide and 8 high, on black."""
    picture = np.zeros((64, 96), np.int64)
    for left in lefts:
        picture[30:38, left : left + 2] = 255
    return picture


def test_text_is_strokes_that_stay_in_their_place():
    line = bars(*range(10, 60, 8))
    assert measured("text", line, line, line) == 7
    assert measured("text", *[bars(10, 18, 26, 34)] * 2) == 0  # four strokes are no text
    assert measured("text", *[np.roll(line, 3 * step, axis=1) for step in range(8)]) == 0


@pytest.mark.parametrize("name", ["motion", "repeats", "text"])
def test_a_picture_has_no_motion(name):
    with pytest.raises(VideoError, match=r"1 frame; .* needs? 2 or more"):
        measured(name, flat(1))


@pytest.fixture(scope="module")
def drawn():
    return drawn_clips(8)


@pytest.mark.parametrize("name", HACK_MEASURES)
def test_a_measure_tells_its_hack_from_harmless_changes(name, drawn):
    change, _ = separation(name, drawn)
    assert change >= 0.9


def test_every_measure_has_its_hack():
    assert set(HACKS) == set(HACK_MEASURES)
