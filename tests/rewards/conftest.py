"""A scorer of the micro model that counts as trained, and what trainers hand to a reward."""

import importlib.util
import runpy
import sys
import types

import pytest
import torch

from descore import RewardFunction, Scorer
from descore.rewards.adapter import ENVIRONMENT, AdapterSettings
from tests.conftest import build_micro
from tests.rewards.test_frames import made_videos

PROMPTS = ["a red ball", "a blue box", "a dog"]


def build_scorer(**settings):
    """The micro model with a mean of .5 and a deviation of 2, in batches of 2."""
    model = build_micro()
    stored = {"reward_mean": {"overall": 0.5}, "reward_std": {"overall": 2.0}, "trained_on": "a test", **settings}
    model.settings = model.settings.model_copy(update=stored)
    return Scorer(model, name="micro", batch_size=2)


@pytest.fixture(scope="session")
def scorer():
    return build_scorer()


@pytest.fixture(scope="session")
def checkpoint(scorer, tmp_path_factory):
    """The scorer's model as a folder, for what is opened by name."""
    folder = tmp_path_factory.mktemp("checkpoint") / "micro"
    scorer.model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in AdapterSettings.model_fields:
        monkeypatch.delenv(ENVIRONMENT + name.upper(), raising=False)


@pytest.fixture(scope="session")
def unit_videos():
    """Three videos as a pipeline has them: floats in [0, 1], (B, T, C, H, W)."""
    return made_videos(count=3).float() / 255


@pytest.fixture(scope="session")
def expected(scorer, unit_videos):
    """Their rewards at 8 frames a second."""
    return RewardFunction(scorer, fps=8, range=(0, 1))(videos=unit_videos, prompts=PROMPTS).rewards


@pytest.fixture
def broken_videos(unit_videos):
    """The same, the second of which has no reward."""
    videos = unit_videos.clone()
    videos[1, 0, 0, 0, 0] = torch.nan
    return videos


@pytest.fixture
def beside_trainer(monkeypatch):
    """A function: our adapter's module as it is where a trainer is installed, whose modules have these contents."""

    def load(adapter, **contents):
        for name, content in contents.items():
            parts = name.split("__")
            for depth in range(1, len(parts) + 1):
                path = ".".join(parts[:depth])
                if path not in sys.modules:
                    monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
            sys.modules[".".join(parts)].__dict__.update({one.__name__: one for one in content})
        return runpy.run_path(importlib.util.find_spec(adapter).origin, run_name=adapter)

    return load
