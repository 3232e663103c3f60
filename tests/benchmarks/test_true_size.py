"""The measurements of the true size run with every size cut down, on the CPU, and fall over alone."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import true_size
from benchmarks.models import SIZES

SMALL = true_size.Work(frames=4, edge=64, steps=8, chain=8, samples=(1, 2), group=2, matrix=64, device="cpu")


@pytest.fixture(scope="module")
def bench():
    size = replace(
        SIZES["8B"],
        **{"width": 64, "layers": 2, "heads": 8, "inner": 64},
        **{"vision_layers": 2, "vision_width": 256, "vision_inner": 64, "deepstack": (0, 1)},
    )
    return true_size.build(size, SMALL)


@pytest.mark.slow
def test_all_parts_run_with_smaller_sizes(bench, tmp_path, capsys):
    record = true_size.measure(bench, tmp_path / "record.json")
    assert record["failed"] == {}
    assert json.loads((tmp_path / "record.json").read_text()) == record
    rows = {"ceilings", "prefill", "a step, K = 1", "a step, K = 2", "long_chains", "adapters", "many_clips"}
    rows |= {"reward_on_top", "cold_start", "an update, naive", "an update, flex, features kept"}
    assert rows <= record.keys()
    for row in rows:
        assert all(value >= 0 for value in record[row].values()), row
    assert record["prefill"]["tokens"] == bench.prompts()["input_ids"].shape[1]
    lines = capsys.readouterr().out
    assert all(row in lines for row in rows)
    assert not bench.model.training


@pytest.mark.slow
def test_a_part_that_fails_leaves_the_others(bench, tmp_path, monkeypatch):
    def fails(_bench):
        yield "first", {"seconds": 1.0}
        raise torch.OutOfMemoryError("out of memory\nmore")

    monkeypatch.setitem(true_size.PARTS, "steps", fails)
    record = true_size.measure(bench, tmp_path / "record.json", only=["steps", "ceilings"])
    assert record["failed"] == {"steps": "OutOfMemoryError: out of memory"}
    assert record["first"] == {"seconds": 1.0}
    assert record["ceilings"]["floor_ms"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_is_refused_in_one_line_without_a_gpu(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["true_size"])
    with pytest.raises(SystemExit, match="true_size: found no GPU that torch can use"):
        true_size.main()
