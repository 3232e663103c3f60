"""The configs that are shipped can be read, and name what is there."""

from pathlib import Path

import pytest
import yaml
from transformers.models.qwen3_vl import modeling_qwen3_vl

from descore.chains.config import CollectConfig
from descore.chains.rounds import RoundsConfig
from descore.training.config import ColdStartConfig, SftConfig
from descore.training.config_file import read_config
from descore.training.rl.config import RlConfig

CONFIGS = Path(__file__).parents[2] / "configs"
CHAINS = {
    "teacher.yaml": CollectConfig,
    "self.yaml": CollectConfig,
    "sft.yaml": SftConfig,
    "cold_start.yaml": ColdStartConfig,
    "rounds.yaml": RoundsConfig,
}
STAGES = {"sft.yaml": SftConfig, "cold_start.yaml": ColdStartConfig, "dual_rl.yaml": RlConfig}


def test_there_is_none_that_no_test_reads():
    assert {path.name for path in CONFIGS.glob("*.yaml")} == STAGES.keys()
    assert {path.name for path in (CONFIGS / "chains").iterdir()} == CHAINS.keys()
    assert {path.name for path in (CONFIGS / "accelerate").iterdir()} == {"fsdp.yaml", "deepspeed_zero3.yaml"}


@pytest.mark.parametrize("name", STAGES)
def test_a_config_is_read_by_its_stage(name):
    assert isinstance(read_config(CONFIGS / name, STAGES[name]), STAGES[name])


@pytest.mark.parametrize("name", CHAINS)
def test_a_config_of_chains_is_read_by_its_verb(name):
    config = read_config(CONFIGS / "chains" / name, CHAINS[name])
    assert isinstance(config, CHAINS[name])
    if isinstance(config, RoundsConfig):
        assert all((CONFIGS.parent / path).is_file() for path in (config.collect, config.sft, config.cold_start))


def test_the_layers_that_are_sharded_are_the_backbones():
    config = yaml.safe_load((CONFIGS / "accelerate" / "fsdp.yaml").read_text(encoding="utf-8"))
    names = config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert len(names) == 2
    assert all(hasattr(modeling_qwen3_vl, name) for name in names)


def test_deepspeeds_config_asks_for_its_third_stage():
    config = yaml.safe_load((CONFIGS / "accelerate" / "deepspeed_zero3.yaml").read_text(encoding="utf-8"))
    assert (config["distributed_type"], config["deepspeed_config"]["zero_stage"]) == ("DEEPSPEED", 3)
