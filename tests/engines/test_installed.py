"""vLLM itself, in the environment that `make vllm` sets up, with the former tiny, real clips and float32 on the CPU."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.test_architecture import SOURCE

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-vllm"
CLIPS = SOURCE / "bundled" / "clips"
PROMPTS = ("a rabbit sniffs a flower", "a car drives through the rain at night")


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "ready").is_file(), reason=f"vLLM is not installed in {VENV}: make vllm")
def test_vllm_gives_our_rewards_chains_and_uses_its_cache(tmp_path):
    table, record = tmp_path / "clips.csv", tmp_path / "record.json"
    rows = [(prompt, CLIPS / name) for name in ("rabbit.mp4", "squirrel.mp4") for prompt in PROMPTS]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "video"), *rows])
    subprocess.run(
        [
            VENV / "bin" / "python",
            "-m",
            "benchmarks.engines",
            "--table",
            table,
            "--ways",
            "alone,vllm",
            "--record",
            record,
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "XDG_CACHE_HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        timeout=900,
    )
    found = json.loads(record.read_text())["figures"]["vllm"]
    assert found["largest_difference"] < 1e-4
    assert found["equal_chains"] == 1
    assert found["cached"] >= 0.6
