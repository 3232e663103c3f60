"""Hand-made features on frames small enough to do by hand."""

import numpy as np
import pytest

from descore.errors import VideoError
from descore.evaluation.judges import FEATURES, SAMPLING, jerk, sharpness
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


def test_sharpness_is_the_mean_over_frames_and_nothing_where_all_is_flat():
    assert sharpness(clip_of(flat(77))) == pytest.approx(0, abs=1e-4)
    assert sharpness(clip_of(DOT, flat(0))) == pytest.approx(200)


def test_a_ramp_has_no_jerk_and_flicker_has_two():
    assert jerk(clip_of(flat(0), flat(50), flat(100))) == pytest.approx(0)  # differences 50, 50; their difference 0
    assert jerk(clip_of(flat(0), flat(50), flat(0))) == pytest.approx(-2)  # differences 50, -50; their difference -100


def test_a_jump_between_two_stills():
    # Differences 0, 60, 0 with mean size 20; second ones 60, -60 with mean size 60: hence -3.
    assert jerk(clip_of(flat(0), flat(0), flat(60), flat(60))) == pytest.approx(-3)


@pytest.mark.parametrize(
    ("name", "clip", "message"),
    [
        ("jerk", clip_of(flat(1), flat(1), flat(1)), "nothing changes"),
        ("jerk", clip_of(flat(1), flat(2)), "2 frames; jerk needs 3"),
        ("sharpness", clip_of([[1, 2], [3, 4]]), "2x2 pixels"),
    ],
)
def test_what_is_not_defined_is_an_error_and_no_number(name, clip, message):
    with pytest.raises(VideoError, match=message):
        FEATURES[name].measure(clip)


def test_clips_keep_their_size_and_their_frames():
    assert SAMPLING.size_multiple == SAMPLING.min_pixels == 1
    assert SAMPLING.fps >= 120
