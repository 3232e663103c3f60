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
    """Rewards by a function of clip and prompt; None is no score."""

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


def rows(result):
    return {row.perturbation: row for row in result.rows}


def test_a_brightness_judge_fails_prompt_and_order_rows():
    """It does not see the prompt, the order of frames or their size; rolled frames are equally bright, so that nothing
    but more light moves it: by a tenth, where the clips differ by 12 levels of about 100."""
    result = run_stress(Looks(brightness), clips(), sampling=SAMPLING)
    value = {name: row.figure.value for name, row in rows(result).items() if row.n}
    blind = {"another prompt", "frames shuffled", "frozen halfway", "frames reversed", "one frame repeated"}
    assert all(value[name] == 0 for name in blind)
    assert value["a little brighter"] == 0
    unmoved = {"flattery in the prompt", "a command in the prompt", "an answer in the prompt", "half the frames"}
    assert all(value[name] == 1 for name in unmoved | {"smaller frames", "larger frames"})
    assert rows(result)["a little brighter"].shift > TOLERANCE
    assert all(rows(result)[name].shift == 0 for name in blind | unmoved)


def test_a_motion_and_prompt_judge_passes_theirs_alone():
    def look(clip, prompt):
        mine = (int(clip.frames.min()) - 60) // 24  # which prompt is the clip's own
        return motion(clip.frames) + 100 * (f"thing {mine}" in prompt) + 50 * ("masterpiece" in prompt)

    result = rows(run_stress(Looks(look), clips(), sampling=SAMPLING))
    assert result["another prompt"].figure.value == 1
    assert result["another prompt"].shift < 0
    assert result["one frame repeated"].figure.value == result["frozen halfway"].figure.value == 1
    assert result["frames reversed"].figure.value == 0
    assert result["flattery in the prompt"].figure.value == 0
    assert result["flattery in the prompt"].shift > 1
    assert result["a command in the prompt"].figure.value == 1


def test_figures_cluster_by_prompt_and_shifts_are_deviations():
    """Rewards 0 to 5: a sample deviation of sqrt(3.5). The command takes 1 from each clip, so it shifts by 0.53."""

    def look(clip, prompt):
        return float(round((int(clip.frames.min()) - 60) / 12)) - ("Ignore" in prompt)

    result = run_stress(Looks(look), clips(), sampling=SAMPLING)
    row = rows(result)["a command in the prompt"]
    assert result.deviation == pytest.approx(math.sqrt(3.5))
    assert row.shift == pytest.approx(-1 / math.sqrt(3.5))
    assert (row.figure.value, row.figure.n, row.figure.groups, row.n) == (0, 6, 3, 6)


def test_still_clips_are_left_out_of_motion_rows():
    def opened(name):
        clip = moving(int(name))
        return replace(clip, frames=one_repeated(clip.frames)) if name == "0" else clip

    result = rows(run_stress(Looks(brightness), clips(opened=opened), sampling=SAMPLING))
    assert (result["frames reversed"].n, result["frames reversed"].left_out) == (5, 1)
    assert (result["grey"].n, result["grey"].left_out) == (6, 0)
    assert result["twice the frames"].left_out == 6  # a clip has no frames in between
    assert math.isnan(result["twice the frames"].figure.value)


def test_failures_are_counted_named_and_skipped():
    def opened(name):
        if name == "1":
            raise VideoError(name, "no such file")
        return moving(int(name))

    def look(clip, prompt):
        return None if "Ignore" in prompt and clip.frames.min() < 84 else brightness(clip, prompt)

    result = run_stress(Looks(look), clips(opened=opened), sampling=SAMPLING)
    shown = rows(result)
    assert (result.clips, result.scored) == (6, 5)
    assert result.failures == ({"video": "1", "prompt": "thing 0", "error": "no such file"},)
    assert all((row.figure.failed, row.failures) == (1, ()) for name, row in shown.items() if "command" not in name)
    command = shown["a command in the prompt"]
    assert (command.n, command.figure.failed) == (4, 2)
    assert command.failures == ({"video": "0", "prompt": "thing 0", "error": "broken"},)


def test_a_clip_without_a_score_fails_once_in_every_row():
    def look(clip, prompt):
        return None if clip.frames.mean() < 89 else brightness(clip, prompt)  # the darkest, also where it is brighter

    result = run_stress(Looks(look), clips(), sampling=SAMPLING)
    assert [failure["video"] for failure in result.failures] == ["0"]
    assert all(row.failures == () for row in result.rows)
    assert rows(result)["grey"].figure.failed == 1


def test_equal_rewards_have_no_shift():
    result = run_stress(Looks(lambda _clip, _prompt: 1.0), clips(), sampling=SAMPLING)
    shown = rows(result)
    assert result.deviation == 0
    assert all(math.isnan(row.shift) for row in result.rows)
    assert (shown["another prompt"].figure.value, shown["flattery in the prompt"].figure.value) == (0, 1)


def test_one_score_gives_no_tolerance():
    def look(clip, prompt):
        return brightness(clip, prompt) if clip.frames.min() < 72 else None

    shown = rows(run_stress(Looks(look), clips(2), sampling=SAMPLING))
    assert shown["flattery in the prompt"].n == 0
    assert shown["another prompt"].n == 1


def test_clips_are_judged_in_batches_with_progress():
    progress, opened = [], []
    judge = Looks(brightness)

    def open_and_note(name):
        opened.append((name, sum(judge.batches)))
        return moving(int(name))

    run_stress(
        judge,
        clips(opened=open_and_note),
        sampling=SAMPLING,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert max(judge.batches) == 3
    # A clip is opened when what came before has been judged, but for the batch that it is in.
    a_clip = len(PERTURBATIONS)  # with itself, less twice the frames
    assert all(judged >= int(name) * a_clip - 3 for name, judged in opened)
    assert (progress[0], progress[-1]) == ((0, 6), (6, 6))
    assert progress == sorted(progress)


def test_the_seed_changes_shuffles_and_the_batch_size_none():
    def look(clip, _prompt):
        return float(
            np.dot(clip.frames.mean(axis=(1, 2, 3)) + clip.frames[:, 0, 0, 0], [1, 2, 4, 8][: len(clip.frames)])
        )

    result = [
        run_stress(Looks(look, batch_size=size), clips(), sampling=SAMPLING, seed=seed)
        for size, seed in ((3, 0), (8, 0), (3, 1))
    ]
    shuffles = [rows(each)["frames shuffled"].shift for each in result]
    assert shuffles[0] == shuffles[1] != shuffles[2]


def test_one_clip_is_too_few():
    with pytest.raises(ConfigError, match="found 1 clip, expected 2"):
        run_stress(Looks(brightness), clips(1), sampling=SAMPLING)
