"""`descore train sft` from a table to a model that scores, on drawn clips; and what it says when it cannot."""

import csv
import json
import sys

import pytest
import yaml
from tests.conftest import build_micro

from descore.cli.film import write_mp4
from descore.world.telling import example


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Four drawn clips with their true chains, a micro model, and a config."""
    folder = tmp_path_factory.mktemp("drawn")
    build_micro().save_pretrained(folder / "micro")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "video", "chain"])
        for index in range(4):
            one = example(5, index)
            write_mp4(folder / f"{index}.mp4", one.clip.frames, fps=4)
            writer.writerow([one.prompt, f"{index}.mp4", one.chain])
    settings = {
        "model": {"checkpoint": str(folder / "micro"), "precision": "float32"},
        "data": {"train": str(folder / "train.csv"), "eval": str(folder / "train.csv"), "workers": 1},
        "trainable": {"language_model": {"mode": "full"}},
        "optim": {"learning_rate": 1e-3, "epochs": 2, "batch_size": 2},
        "run": {"out": str(folder / "run")},
    }
    (folder / "sft.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_it_trains_and_says_where_the_model_is_and_what_next(descore, drawn):
    done = descore("train", "sft", drawn / "sft.yaml")
    assert done.exit_code == 0, done.stderr
    trained, following = done.stdout.splitlines()
    assert trained.startswith(f"trained: {drawn / 'run' / 'model'} (step 4, loss ")
    assert "held out: loss" in trained
    assert following.startswith(f"next: descore score CLIP --prompt TEXT --model {drawn / 'run' / 'model'}")

    scored = descore("score", drawn / "0.mp4", "--prompt", "a ball", "--model", drawn / "run" / "model", "--json")
    assert scored.exit_code == 0, scored.stderr
    assert json.loads(scored.stdout)["reward"] is not None

    again = descore("train", "sft", drawn / "sft.yaml")
    assert again.stdout.startswith("was trained before: ")


def test_faults_of_a_config_are_shown_one_a_line(descore, drawn):
    wrong = descore("train", "sft", drawn / "sft.yaml", "optim.learning_rate=0", "data.cot_drop=1")
    assert wrong.exit_code == 3
    assert wrong.stdout == ""
    assert wrong.stderr.splitlines() == [
        "sft.yaml: 2 problems",
        "  data.cot_drop        unknown key; expected one of train, eval, sampling, workers, prefetch, max_unreadable",
        "  optim.learning_rate  must be positive, got 0",
    ]


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["data.train=absent.csv", "run.out={}/b"], 3, "absent.csv: no such file"),
        (["model.checkpoint=absent", "run.out={}/c"], 3, "absent: no such folder"),
        (["model.rubric=absent.txt", "run.out={}/d"], 3, "model.rubric: absent.txt cannot be read"),
    ],
)
def test_what_is_not_there_is_one_line(descore, drawn, overrides, code, said):
    wrong = descore("train", "sft", drawn / "sft.yaml", *(text.format(drawn) for text in overrides))
    assert wrong.exit_code == code
    [line] = wrong.stderr.splitlines()
    assert said in line


def test_help_names_the_stage(descore):
    assert "sft" in descore("train", "--help").output
    assert "CONFIG.yaml" in descore("train", "sft", "--help").output


def test_packages_that_are_not_there_are_named(descore, drawn, monkeypatch):
    # By its module's name: in `descore.cli`, `train` is the sub-command.
    module = sys.modules["descore.cli.train"]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("peft", "yaml") else name)
    wrong = descore("train", "sft", drawn / "sft.yaml")
    assert wrong.exit_code == 3
    assert wrong.stderr == "error: training needs peft, PyYAML; run pip install 'descore[train]'\n"
