"""The generator study's check of its rewards: shares by hand, and clips of which the judge sees what was changed."""

import math

import numpy as np
import pytest
from experiments.generator import judge, reward_check
from experiments.generator.world import Part, ask


def test_shares_by_hand():
    """The right clip scores 1; equal rewards count half, and a missing one is left out."""
    shares = reward_check._shares(np.array([[1, 0, 2, 1, math.nan, 0], [1, 0, 0, 1, 0, 0]]))
    assert {change: share["value"] for change, share in shares.items()} == {
        "shape": 1,
        "colour": 0.5,
        "action": 0.5,
        "setting": 1,
        "picture": 1,
    }
    assert (shares["setting"]["n"], shares["setting"]["failed"]) == (1, 1)


@pytest.mark.parametrize("index", [3, 4])
def test_a_changed_clip_differs_in_what_was_changed(index):
    prompt, clips = reward_check.clips_of(index)
    asked = ask(Part.CALIBRATION, index)
    parts = {name: judge.judge(frames, asked.scene).parts for name, frames in clips.items()}
    assert prompt == asked.prompt
    for change, part in zip(reward_check.CHANGES[:-1], ("shape", "colour", "motion", "setting"), strict=True):
        wrong = {name for name in ("shape", "colour", "motion", "setting") if parts[change][name] < 1}
        assert wrong == {part}
    assert parts["picture"]["picture"] < parts["right"]["picture"]
    assert all(parts["right"][name] == 1 for name in ("shape", "colour", "motion", "setting"))


def test_a_reward_by_key_orders_all_prompts_alike(monkeypatch):
    """Keys are the kinds of clips, so a reward by key orders them alike for each prompt."""
    monkeypatch.setattr(reward_check, "clips_of", lambda _: ("", dict.fromkeys(["right", *reward_check.CHANGES])))
    record = reward_check.check(["random"], pairs=3)
    assert {share["value"] for share in record["right"]["random"].values()} <= {0, 1}
    assert "| random |" in reward_check.table(record)
