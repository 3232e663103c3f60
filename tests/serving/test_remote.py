"""`RewardFunction` of a client: the values, terms and failures of the model in this process."""

import warnings

import httpx2
import pytest
import torch

import descore
from descore import RewardFunction
from descore.errors import ConfigError, DescoreWarning
from descore.rewards.differentiable import DifferentiableReward
from descore.rewards.monitor import RewardMonitor
from descore.serving.problems import ServiceError
from descore.serving.remote import ServedScorer
from tests.serving.conftest import URL

PROMPTS = ["a red star moves to the left", "a blue square stands still", "a red star moves to the left"]


@pytest.fixture(scope="module")
def model():
    return descore.Scorer.from_pretrained("tiny")


@pytest.fixture
def remote(serving, model):
    app = serving(models={"tiny": model})
    with descore.Client(URL, transport=app._transport) as client:
        yield client


@pytest.fixture(scope="module")
def videos():
    """Floats, which are scaled before the model sees them."""
    return torch.rand(3, 9, 3, 72, 104, generator=torch.Generator().manual_seed(5))


def rewards_of(source, videos, **options):
    function = RewardFunction(source, fps=4, range=(0, 1), max_chain_tokens=24, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DescoreWarning)
        return function(videos=videos, prompts=PROMPTS)


@pytest.mark.slow
def test_rewards_and_terms_are_those_of_the_model(remote, model, videos):
    options = {"samples": 2, "seed": 3, "weights": {"reward": 1, "length": -0.5, "truncated": 0.1}}
    there, here = (rewards_of(source, videos, monitor=RewardMonitor(), **options) for source in (remote, model))
    torch.testing.assert_close(there.rewards, here.rewards, atol=1e-5, rtol=0, equal_nan=True)
    assert there.terms.keys() == here.terms.keys()
    for name, values in here.terms.items():
        torch.testing.assert_close(there.terms[name], values, atol=1e-5, rtol=0, equal_nan=True)
    assert [s.completions[1].token_ids for s in there.scores] == [list(s.completions[1].token_ids) for s in here.scores]
    assert [s.completions[0].verdict for s in there.scores] == [s.completions[0].verdict for s in here.scores]


@pytest.mark.slow
def test_rewards_without_chains_are_those_of_the_model(remote, model, videos):
    there, here = (rewards_of(source, videos, think="off", normalize="running") for source in (remote, model))
    torch.testing.assert_close(there.rewards, here.rewards, atol=1e-5, rtol=0)


def test_a_clip_that_fails_is_nan_and_the_others_go_on(remote, videos):
    listed = [videos[0], b"no video", videos[2]]
    rewards = rewards_of(remote, listed, think="off").rewards
    assert torch.isnan(rewards).tolist() == [False, True, False]
    with pytest.raises(descore.VideoError):
        rewards_of(remote, listed, think="off", on_error="raise")


def test_a_server_that_does_not_answer_is_an_error_of_each_clip(remote, videos):
    function = RewardFunction(remote, fps=4, range=(0, 1))
    remote._http = httpx2.Client(base_url="http://127.0.0.1:9")
    with pytest.warns(DescoreWarning, match="3 of 3 clips have no reward, first http"):
        rewards = function(videos=videos, prompts=PROMPTS)
    assert torch.isnan(rewards.rewards).all()
    assert all(isinstance(fault, ServiceError) for fault in rewards.scores)


def test_what_a_server_cannot_give_is_one_line(remote):
    with pytest.raises(ConfigError, match="leave them out"):
        RewardFunction(remote, device="cpu")
    with pytest.raises(ConfigError, match="has no weights here"):
        DifferentiableReward(remote, fps=4)
    remote.model = "other"
    with pytest.raises(ConfigError, match="no model 'other'; it has tiny"):
        RewardFunction(remote)
    assert isinstance(remote.open_scorer(), ServedScorer)
