"""`descore score` on tables and folders, end to end on a micro model."""

import json
import shutil
from pathlib import Path

import pytest

from descore.cli.scoring import BulkDisplay, parse_engine, progress_bar
from descore.errors import ConfigError
from descore.rewards import read_scored
from descore.rewards.bulk import BulkProgress

FAST = ("--max-chain-tokens", 4, "--workers", 0)


@pytest.fixture
def folder(films, tmp_path):
    good, text, _ = films
    clips = tmp_path / "clips"
    (clips / "more").mkdir(parents=True)
    for number, path in enumerate((*good[:2], text)):
        shutil.copy(path, clips / f"{number}.mp4")
    shutil.copy(good[2], clips / "more" / "3.mp4")
    return tmp_path


def table_of(folder, videos, **more):
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a ball", "video": video, **more}) + "\n" for video in videos))
    return path


def test_a_table_becomes_a_scored_table(descore, folder, model):
    result = descore("score", table_of(folder, ["clips/0.mp4", "clips/1.mp4"]), "--model", model, *FAST)
    assert result.exit_code == 0
    out = folder / "t.scores.jsonl"
    assert result.words.startswith(f"{out}: scored 2 of 2; mean reward ")
    assert "2 now in " in result.words
    assert [Path(row.video).name for row in read_scored(out)] == ["0.mp4", "1.mp4"]
    again = descore("score", folder / "t.jsonl", "--model", model, *FAST)
    assert "scored 2 of 2" in again.words
    assert "none of them now" in again.words


def test_failures_come_first_and_make_the_exit_code(descore, folder, model):
    table = table_of(folder, ["clips/0.mp4", "absent.mp4", "clips/2.mp4", "gone.mp4"])
    result = descore("score", table, "--model", model, *FAST)
    assert result.exit_code == 4
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert error.startswith("error: scored 1 of 4; 3 failed (2 no such file, 1 ")
    assert "absent.mp4: no such file; clips/2.mp4: " in error
    assert "scored 1 of 4" in result.stdout


def test_the_summary_as_json(descore, lines, folder, model):
    table = table_of(folder, ["clips/0.mp4", "absent.mp4"])
    out = folder / "new" / "deep" / "s.csv"  # whose folders are made
    [record] = lines(descore("score", table, "--model", model, "--json", "--out", out, *FAST))
    assert (record["out"], record["total"], record["scored"], record["failed"]) == (str(out), 2, 1, 1)
    assert len(list(read_scored(out))) == 2
    assert record["failures"] == [{"video": "absent.mp4", "error": "no such file"}]
    assert record["computed"] == 2


def test_a_folder_with_a_prompt_for_all(descore, folder, model):
    out = folder / "s.csv"
    result = descore("score", folder / "clips", "--prompt", "a ball", "--out", out, "--model", model, *FAST)
    assert result.exit_code == 4
    rows = list(read_scored(out, resolve=False))
    assert [row.video for row in rows] == ["clips/0.mp4", "clips/1.mp4", "clips/2.mp4", "clips/more/3.mp4"]
    assert {row.prompt for row in rows} == {"a ball"}
    assert [row.reward is None for row in rows] == [False, False, True, False]


def test_a_folder_with_texts_beside_its_clips(descore, folder, model):
    for name in ("0", "1", "more/3"):
        (folder / "clips" / f"{name}.txt").write_text(f"the text of {name}\n")
    result = descore("score", folder / "clips", "--model", model, *FAST)
    assert result.exit_code == 4
    rows = list(read_scored(folder / "clips.scores.jsonl", resolve=False))
    assert [row.prompt for row in rows] == ["the text of 0", "the text of 1", "", "the text of more/3"]
    assert rows[2].error == "no prompt: expected it in 2.txt beside the clip"


REFUSED = {
    "no prompts": (("clips",), 3, "no clip has its prompt beside it, such as 0.txt beside 0.mp4"),
    "empty folder": (("empty",), 3, "no clips; expected files such as .mp4"),
    "prompt twice": (("t.jsonl", "--prompt", "p"), 3, "has a column 'prompt', and --prompt is given"),
    "table among clips": (("t.jsonl", "clips/0.mp4"), 3, "a table or folder among clips; score it by itself"),
    "clip without prompt": (("clips/0.mp4",), 2, "--prompt"),
    "out of clips": (("clips/0.mp4", "-p", "p", "--out", "x.csv"), 3, "--out: for a table or a folder"),
    "suffix": (("t.jsonl", "--out", "x.xlsx"), 3, "unknown suffix '.xlsx'; expected one of .csv, .jsonl, .parquet"),
    "no folder": (("t.jsonl", "--out", "t.jsonl/x.csv"), 3, "t.jsonl is no folder; choose another --out"),
    "the source": (("t.jsonl", "--out", "t.jsonl"), 3, "exists already; choose another --out"),
    "no column": (("bad.csv",), 5, "no column 'video' (is it 'vidoe'?)"),
    "scored": (("scored.csv",), 5, "has the column 'reward', which scoring writes"),
    "several chains off": (("t.jsonl", "--samples", "3", "--think", "off"), 3, "samples"),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_a_model_is_opened(descore, folder, monkeypatch, words, code, message):
    monkeypatch.chdir(folder)
    table_of(folder, ["clips/0.mp4"])
    (folder / "empty").mkdir()
    (folder / "bad.csv").write_text("prompt,vidoe\np,v\n")
    (folder / "scored.csv").write_text("prompt,video,reward\np,v,1\n")
    result = descore("score", *words, "--model", "no-such-model")
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert not list(folder.glob("*.journal"))


def test_a_line_that_is_wrong_is_reported_before_scoring(descore, folder, model):
    table = table_of(folder, ["clips/0.mp4"] * 3)
    with table.open("a") as file:
        file.write("{]\n")
    result = descore("score", table, "--model", model, *FAST)
    assert result.exit_code == 5
    assert f"{table}:4: is not JSON" in result.stderr
    assert not (folder / "t.scores.jsonl.journal").exists()


def test_a_scored_table_is_scored_again(descore, folder, model):
    table = table_of(folder, ["clips/0.mp4"], reward=7.5, chain="old", mark_style=1, note="kept")
    out = folder / "s.jsonl"
    result = descore("score", table, "--replace", "--out", out, "--model", model, *FAST)
    assert result.exit_code == 0
    [row] = read_scored(out)
    assert row.reward != 7.5
    assert row.columns["note"] == "kept"


def test_without_a_terminal_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 40.0, 50.0])
    monkeypatch.setattr("descore.cli.scoring.time.monotonic", lambda: next(clock))
    with progress_bar() as bar:
        display = BulkDisplay(bar, bar.add_task("scoring", total=None), period=30)
        for done in (100, 150, 400, 450):
            display(BulkProgress(done=done, total=1000, failed=3))
    assert capsys.readouterr().err == "scored 400 of 1,000 (3 failed), about 60 s left\n"


@pytest.mark.parametrize(("overwrite", "command"), [(False, ""), (True, ", without --overwrite,")])
def test_ctrl_c_says_how_to_go_on(descore, folder, model, monkeypatch, overwrite, command):
    def interrupted(*_, on_progress, **__):
        on_progress(BulkProgress(done=3, total=9, failed=0))
        raise KeyboardInterrupt

    monkeypatch.setattr("descore.rewards.bulk.write_scores", interrupted)
    options = ("--overwrite",) if overwrite else ()
    result = descore("score", table_of(folder, ["clips/0.mp4"]), "--model", model, *options, *FAST)
    assert result.exit_code == 130
    assert f"stopped; 3 of 9 rows are kept: the same command{command} goes on from there\n" in result.stderr


def test_ray_holds_our_engine_or_the_one_that_is_named():
    none = {"address": None, "actors": None}
    assert parse_engine("ray", cluster=none | {"actors": 2}) == ("native", True)
    assert parse_engine("ray:vllm", cluster=none) == ("vllm", True)
    for engine in ("native", "vllm", "http://host:8000/v1"):
        assert parse_engine(engine, cluster=none) == (engine, False)
    with pytest.raises(ConfigError, match="--actors: for a cluster; give --engine ray too"):
        parse_engine("vllm", cluster=none | {"actors": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "ray", "--workers", 0), "--workers 0: on a cluster clips are decoded by actors of their own"),
        (("--engine", "ray", "--address", "head"), "--address head: expected HOST:PORT of the cluster's head"),
        (("--address", "local"), "--address: for a cluster; give --engine ray too"),
    ],
)
def test_options_of_a_cluster_are_checked_first(descore, folder, options, message):
    pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")
    result = descore("score", table_of(folder, ["clips/0.mp4"]), *options)
    assert (result.exit_code, message in result.stderr) == (3, True)


def test_clips_are_not_scored_on_a_cluster(descore, folder):
    result = descore("score", folder / "clips" / "0.mp4", "--prompt", "p", "--engine", "ray")
    assert (result.exit_code, "--engine: for a table or a folder" in result.stderr) == (3, True)
