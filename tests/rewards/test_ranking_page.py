"""docs/ranking.md: its commands and its Python run as they stand, one after the other, in one folder."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ranking.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_runs_from_drawn_clips_to_a_trained_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert [shlex.split(line)[1] for line in lines] == ["world", "score", "rank", "pairs", "pairs", "report", "train"]
    printed = {}
    for line in lines:
        command = [sys.executable, "-m", *shlex.split(line.replace("--count 20", "--count 6"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        printed[line] = done.stdout
    assert "trained:" in printed[lines[-1]]
    for block in blocks("python"):
        exec(compile(block, "ranking.md", "exec"), {})
    made = {path.name for path in tmp_path.iterdir()}
    assert {"best.jsonl", "dpo.jsonl", "own.csv", "scores.html", "pairs.parquet"} <= made
