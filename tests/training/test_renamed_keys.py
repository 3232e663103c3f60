"""Keys and values of version 0.1 are read, with a warning that names the new ones."""

import json
import warnings

import pytest

from descore.config_model import SettingsError
from descore.errors import ConfigError, DescoreWarning
from descore.training.config_file import RENAMED, differences, read_config
from descore.training.metrics import last_metrics
from descore.training.rl.config import RlConfig
from descore.training.runs import can_resume

OLD = """
model: {checkpoint: tiny}
data: {train: train.csv, workers: 3, prefetch: 5}
rollout: {num_generations: 4}
trainable: {lora: {r: 4, alpha: 8, dropout: 0.0, targets: [q_proj]}}
policy: {kl_coef: 0.1, measure_start: false, loss_type: fixed_length}
optim: {schedule: linear, warmup: 0.1, steps: 7, batch_size: 2, accumulate: 3}
evaluate: {ways: [written, given, off], written_pairs: 9}
run: {out: runs/a, log_steps: 2, shown_pairs: 2}
"""
NEW = """
model: {checkpoint: tiny}
data: {train: train.csv, dataloader_num_workers: 3, dataloader_prefetch_factor: 5}
rollout: {num_generations: 4}
trainable: {lora: {r: 4, lora_alpha: 8, lora_dropout: 0.0, target_modules: [q_proj]}}
policy: {beta: 0.1, log_kl: false, loss_type: dr_grpo}
optim: {lr_scheduler_type: linear, warmup_ratio: 0.1, max_steps: 7, per_device_train_batch_size: 2,
        gradient_accumulation_steps: 3}
evaluate: {chain_sources: [generated, reference, none], generated_pairs: 9}
run: {out: runs/a, logging_steps: 2, num_completions_to_print: 16}
"""
CASES = {
    "data.workers": ("3", 3),
    "data.prefetch": ("5", 5),
    "trainable.lora.alpha": ("8", 8),
    "trainable.lora.dropout": ("0", 0),
    "trainable.lora.targets": ("[q_proj]", ("q_proj",)),
    "optim.schedule": ("constant", "constant_with_warmup"),
    "optim.warmup": ("0.5", 0.5),
    "optim.epochs": ("3", 3),
    "optim.steps": ("7", 7),
    "optim.batch_size": ("2", 2),
    "optim.accumulate": ("3", 3),
    "run.log_steps": ("2", 2),
    "run.shown_pairs": ("2", 2 * 2 * 8),  # pairs of two clips with num_generations completions each
    "evaluate.ways": ("[generated, written]", None),  # named twice once it is translated
    "evaluate.written_pairs": ("9", 9),
    "policy.kl_coef": ("0.1", 0.1),
    "policy.measure_start": ("false", False),
    "policy.loss_type": ("per_sequence", "grpo"),
}


@pytest.fixture
def read(tmp_path):
    def from_text(text, *overrides, **options):
        (tmp_path / "rl.yaml").write_text(text)
        return read_config(tmp_path / "rl.yaml", RlConfig, overrides=overrides, **options)

    return from_text


def value_of(config, path):
    for key in path.split("."):
        config = getattr(config, key)
    return config


@pytest.mark.parametrize("rename", RENAMED, ids=lambda rename: rename.old)
def test_an_old_key_is_read_and_the_new_one_named(read, rename):
    text, expected = CASES[rename.old]
    base = NEW.replace("rollout: {num_generations: 4}\n", "")
    overrides = [f"{rename.old}={text}"] + (["optim.max_steps=null"] if rename.old == "optim.epochs" else [])
    if expected is None:
        with pytest.warns(DescoreWarning, match=f"{rename.old} is {rename.new} now"), pytest.raises(SettingsError):
            read(base, *overrides)
        return
    news = f"{rename.old} is {rename.new} now" if rename.old != rename.new else f"{rename.new}: write {expected}"
    with pytest.warns(DescoreWarning, match=news):
        config = read(base, *overrides)
    assert value_of(config, rename.new) == expected


OLD_VALUES = [(rename, old) for rename in RENAMED for old in rename.values]


@pytest.mark.parametrize(("rename", "old"), OLD_VALUES, ids=[f"{r.old}-{old}" for r, old in OLD_VALUES])
def test_each_old_value_is_read(read, rename, old):
    listed = rename.old == "evaluate.ways"
    with pytest.warns(DescoreWarning, match=rename.values[old]):
        config = read(NEW, f"{rename.old}={[old] if listed else old}")
    assert value_of(config, rename.new) == ((rename.values[old],) if listed else rename.values[old])


def test_a_file_of_old_keys_is_that_of_new_ones(read):
    with pytest.warns(DescoreWarning, match=r"policy.kl_coef is policy.beta now"):
        old = read(OLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = read(NEW)
        assert read(OLD, warn=False) == new
    assert differences(old, new) == []


def test_a_run_of_old_keys_goes_on(tmp_path, read):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(OLD.replace("runs/a", str(tmp_path / "run")))
    same = NEW.replace("runs/a", str(tmp_path / "run"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert can_resume(read(same))
        with pytest.raises(ConfigError, match=r"holds another run: policy.beta is 0.1 there, 0.2 here"):
            can_resume(read(same, "policy.beta=0.2"))


def test_old_metrics_are_read_by_their_new_names(tmp_path):
    lines = [{"loss": 0.5, "step": 3}, {"step": 3, "eval_pairs": 2, "eval_written_pair_accuracy": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = last_metrics(tmp_path)
    assert metrics == {"loss": 0.5, "step": 3, "eval_pairs": 2, "eval_generated_pair_accuracy": 0.5}


def test_an_old_key_beside_the_new_one_is_refused(read):
    with pytest.warns(DescoreWarning), pytest.raises(SettingsError, match=r"kl_coef is policy.beta now; give one of"):
        read(NEW.replace("beta: 0.1", "beta: 0.1, kl_coef: 0.2"))


@pytest.mark.parametrize(("text", "key"), [(OLD, "optim.max_steps"), (NEW, "optim.steps"), (OLD, "optim.steps")])
def test_an_override_wins_whichever_name_it_has(read, text, key):
    assert read(text, f"{key}=5", warn=text is NEW and key == "optim.max_steps").optim.max_steps == 5


def test_an_old_value_that_is_wrong_is_reported_by_its_new_key(read):
    with pytest.warns(DescoreWarning), pytest.raises(SettingsError, match=r"run.num_completions_to_print expected"):
        read(NEW, "run.shown_pairs=many")


def test_each_renamed_key_has_a_case():
    assert CASES.keys() == {rename.old for rename in RENAMED}
