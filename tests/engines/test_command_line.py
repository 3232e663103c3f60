"""--engine on the verbs that take it: the same results as our own engine, by the fake vLLM."""

import csv
import json
import sys

import numpy as np
import pytest
from tests.engines.fakes import fake_vllm
from typer.testing import CliRunner

from descore.cli import app
from descore.video.encoder import write_mp4

PROMPT = ("--prompt", "a red ball", "--max-chain-tokens", "3")


@pytest.fixture
def clips(tmp_path, monkeypatch, export_folder):
    module = fake_vllm(export_folder)
    for name, one in {"": module, ".platforms": module.platforms, ".exceptions": module.exceptions}.items():
        monkeypatch.setitem(sys.modules, f"vllm{name}", one)
    for seed in range(2):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 48, 48, 3), dtype=np.uint8)
        write_mp4(tmp_path / f"{seed}.mp4", noise, fps=4)
    return [str(tmp_path / f"{seed}.mp4") for seed in range(2)]


def outputs(*command):
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("verb", ["score", "rank", "compare"])
def test_verbs_give_the_rewards_of_our_own(verb, clips, export_folder):
    command = (verb, *clips, *PROMPT, "--model", str(export_folder), "--json")
    ours, theirs = outputs(*command), outputs(*command, "--engine", "vllm")
    assert len(ours) == len(theirs) > 0
    if verb == "compare":
        ours, theirs = ([one[0]["a"], one[0]["b"]] for one in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert b["reward"] == pytest.approx(a["reward"], abs=1e-5)
        assert {**b, "reward": 0, "std": 0} == {**a, "reward": 0, "std": 0}


def test_a_table_keeps_to_one_engine(clips, export_folder, tmp_path):
    table = tmp_path / "clips.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "video"), *(("a ball", clip) for clip in clips)])
    command = ["score", str(table), *PROMPT[2:], "--model", str(export_folder), "--workers", "0", "--json"]
    assert CliRunner().invoke(app, [*command, "--engine", "vllm"]).exit_code == 0
    with (tmp_path / "clips.scores.csv").open() as file:
        assert all(row["reward"] for row in csv.DictReader(file))
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 3
    assert "engine" in refused.stderr


@pytest.mark.parametrize("verb", ["score", "rank", "compare"])
def test_an_engine_that_is_none_is_one_line(verb, clips, export_folder):
    done = CliRunner().invoke(app, [verb, *clips, *PROMPT, "--model", str(export_folder), "--engine", "sglang"])
    assert done.exit_code == 3
    assert "expected native, vllm, or a server's address" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
