"""Clips read ahead in other processes: in order, bounded, and alive whatever a clip does to its decoder."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from descore.errors import ConfigError
from descore.rewards import decoding
from descore.rewards.decoding import DecodingPool
from descore.types import Clip
from tests.rewards.read_stub import read_stub
from tests.robustness.test_workers import assert_all_end, wait_for


def outcomes(videos, *, workers, ahead=4, **options):
    with DecodingPool(workers=workers, **options) as pool:
        read = pool.read_ahead(videos, read=read_stub, video_of=lambda video: video, ahead=ahead)
        return [(video, clip.source if isinstance(clip, Clip) else clip.reason) for video, clip in read]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 3])
def test_clips_come_in_order(workers):
    videos = ["slow0", "1", "bad", "slow2", "3", "config"]
    sources = ["<stub 0>", "<stub 1>", "no such file", "<stub 2>", "<stub 3>", "fps is 0"]
    assert outcomes(videos, workers=workers) == list(zip(videos, sources, strict=True))


@pytest.mark.slow
def test_a_dead_worker_costs_one_clip():
    got = dict(outcomes(["0", "kill", "1", "crash", "2", "exit", "3"], workers=2))
    assert got["kill"] == "the process that decoded it died of SIGKILL; a damaged file, or too little memory"
    assert "died of SIGABRT" in got["crash"]
    assert "ended with exit code 3" in got["exit"]
    assert [got[name] for name in "0123"] == [f"<stub {n}>" for n in range(4)]


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended():
    got = dict(outcomes(["0", "hang", "1"], workers=1, patience=5.0))
    assert got["hang"].startswith("the process that decoded it did not answer for 5 s and was ended")
    assert (got["0"], got["1"]) == ("<stub 0>", "<stub 1>")


@pytest.mark.slow
def test_no_more_is_read_than_was_asked_for(tmp_path):
    log = tmp_path / "log"
    stub = partial(read_stub, log=str(log))
    with DecodingPool(workers=1) as pool:
        read = pool.read_ahead(map(str, range(100)), read=stub, video_of=lambda video: video, ahead=3)
        next(read)
        wait_for(lambda: len(log.read_text().splitlines()) == 4)
        time.sleep(0.2)
        assert log.read_text().splitlines() == ["0", "1", "2", "3"]


def test_a_row_without_a_video_passes_through():
    with DecodingPool(workers=1) as pool:
        read = pool.read_ahead(["0", ""], read=read_stub, video_of=lambda video: video or None, ahead=2)
        assert [clip is None for _, clip in read] == [False, True]


def test_workers_import_no_torch():
    code = (
        "import sys, descore.rewards.decoding, descore.video.reader; "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(decoding, "_PROGRAM", "raise SystemExit(7)  # {path} {descriptor}")
    with pytest.raises(ConfigError, match="ended with exit code 7 at its start; decode without them: --workers 0"):
        outcomes(["0"], workers=1)


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from descore.rewards.decoding import DecodingPool
from tests.rewards.read_stub import read_stub

pool = DecodingPool(workers=2)  # without `if __name__ == "__main__"`, as many scripts are
read = pool.read_ahead(["0", "1", "hang", "hang"], read=read_stub, video_of=lambda video: video, ahead=2)
next(read), next(read)
print(*(worker._process.pid for worker in pool._workers), flush=True)
next(read)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    assert_all_end(workers)
