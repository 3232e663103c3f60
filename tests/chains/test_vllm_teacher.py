"""vLLM itself as the teacher: its server over OpenAI's API and its reader of batch files, with drawn clips on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-vllm"
PAIRS, CHAINS = 2, 2


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / "ready").is_file(), reason=f"vLLM is not installed in {VENV}: make vllm")
def test_chains_of_a_real_server_train_a_model(tmp_path):
    record = tmp_path / "record.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.teacher", "--pairs", str(PAIRS), "--record", record],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        cwd=tmp_path,
        check=True,
        timeout=900,
    )
    found = json.loads(record.read_text())
    for name, way in found["ways"].items():
        assert way["requests"] == way["answered"] == 2 * PAIRS * CHAINS
        assert way["kept"] + sum(way["rejected"].values()) == way["answered"]
        cost = (way["tokens_in"] + 4 * way["tokens_out"]) / 1e6  # the prices of the script's config
        assert way["cost"] == pytest.approx(cost / 2 if name == "batch" else cost, abs=1e-6)
        assert way["tokens_out"] > 20 * way["answered"]
    assert found["ways"]["video"]["rows_kept"] > 0
    assert isinstance(found["trained"]["reward"], float)
