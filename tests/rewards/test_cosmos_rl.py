"""cosmos-rl's adapter, called as its reward service does: set up once, a request at a time, and an answer in JSON."""

import json

import pytest
import torch

from descore.errors import ConfigError
from descore.rewards.cosmos_rl import DescoreRewardHandler
from tests.rewards.conftest import PROMPTS

SETTINGS = {
    "download_path": "",
    "endpoint_url": None,
    "endpoint_api_key": None,
}  # that the service hands to each handler


def answer(handler, images, metadata):
    """A caller as the service's: the handler's answer goes through a store as JSON, which must be valid."""
    stored = json.dumps(handler.calculate_reward(images, {**metadata, "uuid": "1"}), allow_nan=False)
    return json.loads(stored)


@pytest.fixture
def images(unit_videos):
    return (unit_videos * 255).round().to(torch.uint8).transpose(1, 2)


@pytest.fixture
def handler(scorer):
    made = DescoreRewardHandler(model=scorer, **SETTINGS)
    made.set_up()
    return made


def test_a_request_of_cosmos_rl(checkpoint, images, expected):
    handler = DescoreRewardHandler(model_path=str(checkpoint), dtype="float32", device="cpu", **SETTINGS)
    handler.set_up()
    metadata = {"prompts": PROMPTS, "video_infos": [{"video_fps": 8.0}] * 3, "decode_duration": "0.10"}
    got = answer(handler, images, metadata)
    assert got["scores"]["descore_reward"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert got["scores"]["truncated"] == [1.0] * 3
    assert got["scores"]["marks"] == [None] * 3  # chains of random weights have no answer
    assert (got["type"], got["decoded_duration"]) == ("descore", "0.10")
    assert got["input_info"]["video_infos"] == [{"video_fps": 8.0}] * 3


def test_each_video_has_its_own_fps(handler, scorer, images):
    rates = [8.0, 4.0, 2.0]
    got = answer(handler, images, {"prompts": PROMPTS, "video_infos": [{"video_fps": rate} for rate in rates]})
    for index, rate in enumerate(rates):
        clip = images[index].transpose(0, 1)
        alone = scorer.score(clip, prompt=PROMPTS[index], fps=rate)
        assert got["scores"]["descore_reward"][index] == pytest.approx(alone.score, abs=1e-5)


def test_a_request_without_fps_needs_the_setting(handler, scorer, images, expected, monkeypatch):
    with pytest.raises(ConfigError, match="no video_fps in the request's video_infos; send it, or set DESCORE_FPS"):
        handler.calculate_reward(images, {"prompts": PROMPTS})
    monkeypatch.setenv("DESCORE_FPS", "8")
    other = DescoreRewardHandler(model=scorer)
    other.set_up()
    got = answer(other, images, {"prompts": PROMPTS})
    assert got["scores"]["descore_reward"] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.filterwarnings("ignore::descore.errors.DescoreWarning")
def test_a_failed_clip_is_null(handler, images):
    prompts = [PROMPTS[0], "and then " * 3000, PROMPTS[2]]
    got = answer(handler, images, {"prompts": prompts, "video_infos": [{"video_fps": 8}] * 3})
    assert [value is None for value in got["scores"]["descore_reward"]] == [False, True, False]


def test_a_handler_without_its_model(images):
    with pytest.raises(ConfigError, match=r"call set_up\(\) first"):
        DescoreRewardHandler(model_path="tiny").calculate_reward(images, {"prompts": PROMPTS})
    with pytest.raises(ConfigError, match="no model is given"):
        DescoreRewardHandler(**SETTINGS).set_up()


def test_cosmos_rls_own_classes_are_used_where_they_are(scorer, beside_trainer):
    registered = {}

    class BaseRewardHandler:
        def __init__(self):
            self.score_pool = None

    class RewardRegistry:
        @classmethod
        def register(cls):
            return lambda handler: registered.setdefault(handler.reward_name, handler)

    beside_trainer(
        "descore.rewards.cosmos_rl",
        cosmos_rl_reward__handler__reward_base=[BaseRewardHandler],
        cosmos_rl_reward__handler__registry=[RewardRegistry],
    )
    handler = registered["descore"](model=scorer, **SETTINGS)
    assert isinstance(handler, BaseRewardHandler)
    assert handler.score_pool is None
