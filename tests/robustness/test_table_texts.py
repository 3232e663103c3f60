"""Texts of tables: what no parser or tokenizer reads is one line with its place, and file names keep their bytes."""

import json

import pytest

from descore.data.schema import read_pairs
from descore.data.tables import Cells, read_rows
from descore.errors import AnswerError, DataError
from descore.evaluation.layouts import parse_conversations
from descore.rubric import read_answer
from descore.types import DIMENSIONS

ROW = {"prompt": "p", "video_a": "a.mp4", "video_b": "b.mp4", "preference": "a"}
MARKS = dict.fromkeys(DIMENSIONS, 2)


def pairs_of(tmp_path, **cells):
    table = tmp_path / "pairs.jsonl"
    table.write_text(f"{json.dumps(ROW | cells)}\n")
    return list(read_pairs(table, resolve=False))


@pytest.mark.parametrize("column", ["prompt", "chain_a", "group", "video_a"])
def test_half_a_surrogate_pair_names_its_row(tmp_path, column):
    with pytest.raises(DataError, match=rf"pairs\.jsonl:1: {column} has U\+D800, half a surrogate pair, as"):
        pairs_of(tmp_path, **{column: "x\ud800"})


def test_only_file_names_keep_bytes_that_are_not_utf8(tmp_path):
    [pair] = pairs_of(tmp_path, video_a="x\udcff.mp4", video_b="\udc80")
    assert (pair.video_a, pair.video_b) == ("x\udcff.mp4", "\udc80")
    with pytest.raises(DataError, match="prompt has byte 0xff, which is not UTF-8, as character 2"):
        pairs_of(tmp_path, prompt="x\udcff")


def test_a_whole_surrogate_pair_is_one_character(tmp_path):
    [pair] = pairs_of(tmp_path, prompt="\U0001f3a5")
    assert pair.prompt == "\U0001f3a5"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"a": ' + "9" * 6000 + "}", "too many digits"),
        ('{"a": ' + "[" * 200_000, "too many brackets"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "has the key 'c' twice"),
    ],
)
@pytest.mark.parametrize("form", ["{}", "[{{}},\n{}]"])
def test_odd_json_names_its_line(tmp_path, row, reason, form):
    table = tmp_path / ("t.jsonl" if form == "{}" else "t.json")
    table.write_text("{}\n" + row + "\n" if form == "{}" else f"[{{}},\n{row}]")
    with pytest.raises(DataError, match=rf":2: .*{reason}") as error:
        list(read_rows(table))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ('{"subject": ' + "9" * 6000 + "}", "marks has a number of too many digits"),
        ("[" * 200_000, "marks has too many brackets"),
        (json.dumps(MARKS)[:-1] + ', "style": 0}', "marks has the key 'style' twice"),
        (json.dumps(MARKS | {"style": 10**400}), "marks.style is a whole number of 1329 bits"),
        (json.dumps(MARKS | {"style": float("nan")}), "marks.style is nan"),
        (json.dumps(MARKS | {"style": float("inf")}), "marks.style is inf"),
        (json.dumps("x" * 10_000), "marks has 'xxx"),
        (json.dumps({f"k{n}": 0 for n in range(1000)}), "and 988 more"),
    ],
)
def test_odd_marks_name_their_row(marks, reason):
    with pytest.raises(DataError, match=f"t.csv:7: {reason}|{reason}") as error:
        Cells(file="t.csv", line=7, row={"marks": marks}).marks("marks")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("cell", ["9" * 400, "1e400", "-" * 400, 10**400, "x" * 10_000])
def test_a_number_beyond_all_bounds_names_its_row(cell):
    with pytest.raises(DataError, match=r"t\.csv:7: n is .*; expected a number") as error:
        Cells(file="t.csv", line=7, row={"n": cell}).number("n")
    assert len(str(error.value)) < 100


def test_an_answer_with_a_key_twice_is_no_verdict():
    marks = json.dumps(MARKS)[:-1] + ', "style": 0}'
    with pytest.raises(AnswerError, match="the answer has the key 'style' twice"):
        read_answer(f'<answer>{{"dimensional_scores": {marks}, "overall_score": 4}}</answer>')


def test_a_score_of_thousands_of_digits_names_its_row():
    turns = [{"value": 'the text prompt is "a ball",\n'}, {"value": f"visual quality: {'9' * 5000}"}]
    with pytest.raises(DataError, match=r"t\.jsonl:3: conversations has a score of 5,000 digits; expected"):
        list(parse_conversations(iter([(3, {"conversations": turns})]), "t.jsonl"))
