"""N/A has two reasons: the prompt does not ask for it, or the judge cannot know it. The chain tells them apart."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from descore.cli.output import show_ranking, show_score
from descore.evaluation.judges import read_scores
from descore.evaluation.records import KEYS
from descore.evaluation.results import results_of
from descore.report.cards import score_card
from descore.report.findings import mistake_view, worst_mistakes
from descore.report.tables import name_runs
from descore.rubric import read_answer, unknown_of
from descore.types import Verdict
from tests.evaluation.cases import FixedJudge, clip, four_clips
from tests.report.made_runs import made_runs
from tests.report.test_cards import completion_of, html_of, score_of

MARKS = {"subject": None, "dynamics": 2, "camera": None, "environment": None, "style": 2}
CHAIN = (
    "I see real footage.\nSubject: cannot be known, N/A.\nDynamics: motion smooth: right, 2.\n"
    'Camera: not asked, N/A.\nEnvironment: cannot be known, N/A.\nStyle: right, 2.\n<answer>{"dimensional_scores": '
    '{"subject": "N/A", "dynamics": 2, "camera": "N/A", "environment": "N/A", "style": 2}, "overall_score": 5.00}'
    "</answer>"
)
UNKNOWN = ("subject", "environment")


def shown(print_it, *, width=80):
    screen = Console(width=width, force_terminal=False)
    with screen.capture() as capture:
        print_it(screen)
    return capture.get()


def score_of_chain(chain=CHAIN):
    return score_of(completion_of(text=chain, verdict=read_answer(chain)))


def test_the_chain_says_what_cannot_be_known():
    verdict = read_answer(CHAIN)
    assert (dict(verdict.marks), verdict.unknown, verdict.is_partial) == (MARKS, UNKNOWN, True)
    assert verdict == Verdict(marks=MARKS, overall=5.0)  # the reason of an N/A is no part of what is compared


@pytest.mark.parametrize(
    ("chain", "unknown"),
    [
        ("Subject: not asked, N/A.", ()),
        ("Dynamics: cannot be known, N/A.", ()),  # it has a mark all the same
        ("- **Camera**: this CANNOT BE KNOWN from eight frames", ("camera",)),
        ("subject (primary): cannot be known", ("subject",)),
        ("The subject cannot be known", ()),
        ("Style: right, 2.\nLens: cannot be known", ()),
        ("Subject: a dog\ncannot be known", ()),
    ],
)
def test_only_a_line_on_a_dimension_without_a_mark_counts(chain, unknown):
    assert unknown_of(chain, MARKS) == unknown


def test_an_overall_is_partial_only_without_a_primary_dimension():
    assert not read_answer(CHAIN.replace("Subject: cannot be known", "Subject: not asked")).is_partial


def test_the_terminal_says_unknown_and_flags_the_overall():
    text = shown(lambda screen: show_score(screen, score_of_chain(), name="a.mp4"), width=120)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["subject"] == rows["environment"] == ["?", "unknown"]
    assert rows["camera"] == ["N/A", "not", "asked"]
    assert "! the overall of 5.00 leaves out what cannot be known: subject, environment" in text


def test_a_ranking_flags_a_partial_overall_and_says_why():
    sound = score_of_chain(CHAIN.replace("cannot be known", "not asked"))
    text = shown(lambda screen: show_ranking(screen, [("a.mp4", score_of_chain()), ("b.mp4", sound)]))
    _, first, second, *_ = text.splitlines()
    assert first.split()[3:-1] == ["(5.00)", "?", "2", "N/A", "?", "2"]
    assert second.split()[3:-1] == ["5.00", "N/A", "2", "N/A", "N/A", "2"]
    assert "? the chain says that it cannot be known; (overall) is without" in " ".join(text.split())
    assert "cannot be known" not in shown(lambda screen: show_ranking(screen, [("b.mp4", sound)]))


def test_json_names_them():
    record = score_of_chain().to_dict()
    assert set(record) == set(KEYS)
    assert (record["unknown"], record["partial_overall"]) == (["subject", "environment"], True)
    without = score_of(completion_of(text="words", verdict=None)).to_dict()
    assert without["unknown"] is without["partial_overall"] is None


def test_pages_and_notebooks_say_unknown():
    page = html_of(score_card(score_of_chain()))
    assert page.count(">unknown<") == 2
    assert page.count(">not asked<") == 1
    assert "leaves out what cannot be known: subject, environment" in page
    assert "subject unknown" in score_of_chain()._repr_html_()
    assert "camera N/A" in score_of_chain()._repr_html_()


@pytest.mark.slow
@pytest.mark.parametrize("known", [{"unknown": list(UNKNOWN)}, {}], ids=["new record", "record of an older version"])
def test_a_mistake_on_the_report_says_unknown(tmp_path, known):
    [named] = name_runs(made_runs(tmp_path)[:1])
    changes = {"thinking": CHAIN, "marks": MARKS, "overall": 5.0, **known}
    records = {key: record | changes for key, record in named.run.records.items()}
    [mistake] = worst_mistakes([replace(named, run=replace(named.run, records=records))], limit=1)
    side = mistake_view(mistake).sides[0]
    assert side.unknown == UNKNOWN
    assert "the overall of 5.00 leaves out what cannot be known: subject, environment." in side.warnings


def test_results_count_partial_overalls(tmp_path):
    rows = [{"video": f"v{n}", "reward": n, "thinking": CHAIN, "marks": MARKS, "overall": 5} for n in range(3)]
    rows[2]["thinking"] = CHAIN.replace("cannot be known", "not asked")
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clips = [clip(f"v{n}") for n in range(3)]
    records = read_scores(tmp_path / "scores.jsonl", clips=clips).judge(clips, open_video=None)
    assert [record["unknown"] for record in records] == [list(UNKNOWN), list(UNKNOWN), []]
    assert results_of(clips, (), {(r["video"], r["prompt"]): r for r in records})["partial_overall"] == 2
    plain = FixedJudge({"v0": 1.0}).judge(four_clips().clips, open_video=None)
    assert results_of(four_clips().clips, (), {(r["video"], r["prompt"]): r for r in plain})["partial_overall"] == 0
