"""What the Makefile says where no package index answers, and what .ci/run makes of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="no make")]


def make(folder, target, **variables):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    words = [f"{name}={value}" for name, value in variables.items()]
    environment = {**others, **NO_INDEX}
    return subprocess.run(
        ["make", target, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_an_index_that_does_not_answer_is_one_line(tmp_path):
    done = make(tmp_path, "newest-reading", NEWEST_PYTHON=sys.executable)
    assert done.returncode == 2
    assert done.stderr.count("NOT INSTALLED: a package index does not answer; try again, or set PIP_INDEX_URL") == 1
    assert (tmp_path / "build" / "no-index").is_file()


def test_another_fault_of_installing_is_none_of_an_index(tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "no-index").touch()
    done = make(tmp_path, "newest-reading", NEWEST_PYTHON=sys.executable, READING="./no-such-folder")
    assert done.returncode == 2
    assert "NOT INSTALLED" not in done.stderr
    assert not (tmp_path / "build" / "no-index").exists()


@pytest.mark.parametrize(("unreached", "code"), [(True, 0), (False, 1)])
def test_ci_fails_by_floors_unless_no_index_answers(tmp_path, unreached, code):
    """Its own lines, with a make that fails at the two targets that install anew."""
    script = (ROOT / ".ci" / "run").read_text().split("make test-slow\n")[1]
    (tmp_path / "build").mkdir()
    if unreached:
        (tmp_path / "build" / "no-index").touch()
    lines = f"set -euo pipefail\nmake() {{ false; }}\n{script}"
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "NEWEST VERSIONS FAIL" not in done.stdout
