"""Killed ten times, and gone on with: what is on the disk is not asked again, and what it cost is not forgotten."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import descore
from descore.chains.collect import collect_chains
from descore.chains.ledger import Ledger, Prices
from tests.chains.conftest import make_config
from tests.chains.made import read_candidates
from tests.chains.stub_teacher import TOKENS_IN, TOKENS_OUT, StubTeacher, right

COLLECT = """
import sys
from pathlib import Path
from descore.chains.collect import collect_chains
from descore.chains.config import CollectConfig
from descore.training.config_file import read_config
collect_chains(read_config(Path(sys.argv[1]), CollectConfig))
"""
KILLS, CONCURRENCY, CHAINS = 10, 3, 40
TEACHER = {"price_in": 10.0, "price_out": 100.0, "max_completion_tokens": 64}


def start(config):
    environment = os.environ | {"PYTHONPATH": str(Path(descore.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", COLLECT, str(config)], env=environment, stderr=subprocess.PIPE)


def kill_after(process, stub, requests):
    """Kill the process once so many more requests have come; its answers are then anywhere between sent and kept."""
    wanted = len(stub.requests) + requests
    while len(stub.requests) < wanted:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    time.sleep(random.Random(wanted).random() * 0.06)
    process.send_signal(signal.SIGKILL)
    process.wait()


def kept(folder):
    """The requests whose answer is on the disk: the stub answers with the digest of the body."""
    return {candidate.text for candidate in read_candidates(folder) if candidate.error is None}


@pytest.mark.slow
def test_killed_ten_times_nothing_is_asked_twice(tmp_path, pairs):
    with StubTeacher(lambda request: right(request.key, seconds=0.03)) as stub:
        limits = {"concurrency": CONCURRENCY}
        config = make_config(tmp_path, pairs, stub, num_chains=CHAINS, teacher=TEACHER, limits=limits)
        for _ in range(KILLS):
            known, before = kept(tmp_path / "run"), len(stub.requests)
            kill_after(start(tmp_path / "chains.yaml"), stub, requests=4)
            assert not known & {request.key for request in stub.requests[before:]}
        known, before = kept(tmp_path / "run"), len(stub.requests)
        summary = collect_chains(config)
    keys = [request.key for request in stub.requests]
    assert not known & set(keys[before:])
    assert summary.answered == summary.requests == len(set(keys)) == 5 * CHAINS
    assert len(keys) - len(set(keys)) <= KILLS * CONCURRENCY
    assert len(kept(tmp_path / "run")) == 5 * CHAINS

    ledger = Ledger(tmp_path / "run" / "ledger.jsonl", prices=Prices(), budget=None)
    one = (10 * TOKENS_IN + 100 * TOKENS_OUT) / 1e6
    billed = (10 * stub.billed["tokens_in"] + 100 * stub.billed["tokens_out"]) / 1e6
    assert len(keys) <= ledger.totals.requests <= len(keys) + KILLS * CONCURRENCY
    assert ledger.under_way == 0
    assert ledger.totals.cost >= billed - 1e-9 >= 5 * CHAINS * one - 1e-9
