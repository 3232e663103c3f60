"""Every fault of a table of pairs is reported with its line, and its rows are counted."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from tests.video.films import grey_film

from descore.data.validate import TableCheck, probe_table_videos
from descore.errors import ConfigError
from descore.rubric import write_answer
from descore.types import Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}
MARKS_JSON = json.dumps(MARKS | {"camera": "N/A"})
CHAIN = "I see a dog. It runs.\n" + write_answer(Verdict(marks=MARKS, overall=3.5))


def table(folder, *rows, name="pairs.csv"):
    """A table whose rows state how they differ from a plain pair of x.mp4 and y.mp4."""
    plain = {"prompt": "a dog", "video_a": "x.mp4", "video_b": "y.mp4", "preference": "a"}
    columns = list(dict.fromkeys(column for row in (plain, *rows) for column in row))
    file = folder / name
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows({**plain, **row} for row in rows)
    return file


def findings(*tables, probes=None):
    """Findings as (line, message), warnings marked with a '?', the folder taken out."""
    check = TableCheck(tables, probes=probes or {})
    folder = str(tables[0].parent) + "/"
    return [(one.line, "?" * one.warning + one.message.replace(folder, "")) for one in check.findings()]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two unlike films, a copy of the first, the first cut in half, and a text that calls itself a film."""
    folder = tmp_path_factory.mktemp("films")
    grey_film(str(folder / "x.mp4"), 12, rate=6)
    grey_film(str(folder / "y.mp4"), 6, rate=6, size=(96, 64))
    shutil.copy(folder / "x.mp4", folder / "copy.mp4")
    (folder / "cut.mp4").write_bytes((folder / "x.mp4").read_bytes()[:-200])
    (folder / "text.mp4").write_text("these are only words\n")
    return folder


def test_a_table_without_faults_has_no_findings(tmp_path):
    annotations = {"chain_a": CHAIN, "chain_b": CHAIN, "marks_a": MARKS_JSON, "marks_b": MARKS_JSON, "rating_a": "3.5"}
    file = table(tmp_path, annotations, {"prompt": "a cat", "preference": "", **annotations}, {"prompt": "a cow"})
    assert findings(file) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": " "}, "prompt is empty; expected a text"),
        ({"video_b": ""}, "video_b is empty; expected a text"),
        ({"preference": "same?"}, "preference is 'same?'; expected a, b or tie"),
        ({"preference.VQ": "c"}, "preference.VQ is 'c'; expected a, b or tie"),
        ({"rating_a": "good"}, "rating_a is 'good'; expected a number"),
        ({"rating_b.VQ": "nan"}, "rating_b.VQ is 'nan'; expected a number"),
        ({"marks_a": '{"subject": 2}'}, "marks_a has subject; expected a mark for each of subject, dynamics"),
        ({"marks_b": MARKS_JSON.replace("1", "3")}, 'marks_b.dynamics is 3; expected 0, 1, 2 or "N/A"'),
        ({"chain_a": CHAIN}, "chain_a is there and the other is empty; give both or neither"),
        ({"chain_a": "", "chain_b": CHAIN}, "chain_b is there and chain_a is empty; give both or neither"),
        (
            {"chain_a": CHAIN, "chain_b": "I see."},
            "chain_b: no <answer>...</answer> block in the chain; expected a chain",
        ),
        (
            {"chain_a": CHAIN, "chain_b": CHAIN, "marks_a": MARKS_JSON.replace('"N/A"', "0").replace("1", "2")},
            "marks_a and the answer of chain_a differ: dynamics is 2 and 1, camera is 0 and N/A; make them agree",
        ),
        ({"video_b": "./x.mp4"}, "video_a and video_b are the same clip; expected two"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path, row, message):
    [(line, reported)] = findings(table(tmp_path, {"prompt": "fine"}, row))
    assert line == 3
    assert reported.startswith(message)


def test_all_faults_of_a_row_and_of_a_table_at_once(tmp_path):
    file = table(tmp_path, {"prompt": "", "preference": "x", "rating_a": "y"}, {}, {"video_a": "", "preference": "c"})
    assert [line for line, _ in findings(file)] == [2, 2, 2, 4, 4]


def test_a_pair_that_comes_again(tmp_path):
    file = table(
        tmp_path,
        {},
        {"prompt": "another"},
        {"prompt": "A  dog "},
        {"video_a": "y.mp4", "video_b": "x.mp4", "preference": "b"},
        {"video_a": "y.mp4", "video_b": "x.mp4"},
        {"preference": "tie"},
    )
    other = "the pair of line 2 with another preference (overall); keep the right one"
    assert findings(file) == [
        (4, "?the pair of line 2 again; it will count twice"),
        (5, "?the pair of line 2 again; it will count twice"),
        (6, other),
        (7, other),
    ]


def test_one_pair_in_two_rows_may_have_different_labels(tmp_path):
    rows = [{"preference": "", "preference.VQ": "a"}, {"preference": "", "preference.MQ": "b"}]
    assert findings(table(tmp_path, *rows)) == []
    [(line, message)] = findings(table(tmp_path, *rows, {"preference": "", "preference.MQ": "a"}))
    assert (line, message) == (4, "the pair of line 2 with another preference (MQ); keep the right one")


def test_videos_are_opened(films):
    names = [("x", "y"), ("cut", "y"), ("text", "absent"), ("x", "cut")]
    file = table(
        films, *({"prompt": f"p{i}", "video_a": f"{a}.mp4", "video_b": f"{b}.mp4"} for i, (a, b) in enumerate(names))
    )
    opened = []
    probes = probe_table_videos([file], workers=2, on_progress=lambda: opened.append(1))
    assert len(opened) == 5
    cut, text, absent = findings(file, probes=probes)
    assert (cut[0], text[0], absent[0]) == (3, 4, 4)
    assert cut[1].startswith("video_a cut.mp4: ")
    assert text[1].startswith("video_a text.mp4: not a video")
    assert absent[1] == "video_b absent.mp4: no such file; expected a video that opens"


def test_a_copy_is_the_same_clip(films):
    file = table(films, {"video_b": "copy.mp4"}, {"prompt": "p"}, {"prompt": "p", "video_a": "copy.mp4"}, name="c.csv")
    assert findings(file) == []
    probes = probe_table_videos([file], workers=1)
    assert findings(file, probes=probes) == [
        (2, "video_a and video_b are the same clip; expected two"),
        (4, "?the pair of line 3 again; it will count twice"),
    ]


def test_a_clip_or_a_prompt_on_both_sides_of_a_split(films):
    train = table(films, {}, name="train.csv")
    held = [{"prompt": "a cat", "video_a": "copy.mp4", "video_b": "z.mp4"}, {"prompt": "A Dog", "video_a": "y.mp4"}]
    held_out = table(films, *held, name="eval.csv")
    prompt = "?its prompt is that of train.csv:2 too; a held-out table tells more with prompts of its own"
    assert findings(train, held_out)[:2] == [
        (3, prompt),
        (3, "video_a y.mp4 is the clip of train.csv:2 too; keep it on one side of the split"),
    ]
    probes = probe_table_videos([train, held_out], workers=1)
    assert [(line, message) for line, message in findings(train, held_out, probes=probes) if "split" in message] == [
        (2, "video_a copy.mp4 is the clip of train.csv:2 too; keep it on one side of the split"),
        (3, "video_a y.mp4 is the clip of train.csv:2 too; keep it on one side of the split"),
    ]


def test_the_summary_counts_rows_and_videos(films):
    rows = [
        {"preference": "a", "source_a": "one", "source_b": "two", "chain_a": CHAIN, "chain_b": CHAIN},
        {
            "preference": "tie",
            "prompt": "a cat",
            "source_a": "one",
            "marks_b": MARKS_JSON,
            "rating_a": "3",
            "rating_b": "4",
        },
        {"preference": "", "prompt": "A DOG", "video_a": "y.mp4", "video_b": "absent.mp4"},
    ]
    file = table(films, *rows, name="tally.csv")
    check = TableCheck([file], probes=probe_table_videos([file], workers=1))
    assert len(list(check.findings())) == 1
    words = len(CHAIN.split())
    assert check.summaries[0].record() == {
        "file": str(file),
        "rows": 3,
        "unlabelled": 1,
        "labels": {"overall": {"a": 1, "b": 0, "tie": 1, "none": 1, "tie_rate": 0.5}},
        "prompts": 2,
        "videos": 3,
        "sources": {"one": 2, "two": 1},
        "chains": {"unit": "words", "count": 2, "median": words, "p95": words, "longest": words},
        "marked": 1,
        "rated": 2,
        # 12 frames and 6 frames at 6 a second; of 2 s and 1 s the median is 1.5 s, and 95 % of the way is 1.95 s
        "seconds": {"count": 2, "median": 1.5, "p95": pytest.approx(1.95), "longest": 2.0, "total": 3.0},
        "sizes": {"64x48": 1, "96x64": 1},
    }


def test_a_label_that_nobody_gave_has_no_tie_rate(tmp_path):
    check = TableCheck([table(tmp_path, {"preference.VQ": ""})], probes={})
    assert not list(check.findings())
    assert check.summaries[0].record()["labels"] == {"overall": {"a": 1, "b": 0, "tie": 0, "none": 0, "tie_rate": 0.0}}


def test_a_column_that_differs_in_case_only(tmp_path):
    reported = findings(table(tmp_path, {"Chain_A": CHAIN, "Rating_a.VQ": "1", "remarks": "x"}))
    assert reported == [
        (1, "?column 'Chain_A' is not read; is it 'chain_a'?"),
        (1, "?column 'Rating_a.VQ' is not read; is it 'rating_a.VQ'?"),
    ]


def test_a_broken_line_ends_the_check_of_its_table(tmp_path):
    file = table(tmp_path, {}, {"prompt": "p", "preference": "z"})
    with file.open("a") as out:
        out.write("too,few\nthe next\n")
    assert findings(file)[1:] == [
        (4, "2 cells; expected 4, one for each column: is a comma missing? (no row behind it could be looked at)")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prompt,video_a,video_b,vote\np,x,y,a\n",
            "no column 'preference' or 'preference.NAME'; expected one for each",
        ),
        ("prompt,video_a,preference\np,x,a\n", "no column 'video_b' (is it 'video_a'?); found prompt, video_a"),
        ("prompt,video_a,video_b,preference\n", "no rows; expected one at least"),
        ("", "the file is empty; expected a header and rows"),
    ],
)
def test_a_table_of_another_kind_is_a_fault_of_its_first_line(tmp_path, text, message):
    file = tmp_path / "t.csv"
    file.write_text(text)
    [(line, reported)] = findings(file)
    assert line == 1
    assert reported.startswith(message)


def test_tables_that_cannot_be_checked_are_refused(tmp_path):
    file = table(tmp_path, {})
    with pytest.raises(ConfigError, match=r"absent\.csv: no such file; expected a table"):
        TableCheck([file, tmp_path / "absent.csv"], probes={})
    with pytest.raises(ConfigError, match="a table is there twice"):
        TableCheck([file, tmp_path / "." / "pairs.csv"], probes={})


PEAK = """
import sys, tracemalloc
from pathlib import Path
from descore.data.validate import TableCheck
tracemalloc.start()
assert not list(TableCheck([Path(sys.argv[1])], probes={}).findings())
print(tracemalloc.get_traced_memory()[1])
"""
"""In a process of its own: what other tests left behind must not count."""


@pytest.mark.slow
def test_a_long_table_costs_digests_only(tmp_path):
    """Rows of 4 kB: 2,000 of them are 8 MB of text, of which the digests of prompts, videos and pairs stay."""
    chain = CHAIN.replace("runs", "runs " * 400)
    file = tmp_path / "long.jsonl"
    with file.open("w") as out:
        for i in range(2_000):
            row = {"prompt": f"p{i}", "video_a": f"{i}a.mp4", "video_b": f"{i}b.mp4", "preference": "a"}
            out.write(json.dumps({**row, "chain_a": chain, "chain_b": chain}) + "\n")
    run = subprocess.run([sys.executable, "-c", PEAK, str(file)], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 2.5e6
