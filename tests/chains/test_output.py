import json

import pytest

from descore.chains.filtering import FilterConfig
from descore.chains.output import CandidateIndex, filter_run, weak_marks
from descore.chains.records import ChainRun, RequestFault, append_candidates
from descore.data.schema import read_pairs
from descore.data.validate import TableCheck
from descore.errors import DataError
from descore.training.dataset import index_pairs
from descore.training.sft import read_examples
from tests.chains.made import lines_of, made_candidate, made_chain, pair_source, source_of, write_run

RUBRIC = "Judge whether the video shows: {prompt}"


def candidates(row, *overalls):
    return [
        made_candidate(made_chain(overall), row=row, side=side, number=number)
        for number, both in enumerate(overalls)
        for side, overall in zip("ab", both, strict=True)
    ]


@pytest.fixture
def source(tmp_path):
    return pair_source(tmp_path / "data", "a", "b", "a", extra=["x", "y", "z"], marks_a=[None, None, None])


@pytest.fixture
def run(tmp_path):
    """Row 0 agrees once of two times, row 1 never, row 2 was not asked."""
    return write_run(tmp_path / "runs" / "one", candidates(0, (2.0, 3.0), (4.0, 3.0)) + candidates(1, (4.0, 3.0)))


def filtered(run, source, **settings):
    return filter_run(run, source, FilterConfig(**settings), rubric=RUBRIC)


def test_counts_go_to_the_unit(run, source):
    summary = filtered(run, source)
    assert summary == json.loads(run.summary.read_text())
    rejected = {"answer": 0, "format": 0, "length": 0, "marks": 0, "grounding": 0, "agreement": 4, "choice": 0}
    assert (summary["rows"], summary["rows_kept"], summary["unasked"], summary["couples"]) == (2, 1, 1, 1)
    assert (summary["chains"], summary["kept"], summary["rejected"]) == (6, 2, rejected)
    assert (summary["cost"], summary["teachers"], summary["sees"]) == (1.5, {"stub": 6}, {"nothing": 6})


def test_the_rejected_are_kept_with_their_reason(run, source):
    filtered(run, source)
    rejected = lines_of(run.rejected)
    assert [(one["row"], one["side"], one["number"], one["step"]) for one in rejected] == [
        (0, "a", 0, "agreement"),
        (0, "b", 0, "agreement"),
        (1, "a", 0, "agreement"),
        (1, "b", 0, "agreement"),
    ]
    assert rejected[0]["text"] == made_chain(2.0)
    assert rejected[0]["reason"] == "overalls 2.00 and 3.00, and people prefer a"


def test_the_table_has_chains_marks_and_their_origin(run, source):
    filtered(run, source)
    kept, rest = lines_of(run.table)
    assert (kept["chain_a"], kept["chain_b"]) == (made_chain(4.0), made_chain(3.0))
    assert json.loads(kept["marks_a"]) == {"subject": 2, "dynamics": 2, "camera": "N/A", "environment": 1, "style": 1}
    assert (kept["teacher"], kept["teacher_settings"], kept["teacher_sees"]) == ("stub", "digest", "nothing")
    assert (kept["chain_seed_a"], kept["chain_cost_b"], kept["chain_key_b"]) == (1, 0.25, "key-0b1")
    assert (kept["extra"], kept["chain_time_a"]) == ("x", "2026-11-27T10:00:00+00:00")
    assert (rest["extra"], rest["chain_a"], rest["marks_a"], rest["teacher"]) == ("y", None, None, None)
    assert set(kept) == set(rest)


def test_paths_lead_from_the_new_table(run, source):
    filtered(run, source)
    assert lines_of(run.table)[0]["video_a"] == "../../data/clips/0a.mp4"
    (pair, _) = read_pairs(run.table)
    assert pair.video_a.endswith("data/clips/0a.mp4")


def test_each_stage_reads_the_table(run, source, tmp_path):
    filtered(run, source)
    with pytest.warns(UserWarning, match="pairs without chains are left out: 1"):
        examples = list(read_examples(run.table))
    assert [example["chain"] for example in examples] == [made_chain(4.0), made_chain(3.0)]
    index_pairs(run.table, tmp_path / "index.arrow", dimensions=("overall",), marks=True, decided=True)
    findings = TableCheck([run.table], probes={}).findings()
    assert not [str(finding) for finding in findings if not finding.warning]


@pytest.mark.parametrize(("option", "rows", "later"), [("pair-loss", 2, None), ("stage-2", 1, 1), ("drop", 1, None)])
def test_rejected_pairs_go_where_the_option_says(run, source, option, rows, later):
    filtered(run, source, rejected_pairs=option)
    assert len(lines_of(run.table)) == rows
    file = run.folder / "stage2.jsonl"
    assert (len(lines_of(file)) if file.is_file() else None) == later
    if later:
        assert (lines_of(file)[0]["marks_a"], lines_of(file)[0]["extra"]) == (None, "y")


def test_all_couples_are_rows_of_their_own(tmp_path, source):
    run = write_run(tmp_path / "all", candidates(0, (4.0, 3.0), (5.0, 3.0)))
    assert filtered(run, source, choice="all")["couples"] == 2
    assert [row["chain_a"] for row in lines_of(run.table)] == [made_chain(4.0), made_chain(5.0)]


def test_filtering_again_replaces_what_was_written(run, source):
    filtered(run, source)
    first = run.table.read_bytes()
    filtered(run, source, agreement=False, choice="all")
    assert len(lines_of(run.rejected)) == 0
    filtered(run, source)
    assert run.table.read_bytes() == first


def test_single_clips_have_a_chain_each(tmp_path):
    source = source_of(tmp_path, [{"prompt": "a red ball", "video": f"{n}.mp4", "rating": 4.0} for n in range(2)])
    texts = made_chain(4.0), made_chain(1.0)
    run = write_run(tmp_path / "run", [made_candidate(text, row=n, side=None) for n, text in enumerate(texts)])
    assert filtered(run, source)["rejected"]["agreement"] == 1
    (row,) = lines_of(run.table)
    assert (row["video"], row["chain"], row["chain_seed"]) == ("../0.mp4", texts[0], 0)
    assert [example["chain"] for example in read_examples(run.table)] == [texts[0]]


def test_weak_marks_are_thirds_of_the_range():
    settings = FilterConfig(weak_marks={"VQ": "style", "MQ": "dynamics"}, rating_range=(0, 9))
    for rating, mark in ((0, 0), (2.9, 0), (3, 1), (5.9, 1), (6, 2), (9, 2)):
        assert weak_marks({"VQ": rating}, settings)["style"] == mark
    marks = weak_marks({"VQ": 9, "MQ": 0, "TA": 5}, settings)
    assert marks == {"subject": None, "dynamics": 0, "camera": None, "environment": None, "style": 2}
    assert weak_marks({"TA": 5}, settings) is None
    assert weak_marks({"VQ": 9}, FilterConfig()) is None


def test_rejected_pairs_get_weak_marks_by_option_only(tmp_path):
    ratings = {"rating_a.VQ": [5.0], "rating_b.VQ": [1.0]}
    source = pair_source(tmp_path, "a", **ratings)
    run = write_run(tmp_path / "run", candidates(0, (1.0, 2.0)))
    filtered(run, source)
    assert lines_of(run.table)[0]["marks_a"] is None
    filtered(run, source, weak_marks={"VQ": "style"})
    (row,) = lines_of(run.table)
    assert [json.loads(row[f"marks_{side}"])["style"] for side in "ab"] == [2, 0]
    assert row["chain_a"] is None


def test_an_answer_counts_before_an_error_and_the_last_first(tmp_path):
    fault = RequestFault(kind="server", message="500")
    texts = [None, "first", None, "second"]
    given = [made_candidate(text, error=None if text else fault) for text in texts]
    run = write_run(tmp_path, given)
    (one,) = CandidateIndex(run).of_row(0)
    assert one.text == "second"
    assert CandidateIndex(run).of_row(5) == []


def test_a_journal_that_is_missing_or_faulty_is_named(tmp_path):
    with pytest.raises(DataError, match=r"candidates.jsonl:1: no such file; collect chains first"):
        CandidateIndex(ChainRun(tmp_path))
    run = ChainRun(tmp_path)
    append_candidates(run, [made_candidate("x")])
    with run.candidates.open("a") as file:
        file.write('{"row": 1}\n')
    with pytest.raises(DataError, match=r"candidates.jsonl:2: no candidate's row"):
        CandidateIndex(run)
