"""Flow-Factory's adapter: a class by its path, made with its arguments, called with fields of its samples by name."""

import importlib
import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from descore.errors import ConfigError, VideoError
from tests.rewards.conftest import PROMPTS

PATH = "descore.rewards.flow_factory.DescoreRewardModel"
ACCELERATOR = SimpleNamespace(device=torch.device("cpu"))


@dataclass
class RewardArguments:
    """What the adapter sees of Flow-Factory's class of that name: keys that it does not know are in extra_kwargs."""

    reward_model: str = PATH
    batch_size: int = 16
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))  # the accelerator's own
    extra_kwargs: dict = field(default_factory=dict)


def load(config):
    module, name = config.reward_model.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(config, ACCELERATOR)


def process(model, samples, batch_size):
    """A caller as Flow-Factory's RewardProcessor: the fields that a model requires, in batches, filtered by its
    signature; media are tensors where it says so."""
    assert model.use_tensor_inputs
    rewards = []
    for start in range(0, len(samples["prompt"]), batch_size):
        fields = {name: samples[name][start : start + batch_size] for name in (*model.required_fields, "metadata")}
        signature = inspect.signature(model.__call__).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
        fields = {name: value for name, value in fields.items() if takes_all or name in signature}
        output = model(**fields)
        rewards.append(torch.as_tensor(output.rewards, dtype=torch.float32))
    return torch.cat(rewards)


def samples_of(videos):
    return {"prompt": PROMPTS, "video": list(videos), "metadata": ["{}"] * 3}


def test_a_step_of_flow_factory(checkpoint, unit_videos, expected):
    config = RewardArguments(extra_kwargs={"model": str(checkpoint), "fps": 8})
    model = load(config)
    assert (model.reward.scorer.batch_size, model.reward.scorer.model.device.type) == (16, "cpu")
    rewards = process(model, samples_of(unit_videos), batch_size=2)
    assert rewards.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_three_frames_are_frames_for_flow_factory(scorer, unit_videos):
    model = load(RewardArguments(extra_kwargs={"model": scorer, "fps": 8}))
    short = unit_videos[:, :3]
    expected = model.reward(videos=short, prompts=PROMPTS, layout="BTCHW").rewards
    assert process(model, samples_of(short), batch_size=3).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_failed_clip_is_an_error_for_flow_factory(scorer, broken_videos):
    model = load(RewardArguments(extra_kwargs={"model": scorer, "fps": 8}))
    with pytest.raises(VideoError, match=r"videos\[1\]"):
        process(model, samples_of(broken_videos), batch_size=3)
    with pytest.raises(ConfigError, match="there is no video to score"):
        model(prompt=PROMPTS, image=[torch.zeros(3, 8, 8)] * 3)
    with pytest.raises(TypeError, match="positional"):
        model(PROMPTS, list(broken_videos))


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"fps": 8}, "write model='path/to/checkpoint' below reward_model: descore"), ({"model": "tiny"}, "write fps=16")],
)
def test_flow_factorys_settings_are_checked(keys, message):
    with pytest.raises(ConfigError, match=message):
        load(RewardArguments(extra_kwargs=keys))


def test_flow_factorys_own_classes_are_used_where_they_are(scorer, unit_videos, beside_trainer):
    class PointwiseRewardModel:
        required_fields = ("image", "prompt")
        use_tensor_inputs = False

        def __init__(self, config, accelerator):
            self.config, self.device = config, accelerator.device

    @dataclass
    class RewardModelOutput:
        rewards: list
        extra_info: dict | None = None

    module = beside_trainer(
        "descore.rewards.flow_factory", flow_factory__rewards__abc=[PointwiseRewardModel, RewardModelOutput]
    )
    fresh = module["DescoreRewardModel"]
    model = fresh(RewardArguments(extra_kwargs={"model": scorer, "fps": 8}), ACCELERATOR)
    assert isinstance(model, PointwiseRewardModel)
    assert model.required_fields == ("prompt", "video")
    assert isinstance(model(prompt=PROMPTS, video=list(unit_videos)), RewardModelOutput)
