"""Every scene fits into its picture: nothing is cut, nothing touches, and lengths are clearly apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descore.synthetic.scene import ATTRIBUTES, Action, Camera, Colour, Count, Scene, Setting, Shape, Size, Speed
from descore.synthetic.staging import stage

SCENES = st.builds(Scene, **{name: st.sampled_from(list(kind)) for name, kind in ATTRIBUTES.items()})
SEEDS = st.integers(0, 2**32 - 1)
HALVES = st.sampled_from([(0.5, 0.5), (0.83, 0.5), (0.5, 2.0)])
MANY = settings(max_examples=150)
PLAIN = Scene(shape=Shape.CIRCLE, colour=Colour.RED, setting=Setting.SEA)


def staged(scene, seed, *, frames=9, half_2=(0.5, 0.5)):
    return stage(scene, rng=np.random.default_rng(seed), frames=frames, half_2=half_2)


@given(scene=SCENES, seed=SEEDS, frames=st.integers(1, 20), half_2=HALVES)
@MANY
def test_things_stay_inside_the_picture_and_apart(scene, seed, frames, half_2):
    """At the size that the zoom gives it: 2 % from the edge; 4.5 % of the short side, at zoom 1, from each other."""
    staging = staged(scene, seed, frames=frames, half_2=half_2)
    beyond_TN2 = np.abs(staging.seen_at) + (staging.zoom_T * staging.radius)[:, None, None] - half_2
    assert beyond_TN2.max() < -0.0199
    start_N2 = staging.place_TN2[0]
    for i in range(len(start_N2)):
        for j in range(i):
            assert np.linalg.norm(start_N2[i] - start_N2[j]) > 2 * staging.radius + 0.0449


@given(scene=SCENES, seed=SEEDS)
@MANY
def test_all_things_do_the_same(scene, seed):
    move_TN2 = np.diff(staged(scene, seed).place_TN2, axis=0)
    assert np.allclose(move_TN2, move_TN2[:, :1])


@pytest.mark.parametrize("count", Count)
def test_small_is_clearly_smaller_than_large_and_slow_than_fast(count):
    """Whatever the other attributes: the largest small thing beside the smallest large one, at zoom 1."""
    scene = replace(PLAIN, count=count, action=Action.RIGHT)

    def length(staging):
        return np.ptp(staging.place_TN2[:, 0, 0])

    small = [staged(replace(scene, size=Size.SMALL), seed).radius for seed in range(200)]
    large = [staged(replace(scene, size=Size.LARGE, count=Count.THREE), seed).radius for seed in range(200)]
    slow = [length(staged(replace(scene, speed=Speed.SLOW), seed)) for seed in range(200)]
    fast = [length(staged(replace(scene, speed=Speed.FAST), seed)) for seed in range(200)]
    assert min(large) / max(small) > 1.7
    assert min(fast) / max(slow) > 1.7


@given(seed=SEEDS, count=st.sampled_from(list(Count)))
def test_a_bounce_falls_and_rises_under_one_gravity(seed, count):
    """Second differences of the height are the gravity in each step but those that the hit is in."""
    y_T = staged(replace(PLAIN, action=Action.BOUNCE, count=count), seed, frames=101).place_TN2[:, 0, 1]
    hit = int(y_T.argmax())
    assert 50 <= hit <= 56
    pull_T = np.diff(y_T, 2)
    falling, rising = pull_T[: hit - 2], pull_T[hit + 1 :]
    assert falling.min() > 0
    assert np.allclose(falling, falling[0])
    assert np.allclose(rising, falling[0])
    assert y_T[hit] - y_T[-1] > 0.6 * (y_T[hit] - y_T[0])


@given(seed=SEEDS)
def test_a_shaking_camera_moves_each_frame_and_does_not_drift(seed):
    camera_T2 = staged(replace(PLAIN, camera=Camera.SHAKE), seed, frames=32).camera_T2
    assert np.linalg.norm(np.diff(camera_T2, axis=0), axis=1).min() > 0.03
    assert np.linalg.norm(camera_T2, axis=1).max() < 0.046


@pytest.mark.slow
@given(seed=SEEDS)
def test_places_are_spread_and_do_not_follow_the_direction(seed):
    """Where a thing is at first does not tell where it goes: to the left and to the right both start on both sides."""
    starts = {}
    for action in (Action.LEFT, Action.RIGHT):
        scenes = [staged(replace(PLAIN, action=action), seed + k) for k in range(40)]
        starts[action] = [staging.place_TN2[0, 0, 0] for staging in scenes]
    assert min(starts[Action.LEFT]) < 0 < max(starts[Action.LEFT])
    assert min(starts[Action.RIGHT]) < 0 < max(starts[Action.RIGHT])
