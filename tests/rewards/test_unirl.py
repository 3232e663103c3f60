"""UniRL's adapter, called as its RewardService does, with and without UniRL's own classes."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from descore.errors import ConfigError, DescoreWarning
from descore.rewards.unirl import DescoreRewardBackend
from descore.types import DIMENSIONS
from tests.rewards.conftest import PROMPTS
from tests.rewards.test_function import scored

pytestmark = pytest.mark.filterwarnings("ignore::descore.errors.DescoreWarning")


@dataclass
class Request:
    """What the adapter sees of UniRL's RewardRequest."""

    videos: list | None
    prompts: list
    metadata: list | None = None
    group_ids: list = field(default_factory=list)


def score_and_attach(backend, request):
    """A caller as UniRL's RewardService: failed samples stop the step."""
    assert backend.preferred_input_kind == "video"
    assert backend.is_available()
    response = backend.compute_rewards(request)
    flags = zip(response.successes, response.errors, strict=True)
    failed = [(index, error) for index, (success, error) in enumerate(flags) if not success]
    if failed:
        raise RuntimeError(f"Reward computation flagged {len(failed)}: {failed}")
    components = {name: torch.tensor(values) for name, values in response.component_rewards.items()}
    return torch.tensor(response.rewards, dtype=torch.float32), components


@pytest.fixture
def videos(unit_videos):
    return [video.permute(1, 0, 2, 3).contiguous() for video in unit_videos]


def test_a_step_of_unirl(scorer, videos, expected):
    backend = DescoreRewardBackend(model=scorer, fps=8, base_device="cpu")
    rewards, components = score_and_attach(backend, Request(videos, PROMPTS, group_ids=["g"] * 3))
    assert rewards.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert components["reward"].tolist() == rewards.tolist()
    assert backend.get_model_name() == "descore"
    for switch in (backend.offload, backend.onload, backend.dispose):
        switch()


def test_components_are_numbers_that_add_up(scorer, videos, monkeypatch):
    marks = {**dict.fromkeys(DIMENSIONS, 2), "camera": None}
    monkeypatch.setattr(scorer, "score_each", lambda requests, **_: iter([scored(marks)] * len(requests)))
    weights = {"reward": 2.0, "marks.camera": 1.0, "marks.style": 0.5}
    response = DescoreRewardBackend(model=scorer, fps=8, weights=weights).compute_rewards(Request(videos, PROMPTS))
    expected = {"reward": 0.25, "marks.camera": 0.0, "marks.style": 1.0}  # (1 - .5) / 2; the camera is not asked for
    assert response.component_rewards == {name: [value] * 3 for name, value in expected.items()}
    assert response.rewards == [1.0] * 3


def test_clips_of_unlike_length(scorer, videos):
    short = videos[0][:, :3]
    backend = DescoreRewardBackend(model=scorer, fps=8)
    both = backend.compute_rewards(Request([short, videos[1]], PROMPTS[:2])).rewards
    alone = backend.compute_rewards(Request([short], PROMPTS[:1])).rewards
    assert both[0] == pytest.approx(alone[0], abs=1e-5)


def test_a_failed_clip_stops_the_step_by_name(scorer, broken_videos, expected):
    request = Request([video.transpose(0, 1) for video in broken_videos], PROMPTS)
    backend = DescoreRewardBackend(model=scorer, fps=8)
    with pytest.raises(
        RuntimeError, match=r"flagged 1: \[\(1, 'videos\[1\]: frames with values that are not finite'\)\]"
    ):
        score_and_attach(backend, request)
    with pytest.warns(DescoreWarning):
        response = backend.compute_rewards(request)
    assert response.successes == [True, False, True]
    assert math.isnan(response.rewards[1])
    assert response.rewards[::2] == pytest.approx(expected[::2].tolist(), abs=1e-5)
    assert response.errors[::2] == [None, None]
    assert math.isnan(response.component_rewards["reward"][1])


def test_unirls_settings_are_checked(scorer):
    with pytest.raises(ConfigError, match=r"write fps=16 below _target_: descore\.rewards\.unirl"):
        DescoreRewardBackend(model=scorer)
    with pytest.raises(ConfigError, match="the request has no videos"):
        DescoreRewardBackend(model=scorer, fps=8).compute_rewards(Request(None, PROMPTS))


def test_unirls_own_classes_are_used_where_they_are(scorer, videos, expected, beside_trainer):
    class RewardBackend:
        input_kind = "image"

        def __init__(self, model_name="", batch_size=8, timeout=60.0, **others):
            self.own = (model_name, batch_size, timeout, others)

        @property
        def preferred_input_kind(self):
            return self.input_kind

    @dataclass
    class RewardResponse:
        rewards: list
        component_rewards: dict
        successes: list
        errors: list
        compute_time: float

    module = beside_trainer(
        "descore.rewards.unirl", unirl__reward__base=[RewardBackend], unirl__types__reward=[RewardResponse]
    )
    fresh = module["DescoreRewardBackend"]
    backend = fresh(model=scorer, fps=8, batch_size=4)
    assert isinstance(backend, RewardBackend)
    assert backend.own == ("descore", 4, 60.0, {})
    assert isinstance(backend.compute_rewards(Request(videos, PROMPTS)), RewardResponse)
    rewards, _ = score_and_attach(backend, Request(videos, PROMPTS))
    assert rewards.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
