"""Records of results: the same keys always, null where absent, and never a NaN."""

import json
import math

import pytest
from tests.conftest import noise_clip

from descore.cli.film import write_mp4
from descore.data.video import VideoSampling, read_clip
from descore.errors import VideoError
from descore.evaluation.records import KEYS, to_line, to_record
from descore.types import Sample, Score, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}


def score_of(*, reward=0.5, verdict=None, std=None, thinking="words"):
    sample = Sample(
        thinking=thinking,
        verdict=verdict,
        flaw=None,
        rewards={"overall": reward},
        reward=reward,
        truncated=False,
        tokens=3,
    )
    return Score(clip=noise_clip(0), prompt="p", model="m", reward=reward, score=None, std=std, samples=(sample,))


def record_of(result):
    return to_record(result, video="v", prompt="p", model="m")


def test_a_verdict_is_told_with_null_for_marks_that_do_not_apply():
    record = record_of(score_of(verdict=Verdict(marks=MARKS, overall=3.5)))
    assert record["marks"] == MARKS
    assert record["overall"] == 3.5
    assert record["times"] == [0.0, 1.0, 2.0, 3.0]


def test_keys_are_always_the_same():
    for result in (score_of(), VideoError("v", "why")):
        assert tuple(record_of(result)) == KEYS


def test_no_line_holds_a_nan_or_a_letter_that_cannot_be_written():
    line = to_line(record_of(score_of(std=math.inf, thinking="line\nbreak \udcff 猫")))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["std"] is None


def test_films_say_how_long_the_last_frame_is_shown(tmp_path):
    frames = noise_clip(0, frames=7, width=32, height=32).frames
    write_mp4(tmp_path / "film.mp4", frames, fps=8, hold=2)
    clip = read_clip(tmp_path / "film.mp4", sampling=VideoSampling(fps=8))
    assert clip.source_frames == 7
    assert clip.duration == pytest.approx(1.0)
