"""A model that was trained without chains says so, scores at once, and is refused where a chain would be read."""

import json

import pytest

from descore import Scorer
from descore.errors import CheckpointError, ConfigError
from descore.evaluation.judges import ModelJudge
from descore.model.modeling import DescoreModel
from descore.scorer import SamplingParams
from tests.conftest import build_micro, noise_clip

PROMPT = "a red ball"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The micro model as the cold start writes it with data.chain_drop 1."""
    model = build_micro()
    model.settings = model.settings.model_copy(update={"paradigm": "discriminative", "trained_on": "a test"})
    path = tmp_path_factory.mktemp("discriminative") / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return Scorer.from_pretrained(folder, device="cpu")


def test_it_scores_at_once_by_itself(scorer, micro):
    result = scorer.score(noise_clip(0), prompt=PROMPT)
    same = Scorer(micro, name="micro").score(noise_clip(0), prompt=PROMPT, think="off")
    assert result.reward == same.reward
    assert (result.thinking, result.verdict, result.typical.flaw) == ("", None, None)
    assert scorer.score(noise_clip(0), prompt=PROMPT, think="off").reward == same.reward


def test_a_chain_before_its_reward_is_refused(scorer):
    with pytest.raises(ConfigError, match="trained without chains: it cannot score with think on"):
        scorer.score(noise_clip(0), prompt=PROMPT, think="on")
    with pytest.raises(ConfigError, match="without thinking there is one sample only"):
        scorer.score(noise_clip(0), prompt=PROMPT, samples=2)


def test_others_think_by_themselves(micro):
    score = Scorer(micro, name="micro").score
    clip = noise_clip(0)
    assert score(clip, prompt=PROMPT).thinking == score(clip, prompt=PROMPT, think="on").thinking != ""


def test_a_run_of_it_says_what_it_is(scorer, folder):
    config = ModelJudge(scorer=replace_name(scorer, folder), sampling_params=SamplingParams()).config
    assert (config["paradigm"], config["think"]) == ("discriminative", "off")
    with pytest.raises(ConfigError, match="trained without chains"):
        ModelJudge(scorer=scorer, sampling_params=SamplingParams(think="on"))


def replace_name(scorer, folder):
    return Scorer(scorer.model, name=str(folder))


def test_what_it_is_survives_and_is_not_changed_by_opening(folder, micro, tmp_path):
    assert json.loads((folder / "descore.json").read_text())["paradigm"] == "discriminative"
    DescoreModel.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "again")
    assert DescoreModel.from_pretrained(tmp_path / "again", device="cpu").settings.paradigm == "discriminative"
    assert DescoreModel.from_pretrained(folder, paradigm="discriminative", device="cpu").head.weight.shape == (1, 64)
    with pytest.raises(CheckpointError, match=r"is discriminative: .* open it as it is, or train it on"):
        DescoreModel.from_pretrained(folder, paradigm="descore", device="cpu")
    micro.save_pretrained(tmp_path / "micro")
    with pytest.raises(CheckpointError, match=r"was trained with chains; .* with think off it scores"):
        DescoreModel.from_pretrained(tmp_path / "micro", paradigm="discriminative", device="cpu")


def test_it_may_write_for_itself_as_generative(folder):
    model = DescoreModel.from_pretrained(folder, paradigm="generative", device="cpu")
    assert (model.settings.paradigm, model.head.weight.shape) == ("generative", (0, 64))
