"""`descore serve --annotate` and `descore data votes`: from a table to votes, and from votes to a training."""

import json
import os
import re
import signal
import subprocess
import sys

import httpx2
import pytest
from typer.testing import CliRunner

from descore.cli import app
from descore.errors import ConfigError
from descore.serving.votes import VoteJournal, read_task
from tests.serving.test_votes import PAIRS, kept, table, vote_on  # noqa: F401  # table is a fixture


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"DESCORE_API_KEY": None, "COLUMNS": "100"})


@pytest.fixture
def voted(table):  # noqa: F811
    """Two raters on three pairs; they agree on one, and one is skipped."""
    kept(
        table,
        vote_on(PAIRS[0], rater="Ann", choice="a"),
        vote_on(PAIRS[0], rater="Bob", choice="a"),
        vote_on(PAIRS[1], rater="Ann", choice="b"),
        vote_on(PAIRS[1], rater="Bob", choice="a"),
        vote_on(PAIRS[2], rater="Ann", choice="b"),
        vote_on(PAIRS[2], rater="Bob", choice=None, skipped="unclear"),
    )
    return table.parent / "out" / "votes.jsonl"


def test_votes_are_summed_up_by_label_and_rater(voted):
    result = run("data", "votes", voted)
    assert result.exit_code == 0
    assert "6 votes of 2 raters on 3 pairs; 1 skipped" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    # a a, b a: observed disagreement 2 of 4, expected 2·3·1 of 4·3; 1 - (1/2)/(1/2) = 0.
    assert ["overall", "5", "3", "2", "0.50", "0.00", "0.50"] in rows
    assert ["Bob", "2", "1", "0.00", "1.00", "0.50", "–"] in rows


def test_a_model_stands_beside_the_raters(voted, tmp_path):
    scores = tmp_path / "scores.csv"
    rewards = {"a": 2, "b": 1, "c": 3, "d": 5, "e": 4}
    lines = [f"../{name}.mp4,{reward}" for name, reward in rewards.items()]
    scores.write_text("\n".join(["video,reward", *lines]) + "\n")
    result = run("data", "votes", voted, "--scores", scores, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["kind"] for record in records] == ["label", "rater", "rater"]
    # Decided are pair 1 (a, as 2 > 1 has it) and pair 3 (b, where 5 > 4 says a); pair 2 is a tie of the two raters.
    assert (records[0]["model"], records[0]["decided"]) == (0.5, 0.5)


def test_a_table_without_its_journal_is_refused(voted):
    journal = voted.with_name("votes.jsonl.journal")
    journal.unlink()
    result = run("data", "votes", voted)
    assert result.exit_code == ConfigError.exit_code
    [line] = result.stderr.splitlines()
    assert "votes.jsonl.journal: no such file" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--annotate", "{table}"], "add --out votes.jsonl"),
        (["--annotate", "{table}", "--out", "v.jsonl", "--model", "tiny"], "no model is opened"),
        (["--annotate", "{table}", "--out", "v.jsonl", "--media-root", "."], "no model is opened"),
        (["--annotate", "{table}", "--out", "{table}"], "is the table that is judged"),
        (["--annotate", "{table}", "--out", "v.txt"], "unknown suffix"),
        (["--annotate", "none.csv", "--out", "v.jsonl"], "no such file"),
        (["--annotate", "{table}", "--out", "v.jsonl", "--host", "0.0.0.0"], "DESCORE_API_KEY"),
        (["--out", "v.jsonl"], "--out: it goes with --annotate"),
        (["--label", "x"], "--label: it goes with --annotate"),
    ],
)
def test_what_cannot_be_judged_is_one_line(table, options, words, monkeypatch):  # noqa: F811
    monkeypatch.chdir(table.parent)
    result = run("serve", "--port", 0, *(option.format(table=table) for option in options))
    assert result.exit_code == ConfigError.exit_code
    [line] = result.stderr.splitlines()
    assert words in line


@pytest.mark.slow
def test_a_served_vote_survives_a_kill_and_is_gone_on_with(table, tmp_path):  # noqa: F811
    out = tmp_path / "votes.jsonl"
    command = [sys.executable, "-m", "descore", "serve", "--annotate", str(table), "--out", str(out), "--port", "0"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    variables.pop("DESCORE_API_KEY", None)
    done = []
    for signal_number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
        try:
            url = re.search(r"http://\S+", process.stderr.readline())[0]
            with httpx2.Client(base_url=url, timeout=60) as client:
                progress = client.post("/v1/pair", json={"rater": "Ann"}).json()
                done.append(progress["done"])
                body = {"rater": "Ann", "number": progress["pair"]["number"], "choices": {"overall": "tie"}}
                assert client.post("/v1/vote", json=body).status_code == 200
        finally:
            process.send_signal(signal_number)
            process.wait(30)
            process.stderr.close()
    assert done == [0, 1]
    assert process.returncode == 0
    with VoteJournal.open(read_task(table), out) as journal:
        assert len(journal.votes_of("Ann")) == 2
