"""The benchmark of the differentiable reward moves pixels unseen, and its ways see the same frames."""

import pytest
import torch
from benchmarks import differentiable
from tests.conftest import build_micro

from descore import Scorer
from descore.rewards import DifferentiableReward


@pytest.fixture(scope="module")
def scorer():
    model = build_micro()
    model.settings = model.settings.model_copy(update={"trained_on": "a test"})
    return Scorer(model, name="micro")


def test_a_gradient_has_the_shape_of_the_frames_and_leaves_them(scorer):
    videos = torch.rand(2, 4, 3, 32, 32)
    before = videos.clone()
    reward = DifferentiableReward(scorer, fps=2, range=(0, 1), normalize="none", think="off")
    grad = differentiable.gradient_of(reward, videos)
    assert grad.shape == videos.shape
    assert grad.any()
    assert torch.equal(videos, before)
    assert not videos.requires_grad


def test_rows_name_every_way_and_their_ratio(scorer, capsys):
    differentiable.measure(scorer, torch.rand(1, 2, 3, 32, 32), think="off", chain=4, repeats=1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == ["plain", "kept", "checkpointed"]
    assert rows[0][3] == "1.00"
    assert float(rows[2][-1]) < 1e-5
