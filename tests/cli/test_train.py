"""`descore train` from a table to a model that scores, on drawn clips; and what it says when it cannot."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.conftest import build_micro

import descore.cli.train as cli_train
from descore.synthetic.splits import Split, draw_example
from descore.video.encoder import write_mp4


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Four drawn clips with their true chains, a micro model, and a config."""
    folder = tmp_path_factory.mktemp("drawn")
    build_micro().save_pretrained(folder / "micro")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "video", "chain"])
        for index in range(4):
            one = draw_example(Split.TRAIN, index)
            write_mp4(folder / f"{index}.mp4", one.clip.frames, fps=4)
            writer.writerow([one.prompt, f"{index}.mp4", one.chain])
    settings = {
        "model": {"checkpoint": str(folder / "micro"), "precision": "float32"},
        "data": {"train": str(folder / "train.csv"), "eval": str(folder / "train.csv"), "dataloader_num_workers": 1},
        "trainable": {"language_model": {"mode": "full"}},
        "optim": {"learning_rate": 1e-3, "num_train_epochs": 2, "per_device_train_batch_size": 2},
        "run": {"out": str(folder / "run")},
    }
    (folder / "sft.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "video_a", "video_b", "preference", "chain_a", "chain_b"])
        for index, preference in enumerate(("a", "b", "tie", "a")):
            writer.writerow(["a ball", f"{index}.mp4", f"{(index + 1) % 4}.mp4", preference, "a red ball", "rolls"])
    pairs = {"train": str(folder / "pairs.csv"), "eval": str(folder / "pairs.csv"), "dataloader_num_workers": 1}
    run = {"out": str(folder / "scored")}
    (folder / "cold.yaml").write_text(yaml.safe_dump({**settings, "data": pairs, "run": run}))
    return folder


@pytest.fixture(scope="module")
def thinking(drawn):
    """A config of stage 2 for pairs with marks: two steps of two chains a clip."""
    marks = json.dumps({"subject": 2, "dynamics": 1, "camera": "N/A", "environment": 2, "style": 0})
    with (drawn / "pairs.csv").open(encoding="utf-8") as file:
        rows = [{**row, "marks_a": marks, "marks_b": marks} for row in csv.DictReader(file)]
    with (drawn / "marked.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {
        "model": {"checkpoint": str(drawn / "micro"), "precision": "float32"},
        "data": {"train": str(drawn / "marked.csv"), "eval": str(drawn / "marked.csv"), "dataloader_num_workers": 0},
        "rollout": {"num_generations": 2},
        "rewards": {"length_none_below": 1, "length_full_from": 12},
        "policy": {"mask_truncated_completions": False},
        "optim": {"learning_rate": 1e-3, "num_train_epochs": 1, "per_device_train_batch_size": 2},
        "run": {"out": str(drawn / "thinks")},
    }
    (drawn / "rl.yaml").write_text(yaml.safe_dump(settings))
    return drawn / "rl.yaml"


@pytest.mark.slow
def test_sft_prints_the_model_and_the_next_command(descore, drawn):
    result = descore("train", "sft", drawn / "sft.yaml")
    assert result.exit_code == 0, result.stderr
    trained, following = result.stdout.splitlines()
    assert trained.startswith(f"trained: {drawn / 'run' / 'model'} (step 4, loss ")
    assert "held out: loss" in trained
    assert following.startswith(f"next: descore score CLIP --prompt TEXT --model {drawn / 'run' / 'model'}")

    scored = descore("score", drawn / "0.mp4", "--prompt", "a ball", "--model", drawn / "run" / "model", "--json")
    assert scored.exit_code == 0, scored.stderr
    assert json.loads(scored.stdout)["reward"] is not None

    again = descore("train", "sft", drawn / "sft.yaml")
    assert again.stdout.startswith("was trained before: ")


@pytest.mark.slow
def test_a_cold_start_prints_held_out_accuracy_and_scores(descore, drawn):
    result = descore("train", "cold-start", drawn / "cold.yaml", "optim.num_train_epochs=1")
    assert result.exit_code == 0, result.stderr
    trained, following = result.stdout.splitlines()
    assert trained.startswith(f"trained: {drawn / 'scored' / 'model'} (step 2, loss ")
    assert re.search(
        r"held out: scored 4 of 4, \S+% of 3 pairs with the table's chains, \S+% of 3 pairs with its own chains, "
        r"\S+% of 3 pairs without chains\)$",
        trained,
    )
    assert following.startswith("next: descore score CLIP")

    scored = descore("score", drawn / "0.mp4", "--prompt", "a ball", "--model", drawn / "scored" / "model", "--json")
    assert scored.stderr == ""  # no warning: its head was trained
    assert json.loads(scored.stdout)["score"] is not None

    other = descore("train", "sft", drawn / "sft.yaml", f"run.out={drawn / 'scored'}")
    assert other.exit_code == 3
    assert "holds a run of another stage" in other.stderr


def test_chains_learn_and_are_shown_as_a_page(descore, drawn, thinking):
    result = descore("train", "rl", thinking, "optim.max_steps=1", "optim.num_train_epochs=null")
    assert result.exit_code == 0, result.stderr
    assert "its head was never trained; run descore train cold-start first" in result.stderr
    trained, following = result.stdout.splitlines()
    assert trained.startswith(f"trained: {drawn / 'thinks' / 'model'} (step 1, rollout reward ")
    assert re.search(r"rollout reward \d\.\d+, \S+% of pairs right; held out: scored 4 of 4, ", trained)
    assert re.search(r", \S+% of 3 pairs with its own chains\)$", trained)
    assert following.startswith("next: descore score CLIP")
    page = (drawn / "thinks" / "chains.html").read_text(encoding="utf-8")
    assert "Sampled chains of <bdi>thinks</bdi>" in page
    assert "Its answer cannot be read." in page
    again = descore("train", "rl", thinking, "optim.max_steps=1", "optim.num_train_epochs=null")
    assert again.stdout.startswith("was trained before: ")


@pytest.fixture
def reward_module(tmp_path, monkeypatch):
    """A module of reward functions in the working directory, which Python does not search for modules."""
    (tmp_path / "reward_functions.py").write_text(
        "def short_and_sure(chain: str, prompt: str, marks: dict | None) -> float:\n"
        "    return float('perhaps' not in chain)\n"
        "def unsure(chain, prompt, marks):\n"
        "    return 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield "reward_functions"
    sys.modules.pop("reward_functions", None)


def rl_command(thinking, function, out):
    overrides = (f"rewards.function={function}", f"run.out={out}", "data.eval=null")
    return "train", "rl", thinking, *overrides, "optim.max_steps=1", "optim.num_train_epochs=null"


def test_a_function_of_the_working_directory_rewards(descore, thinking, reward_module, tmp_path):
    result = descore(*rl_command(thinking, f"{reward_module}:short_and_sure", tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    [line] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["function"] == 1.0


def test_a_reward_function_that_fails_is_named(descore, thinking, reward_module, tmp_path):
    failed = descore(*rl_command(thinking, f"{reward_module}:unsure", tmp_path / "run"))
    assert failed.exit_code == 3
    assert failed.stderr.splitlines()[-1] == (
        f"error: rewards.function: {reward_module}:unsure failed in step 1: ZeroDivisionError: division by zero"
    )


@pytest.mark.slow
def test_the_console_script_finds_a_reward_function(thinking, reward_module, tmp_path):
    """Unlike `python -m`, the script does not search the working directory for modules."""
    script = Path(sys.executable).with_name("descore")
    command = [script, *rl_command(thinking, f"{reward_module}:short_and_sure", tmp_path / "run")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    [line] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["function"] == 1.0


def test_the_bar_of_stage_2_shows_the_last_step():
    metrics = {
        **{"rollout_reward": 0.5123, "quality": 0.43, "pair_accuracy": 0.614, "kl": 0.00123, "chain_tokens": 312.4},
        **{"chains": 64, "truncated_chains": 3, "groups": 16, "groups_without_spread": 1, "loss": -1e-9},
    }
    line = cli_train._describe_rl_step(metrics)
    assert line == "reward 0.512, quality 0.43, pairs 61%, kl 0.0012, 312 tokens, cut 3/64, flat 1/16"
    assert cli_train._describe_rl_step({**metrics, "doing": "judging held-out pairs"}) == "judging held-out pairs"
    unrated = {name: metrics[name] for name in metrics if name not in ("rollout_reward", "quality", "kl")}
    assert cli_train._describe_rl_step(unrated) == "pairs 61%, 312 tokens, cut 3/64, flat 1/16"
    assert cli_train._describe_rl_step({}) == "learning to think"


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ({}, "trained: model (no decided pair)"),
        ({"step": 1200, "loss": 0.5}, "trained: model (step 1,200, loss 0.500, no decided pair)"),
        (
            {"eval_pairs": 6, "eval_pairs_without_score": 6, "eval_none_pairs_scored": 0, "eval_none_pairs_decided": 0},
            "trained: model (no decided pair; held out: scored 0 of 6, no score without chains)",
        ),
        (
            {"eval_pairs": 6, "eval_pairs_without_score": 1, "eval_none_pairs_scored": 5, "eval_none_pairs_decided": 0},
            "trained: model (no decided pair; held out: scored 5 of 6, no decided pair without chains)",
        ),
        ({"step": 2, "loss": 0.5, "pair_accuracy": 1.0}, "trained: model (step 2, loss 0.500, 100.0% of pairs right)"),
    ],
)
def test_the_summary_leaves_out_what_is_not_known(metrics, line, capsys):
    trained = SimpleNamespace(model=Path("model"), metrics=metrics, unreadable=0, already_trained=False)
    cli_train._print_summary(
        trained, figures=cli_train._pair_accuracy, held_out=cli_train._held_out_pairs, next_step="look"
    )
    assert capsys.readouterr().out.splitlines() == [line, "next: look"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::descore.errors.DescoreWarning")  # of a head that was never trained, and the like
def test_half_a_line_of_chains_is_cut_off_on_resuming(descore, films, model, tmp_path):
    (a, b, _), _, _ = films
    (tmp_path / "pairs.csv").write_text(f"prompt,video_a,video_b,preference\na red ball,{a},{b},a\n")
    settings = {
        "model": {"checkpoint": model, "precision": "float32"},
        "data": {"train": str(tmp_path / "pairs.csv"), "workers": 0},
        "rollout": {"num_generations": 2},
        "optim": {"max_steps": 1},
        "run": {"out": str(tmp_path / "run")},
    }
    (tmp_path / "rl.yaml").write_text(json.dumps(settings))
    out, command = tmp_path / "run", ("train", "rl", tmp_path / "rl.yaml")
    assert descore(*command).exit_code == 0
    whole = (out / "chains.jsonl").read_text()
    (out / "chains.jsonl").write_text(whole[:-20])
    for folder in ("model", "checkpoint-1"):
        shutil.rmtree(out / folder)
    (out / "chains.html").unlink()
    again = descore(*command)
    assert again.exit_code == 0, again.stderr
    assert (out / "chains.jsonl").read_text() == whole  # the step is done again, and its chains are there once
    assert (out / "chains.html").is_file()


def test_a_table_without_preferences_is_one_line(descore, drawn):
    wrong = descore(
        "train", "cold-start", drawn / "cold.yaml", f"data.train={drawn / 'train.csv'}", f"run.out={drawn / 'no'}"
    )
    assert wrong.exit_code == 5
    [line] = wrong.stderr.splitlines()
    assert "preference" in line


def test_faults_of_a_config_are_shown_one_a_line(descore, drawn):
    wrong = descore("train", "sft", drawn / "sft.yaml", "optim.learning_rate=0", "data.cot_drop=1")
    assert wrong.exit_code == 3
    assert wrong.stdout == ""
    assert wrong.stderr.splitlines() == [
        "sft.yaml: 2 problems",
        "  data.cot_drop        unknown key; expected one of train, eval, sampling, dataloader_num_workers, "
        "dataloader_prefetch_factor, max_unreadable",
        "  optim.learning_rate  must be positive, got 0",
    ]


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["data.train=absent.csv", "run.out={}/b"], 3, "absent.csv: no such file"),
        (["model.checkpoint=absent", "run.out={}/c"], 3, "absent: no such folder"),
        (["model.checkpoint=null", "model.backbone={}/absent", "run.out={}/c"], 3, "/absent: no such folder; expected"),
        (["model.rubric=absent.txt", "run.out={}/d"], 3, "model.rubric: absent.txt cannot be read"),
    ],
)
def test_what_is_not_there_is_one_line(descore, drawn, overrides, code, message):
    wrong = descore("train", "sft", drawn / "sft.yaml", *(text.format(drawn) for text in overrides))
    assert wrong.exit_code == code
    [line] = [line for line in wrong.stderr.splitlines() if not line.startswith("warning: ")]
    assert message in line


def test_help_names_the_stage(descore):
    for stage in ("sft", "cold-start", "rl"):
        assert stage in descore("train", "--help").output
        assert "CONFIG.yaml" in descore("train", stage, "--help").output


def test_packages_that_are_not_there_are_named(descore, drawn, monkeypatch):
    monkeypatch.setattr(cli_train, "find_spec", lambda name: None if name in ("peft", "yaml") else name)
    wrong = descore("train", "sft", drawn / "sft.yaml")
    assert wrong.exit_code == 3
    assert (
        wrong.stderr
        == "error: training needs peft, PyYAML; run pip install '.[train]' in a checkout of descore's repository\n"
    )
