"""The commands and the code of docs/bulk.md run as they stand there."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.test_readme import ROOT

PAGE = (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_first_commands_and_then_the_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [line.removeprefix("$ ") for line in blocks("console")[0].splitlines() if line.startswith("$ ")]
    shown = [line for line in blocks("console")[0].splitlines() if not line.startswith("$ ")]
    for command, line in zip(commands, shown, strict=True):
        done = subprocess.run([sys.executable, "-m", *shlex.split(command)], capture_output=True, text=True, check=True)
        assert _without_seconds(done.stdout.strip()) == _without_seconds(line)
    [example] = blocks("python")
    names = {}
    exec(compile(example, "docs/bulk.md", "exec"), names)
    assert names["summary"].scored == 8
    assert names["best"].reward == max(row.reward for row in names["read_scored"](names["summary"].out))


def _without_seconds(line):
    return re.sub(r"in [\d.]+ s, \d+%", "in N s", line)
