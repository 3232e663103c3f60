"""What the authors' code and published files do, beside ours."""

import json
import math

import pytest
import torch

from descore.data.tables import Cells
from descore.errors import DataError
from descore.evaluation.benchmarks import BENCHMARKS
from descore.training.config_file import read_config
from descore.training.losses import policy_loss
from descore.training.rl.config import RlConfig
from descore.training.rl.rollout import length_reward, reward_groups
from descore.types import Completion
from tests.training.rl.test_rollout import pair
from tests.training.rl_case import rl_settings


def chosen(text):
    values = BENCHMARKS["mj-bench-video"].columns.values
    return Cells(file="test.json", line=1, row={"overall_preference": text}).choice("overall_preference", values)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Video 1 better", "a"),
        ("Video 1 Better", "a"),
        ("video 2 BETTER", "b"),
        ("same", "tie"),
        ("hard to Judge", None),
    ],
)
def test_label_values_are_compared_without_case(text, side):
    assert chosen(text) == side


def test_another_label_value_is_still_refused():
    with pytest.raises(DataError, match="'Video 3 better'; expected Video 1 better"):
        chosen("Video 3 better")


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual_clip", "loss", "slope", "clipped"),
    [
        # -min(5 · -1, clip(5) · -1) is 5 without a bound, and 3 · 1 with it, where nothing is learned.
        (5.0, -1.0, None, 5.0, 5.0, 0),
        (5.0, -1.0, 3.0, 3.0, 0.0, 1),
        (2.0, -1.0, 3.0, 2.0, 2.0, 0),
        (0.5, -1.0, 3.0, 0.8, 0.0, 1),
        (5.0, 1.0, 3.0, -1.2, 0.0, 1),
    ],
)
def test_a_dual_clip_bounds_negative_advantages(ratio, advantage, dual_clip, loss, slope, clipped):
    log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
    one = torch.ones(1)
    terms = policy_loss(log_prob, torch.zeros(1), advantage * one, weight_N=one, dual_clip=dual_clip)
    (gradient,) = torch.autograd.grad(terms.loss, log_prob)
    assert terms.loss.item() == pytest.approx(loss)
    assert (gradient.item(), terms.clipped.item()) == (pytest.approx(slope, abs=1e-6), clipped)


def test_a_length_reward_in_steps_by_hand():
    """Three steps of 500 from 500 to 2,000."""
    lengths = [0, 500, 999, 1000, 1499, 1500, 1999, 2000, 9000]
    assert [3 * length_reward(n, steps=3) for n in lengths] == [0, 0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("unit", "paid"), [("tokens", 0.25), ("characters", 0.75)])
def test_a_length_counts_the_unit_that_is_set(unit, paid, tmp_path):
    """One token of four, and three characters of four."""
    chain = Completion(token_ids=[7], text="abc", truncated=False, verdict=None, flaw=None, rewards={"overall": 0.0})
    bounds = {"length_unit": unit, "length_none_below": 0, "length_full_from": 4}
    overrides = ["rewards.function=null", *(f"rewards.{name}={value}" for name, value in bounds.items())]
    (tmp_path / "rl.yaml").write_text(json.dumps(rl_settings(tmp_path, tmp_path / "out")))
    config = read_config(tmp_path / "rl.yaml", RlConfig, overrides=overrides)
    [[rewarded], _] = reward_groups([[chain], [chain]], [pair(0)], config=config, function=None)
    assert rewarded.reward_parts["length"] == paid
