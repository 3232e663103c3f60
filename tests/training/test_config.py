"""A config says all that is wrong with it at once, reads back equal, and takes overrides."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.settings_page import PAGE, settings_page

from descore.config_model import SettingsError
from descore.errors import ConfigError
from descore.training.config import ColdStartConfig, OptimConfig, PartConfig, SftConfig
from descore.training.config_file import differences, read_config, write_config

CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = """
model: {checkpoint: tiny}
data: {train: train.csv}
optim: {max_steps: 10}
run: {out: runs/a}
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text, *overrides):
        file = tmp_path / "sft.yaml"
        file.write_text(text)
        return read_config(file, SftConfig, overrides=overrides)

    return from_text


def page(fault):
    return fault.value.page.splitlines()


def test_all_faults_come_at_once_each_with_its_key(read):
    text = """
model: {checkpoint: tiny, precision: float16}
data: {trian: train.csv, dataloader_num_workers: -1, sampling: {fsp: 2}}
trainable: {language_model: {mode: lora, learning_rate: fast}, lora: {r: 0}}
optim: {learning_rate: 0, max_steps: 2.5, betas: [0.9]}
runs: {}
"""
    with pytest.raises(SettingsError) as fault:
        read(text)
    assert page(fault) == [
        "sft.yaml: 12 problems",
        "  model.precision                         expected one of float32, bfloat16, found 'float16'",
        "  data.train                              missing; expected a path",
        "  data.sampling.fsp                       unknown key; did you mean data.sampling.fps?",
        "  data.dataloader_num_workers             must not be negative, got -1",
        "  data.trian                              unknown key; did you mean data.train?",
        "  trainable.language_model.learning_rate  expected a number or null, found 'fast'",
        "  trainable.lora.r                        must be positive, got 0",
        "  optim.learning_rate                     must be positive, got 0",
        "  optim.betas                             expected a list of 2, each number, found [0.9]",
        "  optim.max_steps                         expected a whole number or null, found 2.5",
        "  run                                     missing; expected keys and values",
        "  runs                                    unknown key; did you mean run?",
    ]


def test_one_problem_is_one_line_as_an_error_of_the_family(read):
    with pytest.raises(ConfigError, match=r"^sft.yaml: optim.max_steps must be positive, got 0$"):
        read(GOOD, "optim.max_steps=0")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone=x", "model.backbone  or checkpoint: give exactly one of them, found both"),
        ("model.checkpoint=null", "model.backbone  or checkpoint: give exactly one of them, found neither"),
        ("optim.num_train_epochs=1", "optim.num_train_epochs  or max_steps: give exactly one of them, found both"),
        ("optim.betas=[0.9, 1.0]", "optim.betas  must be at least 0 and below 1, got [0.9, 1.0]"),
        ("trainable.language_model.mode=frozen", "trainable.language_model.mode  is frozen as all parts are"),
        ("run.eval_steps=5", "run.eval_steps  needs data.eval, a table to evaluate on"),
        ("optim.warmup_ratio=1", "optim.warmup_ratio  must be at least 0 and below 1, got 1"),
        ("data.sampling.max_frames=2", "data.sampling.max_frames  must be at least min_frames (4), got 2"),
        ("optim.seed=true", "optim.seed  expected a whole number, found True"),
        ("optim.learning_rate=.inf", "optim.learning_rate  expected a number, found inf"),
        ("data=3", "data  expected keys and values, found 3"),
        ("optim.batch=2", "optim.batch  unknown key; did you mean optim.per_device_train_batch_size?"),
        ("steps", "steps  cannot be read; write an override as key.path=value"),
        ("optim.max_steps=[", "optim.max_steps  has a value that is not YAML: '['"),
    ],
)
def test_what_an_override_breaks_is_named(read, override, message):
    with pytest.raises(SettingsError) as fault:
        read(GOOD, override)
    assert page(fault)[0] == "sft.yaml: 1 problem"
    assert message in page(fault)[1].strip()


def test_overrides_are_put_over_the_file(read):
    config = read(GOOD, "optim.learning_rate=1e-5", "trainable.merger.mode=full", "data.sampling.fps=4")
    assert config.optim.learning_rate == 1e-5  # without a point, YAML 1.1 takes it for text
    assert config.trainable.merger == PartConfig(mode="full")
    assert config.data.sampling.fps == 4
    assert config.data.train == Path("train.csv")


def test_it_reads_back_equal(read, tmp_path):
    config = read(GOOD, "trainable.lora.target_modules=[q_proj]", "data.sampling.fps=4", "data.eval=e.csv")
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml", SftConfig) == config
    assert differences(config, read_config(tmp_path / "config.yaml", SftConfig)) == []


def test_words_stay_words(read):
    """YAML 1.1, which PyYAML reads, takes off for false."""
    with pytest.raises(SettingsError, match=r"run.resume expected true or false, found 'off'"):
        read(GOOD, "run.resume=off")
    assert read(GOOD, "run.resume=False").run.resume is False


def test_differences_are_named_by_key(read):
    here, there = read(GOOD, "optim.seed=1", "data.sampling.fps=4", "run.out=runs/b"), read(GOOD)
    assert [d.key for d in differences(here, there, but=["run.out"])] == ["data.sampling", "optim.seed"]
    [fps] = differences(here, read(GOOD, "optim.seed=1", "data.sampling.fps=5", "run.out=runs/b"))
    assert (fps.key, fps.here, fps.there) == ("data.sampling.fps", 4, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"sft.yaml:\d+: "),
        ("optim: {seed: 1, seed: 2}", "key 'seed' is given twice"),
        ("- 1", "found list, expected keys and values"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(read, text, message):
    with pytest.raises(ConfigError, match=message) as fault:
        read(text)
    assert "\n" not in str(fault.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("absent.yaml: cannot be opened")):
        read_config(tmp_path / "absent.yaml", SftConfig)


def test_settings_made_in_python_check_themselves():
    with pytest.raises(SettingsError, match=r"OptimConfig: learning_rate must be positive, got -1; warmup_ratio"):
        OptimConfig(learning_rate=-1, warmup_ratio="none", max_steps=1)


def test_the_example_config_can_be_read():
    config = read_config(CONFIGS / "sft.yaml", SftConfig)
    assert config.trainable.modes == {"vision_tower": "frozen", "merger": "frozen", "language_model": "lora"}


def test_the_example_config_of_the_cold_start_can_be_read():
    config = read_config(CONFIGS / "cold_start.yaml", ColdStartConfig)
    assert config.trainable.modes["head"] == config.trainable.modes["query"] == "full"
    assert config.evaluate.chain_sources == ("reference", "generated", "none")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.eval_steps=5", "run.eval_steps  needs data.eval, a table to evaluate on"),
        ("dimensions=[overall, overall]", "dimensions  names one twice: ['overall', 'overall']"),
        ("dimensions=[]", "dimensions  must not be empty, got []"),
        ("data.chain_drop=1.5", "data.chain_drop  must be from 0 to 1, got 1.5"),
        ("loss.kind=hinge", "loss.kind  expected one of bradley-terry, ties, margin, regression, found 'hinge'"),
        ("loss.k=1", "loss.k  must be above 1, got 1"),
        ("evaluate.chain_sources=[none, none]", "evaluate.chain_sources  names one twice: ['none', 'none']"),
        (
            "evaluate.chain_sources=[all]",
            "evaluate.chain_sources  expected a list, each one of reference, generated, none, found ['all']",
        ),
        ("trainable.head.mode=lora", "trainable.head.mode  expected one of frozen, full, found 'lora'"),
        ("trainable.qurey.mode=full", "trainable.qurey  unknown key; did you mean trainable.query?"),
    ],
)
def test_what_an_override_breaks_in_a_cold_start_is_named(tmp_path, override, message):
    (tmp_path / "cold.yaml").write_text(GOOD)
    with pytest.raises(SettingsError) as fault:
        read_config(tmp_path / "cold.yaml", ColdStartConfig, overrides=[override])
    assert [line.strip() for line in page(fault)] == ["cold.yaml: 1 problem", message]


def test_a_loss_on_chains_needs_chains(tmp_path):
    (tmp_path / "cold.yaml").write_text(GOOD)
    with pytest.raises(SettingsError, match=r"data.chain_drop is 1, all drop out"):
        read_config(tmp_path / "cold.yaml", ColdStartConfig, overrides=["data.chain_drop=1", "loss.chain_weight=1"])


def test_query_and_head_alone_may_learn(tmp_path):
    (tmp_path / "cold.yaml").write_text(GOOD)
    options = ["trainable.language_model.mode=frozen"]
    assert read_config(tmp_path / "cold.yaml", ColdStartConfig, overrides=options).trainable.modes["head"] == "full"


def test_the_settings_page_is_up_to_date():
    """`python -m tests.training.settings_page` writes the page anew."""
    assert PAGE.read_text(encoding="utf-8") == settings_page()


def test_configs_are_read_without_torch():
    modules = "descore.training.config_file, descore.training.config, descore.training.rl.config"
    code = f"import sys, {modules}; assert not {{'torch', 'transformers', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
