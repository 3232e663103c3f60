"""Models and features as judges: a record for every clip, and a config that tells unlike judges apart."""

import dataclasses
import shutil

import pytest
import torch
from benchmarks.measure import FORMER_TINY
from safetensors.torch import load_file, save_file
from tests.conftest import build_micro, noise_clip
from tests.evaluation.cases import clip

from descore import io
from descore.errors import VideoError
from descore.evaluation.features import FEATURES
from descore.evaluation.judges import FeatureJudge, ModelJudge, checkpoint_digest
from descore.evaluation.records import RUN_KEYS
from descore.scorer import SamplingParams, Scorer

PROMPT = "a red ball"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers") / "micro"
    model = build_micro(dimensions=("look", "motion"))
    model.settings = model.settings.model_copy(update={"trained_on": "a test"})
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judge(folder):
    return ModelJudge(scorer=Scorer.from_pretrained(str(folder), device="cpu"), sampling_params=SamplingParams())


def open_noise(name):
    if name == "gone":
        raise VideoError(name, "no such file")
    return noise_clip(int(name))


def test_a_model_gives_the_scorers_rewards_with_all_keys(judge):
    records = judge.judge([clip("0", prompt=PROMPT), clip("1", prompt=PROMPT)], open_video=open_noise)
    for name, record in zip("01", records, strict=True):
        alone = judge.scorer.score(noise_clip(int(name)), prompt=PROMPT)
        assert tuple(record) == RUN_KEYS
        assert record["video"] == name
        assert record["reward"] == pytest.approx(alone.reward, abs=1e-5)
        assert record["rewards"] == pytest.approx(alone.rewards, abs=1e-5)
        assert record["tokens"] == alone.typical.num_tokens > 0
        assert record["seconds"] > 0
        assert record["error"] is None


def test_a_large_drawn_clip_is_scaled_like_a_file(judge):
    large = noise_clip(0, width=160, height=96)
    [record] = judge.judge([clip("large", prompt=PROMPT)], open_video=lambda _: large)
    alone = judge.scorer.score(large.frames, prompt=PROMPT, fps=large.source_fps)
    assert record["reward"] == pytest.approx(alone.reward, abs=1e-5)
    assert len(record["times"]) == 4


def test_failed_clips_are_recorded_and_others_scored(judge):
    clips = [
        clip("0", prompt=PROMPT),
        clip("gone", prompt=PROMPT),
        clip("1", prompt=" "),
        clip("2", prompt="x " * 9000),
    ]
    records = judge.judge([*clips, clip("3", prompt=PROMPT)], open_video=open_noise)
    assert [record["reward"] is None for record in records] == [False, True, True, True, False]
    assert records[1]["error"] == "no such file"
    assert "prompt is empty" in records[2]["error"]
    assert "shorten the prompt" in records[3]["error"]


def test_several_samples_count_all_their_tokens(judge):
    several = dataclasses.replace(judge, sampling_params=SamplingParams(samples=3))
    [record] = several.judge([clip("0", prompt=PROMPT)], open_video=open_noise)
    assert record["std"] > 0
    alone = judge.scorer.score(noise_clip(0), prompt=PROMPT, samples=3)
    assert record["tokens"] == sum(c.num_tokens for c in alone.completions) > alone.typical.num_tokens


def test_the_config_holds_everything_rewards_depend_on(judge, folder):
    config = judge.config
    assert config["model"] == str(folder)
    assert (config["think"], config["samples"], config["temperature"]) == ("on", 1, 0.0)
    assert config["max_chain_tokens"] == 12
    assert config["precision"] == "float32"
    assert set(config["versions"]) == {"descore", "torch", "transformers", "av"}
    assert "batch_size" not in config
    off = dataclasses.replace(judge, sampling_params=SamplingParams(think="off")).config
    assert {key for key in config if config[key] != off[key]} == {"think"}


@pytest.mark.parametrize("file", ["reward_head.safetensors", "model.safetensors"])
def test_a_retrained_model_has_another_digest(folder, tmp_path, file, monkeypatch):
    copy = tmp_path / "micro"
    shutil.copytree(folder, copy)
    assert checkpoint_digest(str(copy)) == checkpoint_digest(str(folder))
    for bound, small in {"WHOLE_FILE": 1000, "BLOCK": 64}.items():  # so that weights are sampled as a large model's are
        monkeypatch.setattr(io, bound, small)
    before = checkpoint_digest(str(copy))
    weights = {name: tensor.clone() for name, tensor in load_file(copy / file).items()}
    for tensor in weights.values():
        tensor += 1e-3 * torch.ones_like(tensor)
    save_file(weights, copy / file, metadata={"format": "pt"})
    assert checkpoint_digest(str(copy)) != before


def test_runs_of_the_former_bundled_model_go_on():
    """Its config was mended for engines; its rewards are the same, see test_bundled.py."""
    assert checkpoint_digest(str(FORMER_TINY)) == "d8c6db08eda697f6"


def test_a_changed_rubric_has_another_digest(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "micro")
    (tmp_path / "micro" / "rubric.txt").write_text("Judge: {prompt}")
    assert checkpoint_digest(str(tmp_path / "micro")) != checkpoint_digest(str(folder))


def test_a_feature_gives_its_number_and_its_failures():
    judge = FeatureJudge(feature=FEATURES["jerk"])
    records = judge.judge([clip("0"), clip("gone"), clip("1")], open_video=open_noise)
    assert all(tuple(record) == RUN_KEYS for record in records)
    assert records[0]["reward"] == records[0]["rewards"]["jerk"] == FEATURES["jerk"].measure(noise_clip(0))
    assert (records[1]["reward"], records[1]["error"]) == (None, "no such file")
    assert records[2]["reward"] != records[0]["reward"]
    assert judge.config["think"] is None
    assert judge.config["digest"] != FeatureJudge(feature=FEATURES["sharpness"]).config["digest"]
