"""What each change does, on clips small enough to check by hand, and when it has nothing to say."""

from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import noise_clip

from descore.errors import VideoError
from descore.evaluation.perturbations import (
    ANSWER,
    OTHER_PROMPTS,
    PERTURBATIONS,
    Case,
    brightened,
    cropped,
    frozen_halfway,
    grey,
    motion,
    one_repeated,
    perturb,
    read,
    sampled,
    shuffled,
)
from descore.rubric import read_answer
from descore.video.encoder import write_mp4
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

SAMPLING = VideoSampling(fps=1, min_frames=2, max_frames=8, min_pixels=16 * 16, max_pixels=64 * 64, size_multiple=16)
LEVELS = [10, 20, 30, 40]
RIGHT = dict.fromkeys(("subject", "dynamics", "camera", "environment", "style"), 2)


def counting(levels=LEVELS):
    """(T, 2, 2, 3): each frame is of one level, which identifies it."""
    return np.asarray(levels, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def levels(frames):
    return frames[:, 0, 0, 0].tolist()


def case(clip=None, **more):
    clip = clip or noise_clip(0)
    return Case(**{"clip": clip, "prompt": "a red ball", "video": clip, "sampling": SAMPLING, **more})


def still():
    clip = noise_clip(0)
    return replace(clip, frames=one_repeated(clip.frames))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A file of twelve frames of 48 x 48, three a second, of which one a second is sampled."""
    path = tmp_path_factory.mktemp("perturbations") / "film.mp4"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 3, 3), dtype=np.uint8)
    write_mp4(path, pixels.repeat(16, axis=1).repeat(16, axis=2), fps=3)
    return case(read_clip(path, sampling=SAMPLING), video=str(path))


def test_motion_is_the_mean_step_in_levels():
    assert motion(counting([10, 13, 10, 13])) == 3.0  # also downwards, where unsigned bytes would wrap around
    assert motion(counting([7])) == 0.0


def test_shuffled_frames_run_neither_forwards_nor_backwards():
    for seed in range(50):
        order = levels(shuffled(counting(), np.random.default_rng(seed)))
        assert sorted(order) == LEVELS
        assert order not in (LEVELS, LEVELS[::-1])
    assert shuffled(counting([1, 2]), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("shown", "expected"), [(LEVELS, [10, 20, 20, 20]), ([1, 2, 3, 4, 5], [1, 2, 3, 3, 3]), ([1, 2], [1, 1])]
)
def test_frozen_halfway_repeats_the_first_halfs_last_frame(shown, expected):
    assert levels(frozen_halfway(counting(shown))) == expected


def test_one_frame_repeated_is_the_middle_one():
    assert levels(one_repeated(counting())) == [30, 30, 30, 30]
    assert motion(one_repeated(noise_clip(0).frames)) == 0


def test_reversed_twice_is_the_same():
    row, first = PERTURBATIONS["frames reversed"], case()
    once = perturb(first, row)
    np.testing.assert_array_equal(once.clip.frames, first.clip.frames[::-1])
    np.testing.assert_array_equal(perturb(once, row).clip.frames, first.clip.frames)
    assert once.clip.times == first.clip.times
    assert once.clip.frames.flags["C_CONTIGUOUS"]


def test_grey_has_equal_channels_and_keeps_grey_as_it_is():
    red = np.zeros((1, 1, 1, 3), np.uint8) + np.asarray([200, 0, 0], np.uint8)
    assert grey(red).ravel().tolist() == [60, 60, 60]  # 0.299 * 200 = 59.8
    np.testing.assert_array_equal(grey(counting()), counting())


def test_brighter_stays_below_white():
    assert levels(brightened(counting([0, 100, 250]))) == [0, 110, 255]


def test_a_crop_keeps_the_size_and_loses_the_edges():
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, :2], frames[:, -2:], frames[:, :, :2], frames[:, :, -2:] = 255, 255, 255, 255  # the outer 5 %
    assert cropped(frames).shape == frames.shape
    assert (cropped(frames) == 0).mean() > 0.85
    assert (frames == 0).mean() == 0.81  # 36 * 36 of 40 * 40


def test_blur_takes_detail_away():
    blurred = perturb(case(), PERTURBATIONS["blurred"])
    assert blurred.clip.frames.std() < 0.8 * noise_clip(0).frames.std()


def test_no_change_touches_the_clip_that_is_given():
    first = case()
    before = first.clip.frames.copy()
    for row in PERTURBATIONS.values():
        perturb(first, row)
    np.testing.assert_array_equal(first.clip.frames, before)


def test_every_row_changes_a_film_that_gives_it_room(film):
    for name, row in PERTURBATIONS.items():
        changed = perturb(film, row)
        assert changed is not None, name
        differs = [changed.prompt != film.prompt, not np.array_equal(changed.clip.frames, film.clip.frames)]
        assert sum(differs) == 1, name  # one thing at a time


def test_the_same_seed_changes_alike_and_another_does_not():
    row = PERTURBATIONS["frames shuffled"]
    clip = noise_clip(0, frames=8)
    orders = [perturb(case(clip, seed=(seed, 3)), row).clip.frames.tobytes() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("name", [name for name, row in PERTURBATIONS.items() if row.harms == "dynamics"])
def test_still_clips_have_no_motion_to_harm(name):
    assert perturb(case(still()), PERTURBATIONS[name]) is None


@pytest.mark.parametrize(
    ("name", "dimension"), [("another prompt", "subject"), ("grey", "subject"), ("frames reversed", "dynamics")]
)
@pytest.mark.parametrize("mark", [0, 1, None])
def test_a_dimension_that_is_not_right_is_left_out(name, dimension, mark):
    row = PERTURBATIONS[name]
    assert perturb(case(marks=RIGHT), row) is not None
    assert perturb(case(marks={**RIGHT, dimension: mark}), row) is None


def test_grey_and_still_clips_are_unchanged():
    clip = noise_clip(0)
    assert perturb(case(replace(clip, frames=grey(clip.frames))), PERTURBATIONS["grey"]) is None


def test_another_prompt_is_another_clips_or_a_foreign_one():
    row = PERTURBATIONS["another prompt"]
    result = {perturb(case(others=("a cat", "A  red BALL"), seed=(seed,)), row).prompt for seed in range(9)}
    assert result == {"a cat"}  # the same words are no other prompt
    assert {perturb(case(seed=(seed,)), row).prompt for seed in range(40)} == set(OTHER_PROMPTS)
    assert perturb(case(others=("A red ball",)), row) is None


def test_the_answer_in_a_prompt_parses_as_the_best_marks():
    answered = perturb(case(), PERTURBATIONS["an answer in the prompt"])
    assert answered.prompt == "a red ball" + ANSWER
    assert read_answer(answered.prompt).overall == 5.0


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("half the frames", 2, (48, 48)),
        ("twice the frames", 8, (48, 48)),
        ("smaller frames", 4, (32, 32)),
        ("larger frames", 4, (64, 64)),
    ],
)
def test_a_film_is_sampled_again_with_other_settings(film, name, frames, size):
    """Smaller by 3/4 is 36 pixels wide, which is 32 on a grid of 16."""
    assert (len(film.clip.times), film.clip.size) == (4, (48, 48))
    again = perturb(film, PERTURBATIONS[name])
    assert (len(again.clip.times), again.clip.size) == (frames, size)
    assert (again.clip.times[0], again.clip.times[-1]) == (0, film.clip.times[-1])


def test_a_clip_is_sampled_from_its_own_frames():
    clip = replace(noise_clip(0), times=(0.0, 0.25, 0.5, 0.75))
    half = sampled(case(clip), frames=2).clip
    np.testing.assert_array_equal(half.frames, clip.frames[[0, 3]])
    assert half.times == (0.0, 0.75)
    larger = sampled(case(clip), pixels=64 * 64).clip
    assert (larger.times, larger.size) == (clip.times, (64, 64))
    assert perturb(case(clip), PERTURBATIONS["twice the frames"]) is None  # there are no frames in between


def test_a_clip_that_does_not_fit_is_sampled_from_its_frames():
    """Sixteen frames at 4 a second, of 96 x 96: too many and too large."""
    times = tuple(index / 4 for index in range(16))
    clip = replace(noise_clip(0, frames=16, width=96, height=96), times=times)
    result = read(clip, sampling=SAMPLING)
    assert (result.times, result.size) == ((0.0, 1.25, 2.5, 3.75), (64, 64))
    fitting = noise_clip(0)
    assert read(fitting, sampling=SAMPLING) is fitting
    with pytest.raises(VideoError, match="no such file"):
        read("gone.mp4", sampling=SAMPLING)


def test_no_change_exceeds_the_checkpoints_sampling():
    assert sampled(case(), frames=1) is None
    assert sampled(case(), frames=9) is None
    assert sampled(case(), pixels=64 * 64 + 1) is None
    assert sampled(case(), pixels=16 * 16 - 1) is None


def test_a_video_that_cannot_be_read_again_is_an_error():
    with pytest.raises(VideoError, match="no such file"):
        perturb(case(video="gone.mp4"), PERTURBATIONS["half the frames"])
