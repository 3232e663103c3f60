"""What the adapters share: settings from keyword arguments and the environment, one model for all, layouts."""

import sys
import types

import numpy as np
import pytest
import torch

from descore.errors import ConfigError
from descore.rewards.adapter import AdapterSettings, array_layout, open_reward, shared_scorer, trainers_own

CALL = "scorer(device, {})"


def test_settings_from_the_environment(checkpoint, monkeypatch):
    for name, value in {
        "MODEL": str(checkpoint), "FPS": "12.5", "THINK": "off", "BATCH_SIZE": "3", "NORMALIZE": "none",
        "WEIGHTS": '{"overall": 2}', "DEVICE": "cpu", "DTYPE": "float32", "OVERSHOOT": "0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"DESCORE_{name}", value)
    reward = open_reward(CALL)
    assert (reward.fps, reward.sampling_params.think, reward.normalize) == (12.5, "off", "none")
    assert (reward.weights, reward.scorer.batch_size, reward.form.overshoot) == ({"overall": 2}, 3, 0.1)
    assert (reward.scorer.name, reward.scorer.model.device.type) == (str(checkpoint), "cpu")


def test_a_keyword_goes_before_its_variable(scorer, monkeypatch):
    monkeypatch.setenv("DESCORE_MODEL", "no/such/folder")
    monkeypatch.setenv("DESCORE_FPS", "12")
    reward = open_reward(CALL, model=scorer, fps=16, device=torch.device("cuda"), samples=None)
    assert reward.scorer is scorer
    assert (reward.fps, reward.sampling_params.samples) == (16, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 16}, r"no model is given; write scorer\(device, model='path/to/checkpoint'\), or set DESCORE_MODEL"),
        ({"model": "tiny"}, r"no fps is given.*write scorer\(device, fps=16\) with.*or set DESCORE_FPS"),
        ({"model": "tiny", "fps": 0}, "descore settings: fps must be positive, got 0"),
        ({"model": "tiny", "fps": 16, "smaples": 2}, "smaples unknown key; did you mean samples"),
        ({"model": "tiny", "fps": 16, "think": "off", "samples": 2}, "samples must be 1, got 2"),
        ({"model": "no/such/folder", "fps": 16}, "no/such/folder"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ValueError, match=message):
        open_reward(CALL, **settings)


def test_a_variable_that_cannot_be_read_is_named(monkeypatch):
    monkeypatch.setenv("DESCORE_FPS", "sixteen")
    with pytest.raises(ConfigError, match="fps expected a number or null, found 'sixteen'"):
        open_reward(CALL, model="tiny")


def test_fps_is_not_asked_for_where_media_state_it(scorer):
    assert open_reward(CALL, model=scorer, needs_fps=False).fps is None


def test_the_same_model_is_opened_once(checkpoint):
    one, again = (shared_scorer(AdapterSettings(model=str(checkpoint), fps=fps, device="cpu")) for fps in (8, 16))
    other = shared_scorer(AdapterSettings(model=str(checkpoint), device="cpu", batch_size=2))
    assert one is again
    assert other is not one


def test_layouts_by_type_and_axes():
    assert array_layout(torch.zeros(2, 3, 3, 8, 8)) == "BTCHW"
    assert array_layout(np.zeros((2, 3, 8, 8, 3))) == "BTHWC"
    assert (array_layout(torch.zeros(2, 3, 8, 8)), array_layout(np.zeros((2, 8, 8, 3)))) == ("BCHW", "BHWC")
    assert (array_layout([np.zeros((2, 8, 8, 3))]), array_layout((torch.zeros(3, 8, 8),))) == ("THWC", "CHW")
    assert [array_layout(other) for other in ([], ["clip.mp4"], torch.zeros(8), None)] == [None] * 4


def test_a_trainers_class_is_taken_where_it_is(monkeypatch):
    assert trainers_own("no_such_trainer.rewards", "Base", otherwise=int) is int
    module = types.ModuleType("some_trainer")
    module.Base = float
    monkeypatch.setitem(sys.modules, "some_trainer", module)
    assert trainers_own("some_trainer", "Base", otherwise=int) is float


def test_a_trainer_that_lacks_something_is_no_absent_one(tmp_path, monkeypatch):
    (tmp_path / "broken_trainer.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        trainers_own("broken_trainer", "Base", otherwise=int)
