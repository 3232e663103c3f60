"""A micro model on disk, small videos, and a runner that keeps standard output and error apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer.rich_utils
from tests.conftest import build_micro
from typer.testing import CliRunner

from descore.cli import app
from descore.video.encoder import write_mp4

TERMINAL = (
    *("COLUMNS", "LINES", "TERM", "TERMINAL_WIDTH", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLORTERM"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS", "JUPYTER_COLUMNS", "JUPYTER_LINES", "RANK"),
)
"""Environment variables that change what is printed."""


@pytest.fixture(scope="session", autouse=True)
def terminal():
    """A terminal of 80 columns without colours, whatever the one of the test run; for subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TERMINAL:
            patch.delenv(name, raising=False)
        patch.setenv("COLUMNS", "80")
        # Typer reads these from the environment when it is imported.
        patch.setattr(typer.rich_utils, "FORCE_TERMINAL", None)
        patch.setattr(typer.rich_utils, "MAX_WIDTH", None)
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "micro"
    build_micro().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Three readable films of unlike content, a file that is no video, and a name with nothing behind it."""
    folder = tmp_path_factory.mktemp("films")
    for seed in range(3):
        noise = (
            np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        )
        frames = np.stack([np.roll(noise, 6 * step, axis=seed % 2) for step in range(12)])
        write_mp4(folder / f"{seed}.mp4", frames, fps=6)
    (folder / "text.mp4").write_text("these are only words\n")
    return [str(folder / f"{seed}.mp4") for seed in range(3)], str(folder / "text.mp4"), str(folder / "absent.mp4")


@pytest.fixture
def in_films_folder(films, monkeypatch):
    """The films' names from their own folder: output that shows them does not depend on where the folder is."""
    good, text, absent = films
    monkeypatch.chdir(Path(text).parent)
    return [Path(path).name for path in good], Path(text).name, Path(absent).name


@pytest.fixture(scope="session")
def descore():
    """Run a command line; the result has exit_code, stdout, stderr, and words: stdout without its line breaks."""

    def run(*args):
        result = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="descore")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        result.words = " ".join(result.stdout.split())
        return result

    return run


@pytest.fixture(scope="session")
def lines():
    """The objects on standard output, one a line; a NaN is refused."""

    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    def parse(result):
        return [json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines()]

    return parse
