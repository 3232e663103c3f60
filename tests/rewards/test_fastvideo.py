"""FastVideo's adapter, called as its MultiRewardScorer does."""

import pytest
import torch

from descore.errors import ConfigError, VideoError
from descore.rewards.fastvideo import media_scorer
from tests.rewards.conftest import PROMPTS


@torch.no_grad()
def multi_reward(scorers, weights, media, prompts):
    """A caller as FastVideo's MultiRewardScorer: one number for each prompt, added up with weights."""
    assert media.shape[0] == len(prompts)
    total, details = None, {}
    for name, weight in weights.items():
        scores = scorers[name](media, prompts).detach().float()
        assert scores.ndim == 1
        assert len(scores) == len(prompts)
        details[name] = scores
        total = scores * weight if total is None else total.to(scores.device) + scores * weight
    return {**details, "avg": total}


def test_fastvideos_media_have_colours_before_frames(scorer, unit_videos, expected):
    scorers = {
        "descore": media_scorer("cpu", model=scorer, fps=8),
        "dark": lambda media, _: 1 - media.flatten(1).mean(1),
    }
    media = unit_videos.permute(0, 2, 1, 3, 4)
    details = multi_reward(scorers, {"descore": 0.5, "dark": 2.0}, media, tuple(PROMPTS))
    assert details["descore"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert details["avg"].tolist() == pytest.approx((0.5 * expected + 2 * details["dark"]).tolist(), abs=1e-5)


def test_fastvideos_pictures_are_videos_of_one_frame(scorer, unit_videos):
    score = media_scorer(model=scorer, fps=8)
    assert torch.equal(score(unit_videos[:, 0], PROMPTS), score(unit_videos[:, :1].transpose(1, 2), PROMPTS))


def test_media_beyond_their_range_are_refused_by_place(scorer, unit_videos, broken_videos):
    score = media_scorer(model=scorer, fps=8, overshoot=0.0)
    with pytest.raises(VideoError, match=r"videos\[0\]: values from .* beyond range=\(0, 1\)"):
        score(unit_videos.transpose(1, 2) * 2 - 1, PROMPTS)
    with pytest.raises(VideoError, match=r"videos\[1\]: frames with values that are not finite"):
        score(broken_videos.transpose(1, 2), PROMPTS)


def test_fps_is_asked_for_when_the_scorer_is_made(scorer):
    with pytest.raises(ConfigError, match=r"write media_scorer\(fps=16\)"):
        media_scorer("cpu", model=scorer)
