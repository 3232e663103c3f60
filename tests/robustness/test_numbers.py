"""Numbers that would be quietly wrong: another folder's row, a failure with a reward, a reward that is no number."""

import json
import math

import pytest

from descore.errors import DataError, DescoreWarning
from descore.evaluation.judges import read_scores
from descore.evaluation.runs import run_evaluation
from tests.evaluation.cases import GOOD, FixedJudge, clip, four_clips

PARIS, ROME = clip("genA/1.mp4"), clip("genA/2.mp4")


def looked_up(tmp_path, text, *, clips=(PARIS, ROME), name="scores.csv"):
    (tmp_path / name).write_text(text)
    return read_scores(tmp_path / name, clips=clips).judge(clips, open_video=None)


def test_a_row_of_another_folder_is_no_match(tmp_path):
    with pytest.warns(DescoreWarning, match="1 of its rows, from line 2, are of no clip"):
        first, second = looked_up(tmp_path, "video,reward\ngenB/1.mp4,5\ngenA/2.mp4,1\n")
    assert (first["reward"], first["error"]) == (None, "scores.csv has no score of it")
    assert second["reward"] == 1


def test_a_match_by_file_name_alone_is_reported(tmp_path):
    with pytest.warns(DescoreWarning, match=r"1 of its rows are matched by file name alone.*line 2: genA/1\.mp4"):
        first, _ = looked_up(tmp_path, "video,reward\n1.mp4,5\nx/genA/2.mp4,1\n")
    assert first["reward"] == 5


def test_a_row_with_an_error_has_failed_whatever_its_reward(tmp_path):
    first, second = looked_up(tmp_path, "video,reward,error\ngenA/1.mp4,5,decoder died\ngenA/2.mp4,1,\n")
    assert (first["reward"], first["error"]) == (None, "decoder died")
    assert (second["reward"], second["error"]) == (1, None)


@pytest.mark.parametrize("text", ["1_0", "١٢", "1e999", "0x1p3", "inf", "1..2"])
def test_what_only_python_reads_as_a_number_is_none(tmp_path, text):
    with pytest.raises(DataError, match=r"scores\.csv:2: reward is '.*'; expected a number"):
        looked_up(tmp_path, f"video,reward\ngenA/1.mp4,{text}\n")


@pytest.mark.parametrize("text", ["10", "-1.5", "+.5", "1E-3", "3."])
def test_plain_numbers_are_read(tmp_path, text):
    first, _ = looked_up(tmp_path, f"video,reward\ngenA/1.mp4,{text}\n")
    assert first["reward"] == float(text)


@pytest.mark.parametrize(
    "changes",
    [{"reward": math.nan}, {"rewards": {"overall": math.inf}}, {"error": "died"}, {"reward": None}],
    ids=["nan", "infinite dimension", "error and reward", "neither"],
)
def test_a_record_without_a_finite_reward_counts_as_failed(tmp_path, changes):
    judged = four_clips()
    run_evaluation(FixedJudge(GOOD), judged, folder=tmp_path, benchmark="four", title="Four")
    *others, last = (tmp_path / "clips.jsonl").read_text().splitlines()
    (tmp_path / "clips.jsonl").write_text("\n".join([*others, json.dumps(json.loads(last) | changes)]) + "\n")
    still_failing = FixedJudge({**GOOD, "v3": None})
    results = run_evaluation(still_failing, judged, folder=tmp_path, benchmark="four", title="Four").results
    assert still_failing.judged_videos == ["v3"]
    assert (results["scored"], results["of"], len(results["failures"])) == (3, 4, 1)
    assert results["labels"]["overall"]["accuracy"]["n"] == 1
