"""The format of a scored table, as others read it."""

import json

import pytest

from descore.errors import DataError
from descore.rewards import ScoredRow, read_scored
from descore.rewards.scored import result_columns
from descore.types import DIMENSIONS


def table(tmp_path, text, *, name="s.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_three_columns_are_enough(tmp_path):
    [good, bad] = read_scored(table(tmp_path, "prompt,video,reward,seed\np,a.mp4,1.5,7\np,b.mp4,,8\n"))
    assert good == ScoredRow(
        prompt="p",
        video=str(tmp_path / "a.mp4"),
        reward=1.5,
        samples=1,
        columns={"prompt": "p", "video": "a.mp4", "seed": "7"},
        line=2,
    )
    assert (bad.reward, bad.samples, bad.error) == (None, 0, "its row has no reward")


def test_an_error_outweighs_a_reward(tmp_path):
    [row] = read_scored(table(tmp_path, "prompt,video,reward,error\np,a.mp4,1.5,cut off\n"))
    assert (row.reward, row.error) == (None, "cut off")


def test_rewards_and_marks_by_name(tmp_path):
    cells = {"prompt": "p", "video": "a", "reward": 1, "reward_VQ": 2, "reward_TA": 0, "truncated": True, "std": 0.5}
    marks = {f"mark_{name}": mark for name, mark in zip(DIMENSIONS, (2, 1, None, 0, 2), strict=True)}
    [row] = read_scored(table(tmp_path, json.dumps(cells | marks), name="s.jsonl"))
    assert row.rewards == {"VQ": 2.0, "TA": 0.0}
    assert row.marks == dict(zip(DIMENSIONS, (2, 1, None, 0, 2), strict=True))
    assert (row.truncated, row.std) == (True, 0.5)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("reward", "high", "s.csv:3: reward is 'high'; expected a number"),
        ("reward", "inf", "s.csv:3: reward is 'inf'; expected a number"),
        ("reward", "-1e308", "s.csv:3: reward is '-1e308'; expected a number of at most 3.4e"),
        ("mark_style", "3", "s.csv:3: mark_style is 3; expected 0, 1, 2 or nothing"),
        ("samples", "1.5", "s.csv:3: samples is 1.5; expected a whole number"),
        ("truncated", "maybe", "s.csv:3: truncated is 'maybe'; expected"),
    ],
)
def test_a_cell_that_cannot_be_read(tmp_path, column, cell, message):
    names = ["prompt", "video", "reward", *([] if column == "reward" else [column])]
    rows = [["p", "a", "1", *([] if column == "reward" else [""])], ["p", "b", "1", cell][: len(names)]]
    if column == "reward":
        rows[1][2] = cell
    read = read_scored(table(tmp_path, "\n".join(",".join(row) for row in (names, *rows)) + "\n"))
    next(read)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        next(read)


def test_columns_with_one_dimension_and_with_two():
    one, two = result_columns(["overall"]), result_columns(["VQ", "MQ"])
    assert set(two) - set(one) == {"reward_VQ", "reward_MQ"}
    assert one[:4] == ("reward", "score", "std", "samples")
    assert one[-4:] == ("chain", "truncated", "error", "model")
