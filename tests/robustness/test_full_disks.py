"""A full disk, a closed output, a folder that has gone: one line, an exit code, nothing half written."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from descore.cli import app
from descore.errors import ConfigError
from descore.evaluation.judges import FeatureJudge
from descore.io import append_records, atomic_path, atomic_write, lock_directory, read_records
from descore.rewards.scored import read_scored
from descore.video.encoder import write_mp4
from tests.conftest import build_micro
from tests.report.made_runs import write_runs
from tests.training.conftest import make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def invoke(*args):
    """Exit code and standard error of a command; a traceback fails."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="descore")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{' '.join(map(str, args))}: {result.exception!r}") from result.exception
    return result.exit_code, result.stderr


def assert_one_line(code, error, *parts):
    assert code == 3, error
    [line] = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith((".partial", ".old"))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 60 * (number + 1), (4, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", noise, fps=4)
    pairs = [
        {"prompt": f"a ball {b}", "video_a": f"{a}.mp4", "video_b": f"{b}.mp4", "preference": "b"}
        for a, b in ((1, 0), (2, 1), (3, 2), (0, 3))
    ]
    write_table(folder / "t.csv", pairs)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "file"), [("evaluate", "clips.jsonl"), ("stress", "stress.jsonl")])
@pytest.mark.parametrize("size", [0, 1500, 3000])
def test_a_full_disk_ends_a_run_that_goes_on_later(clips, tmp_path, verb, file, size):
    """The records that fit are kept, and count when there is room."""
    command = (verb, "--benchmark", clips / "t.csv", "--model", "sharpness", "--batch-size", 2, "--out")
    with full_disk(size):
        assert_one_line(*invoke(*command, tmp_path / "run"), "cannot be written (File too large", "make room")
    assert not leftovers(tmp_path)
    kept = len(read_records(tmp_path / "run" / file))
    assert (kept > 0) == (size > 2000 or (size > 0 and verb == "stress"))
    assert invoke(*command, tmp_path / "run") == (0, "")
    assert invoke(*command, tmp_path / "whole") == (0, "")
    name = "results.json" if verb == "evaluate" else "stress.json"
    left, right = (json.loads((tmp_path / folder / name).read_text()) for folder in ("run", "whole"))
    left.pop("seconds", None), right.pop("seconds", None)
    assert left == right


def test_a_report_on_a_full_disk_leaves_the_page_before(tmp_path):
    runs, out = write_runs(tmp_path), tmp_path / "r.html"
    out.write_text("before")
    with full_disk(5000):
        assert_one_line(*invoke("report", runs[0], "--out", out), "r.html: cannot be written (File too large")
    assert out.read_text() == "before"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("size", [0, 2000, 20_000])
def test_drawn_pairs_on_a_full_disk_leave_nothing(tmp_path, size):
    with full_disk(size):
        code, error = invoke("world", "sample", "--count", 2, "--out", tmp_path / "pairs", "--size", "64x64")
    assert_one_line(code, error, "pairs: cannot be written")
    assert not [*tmp_path.iterdir()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("full"))
    write_table(folder / "marked.csv", marked_rows())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "make", "config"),
    [
        ("sft", make_config, "sft.yaml"),
        ("cold-start", make_cold_config, "cold.yaml"),
        ("rl", make_rl_config, "rl.yaml"),
    ],
)
@pytest.mark.parametrize("size", [100, 5000, 60_000])
def test_training_on_a_full_disk_is_one_line(data, tmp_path, verb, make, config, size):
    """100 bytes: not even the tables; 5,000: settings; 60,000: weights, or the optimizer's state, do not fit."""
    make(data, tmp_path / "run")
    with full_disk(size):
        code, error = invoke("train", verb, data / config, f"run.out={tmp_path / 'run'}", "optim.max_steps=2")
    assert_one_line(code, error, "cannot be written", "make room")
    assert not leftovers(tmp_path)
    assert invoke("train", verb, data / config, f"run.out={tmp_path / 'run'}", "optim.max_steps=2")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_bulk_scoring_on_a_full_disk_goes_on_later(data, tmp_path, suffix, share):
    """No byte of the results fits, or some of them do."""
    command = (
        "score",
        data / "marked.csv",
        "--model",
        data / "micro",
        "--think",
        "off",
        "--workers",
        0,
        "--batch-size",
        2,
        "--out",
    )
    assert invoke(*command, tmp_path / f"whole.{suffix}")[0] == 0
    size = (tmp_path / f"whole.{suffix}.journal").stat().st_size
    with full_disk(int(share * size)):
        assert_one_line(*invoke(*command, tmp_path / f"s.{suffix}"), "cannot be written (File too large", "make room")
    assert not leftovers(tmp_path)
    assert not (tmp_path / f"s.{suffix}").exists()
    assert len(read_records(tmp_path / f"s.{suffix}.journal")) > (1 if share else -1)  # settings and results
    assert invoke(*command, tmp_path / f"s.{suffix}")[0] == 0
    again, whole = (list(read_scored(tmp_path / f"{name}.{suffix}")) for name in ("s", "whole"))
    assert [(row.prompt, row.video, row.error) for row in again] == [(r.prompt, r.video, r.error) for r in whole]
    # Batches are others behind the interruption; float32 rounds in another order.
    assert [row.reward for row in again] == pytest.approx([row.reward for row in whole], abs=1e-5)


def test_a_model_on_a_full_disk_is_one_line(tmp_path):
    model = build_micro()
    with full_disk(60_000), pytest.raises(ConfigError, match=r"model: cannot be written \(.*\); choose another place"):
        model.save_pretrained(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("verb", ["evaluate", "stress"])
def test_a_folder_that_vanishes_is_one_line(clips, tmp_path, verb, monkeypatch):
    judge = FeatureJudge.judge

    def judge_and_remove(self, batch, *, open_video):
        shutil.rmtree(tmp_path / "run")
        return judge(self, batch, open_video=open_video)

    monkeypatch.setattr(FeatureJudge, "judge", judge_and_remove)
    code, error = invoke(
        verb, "--benchmark", clips / "t.csv", "--model", "sharpness", "--batch-size", 2, "--out", tmp_path / "run"
    )
    assert_one_line(code, error, "run", "No such file or directory")


@pytest.mark.parametrize("verb", ["evaluate", "stress"])
def test_a_folder_that_cannot_be_made_is_one_line(clips, verb):
    """/proc takes no folders, not even from root."""
    assert_one_line(*invoke(verb, "-b", clips / "t.csv", "-m", "sharpness", "--out", "/proc/here"), "cannot be made")


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    runs = write_runs(tmp_path)
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "null.html").symlink_to("/dev/null")
    for out in (tmp_path / "pipe.html", tmp_path / "null.html"):
        assert_one_line(*invoke("report", runs[0], "--out", out), f"{out}: is a device or a pipe")
    assert_one_line(*invoke("report", runs[0], "--out", "/dev/full"), "expected a page")
    assert (tmp_path / "pipe.html").is_fifo()
    assert os.path.realpath(tmp_path / "null.html") == "/dev/null"
    with pytest.raises(ConfigError, match="is a folder, which a file cannot replace"):
        atomic_write(tmp_path, "x")


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text("before")
    (tmp_path / "page.html").symlink_to("deep/page.html")
    with atomic_path(tmp_path / "page.html") as aside:
        aside.write_text("after")
    assert (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "deep" / "page.html").read_text() == "after"
    assert not leftovers(tmp_path)


def test_a_journal_or_lock_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "j.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"j\.jsonl: cannot be written \(Is a directory"):
        append_records(tmp_path / "j.jsonl", [{}])
    with pytest.raises(ConfigError, match="cannot be written"), lock_directory(tmp_path / "gone"):
        pass


def run(*args, **options):
    command = [sys.executable, "-m", "descore", *map(str, args)]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, timeout=120, **options)


@pytest.mark.slow
@pytest.mark.parametrize("args", [("benchmarks",), ("benchmarks", "--json"), ("report",)])
def test_a_full_standard_output_is_one_line(args, tmp_path):
    if args[0] == "report":
        args = ("report", write_runs(tmp_path)[0], "--out", tmp_path / "r.html")
    with Path("/dev/full").open("w") as full:
        done = run(*args, stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.startswith("error: standard output: No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize("args", [("benchmarks",), ("benchmarks", "--json")])
def test_a_reader_that_goes_is_quiet(args):
    """As with `| head`: text and JSON alike end with 128 + SIGPIPE."""
    command = [sys.executable, "-m", "descore", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (141, "")


@pytest.mark.slow
def test_closed_streams_do_not_mix_with_files(tmp_path):
    """With standard output closed, the next file that is opened would get its number, and what is printed."""
    runs = write_runs(tmp_path)
    shell = f"{sys.executable} -m descore report {runs[0]} --out {tmp_path / 'r.html'} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], check=False).returncode == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


class Stopped(BaseException):
    """In place of SIGKILL."""


def test_a_stress_test_goes_on_where_it_was(clips, tmp_path, monkeypatch):
    command = ("stress", "--benchmark", clips / "t.csv", "--model", "sharpness", "--batch-size", 3, "--out")
    judge, judged = FeatureJudge.judge, []

    def judge_until(number):
        def until(self, batch, *, open_video):
            if len(judged) >= number:
                raise Stopped
            judged.extend((clip.video, clip.prompt) for clip in batch)
            return judge(self, batch, open_video=open_video)

        monkeypatch.setattr(FeatureJudge, "judge", until)

    judge_until(10_000)
    assert invoke(*command, tmp_path / "whole") == (0, "")
    all_of_them, judged[:] = list(judged), []
    judge_until(30)
    with pytest.raises(Stopped):
        invoke(*command, tmp_path / "cut")
    assert not (tmp_path / "cut" / "stress.json").exists()
    assert len(read_records(tmp_path / "cut" / "stress.jsonl")) == 1 + 30
    with (tmp_path / "cut" / "stress.jsonl").open("a") as file:
        file.write('{"clip": 1, "pert')
    assert "seed is 0 there" in invoke(*command, tmp_path / "cut", "--seed", 1)[1]
    judge_until(10_000)
    assert invoke(*command, tmp_path / "cut") == (0, "")
    assert judged == all_of_them  # each once
    assert (tmp_path / "cut" / "stress.json").read_bytes() == (tmp_path / "whole" / "stress.json").read_bytes()
    assert not (tmp_path / "cut" / "stress.jsonl").exists()


def test_a_replaced_clip_is_judged_again(clips, tmp_path, monkeypatch):
    folder = shutil.copytree(clips, tmp_path / "clips")
    command = ("stress", "--benchmark", folder / "t.csv", "--model", "sharpness", "--batch-size", 3, "--out")
    judge, judged = FeatureJudge.judge, []

    def until(self, batch, *, open_video):
        if len(judged) == 30:
            raise Stopped
        judged.extend(clip.video for clip in batch)
        return judge(self, batch, open_video=open_video)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureJudge, "judge", until)
        with pytest.raises(Stopped):
            invoke(*command, tmp_path / "run")
    shutil.copy(folder / "3.mp4", folder / "1.mp4")  # of the first pair
    assert invoke(*command, tmp_path / "run") == (0, "")
    assert invoke(*command, tmp_path / "anew") == (0, "")
    assert (tmp_path / "run" / "stress.json").read_bytes() == (tmp_path / "anew" / "stress.json").read_bytes()
