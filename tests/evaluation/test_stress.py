"""Judges of which it is known what they look at: the harness must say so, row by row."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tests.conftest import noise_clip
from tests.evaluation.cases import FakeJudgements, clip

from descore.errors import ConfigError, VideoError
from descore.evaluation.perturbations import PERTURBATIONS, motion, one_repeated
from descore.evaluation.records import plain_record
from descore.evaluation.stress import TOLERANCE, run_stress
from descore.video.sampling import VideoSampling

SAMPLING = VideoSampling(fps=1, min_frames=2, max_frames=8, min_pixels=16 * 16, max_pixels=64 * 64, size_multiple=16)


@dataclass
class Looks:
    """Rewards what it is told to look at; None is no score."""

    at: Callable[..., float | None]
    batch_size: int = 3
    batches: list[int] = field(default_factory=list)
    config = {"model": "looks", "think": None}  # noqa: RUF012

    def judge(self, clips, *, open_video):
        self.batches.append(len(clips))
        return [self._record(c, self.at(open_video(c.video), c.prompt)) for c in clips]

    def _record(self, rated, reward):
        if reward is None:
            return plain_record(rated, model="looks", error="broken")
        return plain_record(rated, model="looks", rewards={"overall": reward})


def brightness(clip, _prompt):
    return float(clip.frames.mean())


def moving(number):
    """Squares that roll to the right, on a ground of the clip's own brightness; 4 frames of 48 x 48."""
    noise = np.random.default_rng(number).integers(0, 40, (1, 6, 6, 3)).repeat(8, axis=1).repeat(8, axis=2)
    frames = np.concatenate([np.roll(noise, 8 * step, axis=2) for step in range(4)]) + 60 + 12 * number
    return replace(noise_clip(0, width=48, height=48), frames=frames.astype(np.uint8))


def clips(count=6, *, opened=lambda name: moving(int(name))):
    """Pairs of clips of one prompt."""
    rated = tuple(clip(str(index), prompt=f"thing {index // 2}") for index in range(count))
    return FakeJudgements(clips=rated, pairs=(), open=opened)


def rows(found):
    return {row.perturbation: row for row in found.rows}


def test_a_judge_of_brightness_alone_fails_the_rows_that_it_should():
    """It does not see the prompt, the order of frames or their size; rolled frames are equally bright, so that nothing
    but more light moves it: by a tenth, where the clips differ by 12 levels of about 100."""
    found = run_stress(Looks(brightness), clips(), sampling=SAMPLING)
    value = {name: row.figure.value for name, row in rows(found).items() if row.n}
    blind = {"another prompt", "frames shuffled", "frozen halfway", "frames reversed", "one frame repeated"}
    assert all(value[name] == 0 for name in blind)
    assert value["a little brighter"] == 0
    unmoved = {"flattery in the prompt", "a command in the prompt", "an answer in the prompt", "half the frames"}
    assert all(value[name] == 1 for name in unmoved | {"smaller frames", "larger frames"})
    assert rows(found)["a little brighter"].shift > TOLERANCE
    assert all(rows(found)[name].shift == 0 for name in blind | unmoved)


def test_a_judge_of_motion_and_prompt_passes_what_it_looks_at_and_falls_for_flattery():
    def look(clip, prompt):
        mine = (int(clip.frames.min()) - 60) // 24  # which prompt is the clip's own
        return motion(clip.frames) + 100 * (f"thing {mine}" in prompt) + 50 * ("masterpiece" in prompt)

    found = rows(run_stress(Looks(look), clips(), sampling=SAMPLING))
    assert found["another prompt"].figure.value == 1
    assert found["another prompt"].shift < 0
    assert found["one frame repeated"].figure.value == found["frozen halfway"].figure.value == 1
    assert found["frames reversed"].figure.value == 0
    assert found["flattery in the prompt"].figure.value == 0
    assert found["flattery in the prompt"].shift > 1
    assert found["a command in the prompt"].figure.value == 1


def test_figures_are_clustered_by_prompt_and_shifts_are_in_deviations():
    """Rewards 0 to 5: a sample deviation of sqrt(3.5). The command takes 1 from each clip, so it shifts by 0.53."""

    def look(clip, prompt):
        return float(round((int(clip.frames.min()) - 60) / 12)) - ("Ignore" in prompt)

    found = run_stress(Looks(look), clips(), sampling=SAMPLING)
    row = rows(found)["a command in the prompt"]
    assert found.deviation == pytest.approx(math.sqrt(3.5))
    assert row.shift == pytest.approx(-1 / math.sqrt(3.5))
    assert (row.figure.value, row.figure.n, row.figure.groups, row.n) == (0, 6, 3, 6)


def test_clips_that_do_not_move_are_left_out_of_what_harms_motion():
    def opened(name):
        clip = moving(int(name))
        return replace(clip, frames=one_repeated(clip.frames)) if name == "0" else clip

    found = rows(run_stress(Looks(brightness), clips(opened=opened), sampling=SAMPLING))
    assert (found["frames reversed"].n, found["frames reversed"].left_out) == (5, 1)
    assert (found["grey"].n, found["grey"].left_out) == (6, 0)
    assert found["twice the frames"].left_out == 6  # a clip has no frames in between
    assert math.isnan(found["twice the frames"].figure.value)


def test_what_has_no_score_is_counted_and_named_and_the_others_go_on():
    def opened(name):
        if name == "1":
            raise VideoError(name, "no such file")
        return moving(int(name))

    def look(clip, prompt):
        return None if "Ignore" in prompt and clip.frames.min() < 84 else brightness(clip, prompt)

    found = run_stress(Looks(look), clips(opened=opened), sampling=SAMPLING)
    told = rows(found)
    assert (found.clips, found.scored) == (6, 5)
    assert found.failures == ({"video": "1", "prompt": "thing 0", "error": "no such file"},)
    assert all((row.figure.failed, row.failures) == (1, ()) for name, row in told.items() if "command" not in name)
    command = told["a command in the prompt"]
    assert (command.n, command.figure.failed) == (4, 2)
    assert command.failures == ({"video": "0", "prompt": "thing 0", "error": "broken"},)


def test_a_clip_that_cannot_be_judged_as_it_is_counts_once_in_every_row():
    def look(clip, prompt):
        return None if clip.frames.mean() < 89 else brightness(clip, prompt)  # the darkest, also where it is brighter

    found = run_stress(Looks(look), clips(), sampling=SAMPLING)
    assert [failure["video"] for failure in found.failures] == ["0"]
    assert all(row.failures == () for row in found.rows)
    assert rows(found)["grey"].figure.failed == 1


def test_rewards_that_are_all_the_same_have_no_deviation_to_tell_shifts_in():
    found = run_stress(Looks(lambda _clip, _prompt: 1.0), clips(), sampling=SAMPLING)
    told = rows(found)
    assert found.deviation == 0
    assert all(math.isnan(row.shift) for row in found.rows)
    assert (told["another prompt"].figure.value, told["flattery in the prompt"].figure.value) == (0, 1)


def test_without_two_scores_nobody_knows_what_the_same_is():
    def look(clip, prompt):
        return brightness(clip, prompt) if clip.frames.min() < 72 else None

    told = rows(run_stress(Looks(look), clips(2), sampling=SAMPLING))
    assert told["flattery in the prompt"].n == 0
    assert told["another prompt"].n == 1


def test_clips_are_judged_a_batch_at_a_time_and_progress_is_told():
    heard, opened = [], []
    judge = Looks(brightness)

    def open_and_note(name):
        opened.append((name, sum(judge.batches)))
        return moving(int(name))

    run_stress(
        judge,
        clips(opened=open_and_note),
        sampling=SAMPLING,
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert max(judge.batches) == 3
    # A clip is opened when what came before has been judged, but for the batch that it is in.
    a_clip = len(PERTURBATIONS)  # with itself, less twice the frames
    assert all(judged >= int(name) * a_clip - 3 for name, judged in opened)
    assert (heard[0], heard[-1]) == ((0, 6), (6, 6))
    assert heard == sorted(heard)


def test_the_seed_decides_what_is_drawn_and_the_batch_size_nothing():
    def look(clip, _prompt):
        return float(
            np.dot(clip.frames.mean(axis=(1, 2, 3)) + clip.frames[:, 0, 0, 0], [1, 2, 4, 8][: len(clip.frames)])
        )

    found = [
        run_stress(Looks(look, batch_size=size), clips(), sampling=SAMPLING, seed=seed)
        for size, seed in ((3, 0), (8, 0), (3, 1))
    ]
    shuffles = [rows(each)["frames shuffled"].shift for each in found]
    assert shuffles[0] == shuffles[1] != shuffles[2]


def test_one_clip_is_too_few():
    with pytest.raises(ConfigError, match="found 1 clip, expected 2"):
        run_stress(Looks(brightness), clips(1), sampling=SAMPLING)
