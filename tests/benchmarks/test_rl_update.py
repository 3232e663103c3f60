"""The benchmark of an update runs at the true size's layout, and is refused without a GPU."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from benchmarks import rl_update
from benchmarks.models import SIZES


@pytest.mark.slow
def test_the_true_size_runs_with_fewer_and_narrower_layers(capsys):
    """The same model, precision and checkpointing; all that is cut down is its sizes, the clip and the chains."""
    size = replace(
        SIZES["8B"],
        **{"width": 64, "layers": 2, "heads": 8, "inner": 64},
        **{"vision_layers": 2, "vision_width": 256, "vision_inner": 64, "deepstack": (0, 1)},
    )
    small = {"frames": (4,), "edge": 64, "chain": 6, "groups": (2,)}
    setup = replace(rl_update.SETUPS["8B"], model=partial(rl_update.true_learner, size), **small)
    rl_update.measure(setup, repeats=1, device="cpu")
    _, names, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(names.split(), row.split(), strict=False))
    assert len(names.split()) == len(row.split())
    assert cells["G"] == "2"
    assert float(cells["apart"]) < 0.1  # bfloat16


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_true_size_is_refused_in_one_line_without_a_gpu():
    command = [sys.executable, "-m", "benchmarks.rl_update", "--model", "8B"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("--model 8B: found no GPU")
