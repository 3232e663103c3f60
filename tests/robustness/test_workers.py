"""Data workers end with the process that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

BUSY = """
import os, time, torch
from torch.utils.data import DataLoader, Dataset
from descore.training.dataset import end_with_parent

class Large(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, number):
        return b"x" * 10_000_000  # more than a pipe holds

batches = iter(DataLoader(Large(), collate_fn=list, num_workers=2, worker_init_fn=end_with_parent))
next(batches)
print(*(worker.pid for worker in batches._workers), flush=True)
time.sleep(600)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_all_end(workers):
    assert wait_for(lambda: not any(map(is_running, workers)), seconds=5), "a worker outlives its parent"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_that_waits_ends_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    assert_all_end(workers)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "make"), [("sft", make_config), ("cold-start", make_cold_config), ("rl", None)])
def test_no_stage_leaves_a_worker(verb, make, tmp_path):
    write_table(make_data(tmp_path) / "marked.csv", marked_rows())
    (make or make_rl_config)(tmp_path, tmp_path / "run")
    config = tmp_path / {"sft": "sft.yaml", "cold-start": "cold.yaml", "rl": "rl.yaml"}[verb]
    options = ["data.dataloader_num_workers=2", "optim.max_steps=500"]
    command = [sys.executable, "-m", "descore", "train", verb, str(config), *options]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        workers = wait_for(lambda: metrics.is_file() and children_of(process.pid))
        process.send_signal(signal.SIGKILL)
    assert workers
    assert_all_end(workers)
