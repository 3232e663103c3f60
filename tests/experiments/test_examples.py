"""The example scripts run as their first lines say, on a generator that has learned nothing."""

import sys
from pathlib import Path

import pytest
from examples import best_of_n, dpo
from experiments.generator import grow
from experiments.generator.model import Generator

FOLDER = Path(best_of_n.__file__).parent


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A generator of no worth."""
    return grow.grow(grow.DRY, out=tmp_path_factory.mktemp("grown"))


def run(script, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, options)])
    script.main()


def test_examples_are_under_80_lines():
    scripts = [path for path in FOLDER.glob("*.py") if path.name != "__init__.py"]
    assert scripts
    assert max(len(path.read_text("utf-8").splitlines()) for path in scripts) < 80


@pytest.mark.slow
def test_the_best_of_n_is_written(grown, tmp_path, monkeypatch, capsys):
    options = ["--generator", grown, "--prompt", "a red star", "--n", 2, "--samples", 2, "--out", tmp_path / "best.mp4"]
    run(best_of_n, monkeypatch, *options)
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[:2])
    assert float(first[1]) >= float(second[1])  # by the mean of the chains
    assert float(first[3]) >= 0
    assert (tmp_path / "best.mp4").stat().st_size > 500


@pytest.mark.slow
def test_dpo_changes_the_generator(grown, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red star on the sea\na blue box on a beach\n", encoding="utf-8")
    options = ["--generator", grown, "--prompts", prompts, "--clips", 3, "--steps", 2, "--out", tmp_path / "dpo"]
    run(dpo, monkeypatch, *options)
    assert "step 1: loss 0.693" in capsys.readouterr().out  # log 2: nothing is learned yet
    before, after = (list(Generator.load(folder).parameters()) for folder in (grown, tmp_path / "dpo" / "model"))
    assert any((one != other).any() for one, other in zip(before, after, strict=True))
