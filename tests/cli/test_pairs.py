"""`descore rank TABLE` and `descore pairs`: what is shown, what is written, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from tests.rewards.made_scores import scored, write

from descore.data.schema import read_pairs
from descore.data.tables import read_rows


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        scored("a cat", "c1.mp4", 0.5, std=0.1, samples=4),
        scored("a cat", "c2.mp4", 2.0, std=0.1, samples=4),
        scored("a dog", "d1.mp4", 1.0, std=2.0, samples=4),
        scored("a dog", "d2.mp4", 0.0, std=2.0, samples=4),
        scored("a fox", "f1.mp4", 0.0, std=0.1, samples=4),
    ]
    return write(tmp_path / "scores.csv", rows).name


def with_failure(table):
    rows = [row for _, row in read_rows(table)]
    return write(Path("failed.csv"), [*rows, scored("a cat", "gone.mp4", None)]).name


def test_the_best_of_each_prompt_and_how_sure(descore, table):
    result = descore("rank", table)
    assert result.exit_code == 0
    assert "scores.csv: 5 clips of 3 prompts, by reward of tiny" in result.words
    assert "1 +2.000 ± 0.10 c2.mp4" in result.words
    assert "ahead by 1.500" in result.words
    assert "preferred with probability 0.82" in result.words
    assert "no clear winner: its 95 % interval includes 0 (-2.46 to +4.46)" in result.words
    assert "Clear winners: 1 of 2 prompts with two clips or more." in result.words
    assert "A single clip, and nothing to rank it against: 1 prompt." in result.words
    assert "c1.mp4" not in result.words
    assert "c1.mp4" in descore("rank", table, "--keep", 2).words


def test_clips_without_a_reward_come_first_and_exit_4(descore, table):
    result = descore("rank", with_failure(table))
    assert result.exit_code == 4
    assert "error: 1 clip without a reward: gone.mp4: no frames" in result.stderr
    assert "gone.mp4" not in result.stdout


def test_json_has_a_line_for_each_prompt(descore, table, lines):
    left_out, cat, dog, fox = lines(descore("rank", with_failure(table), "--json"))
    assert left_out == {"prompt": "a cat", "video": "gone.mp4", "left_out": "no frames"}
    assert (cat["places"][0]["video"], cat["clear_winner"]) == ("c2.mp4", True)
    assert dog["clear_winner"] is False
    assert dog["places"][0]["lead"]["low"] == pytest.approx(-2.46, abs=0.01)
    assert (fox["clear_winner"], fox["places"][0]["lead"]) == (None, None)


def test_everything_is_written(descore, table):
    result = descore("rank", table, "--out", "new/best.jsonl")
    assert "Written: new/best.jsonl" in result.stdout
    assert [row["video"] for _, row in read_rows("new/best.jsonl")] == [f"../{n}.mp4" for n in ("c2", "d1", "f1")]
    again = descore("rank", table, "--out", "new/best.jsonl")
    assert (again.exit_code, again.stdout) == (3, "")
    assert "new/best.jsonl: exists already" in again.stderr
    assert f"{table} is no folder" in descore("rank", table, "--out", f"{table}/best.jsonl").stderr


def test_many_prompts_are_summed_up(descore, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.jsonl", [scored(f"p{k}", f"{k}{side}.mp4", k) for k in range(40) for side in "ab"])
    result = descore("rank", "s.jsonl")
    assert "and 30 more prompts: all of them with --out best.jsonl, or --json" in result.words
    assert len(result.stdout.splitlines()) < 60
    assert "Clear winners: 0 of 40 prompts" in result.words


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (("s.csv", "--prompt", "x"), "--prompt is for clips; a scored table has its prompts", 3),
        (("s.csv", "a.mp4"), "s.csv: a table among clips; rank it by itself", 3),
        (("a.mp4", "--prompt", "x", "--keep", 2), "--keep: for a scored table", 3),
        (("a.mp4",), "Missing option '--prompt'", 2),
        (("plain.csv",), "plain.csv: no column 'reward'; score it first: descore score plain.csv", 3),
        (("gone.csv",), "gone.csv: no such file", 3),
        (("s.csv", "--by", "motion"), "nothing is named 'motion'; it has reward, subject", 3),
    ],
)
def test_what_cannot_be_ranked_is_one_line(descore, tmp_path, monkeypatch, args, message, code):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.csv", [scored("p", "a.mp4", 1.0)])
    (tmp_path / "plain.csv").write_text("prompt,video\np,a.mp4\n")
    result = descore("rank", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())


def test_pairs_are_written_and_counted(descore, table):
    result = descore("pairs", with_failure(table), "--out", "pairs.jsonl", "--min-probability", 0.7)
    assert result.exit_code == 0
    assert "1 clip without a reward: gone.mp4" in result.stderr
    assert result.stdout.splitlines() == [
        "pairs.jsonl: 1 pair of 1 prompt",
        "dropped: 1 by --min-probability",
        "without a pair: 1 prompt with a single clip",
    ]
    [row] = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    assert (row["chosen"], row["rejected"]) == ("c2.mp4", "c1.mp4")


def test_no_pair_is_an_error_and_no_file(descore, table):
    result = descore("pairs", table, "--out", "pairs.csv", "--min-margin", 9)
    assert result.exit_code == 5
    assert "no pair is left: 2 dropped by min_margin, 1 prompts with one clip" in result.stderr
    assert not Path("pairs.csv").exists()


def test_scored_ranked_paired_and_checked(descore, model, films, tmp_path, monkeypatch):
    """From clips to a table that training reads, with a real model."""
    monkeypatch.chdir(tmp_path)
    for number, film in enumerate(films[0]):
        shutil.copy(film, tmp_path / f"{number}.mp4")
    (tmp_path / "clips.csv").write_text("prompt,video\n" + "".join(f"a ball,{n}.mp4\n" for n in range(3)))
    assert descore("score", "clips.csv", "--model", model, "--out", "s.parquet", "--workers", 0).exit_code == 0
    assert "3 clips of 1 prompt" in descore("rank", "s.parquet").words
    made = descore("pairs", "s.parquet", "--out", "p/pairs.csv", "--format", "descore", "--strategy", "neighbours")
    assert made.exit_code == 0, made.stderr
    assert len(list(read_pairs(tmp_path / "p" / "pairs.csv"))) == 2
    assert descore("data", "check", "p/pairs.csv").exit_code == 0


def test_a_scored_table_is_a_page(descore, table):
    result = descore("report", table, "--out", "page.html")
    assert result.exit_code == 0, result.stderr
    assert "page.html: 5 clips, 3 of 3 prompts with frames" in result.words
    assert "Scored clips: scores.csv" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("scores.csv", "scores.csv"), "a page shows one scored table, or folders of runs"),
        (("scores.csv", "--column", "model_"), "no column 'model_' (is it 'model'?)"),
        ((".", "--column", "model"), "--column: for a scored table; leave it out"),
        (("plain.csv",), "no column 'reward'; score it first"),
    ],
)
def test_what_makes_no_page_is_one_line(descore, table, args, message):
    Path("plain.csv").write_text("prompt,video\np,a.mp4\n")
    result = descore("report", *args)
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in " ".join(result.stderr.split())
    assert not Path("report.html").exists()
    assert table


def test_a_page_never_takes_the_place_of_a_table(descore, table):
    before = Path(table).read_bytes()
    result = descore("report", table, "--out", table)
    assert result.exit_code == 3
    assert f"--out: found {table}, expected a page, such as report.html" in result.stderr
    assert Path(table).read_bytes() == before


def test_a_page_names_failures_on_standard_error(descore, table):
    result = descore("report", with_failure(table), "--out", "pages/page.html")
    assert result.exit_code == 0
    assert result.stderr.startswith("error: 1 clip without a reward: ")
