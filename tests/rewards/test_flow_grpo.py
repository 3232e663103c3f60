"""flow_grpo's and GenRL's adapters, called as these trainers call their rewards."""

import importlib

import pytest
import torch

from descore.errors import ConfigError, VideoError
from descore.rewards.flow_grpo import descore_scorer
from tests.rewards.conftest import PROMPTS

METADATA = ({}, {}, {})


def multi_score(device, weights, table):
    """A caller as flow_grpo's of the same name: factories get the device if a variable of theirs is called so, scores
    are weighted one by one."""
    functions = {
        name: table[name](device) if "device" in table[name].__code__.co_varnames else table[name]() for name in weights
    }

    def score(images, prompts, metadata):
        details, total = {}, []
        for name, weight in weights.items():
            scores, _ = functions[name](images, prompts, metadata)
            details[name] = scores
            part = [weight * one for one in scores]
            total = [a + b for a, b in zip(total, part, strict=True)] if total else part
        details["avg"] = total
        return details, {}

    return score


def brightness():
    return lambda *inputs: (inputs[0].flatten(1).mean(dim=1), {})


@pytest.mark.parametrize("factory", ["in the environment", "by a lambda"])
def test_multi_score_of_flow_grpo(scorer, checkpoint, unit_videos, expected, monkeypatch, factory):
    table = {"descore": lambda device: descore_scorer(device, model=scorer, fps=8), "brightness": brightness}
    if factory == "in the environment":
        monkeypatch.setenv("DESCORE_MODEL", str(checkpoint))
        monkeypatch.setenv("DESCORE_FPS", "8")
        table["descore"] = descore_scorer
    score = multi_score(torch.device("cpu"), {"descore": 2.0, "brightness": 0.5}, table)
    details, extra = score(unit_videos, tuple(PROMPTS), METADATA)
    assert details["descore"] == pytest.approx(expected.tolist(), abs=1e-5)
    bright = unit_videos.flatten(1).mean(dim=1)
    assert [float(v) for v in details["avg"]] == pytest.approx((2 * expected + 0.5 * bright).tolist(), abs=1e-5)
    assert extra == {}
    assert torch.as_tensor(details["descore"]).dtype == torch.float32


def test_arrays_have_their_colours_last(scorer, unit_videos, expected):
    arrays = (unit_videos * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    scores, _ = descore_scorer("cpu", model=scorer, fps=8)(arrays, PROMPTS, METADATA)
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_pictures_are_videos_of_one_frame(scorer, unit_videos):
    score = descore_scorer("cpu", model=scorer, fps=8)
    pictures, _ = score(unit_videos[:, 0], PROMPTS, METADATA, only_strict=False)
    of_one_frame, _ = score(unit_videos[:, :1], PROMPTS, METADATA)
    assert pictures == of_one_frame


def test_three_frames_are_not_taken_for_colours(scorer, unit_videos):
    score = descore_scorer("cpu", model=scorer, fps=8)
    short, _ = score(unit_videos[:, :3], PROMPTS, METADATA)
    assert short == pytest.approx(score(list(unit_videos[:, :3]), PROMPTS, METADATA)[0], abs=1e-6)


def test_a_failed_clip_is_an_error_for_flow_grpo(scorer, broken_videos):
    with pytest.raises(VideoError, match=r"videos\[1\]: frames with values that are not finite"):
        descore_scorer("cpu", model=scorer, fps=8)(broken_videos, PROMPTS, METADATA)


def load_reward_fn(name, device, module_path):
    """GenRL's look-up."""
    return getattr(importlib.import_module(module_path), f"{name}_score")(device)


def test_genrl_finds_and_calls_its_reward(checkpoint, unit_videos, expected, monkeypatch):
    with pytest.raises(ConfigError, match=r"write descore_score\(device, model=.*, or set DESCORE_MODEL"):
        load_reward_fn("descore", torch.device("cpu"), "descore.rewards.genrl")
    monkeypatch.setenv("DESCORE_MODEL", str(checkpoint))
    with pytest.raises(ConfigError, match=r"write descore_score\(device, fps=16\).*, or set DESCORE_FPS"):
        load_reward_fn("descore", torch.device("cpu"), "descore.rewards.genrl")
    monkeypatch.setenv("DESCORE_FPS", "8")
    reward = load_reward_fn("descore", torch.device("cpu"), "descore.rewards.genrl")
    scores, extra = reward(unit_videos, PROMPTS, METADATA, only_strict=True)
    mean = torch.stack([scores["avg"], torch.zeros(3)]).mean(dim=0)  # combined with another reward by the mean
    assert mean.tolist() == pytest.approx((expected / 2).tolist(), abs=1e-5)
    assert (scores["avg"].dtype, extra) == (torch.float32, {})
