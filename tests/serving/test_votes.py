"""Pairs of a table in the order of a seed, votes that survive a kill, and the table of pairs that they make."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from descore.data.schema import read_pairs
from descore.errors import ConfigError, DataError
from descore.serving.votes import Vote, VoteJournal, majority, pair_key, read_task, read_votes

PAIRS = [("a red ball", "a.mp4", "b.mp4"), ("a red ball", "a.mp4", "c.mp4"), ("a dog", "d.mp4", "e.mp4")]


def write_csv(path, header, rows):
    lines = [",".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    for name in "abcde":
        (tmp_path / f"{name}.mp4").write_bytes(b"-")
    return write_csv(tmp_path / "pairs.csv", ("prompt", "video_a", "video_b"), PAIRS)


def vote_on(pair=PAIRS[0], *, rater="Ann", choice="a", **fields):
    prompt, a, b = pair
    choices = {} if choice is None else {"overall": choice}
    return Vote(rater=rater, prompt=prompt, video_a=a, video_b=b, choices=choices, left="a", **fields)


def kept(table, *votes, **options):
    """The rows of the table that these votes make, and the journal's lines."""
    out = table.parent / "out" / "votes.jsonl"
    out.parent.mkdir(exist_ok=True)
    with VoteJournal.open(read_task(table, **options), out) as journal:
        for vote in votes:
            journal.add(vote)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return rows, Path(f"{out}.journal").read_text().splitlines()


def test_votes_make_a_table_of_pairs(table):
    rows, journal = kept(table, vote_on(PAIRS[2], choice="tie"), vote_on(PAIRS[0], choice="b"))
    assert [(row["prompt"], row["preference"]) for row in rows] == [("a red ball", "b"), ("a dog", "tie")]
    assert len(journal) == 3
    pairs = list(read_pairs(table.parent / "out" / "votes.jsonl"))
    assert [Path(pair.video_a).resolve() for pair in pairs] == [table.parent / "a.mp4", table.parent / "d.mp4"]
    assert json.loads(rows[0]["votes"]) == {"overall": {"a": 0, "b": 1, "tie": 0}}


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["a"], "a"),
        (["a", "b"], "tie"),
        (["a", "tie"], "tie"),
        (["a", "a", "b"], "a"),
        (["b", "b", "tie"], "b"),
        (["a", "a", "b", "tie"], "tie"),  # two of four are no majority
        ([None, "b"], "b"),
        ([None], None),
    ],
)
def test_more_than_half_of_the_raters_decide(table, choices, expected):
    votes = [
        vote_on(rater=str(number), choice=choice, skipped=None if choice else "unclear")
        for number, choice in enumerate(choices)
    ]
    rows, _ = kept(table, *votes)
    assert [row["preference"] for row in rows] == ([] if expected is None else [expected])
    counts = Counter(choice for choice in choices if choice)
    assert majority({name: counts[name] for name in ("a", "b", "tie")}) == expected


def test_the_last_vote_of_a_rater_counts(table):
    rows, journal = kept(table, vote_on(choice="a"), vote_on(choice="b"))
    assert [row["preference"] for row in rows] == ["b"]
    assert len(journal) == 3
    rows, _ = kept(table, vote_on(choice=None, skipped="I was wrong"))
    assert rows == []


def test_a_run_goes_on_where_it_ended(table):
    kept(table, vote_on())
    with VoteJournal.open(read_task(table), table.parent / "out" / "votes.jsonl") as journal:
        assert journal.raters == ["Ann"]
        assert set(journal.votes_of("Ann")) == {pair_key(*PAIRS[0])}
        assert journal.votes_of("Bob") == {}


def test_a_table_that_grows_keeps_order_sides_and_votes(table):
    before = read_task(table, seed=3)
    kept(table, vote_on(), seed=3)
    write_csv(table, ("prompt", "video_a", "video_b"), [("a dog", "e.mp4", "a.mp4"), *PAIRS])
    after = read_task(table, seed=3)
    assert [key for key in after.order if key in before.pairs] == list(before.order)
    for key in before.order:
        assert after.left_of(key, rater="Ann") == before.left_of(key, rater="Ann")
    rows, _ = kept(table, seed=3)
    assert len(rows) == 1


def test_seeds_order_and_sides_differ(tmp_path):
    names = [f"{number}.mp4" for number in range(41)]
    for name in names:
        (tmp_path / name).touch()
    rows = [("p", names[0], name) for name in names[1:]]
    table = write_csv(tmp_path / "pairs.csv", ("prompt", "video_a", "video_b"), rows)
    one, other = read_task(table, seed=0), read_task(table, seed=1)
    assert one.order == read_task(table, seed=0).order
    assert one.order != other.order
    assert set(one.order) == set(other.order)
    assert one.order != tuple(one.pairs)
    sides = {rater: [one.left_of(key, rater=rater) for key in one.order] for rater in ("Ann", "Bob")}
    assert sides["Ann"] != sides["Bob"]
    # Of 40 fair draws, fewer than 8 of one side come once in 40,000.
    assert all(8 <= drawn.count("a") <= 32 for drawn in sides.values())


@pytest.mark.usefixtures("table")
def test_clips_of_a_prompt_become_pairs(tmp_path):
    rows = [("p", "a.mp4", "x"), ("p", "b.mp4", "y"), ("q", "c.mp4", "x"), ("p", "d.mp4", "x"), ("p", "a.mp4", "x")]
    clips = write_csv(tmp_path / "clips.csv", ("prompt", "video", "source"), rows)
    task = read_task(clips)
    assert [(p.prompt, p.video_a, p.video_b, p.source_a, p.source_b) for p in task.pairs.values()] == [
        ("p", "a.mp4", "b.mp4", "x", "y"),
        ("p", "a.mp4", "d.mp4", "x", "x"),
        ("p", "b.mp4", "d.mp4", "y", "x"),
    ]
    written, _ = kept(clips, vote_on(("p", "a.mp4", "b.mp4")))
    assert (written[0]["source_a"], written[0]["source_b"]) == ("x", "y")
    clips = write_csv(tmp_path / "clips.csv", ("prompt", "video"), [("p", "a.mp4"), ("q", "b.mp4")])
    with pytest.raises(DataError, match="no prompt has two clips"):
        read_task(clips)


def test_labels_are_those_asked_for_or_of_the_table(tmp_path, table):
    assert read_task(table).labels == ("overall",)
    header = ("prompt", "video_a", "video_b", "preference.VQ", "preference.TA", "source")
    labelled = write_csv(tmp_path / "labelled.csv", header, [(*PAIRS[0], "a", "same", "wan")])
    task = read_task(labelled)  # 'same' is no preference, but those are not read
    assert task.labels == ("VQ", "TA")
    assert next(iter(task.pairs.values())).source_b == "wan"
    assert read_task(labelled, labels=["motion"]).labels == ("motion",)
    for wrong in (["x", "x"], [""], ["a\nb"]):
        with pytest.raises(ConfigError, match="expected names, each once"):
            read_task(labelled, labels=wrong)


@pytest.mark.usefixtures("table")
def test_chains_and_ratings_of_the_source_are_kept(tmp_path):
    header = (*("prompt", "video_a", "video_b"), "chain_a", "chain_b", "rating_a", "rating_b", "group")
    rated = write_csv(tmp_path / "rated.csv", header, [(*PAIRS[0], "I see", "I look", 4, 2, "g")])
    kept(rated, vote_on())
    [pair] = read_pairs(tmp_path / "out" / "votes.jsonl")
    assert (pair.a.chain, pair.b.chain, pair.a.ratings, pair.group) == ("I see", "I look", {"overall": 4}, "g")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("p", "a.mp4", "none.mp4"), r"pairs.csv:2: none.mp4: no such file"),
        (("p", "https://example.org/a.mp4", "a.mp4"), "no such file"),
        (("p", ".", "a.mp4"), "no such file"),
        (("p", "a.mp4", "a.mp4"), "both a.mp4"),
        (("", "a.mp4", "b.mp4"), "prompt is empty"),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused(table, row, words):
    write_csv(table, ("prompt", "video_a", "video_b"), [row])
    with pytest.raises(DataError, match=words):
        read_task(table)


def test_votes_of_other_settings_are_never_mixed(table):
    kept(table, vote_on())
    for options in ({"labels": ["motion"]}, {"seed": 1}):
        with pytest.raises(ConfigError, match="was begun with labels overall and seed 0"):
            kept(table, **options)
    write_csv(table, ("prompt", "video_a", "video_b"), PAIRS[1:])
    with pytest.raises(ConfigError, match="1 of 1 votes are on pairs that"):
        kept(table)


def test_one_process_writes_a_journal_and_no_table_is_lost(table, tmp_path):
    out = tmp_path / "votes.csv"
    task = read_task(table)
    with VoteJournal.open(task, out), pytest.raises(ConfigError, match="another process"), VoteJournal.open(task, out):
        pass
    other = tmp_path / "other.csv"
    other.write_text("prompt\n")
    with pytest.raises(ConfigError, match="exists already"), VoteJournal.open(task, other):
        pass
    assert other.read_text() == "prompt\n"
    with pytest.raises(ConfigError, match="unknown suffix"), VoteJournal.open(task, tmp_path / "votes.txt"):
        pass


def test_the_table_that_is_judged_is_never_written_over(table):
    kept(table, vote_on())
    votes = table.parent / "out" / "votes.jsonl"
    before = votes.read_text()
    with pytest.raises(ConfigError, match="is the table that is judged"), VoteJournal.open(read_task(votes), votes):
        pass
    assert votes.read_text() == before


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_other_tables_hold_the_same(table, tmp_path, suffix):
    out = tmp_path / f"votes.{suffix}"
    with VoteJournal.open(read_task(table), out) as journal:
        journal.add(vote_on(choice="tie"))
    [pair] = read_pairs(out)
    assert pair.preference == {"overall": "tie"}


@pytest.mark.parametrize("line", ['{"rater": "Ann"}', '{"settings": 1}', "[]", "x"])
def test_a_journal_that_is_none_is_refused(tmp_path, line):
    journal = tmp_path / "votes.jsonl.journal"
    journal.write_text('{"settings": {"labels": ["overall"], "seed": 0}}\n' + line + "\n")
    with pytest.raises(DataError, match=r"journal:2"):
        read_votes(journal)
    journal.write_text(line + "\n")
    with pytest.raises(DataError, match=r"journal:1"):
        read_votes(journal)


KILLED = """
import sys
from tests.serving.test_votes import PAIRS, vote_on
from descore.serving.votes import VoteJournal, read_task
with VoteJournal.open(read_task(sys.argv[1]), sys.argv[2]) as journal:
    number = 0
    while True:
        journal.add(vote_on(PAIRS[number % 3], rater=f"rater {number}"))
        print(number, flush=True)
        number += 1
"""


@pytest.mark.slow
def test_a_kill_loses_no_vote_that_was_answered(table, tmp_path):
    out = tmp_path / "votes.jsonl"
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(table), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    answered = [int(process.stdout.readline()) for _ in range(40)][-1]
    process.send_signal(signal.SIGKILL)
    answered = max([answered, *map(int, process.stdout.read().split())])
    process.wait()
    with Path(f"{out}.journal").open("ab") as journal:
        journal.write(b'{"rater": "cut o')  # as a kill in the middle of a line leaves it
    with VoteJournal.open(read_task(table), out) as journal:
        assert {f"rater {number}" for number in range(answered + 1)} <= set(journal.raters)
        journal.add(replace(vote_on(), rater="after"))
    _, votes = read_votes(Path(f"{out}.journal"))
    assert votes[-1].rater == "after"
    assert len(list(read_pairs(out))) == 3
