"""QLoRA: adapters learn beside weights of 4 bits, nothing else moves, and the trained model gives its rewards."""

import importlib.util

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from tests.training.rl_case import make_rl_config

from descore.config_model import SettingsError
from descore.errors import ConfigError
from descore.model import bits_of
from descore.model.modeling import DescoreModel, has_adapters
from descore.training import models
from descore.training.config import ModelConfig, PairTrainableConfig
from descore.training.config_file import read_config
from descore.training.rl.config import RlConfig

needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")


@needs_bitsandbytes
@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_learn_beside_quantized_weights(tmp_path, bits):
    """On a CPU, where the steps are the same; the trained model is opened again in the precision of the run."""
    build_micro().save_pretrained(tmp_path / "start")
    model = DescoreModel.from_pretrained(
        tmp_path / "start", device="cpu", dtype=torch.bfloat16, quantization_config=f"{bits}bit"
    )
    models._prepare_quantized(model, source="start")
    models.set_trainable(model, PairTrainableConfig(), precision=torch.bfloat16)
    assert bits_of(model.backbone) == bits
    chat = model.chat
    inputs = chat.lay_out_chains(chat.lay_out_prompts([noise_clip(0)], ["a"]), [chat.no_thinking])
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    rewards = [take_step(model.train(), inputs) for _ in range(3)]
    assert rewards[2] < rewards[0]
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == set(models.trainable_weights(model))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        trained = model(inputs)
    models.save_trained(model, tmp_path / "trained", precision=torch.bfloat16)
    opened = DescoreModel.from_pretrained(tmp_path / "trained", device="cpu", dtype=torch.bfloat16)
    assert has_adapters(opened.backbone)
    assert bits_of(opened.backbone) is None
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(opened(inputs), trained, atol=0.05, rtol=0.02)


def take_step(model, inputs):
    """Downhill, with one optimizer for all steps."""
    weights = list(models.trainable_weights(model).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reward = model(inputs).sum()
    reward.backward()
    with torch.no_grad():
        for weight in weights:
            weight -= 0.01 * weight.grad.sign()
            weight.grad = None
    return float(reward)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(tmp_path, micro):
    micro.save_pretrained(tmp_path / "start")
    make_rl_config(tmp_path, tmp_path / "run")
    overrides = ["model.quantization=4bit", f"model.checkpoint={tmp_path / 'start'}"]
    config = read_config(tmp_path / "rl.yaml", RlConfig, overrides=overrides)
    assert config.model.quantization == "4bit"
    with pytest.raises(ConfigError, match=r"model\.quantization: 4bit needs a GPU to train on, and there is none"):
        models.open_model(config, rubric=None)


def test_what_cannot_be_quantized_is_refused(tmp_path):
    make_rl_config(tmp_path, tmp_path / "run")
    for override, fault in [
        ("trainable.language_model.mode=full", "holds weights that cannot learn"),
        ("run.merge=true", "must be false with model.quantization"),
    ]:
        with pytest.raises(SettingsError, match=fault):
            read_config(tmp_path / "rl.yaml", RlConfig, overrides=["model.quantization=4bit", override])
    with pytest.raises(SettingsError, match="quantization"):
        ModelConfig(backbone="a", quantization="2bit")
