"""Scores that another system wrote find their clips, and only theirs."""

import json
import warnings

import pytest
from tests.evaluation.cases import clip

from descore.errors import DataError, DescoreWarning
from descore.evaluation.judges import read_scores
from descore.evaluation.records import KEYS, RUN_KEYS

CLIPS = (clip("clips/a/1.mp4"), clip("clips/b/1.mp4"), clip("clips/2.mp4", prompt="p"), clip("clips/2.mp4", prompt="q"))


def judged(tmp_path, text, *, name="scores.csv", clips=CLIPS, labels=()):
    (tmp_path / name).write_text(text)
    judge = read_scores(tmp_path / name, clips=clips, labels=labels)
    records = judge.judge(clips, open_video=None)
    assert all(tuple(record) == RUN_KEYS for record in records)
    return judge, records


def test_videos_match_by_path_its_end_or_a_unique_name(tmp_path):
    table = "video,reward\nclips/a/1.mp4,1\n/home/me/clips/b/1.mp4,2\n2.mp4,3\n"
    _, records = judged(tmp_path, table)
    assert [record["reward"] for record in records] == [1, 2, 3, 3]  # without a prompt, whatever the prompt
    assert [record["error"] for record in records] == [None] * 4


def test_a_name_that_two_videos_have_is_no_match(tmp_path):
    with pytest.raises(DataError, match=r"scores\.csv:2: no row is of a clip.*'clips/a/1\.mp4'"):
        judged(tmp_path, "video,reward\n1.mp4,1\n")


def test_a_prompt_tells_apart(tmp_path):
    _, records = judged(tmp_path, "video,prompt,score\n2.mp4,q,4\n2.mp4, p ,5\n")
    assert [record["reward"] for record in records[2:]] == [5, 4]


def test_a_missing_clip_has_failed_and_an_empty_cell_too(tmp_path):
    judge, records = judged(tmp_path, "video,reward\nclips/a/1.mp4,\nclips/2.mp4,1\n")
    assert [record["error"] for record in records] == [
        "its row has no reward",
        "scores.csv has no score of it",
        None,
        None,
    ]
    assert judge.config["model"] == "scores"


def test_named_dimensions_are_columns_of_the_labels_or_say_so(tmp_path):
    table = "video,VQ,reward.MQ,frames\nclips/a/1.mp4,1,3,99\n"
    _, [record, *_] = judged(tmp_path, table, labels=("VQ", "MQ", "TA"))
    assert record["rewards"] == {"VQ": 1, "MQ": 3}
    assert record["reward"] == 2


def test_the_lines_of_descore_score_are_taken_as_they_are(tmp_path):
    marks = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}
    scored = dict.fromkeys(KEYS) | {"video": "x/clips/a/1.mp4", "prompt": "p", "model": "tiny", "reward": 0.5}
    scored |= {"score": -3.0, "thinking": "words", "marks": marks, "overall": 3.5, "truncated": False, "times": [0.0]}
    failed = dict.fromkeys(KEYS) | {"video": "clips/b/1.mp4", "prompt": "p", "model": "tiny", "error": "no such file"}
    text = "".join(json.dumps(record) + "\n" for record in (scored, failed))
    judge, [first, second, *_] = judged(tmp_path, text, name="lines.jsonl")
    assert judge.model == "tiny"
    assert (first["reward"], first["thinking"], first["overall"], first["truncated"]) == (0.5, "words", 3.5, False)
    assert first["marks"] == marks
    assert (second["reward"], second["error"]) == (None, "no such file")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("clip,reward\na,1\n", r"scores\.csv:1: no column 'video'"),
        ("video,stars\nclips/2.mp4,1\n", r"scores\.csv:2: no column reward or score; found video, stars"),
        ("video,reward\nclips/2.mp4,good\n", r"scores\.csv:2: reward is 'good'; expected a number"),
        ("video,reward\nclips/2.mp4,1\n2.mp4,1\n", r"scores\.csv:3: a second score of 'clips/2\.mp4'.*line 2"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        judged(tmp_path, table)


def test_rows_of_other_clips_are_left_out_with_a_warning(tmp_path):
    with pytest.warns(DescoreWarning, match="1 of its rows, from line 3"):
        judged(tmp_path, "video,reward\nclips/2.mp4,1\nother.mp4,1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged(tmp_path, "video,reward\nclips/2.mp4,1\n")


def test_another_table_of_the_same_name_is_another_config(tmp_path):
    first, _ = judged(tmp_path, "video,reward\nclips/2.mp4,1\n")
    before = first.config
    second, _ = judged(tmp_path, "video,reward\nclips/2.mp4,2\n")
    assert {key for key in before if before[key] != second.config[key]} == {"digest"}
