"""DanceGRPO's adapter: VideoAlign's class, called as `train_grpo_hunyuan.py` calls it."""

import math
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from descore import RewardFunction, Scorer
from descore.errors import ConfigError, DescoreWarning
from descore.rewards.dance_grpo import VideoVLMRewardInference
from descore.types import DIMENSIONS
from tests.conftest import build_micro
from tests.rewards.test_function import scored

CLIPS = Path(str(files("descore") / "bundled" / "clips"))
CLIP, OTHER = CLIPS / "rabbit.mp4", CLIPS / "squirrel.mp4"
EVERY = dict.fromkeys(("VQ", "MQ", "TA"), "reward")


def rewards_of_a_rollout(inferencer, paths, prompts):
    """A caller as DanceGRPO's: one clip at a time, and -1 for whatever raises."""
    rows = []
    for path, prompt in zip(paths, prompts, strict=True):
        try:
            with torch.no_grad():
                [row] = inferencer.reward([str(path)], [prompt], use_norm=True)
                rows.append((torch.tensor(row["VQ"]), torch.tensor(row["MQ"])))
        except Exception:  # noqa: BLE001  # as the trainer does
            rows.append((torch.tensor(-1.0), torch.tensor(-1.0)))
    return [[float(value) for value in row] for row in rows]


def several(names):
    model = build_micro(dimensions=names)
    means = {"reward_mean": dict.fromkeys(names, 1.0), "reward_std": dict.fromkeys(names, 2.0), "trained_on": "a test"}
    model.settings = model.settings.model_copy(update=means)
    return Scorer(model, name="several", batch_size=2)


def test_the_heads_dimensions_are_videoaligns():
    scorer = several(("TA", "VQ", "MQ"))
    inferencer = VideoVLMRewardInference(model=scorer, device="cpu", dtype=torch.bfloat16)
    score = scorer.score(CLIP, prompt="a rabbit")
    [[visual, motion]] = rewards_of_a_rollout(inferencer, [CLIP], ["a rabbit"])
    assert visual == pytest.approx((score.rewards["VQ"] - 1) / 2, abs=1e-5)
    assert motion == pytest.approx((score.rewards["MQ"] - 1) / 2, abs=1e-5)
    [raw] = inferencer.reward([CLIP], ["a rabbit"], use_norm=False)
    assert {key: raw[key] for key in ("VQ", "MQ", "TA")} == pytest.approx(score.rewards, abs=1e-5)
    assert raw["Overall"] == pytest.approx(sum(score.rewards.values()) / 3, abs=1e-5)


def test_one_reward_for_every_dimension(scorer):
    inferencer = VideoVLMRewardInference(model=scorer, device="cpu", think="off", terms=EVERY)
    rows = inferencer.reward([str(CLIP), str(OTHER)], ["a rabbit", "a squirrel"])
    expected = RewardFunction(scorer, think="off")(videos=[CLIP, OTHER], prompts=["a rabbit", "a squirrel"]).rewards
    for row, reward in zip(rows, expected.tolist(), strict=True):
        assert row == pytest.approx(dict.fromkeys(("VQ", "MQ", "TA", "Overall"), reward), abs=1e-5)


def test_marks_stand_for_dimensions_that_the_head_lacks(scorer, monkeypatch):
    marks = {**dict.fromkeys(DIMENSIONS, 2), "dynamics": 0, "style": None}
    given = [scored(marks), scored(None)]
    monkeypatch.setattr(scorer, "score_each", lambda requests, **_: iter(given[: len(requests)]))
    rows = VideoVLMRewardInference(model=scorer, device="cpu").reward([CLIP, OTHER], ["a rabbit", "a squirrel"])
    assert rows[0] == {"VQ": 0.0, "MQ": -1.0, "TA": 1.0, "Overall": (1.0 - 0.5) / 2}
    assert all(math.isnan(rows[1][key]) for key in ("VQ", "MQ", "TA"))  # no answer, hence no marks
    assert rows[1]["Overall"] == (1.0 - 0.5) / 2


def test_a_failed_clip_is_nan_and_not_minus_one(scorer, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    shutil.copy(CLIP, tmp_path / "good.mp4")
    terms = {"VQ": "reward", "MQ": "overall", "TA": "reward"}
    inferencer = VideoVLMRewardInference(model=scorer, device="cpu", terms=terms)
    with pytest.warns(DescoreWarning, match=r"bad\.mp4"):
        good, bad = rewards_of_a_rollout(inferencer, [tmp_path / "good.mp4", tmp_path / "bad.mp4"], ["a", "b"])
    assert all(map(math.isfinite, good))
    assert all(map(math.isnan, bad))
    with pytest.warns(DescoreWarning):
        [row] = inferencer.reward([tmp_path / "bad.mp4"], ["b"])
    assert all(map(math.isnan, row.values()))


def test_a_checkpoint_is_opened_by_its_folder(checkpoint, monkeypatch):
    inferencer = VideoVLMRewardInference(checkpoint, device="cpu", dtype=torch.float32)
    assert inferencer.normalized.scorer is inferencer.raw.scorer
    monkeypatch.setenv("DESCORE_MODEL", str(checkpoint))
    assert VideoVLMRewardInference(device="cpu", dtype="float32").raw.scorer is inferencer.raw.scorer


def test_videoaligns_sampling_is_ignored_aloud(scorer):
    inferencer = VideoVLMRewardInference(model=scorer, device="cpu", think="off", terms=EVERY)
    with pytest.warns(DescoreWarning, match="fps, max_pixels: frames are sampled as the checkpoint says"):
        [row] = inferencer.reward([CLIP], ["a rabbit"], fps=2, max_pixels=448 * 448)
    assert [row] == inferencer.reward([CLIP], ["a rabbit"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"load_from_pretrained_step": 300}, "load_from_pretrained_step is 300; expected -1"),
        ({"terms": {"VQ": "beauty"}}, "no VQ by the term 'beauty' of reward, overall, marks.*write such as terms="),
        ({"terms": {"XQ": "reward"}}, "no XQ by the term 'reward'"),
        (
            {"think": "off"},
            "no VQ by the term 'marks.style' of reward, overall; write such as",
        ),
    ],
)
def test_what_the_checkpoint_cannot_give(scorer, settings, message):
    with pytest.raises(ConfigError, match=message):
        VideoVLMRewardInference(model=scorer, device="cpu", **settings)
