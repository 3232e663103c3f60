"""Each degradation is visible, grows with its strength, and keeps to picture or motion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from descore.errors import ConfigError
from descore.synthetic.degradations import DEGRADATIONS, SOUND, VISIBLE, degrade, harm

NAMES = sorted(DEGRADATIONS)
PICTURE = [name for name in NAMES if DEGRADATIONS[name].harms == "picture"]
MOTION = [name for name in NAMES if DEGRADATIONS[name].harms == "motion"]
MIXES_TIME = ["drops", "freeze", "jerk", "reversal", "stutter"]
STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def moving(frames=8, *, height=64, width=96, seed=0):
    """Soft patches, coarse and fine, that drift by 5 pixels a frame."""
    rng = np.random.default_rng(seed)
    wide = np.full((height, 3 * width, 3), 128.0)
    for cell, levels in ((2, 40), (11, 30), (29, 50)):
        patches = np.clip(128 + rng.normal(0, levels, (height // cell, 3 * width // cell, 3)), 0, 255).astype(np.uint8)
        wide += np.asarray(Image.fromarray(patches).resize((3 * width, height), Image.Resampling.BICUBIC)) - 128.0
    pixels = np.clip(wide, 0, 255).astype(np.uint8)
    return np.stack([pixels[:, 5 * frame : 5 * frame + width] for frame in range(frames)])


def numbered(frames=8):
    """Frame t is a flat grey of level 10 t: which frame is shown can be read."""
    return np.stack([np.full((16, 16, 3), 10 * frame, np.uint8) for frame in range(frames)])


def shown(frames, name, strength, seed=0):
    """Which frames of a clip are shown, in order."""
    after = degrade(numbered(frames), name, strength=strength, rng=np.random.default_rng(seed))
    return (after[:, 0, 0, 0] // 10).tolist()


def psnr(before, after):
    return 10 * np.log10(255**2 / np.square(before.astype(float) - after).mean())


def degraded(name, strength, *, seed=0, clip=None):
    return degrade(moving() if clip is None else clip, name, strength=strength, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type_stay_and_the_original_is_not_touched(name):
    clip = moving(5, height=33, width=57)  # odd sizes, which encoders do not take
    copy = clip.copy()
    after = degraded(name, 0.6, clip=clip)
    assert (after.shape, after.dtype) == (clip.shape, np.uint8)
    assert after.flags.c_contiguous
    assert np.array_equal(clip, copy)
    assert not np.shares_memory(clip, after)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_state_gives_the_same_bits(name):
    assert np.array_equal(degraded(name, 0.6, seed=4), degraded(name, 0.6, seed=4))


@pytest.mark.parametrize("name", NAMES)
def test_the_least_harm_is_visible(name):
    assert harm(moving(), degraded(name, 0.05)) > VISIBLE


@pytest.mark.parametrize("name", PICTURE)
@pytest.mark.parametrize("seed", range(3))
def test_a_greater_strength_leaves_less_of_the_picture(name, seed):
    quality = [psnr(moving(), degraded(name, strength, seed=seed)) for strength in STRENGTHS]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] - quality[-1] > 3


@pytest.mark.parametrize("name", PICTURE)
def test_the_picture_is_harmed_in_a_still_too_and_stays_a_still(name):
    """Noise is another in each frame; everything else harms equal frames equally."""
    still = moving(1).repeat(4, axis=0)
    after = degraded(name, 0.5, clip=still)
    assert harm(still, after) > VISIBLE
    assert (name == "noise") != (after == after[:1]).all()


@pytest.mark.parametrize("name", ["flicker", "shake", "wobble", "boiling"])
@pytest.mark.parametrize("seed", range(3))
def test_a_greater_strength_changes_more_between_frames(name, seed):
    still = moving(1).repeat(8, axis=0)
    changes = [
        np.abs(np.diff(degraded(name, strength, seed=seed, clip=still).astype(int), axis=0)).mean()
        for strength in STRENGTHS
    ]
    assert changes == sorted(changes)
    assert changes[-1] > 1.4 * changes[0]


@given(
    name=st.sampled_from(MIXES_TIME),
    seed=st.integers(0, 999),
    strengths=st.tuples(*[st.floats(0.01, 1)] * 2).map(sorted),
)
@settings(max_examples=200)
def test_a_greater_strength_puts_frames_further_from_their_time(name, seed, strengths):
    """Distance from where a frame belongs, summed over the clip; for reversal, the steps that run back."""

    def disorder(strength):
        order = np.array(shown(8, name, strength, seed))
        return (np.diff(order) < 0).sum() if name == "reversal" else np.abs(order - np.arange(8)).sum()

    mild, strong = (disorder(strength) for strength in strengths)
    assert 0 < mild <= strong


def test_orders_by_hand():
    """Of 7 steps, a strength of 0.3 freezes or reverses the ceiling of 2.1, so 3; and 1.0 all."""
    assert shown(8, "freeze", 0.3) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert shown(8, "freeze", 1.0) == [0] * 8
    assert shown(8, "reversal", 0.3) == [3, 2, 1, 0, 1, 2, 3, 4]
    assert shown(8, "reversal", 1.0) == [7, 6, 5, 4, 3, 2, 1, 0]


@given(seed=st.integers(0, 999), strength=st.floats(0.01, 1))
def test_drops_jump_and_stutters_are_late(seed, strength):
    drops, stutter = shown(8, "drops", strength, seed), shown(8, "stutter", strength, seed)
    assert drops[0] == stutter[0] == 0
    assert drops[-1] == 7  # in time again at the end, however much is missing
    assert max(np.diff(drops)) > 1
    assert set(np.diff(stutter)) == {0, 1}
    assert stutter[-1] == 7 - list(np.diff(stutter)).count(0)
    assert np.diff(stutter)[-1] == 1  # it moves on behind each stop, or it would be a freeze


@given(seed=st.integers(0, 999), strength=st.floats(0.01, 1))
def test_jerky_time_runs_back_and_ahead(seed, strength):
    steps = np.diff(shown(8, "jerk", strength, seed))
    assert (steps < 0).any()
    assert (steps > 1).any()


@pytest.mark.parametrize("name", MOTION)
def test_a_single_frame_has_no_motion_to_harm(name):
    one = moving(1)
    assert harm(one, degraded(name, 1.0, clip=one)) == 0


@pytest.mark.parametrize("name", MIXES_TIME)
def test_a_still_has_no_time_to_mix_up(name):
    still = moving(1).repeat(8, axis=0)
    assert harm(still, degraded(name, 1.0, clip=still)) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_are_no_trouble(name, frames):
    assert degraded(name, 1.0, clip=moving(frames)).shape == (frames, 64, 96, 3)


def test_harm_by_hand():
    """One of two frames has one of three channels off by 30: the root of 900 / 3 in that frame."""
    before = np.zeros((2, 4, 4, 3), np.uint8)
    after = before.copy()
    after[1, ..., 0] = 30
    assert harm(before, after) == pytest.approx(300**0.5)


def test_every_kind_of_harm_has_its_own_words():
    """Training-only degradations have the words of what they look like."""
    words = [form for row in DEGRADATIONS.values() if not row.training_only for form in (row.mild, row.strong)]
    assert len(set(words)) == len(words)
    assert {row.mild for row in DEGRADATIONS.values()} == set(words[::2])
    assert {row.strong for row in DEGRADATIONS.values()} == set(words[1::2])
    assert not set(words) & set(SOUND.values())
    for name, row in DEGRADATIONS.items():
        assert row.name == name
        assert (row.words(0.49), row.words(0.5)) == (row.mild, row.strong)
        assert (row.mark(0.49), row.mark(0.5)) == (1, 0)
    assert [row.name for row in DEGRADATIONS.values() if not row.visible_alone] == ["reversal"]


@pytest.mark.parametrize(
    ("name", "strength", "clip", "says"),
    [
        ("blurr", 0.5, moving(), "found 'blurr', expected one of .*did you mean 'blur'?"),
        ("blur", 0.0, moving(), "found strength 0.0, expected above 0 and at most 1"),
        ("blur", 1.1, moving(), "found strength 1.1"),
        ("blur", float("nan"), moving(), "found strength nan"),
        ("blur", 0.5, moving()[0], "found frames uint8 .*expected uint8"),
        ("blur", 0.5, moving().astype(float), "found frames float64"),
        ("blur", 0.5, moving()[:0], "found frames uint8 .0, 64"),
    ],
)
def test_what_cannot_be_degraded_is_refused(name, strength, clip, says):
    with pytest.raises(ConfigError, match=says):
        degraded(name, strength, clip=clip)
