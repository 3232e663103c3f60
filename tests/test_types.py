"""Records by hand: a completion's numbers, a score's means, and how probably a clip is preferred."""

import pytest

from descore.types import Completion, Score, preference_probability
from tests.conftest import noise_clip


def completion(text="I see.", *, rewards=None, truncated=False):
    return Completion(
        token_ids=[5, 6, 2], text=text, truncated=truncated, verdict=None, flaw="no answer", rewards=rewards or {}
    )


def score(*completions, reward):
    return Score(
        clip=noise_clip(0), prompt="p", model="m", reward=reward, score=None, std=None, completions=completions
    )


def test_a_completions_reward_is_the_mean_of_its_dimensions():
    assert completion(rewards={"VQ": 1.0, "MQ": 2.5}).reward == 1.75
    assert completion().num_tokens == 3


def test_a_completion_without_rewards_has_no_mean():
    with pytest.raises(AssertionError, match="without rewards"):
        _ = completion().reward


def test_a_score_shows_the_completion_nearest_to_its_mean():
    """Rewards 0, 1 and 5 have the mean 2: the second lies nearest."""
    several = [completion(str(reward), rewards={"overall": float(reward)}) for reward in (0, 1, 5)]
    result = score(*several, reward=2.0)
    assert result.typical is several[1]
    assert (result.thinking, result.verdict, result.rewards) == ("1", None, {"overall": 2.0})


def test_a_score_is_truncated_if_any_completion_is():
    rewards = {"overall": 0.0}
    assert score(completion(rewards=rewards), completion(rewards=rewards, truncated=True), reward=0.0).truncated
    assert not score(completion(rewards=rewards), reward=0.0).truncated


def test_preference_probability_by_hand():
    """Equal: one half. One apart: 1 / (1 + e^-1) = 0.731059. However far apart, it stays a probability."""
    assert preference_probability(2.0, 2.0) == 0.5
    assert preference_probability(3.0, 2.0) == pytest.approx(0.7310585786)
    assert preference_probability(2.0, 3.0) == pytest.approx(1 - 0.7310585786)
    assert preference_probability(1e6, -1e6) == 1.0
    assert preference_probability(-1e6, 1e6) == 0.0
