import json
from dataclasses import replace

import pytest

from descore.chains.records import Candidate, ChainRun, RequestFault, append_candidates
from descore.errors import DataError
from tests.chains.made import read_candidates


def candidate(row=0, side="a", number=0, **fields):
    values = {
        "key": "k",
        "prompt": "a ball",
        "video": "a.mp4",
        "text": "<answer>",
        "thinking": None,
        "finish": "stop",
        "teacher": "stub",
        "settings": "s",
        "seed": 0,
        "tokens_in": 10,
        "tokens_out": 3,
        "cost": 0.5,
        "seconds": 0.1,
        "time": "2026-11-27T10:00:00+00:00",
        "sees": "nothing",
        "error": None,
    }
    return Candidate(row=row, side=side, number=number, **(values | fields))


def failed(**fields):
    return candidate(text=None, finish=None, error=RequestFault(kind="server", message="500"), **fields)


def test_candidates_read_back_in_order_of_place(tmp_path):
    written = [candidate(row=1, side="b"), candidate(row=1, number=1), candidate(row=1), failed(row=0)]
    append_candidates(ChainRun(tmp_path), written)
    assert read_candidates(tmp_path) == [written[3], written[2], written[1], written[0]]


def test_an_error_gives_way_to_an_answer_and_never_back(tmp_path):
    append_candidates(ChainRun(tmp_path), [failed(), candidate(text="one"), failed()])
    assert [each.text for each in read_candidates(tmp_path)] == ["one"]


def test_a_line_that_was_cut_off_is_no_candidate(tmp_path):
    run = ChainRun(tmp_path)
    append_candidates(run, [candidate()])
    with run.candidates.open("ab") as file:
        file.write(b'{"key": "half')
    append_candidates(run, [candidate(row=2)])
    assert [each.row for each in read_candidates(tmp_path)] == [0, 2]


@pytest.mark.parametrize("change", [{"row": "one"}, {"sees": "all"}, {"surprise": 1}])
def test_a_line_that_is_no_candidate_names_its_place(tmp_path, change):
    run = ChainRun(tmp_path)
    append_candidates(run, [candidate()])
    record = json.loads(run.candidates.read_text()) | change
    run.candidates.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=rf"candidates.jsonl:1: {next(iter(change))}: .*delete the line"):
        read_candidates(tmp_path)


def test_a_single_clip_has_no_side(tmp_path):
    append_candidates(ChainRun(tmp_path), [replace(candidate(), side=None)])
    assert read_candidates(tmp_path)[0].place == (0, None, 0)
