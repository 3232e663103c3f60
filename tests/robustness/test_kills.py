"""SIGKILL at random moments of every verb that writes: the same command then ends as if nothing had happened."""

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from descore import cli
from descore.video.encoder import write_mp4
from tests.conftest import RUBRIC
from tests.model.official_cases import whole_model
from tests.report.made_runs import write_runs
from tests.training.conftest import make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

SEED = 20261127
SECONDS = 60
"""Longest time of a command."""
TIMED = ("seconds", "started", "samples_per_second", "seconds_in_rollout", "seconds_in_update", "tokens_per_second")
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A command that writes `out`, with the place of {out} in its arguments, and how often it is killed."""

    args: tuple[str, ...]
    kills: int
    keeps: bool = False
    """A second command refuses what the first has written whole."""


VERBS = {
    "evaluate": Verb(args=("evaluate", "-b", "{}/pairs.csv", "-m", "sharpness", "--batch-size", "2"), kills=3),
    "stress": Verb(args=("stress", "-b", "{}/pairs.csv", "-m", "sharpness", "--batch-size", "8"), kills=3),
    "score": Verb(
        args=(
            *("score", "{}/marked.csv", "-m", "{}/micro", "--think", "off"),
            *("--batch-size", "2", "--workers", "0"),
        ),
        kills=4,
    ),
    "pairs": Verb(args=("pairs", "{}/scored.csv", "--format", "descore"), kills=2, keeps=True),
    "report": Verb(args=("report", "{}/runs/RUN"), kills=2),
    "world sample": Verb(args=("world", "sample", "--count", "3", "--size", "64x64"), kills=2, keeps=True),
    "convert-checkpoint": Verb(
        args=(
            *("convert-checkpoint", "{}/official/theirs", "--rubric", "{}/official/rubric.txt"),
            *("--layout", "chain, query, end of turn"),
        ),
        kills=2,
        keeps=True,
    ),
    "export": Verb(args=("export", "{}/micro", "--for", "vllm"), kills=2, keeps=True),
    "data convert": Verb(
        args=("data", "convert", "{}/theirs.csv", "--from", "videoalign", "--label", "VQ"), kills=2, keeps=True
    ),
    "train sft": Verb(args=("train", "sft", "{}/sft.yaml", "run.save_steps=2", "optim.max_steps=4"), kills=3),
    "train cold-start": Verb(
        args=("train", "cold-start", "{}/cold.yaml", "run.save_steps=2", "optim.max_steps=4", "data.eval={}/e.csv"),
        kills=4,
    ),
    "train rl": Verb(args=("train", "rl", "{}/rl.yaml", "run.save_steps=1", "run.logging_steps=1"), kills=3),
}
FILES = {"report": "page.html", "data convert": "table.csv", "score": "scores.csv", "pairs": "pairs.csv"}
"""Of the verbs that write a file into a folder that is there."""
assert sum(verb.kills for verb in VERBS.values()) == 32


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All that the verbs read."""
    folder = make_data(tmp_path_factory.mktemp("kills"))
    write_table(folder / "marked.csv", marked_rows())
    (folder / "pairs_eval.csv").rename(folder / "e.csv")
    (folder / "runs").mkdir()
    write_runs(folder / "runs")[0].rename(folder / "runs" / "RUN")
    (folder / "official").mkdir()
    (folder / "official" / "rubric.txt").write_text(RUBRIC)
    whole_model(folder / "official" / "theirs")
    for make in (make_config, make_cold_config, make_rl_config):
        make(folder, folder / "unused")
    theirs = {"path_A": "0.mp4", "path_B": "1.mp4", "VQ": "A", "MQ": "B", "TA": "same", "Overall": "A"}
    scored = [{"prompt": f"a ball {n // 3}", "video": f"{n % 4}.mp4", "reward": n * n % 7} for n in range(60)]
    write_table(folder / "scored.csv", scored)
    write_table(folder / "theirs.csv", [{**theirs, "prompt": f"a ball {n}"} for n in range(20)])
    for number in range(4):  # brighter by number, where make_data's films are all alike
        noise = np.random.default_rng(number).integers(0, 60 * (number + 1), (4, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", noise, fps=4)
    return folder


def command(name, data, out):
    verb = VERBS[name]
    args = [arg.replace("{}", str(data)) for arg in verb.args]
    file = FILES.get(name, "")
    target = out / file if file else out
    if args[0] == "export":
        return [*args, str(target)]
    return [*args, f"run.out={target}"] if args[0] == "train" else [*args, "--out", str(target)]


def run(args, *, watched, log, kill_at=None, delay=0.0):
    """Run a command in a process of its own session, and wait for it: its exit code, -9 where it was killed.

    `kill_at`: the number of the write below `watched` at which, `delay` seconds later, it gets SIGKILL. The log has
    what it prints, and the writes."""
    child = os.fork()
    if child == 0:
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        code = 1
        try:
            sys.addaudithook(counting_hook(watched, log, kill_at, delay))
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            sys.argv = ["descore", *args]
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:  # noqa: BLE001  # the child must not go on as a second pytest
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + SECONDS
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), child
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"{' '.join(args)}: does not end; {log.read_text()[-2000:]}")
        time.sleep(0.01)


def counting_hook(watched, log, kill_at, delay):
    """Writes each write below `watched` to the log, and kills the process at one of them."""
    journal = os.open(f"{log}.writes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count, prefix = 0, str(watched)

    def hook(event, values):
        nonlocal count
        writes = event in WRITES or (event == "open" and isinstance(values[2], int) and values[2] & 0o3)
        if not writes or not str(values[0]).startswith(prefix):
            return
        count += 1
        os.write(journal, f"{event} {str(values[0])[len(prefix) :]}\n".encode())
        if count == kill_at:
            if not delay:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    return hook


def of_session(session):
    """The processes of a session that still run."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[3] == str(session) and fields[0] != "Z":
                running.append(int(stat.parent.name))
    return running


def content(path):
    """A file as it counts: without times."""
    if path.suffix == ".safetensors":
        return {name: array.tobytes() for name, array in load_file(path).items()}
    if path.suffix == ".jsonl" or path.name in ("results.json", "run.json"):
        text = path.read_text()
        values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
        return [{key: value for key, value in each.items() if key not in TIMED} for each in values]
    return path.read_bytes()


SKIPPED = {"config.yaml", "README.md", "chains.html", ".lock"}  # name the folder, or times
STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def outcome(out):
    """By name, what a command has written, but for what is named after the folder or has times."""
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    named = {name: path for name, path in files.items() if path.name not in SKIPPED | STATE}
    found = {name: content(path) for name, path in named.items()}
    if "metrics.jsonl" in found:  # a step that was done again counts once
        lines = [line for line in found["metrics.jsonl"] if "resumed_at" not in line]
        found["metrics.jsonl"] = {(line["step"], "loss" in line): line for line in lines}
    return found, {name for name in files if Path(name).name not in (".lock",)}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """By verb, what it writes when nothing disturbs it, and the number of its writes; made when it is asked for."""
    made = {}

    def of(name):
        if name not in made:
            out = tmp_path_factory.mktemp("whole") / "out"
            log = out.parent / "log"
            if name in FILES:
                out.mkdir()
            code, _ = run(command(name, data, out), watched=out, log=log)
            assert code == 0, log.read_text()
            made[name] = outcome(out), len(Path(f"{log}.writes").read_text().splitlines())
        return made[name]

    return of


CASES = [(name, number) for name, verb in VERBS.items() for number in range(verb.kills)]


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name} {number}" for name, number in CASES])
def test_a_kill_loses_and_doubles_nothing(data, whole, tmp_path, name, number):
    (expected, files), writes = whole(name)
    draw = random.Random(f"{SEED} {name} {number}")
    # One share of the writes for each kill, so that they spread over the whole command.
    kills = VERBS[name].kills
    kill_at = 1 + int((number + draw.random()) / kills * writes)
    delay = draw.choice((0.0, draw.uniform(0, 0.03)))
    out, log = tmp_path / "out", tmp_path / "log"
    if name in FILES:
        out.mkdir()
    args = command(name, data, out)
    code, session = run(args, watched=out, log=log, kill_at=kill_at, delay=delay)
    done = Path(f"{log}.writes").read_text().splitlines()
    case = (
        f"descore {' '.join(args)}\nkilled {delay:.3f} s behind write {kill_at} of {writes}: {done[kill_at - 1 :][:3]}"
    )
    assert code in (-9, 0), f"{case}\nit ended with {code}: {log.read_text()[-2000:]}"
    end = time.monotonic() + 5
    while of_session(session) and time.monotonic() < end:
        time.sleep(0.02)
    assert not of_session(session), f"{case}\nprocesses are left"
    log.write_text("")
    code, _ = run(args, watched=out, log=log)
    if VERBS[name].keeps and code == 3 and "exists already" in log.read_text():
        code = 0  # it was whole when the kill came
    assert code == 0, f"{case}\nthe command then ended with {code}: {log.read_text()[-3000:]}"
    found, names = outcome(out)
    assert names == files, f"{case}\nfiles: {sorted(names ^ files)}"
    odd = [name for name in expected if found[name] != expected[name]]
    assert not odd, f"{case}\nother contents: {odd}"
