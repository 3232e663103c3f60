"""The record behind docs/checkpoints.md, and what the script says where it cannot run."""

import json
import subprocess
import sys
from pathlib import Path

import experiments
import pytest

RECORD = Path(experiments.__path__[0]) / "official_frames.json"


def test_the_record_keeps_its_claims():
    """Six clips by two readers: equal pixels, rewards within 5e-6, and a rule that matters."""
    record = json.loads(RECORD.read_text())
    rows = record["rows"]
    assert record["packages"]["qwen-vl-utils"] == "0.0.14"
    assert len({row["clip"] for row in rows}) == 6
    assert len(rows) == 12
    assert {row["pixels_apart"] for row in rows} == {0}
    assert max(abs(row["official"] - row["descore"]) for row in rows) < 5e-6
    assert round(max(abs(row["official"] - row["uniform"]) for row in rows), 2) == 0.58


@pytest.mark.slow
def test_a_missing_package_is_one_line():
    try:
        import qwen_vl_utils  # noqa: F401
    except ImportError:
        command = [sys.executable, "-m", "experiments.official_frames", "no.mp4"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("pip install qwen-vl-utils==0.0.14 and torchcodec or decord")
    else:
        pytest.skip("the package is installed")
