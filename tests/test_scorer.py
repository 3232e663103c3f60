"""The public face: what a user calls, and what comes back."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from descore import Scorer
from descore.errors import ConfigError, VideoError
from descore.scorer import Request
from descore.types import Score
from tests.conftest import build_micro, noise_clip

PROMPT = "a red ball"


@pytest.fixture(scope="module")
def scorer():
    model = build_micro()
    mean, std = {"overall": 0.5}, {"overall": 2.0}
    model.settings = model.settings.model_copy(update={"reward_mean": mean, "reward_std": std, "trained_on": "a test"})
    return Scorer(model, name="micro", batch_size=2)


def test_one_clip(scorer):
    result = scorer.score(noise_clip(0), prompt=PROMPT)
    assert isinstance(result, Score)
    assert (result.prompt, result.model, result.clip.source) == (PROMPT, "micro", "<noise 0>")
    assert result.thinking
    assert result.truncated  # random weights never end their turn within 12 tokens
    assert result.verdict is None
    assert result.typical.flaw == "no <answer>...</answer> block in the chain"
    assert result.std is None
    assert result.score == pytest.approx((result.reward - 0.5) / 2)


def test_a_batch_equals_one_by_one_whatever_the_batch_size(scorer):
    requests = [(noise_clip(i, frames=2 * i + 1), f"{PROMPT} {'x' * i}") for i in range(5)]
    batch = scorer.score_batch(requests)
    for (clip, prompt), together in zip(requests, batch, strict=True):
        alone = scorer.score(clip, prompt=prompt)
        assert alone.thinking == together.thinking
        assert alone.reward == pytest.approx(together.reward, abs=1e-5)


def test_without_thinking(scorer):
    result = scorer.score(noise_clip(0), prompt=PROMPT, think="off")
    assert result.thinking == ""
    assert result.verdict is None
    assert result.typical.flaw is None
    assert not result.truncated
    assert result.reward != scorer.score(noise_clip(0), prompt=PROMPT).reward


def test_samples_give_mean_and_deviation(scorer):
    result = scorer.score(noise_clip(0), prompt=PROMPT, samples=4, seed=3)
    rewards = [c.reward for c in result.completions]
    assert result.reward == pytest.approx(np.mean(rewards))
    assert result.std == pytest.approx(np.std(rewards, ddof=1))
    assert result.typical in result.completions
    again = scorer.score(noise_clip(0), prompt=PROMPT, samples=4, seed=3)
    assert [c.text for c in again.completions] == [c.text for c in result.completions]
    other = scorer.score(noise_clip(0), prompt=PROMPT, samples=4, seed=4)
    assert [c.text for c in other.completions] != [c.text for c in result.completions]


def test_compare_is_antisymmetric_and_follows_the_rewards(scorer):
    a, b = noise_clip(0), noise_clip(1)
    there, back = scorer.compare(a, b, prompt=PROMPT), scorer.compare(b, a, prompt=PROMPT)
    assert there.probability + back.probability == pytest.approx(1, abs=1e-5)
    assert (there.probability > 0.5) == (there.a.reward > there.b.reward)


def test_an_unreadable_clip_comes_back_in_its_place(scorer, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    clips = [noise_clip(0), str(bad), noise_clip(1), str(tmp_path / "missing.mp4")]
    results = list(scorer.score_each((clip, PROMPT) for clip in clips))
    assert [type(r) for r in results] == [Score, VideoError, Score, VideoError]
    assert "missing.mp4" in str(results[3])
    assert results[2].reward == pytest.approx(scorer.score(noise_clip(1), prompt=PROMPT).reward, abs=1e-5)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        scorer.score_batch((clip, PROMPT) for clip in clips)


def test_requests_are_read_no_further_ahead_than_one_batch(scorer):
    taken = []

    def stream():
        for i in range(6):
            taken.append(i)
            yield noise_clip(i), PROMPT

    next(scorer.score_each(stream()))
    assert taken == [0, 1]


def test_frames_tensors_and_images_are_the_same_clip(scorer):
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    images = [Image.fromarray(frame) for frame in frames]
    forms = [frames, torch.from_numpy(frames).permute(0, 3, 1, 2), images]
    rewards = [scorer.score(form, prompt=PROMPT, fps=1.0).reward for form in forms]
    assert rewards == pytest.approx([rewards[0]] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"think": "maybe"}, "think expected one of on, off or null, found 'maybe'"),
        ({"samples": 0}, "samples must be positive, got 0"),
        ({"samples": 2, "temperature": 0}, "all the same"),
        ({"samples": 2, "think": "off"}, "one sample only"),
        ({"temperature": -1.0}, "temperature must not be negative, got -1.0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"max_chain_tokens": 0}, "max_chain_tokens must be positive, got 0"),
        ({"max_chain_tokens": 9000}, "reads 8192 tokens in all"),
    ],
)
def test_options_that_cannot_be_used(scorer, options, message):
    with pytest.raises(ConfigError, match=message):
        scorer.score(noise_clip(0), prompt=PROMPT, **options)


def test_a_prompt_that_leaves_no_room_fails_alone(scorer):
    prompts = [PROMPT, "and then " * 3000, "a blue box"]
    first, long, last = scorer.score_each((noise_clip(0), prompt) for prompt in prompts)
    assert isinstance(long, VideoError)
    assert "the chain up to 12; micro reads 8192 in all: shorten the prompt" in long.reason
    assert [first.reward, last.reward] == pytest.approx(
        [scorer.score(noise_clip(0), prompt=prompt).reward for prompt in (prompts[0], prompts[2])], abs=1e-5
    )


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(scorer, prompt):
    with pytest.raises(ConfigError, match="the prompt is empty"):
        scorer.score_batch([Request(video=noise_clip(0), prompt=prompt)])


def test_a_head_that_was_never_trained_says_so():
    with pytest.warns(UserWarning, match="never trained"):
        Scorer(build_micro(), name="fresh")


def test_named_dimensions_have_a_reward_each_and_a_mean():
    model = build_micro(dimensions=("quality", "motion"))
    with warnings.catch_warnings(action="ignore"):
        result = Scorer(model, name="two").score(noise_clip(0), prompt=PROMPT)
    assert list(result.rewards) == ["quality", "motion"]
    assert result.reward == pytest.approx(np.mean(list(result.rewards.values())))
    assert result.score is None


def test_a_reward_that_is_not_finite_is_no_score():
    model = build_micro()
    with torch.no_grad():
        model.head.weight.fill_(torch.inf)
    with warnings.catch_warnings(action="ignore"):
        scorer = Scorer(model, name="broken")
    [result] = scorer.score_each([(noise_clip(0), PROMPT)])
    assert isinstance(result, VideoError)
    assert "broken gives no finite reward" in str(result)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    build_micro().save_pretrained(tmp_path / "micro")
    with pytest.raises(ConfigError, match="device 'cuda:9' cannot be used here"):
        Scorer.from_pretrained(tmp_path / "micro", device="cuda:9")
