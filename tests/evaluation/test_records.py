"""Records of results: the same keys always, null where absent, and never a NaN."""

import json
import math

import pytest
from tests.conftest import noise_clip

from descore.errors import VideoError
from descore.evaluation.records import KEYS, RUN_KEYS, plain_record, to_line, to_plain, to_record, to_run_record
from descore.stats.bootstrap import Figure
from descore.types import Completion, RatedClip, Score, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}


def score_of(*, reward=0.5, verdict=None, std=None, thinking="words"):
    completion = Completion(
        token_ids=[1, 2, 3],
        text=thinking,
        truncated=False,
        verdict=verdict,
        flaw=None,
        rewards={"overall": reward},
    )
    return Score(
        clip=noise_clip(0), prompt="p", model="m", reward=reward, score=None, std=std, completions=(completion,)
    )


def record_of(result):
    return to_record(result, video="v", prompt="p", model="m")


def test_marks_that_do_not_apply_are_null():
    record = record_of(score_of(verdict=Verdict(marks=MARKS, overall=3.5)))
    assert record["marks"] == MARKS
    assert record["overall"] == 3.5
    assert record["times"] == [0.0, 1.0, 2.0, 3.0]


def test_keys_are_always_the_same():
    for result in (score_of(), VideoError("v", "why")):
        assert tuple(record_of(result)) == KEYS


def test_a_runs_record_also_has_rewards_tokens_and_seconds():
    clip = RatedClip(prompt="p", video="v", group="p")
    record = to_run_record(score_of(reward=2.0), clip=clip, model="m", seconds=0.5)
    failed = to_run_record(VideoError("v", "why"), clip=clip, model="m", seconds=0.5)
    assert tuple(record) == tuple(failed) == RUN_KEYS
    assert (record["rewards"], record["tokens"], record["seconds"]) == ({"overall": 2.0}, 3, 0.5)
    assert (failed["rewards"], failed["tokens"], failed["seconds"], failed["error"]) == (None, None, 0.5, "why")


def test_a_plain_record_has_the_mean_reward_and_known_keys():
    clip = RatedClip(prompt="p", video="v", group="p")
    assert plain_record(clip, model="m", rewards={"a": 1.0, "b": 2.0})["reward"] == 1.5
    assert plain_record(clip, model="m", rewards={"a": 1.0}, reward=7.0)["reward"] == 7.0
    assert tuple(plain_record(clip, model="m", error="why")) == RUN_KEYS
    with pytest.raises(TypeError, match="no such keys in a record: mark"):
        plain_record(clip, model="m", mark=1)


def test_figures_become_plain_values_and_nan_null():
    figure = Figure(value=1.0, low=math.nan, high=math.inf, n=1, failed=0, groups=1)
    plain = to_plain({"f": (figure,), 1: None})
    assert plain == {"f": [{"value": 1.0, "low": None, "high": None, "n": 1, "failed": 0, "groups": 1}], "1": None}


def test_lines_are_ascii_without_nan():
    line = to_line(record_of(score_of(std=math.inf, thinking="line\nbreak \udcff 猫")))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["std"] is None
