"""The recipe of the bundled model: what tokens are labelled with, what has a loss, and that the whole recipe runs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from experiments.grow_tiny.lessons import NO_CLIP, ChainItemCollator, compare
from experiments.grow_tiny.optimizer import split_weights
from experiments.grow_tiny.token_truth import CLASSES, UNKNOWN, of_drawn, of_footage
from tests.experiments.test_footage import films, store  # noqa: F401  # fixtures

from descore.model.modeling import DescoreModel
from descore.synthetic.generators import Flaw
from descore.synthetic.scene import ATTRIBUTES, Style
from descore.synthetic.splits import Split, draw_plan, plan_example


@pytest.fixture(scope="module")
def tiny():
    return DescoreModel.from_pretrained("tiny", device="cpu")


def plans(**conditions):
    for index in range(200):
        plan = plan_example(Split.TRAIN, index)
        if all(getattr(plan.shown, name) is value for name, value in conditions.items()):
            yield plan


def test_each_token_of_a_drawn_clip_is_labelled():
    """128x128 pixels and 8 frames: 4 pairs of frames, 4 x 4 tokens in each."""
    for plan in list(plans())[:20]:
        truth = of_drawn(plan, 128)
        assert {len(label_V) for label_V in truth.labels.values()} == {64}
        for name, label_V in truth.labels.items():
            assert set(label_V.tolist()) <= {UNKNOWN, *range(CLASSES[name])}
        assert truth.labels["setting"][0] == list(ATTRIBUTES["setting"]).index(plan.shown.setting)
        assert truth.cover_VC.min() >= 0
        assert truth.cover_VC.max() <= 1
        assert (truth.flaws_N > 0).sum() == len({flaw.name for flaw in plan.flaws})


def test_tokens_without_a_thing_have_no_shape():
    plan = next(plans())
    truth = of_drawn(plan, 128)
    empty_V = truth.cover_VC.sum(axis=1) == 0
    assert empty_V.any()
    assert (truth.labels["shape"][empty_V] == UNKNOWN).all()
    assert np.isnan(truth.motion_V5[empty_V, :2]).all()


def test_a_grey_clip_has_no_colour():
    truth = of_drawn(next(plans(style=Style.GREY)), 128)
    assert (truth.labels["colour"] == UNKNOWN).all()


def test_footage_has_its_flaws_and_setting_alone():
    clip = draw_plan(next(plans()), size=(128, 128)).clip
    truth = of_footage(clip, (Flaw(name="blur", strength=0.3),))
    known = {name for name, label_V in truth.labels.items() if (label_V != UNKNOWN).any()}
    assert known == {"setting"}
    assert truth.labels["setting"].tolist() == [len(ATTRIBUTES["setting"])] * 64
    assert truth.flaws_N.max() == pytest.approx(0.3)
    assert np.isnan(truth.cover_VC).all()


def test_the_given_beginning_has_no_loss(tiny):
    item = compare(1)
    assert item.clip is NO_CLIP
    batch = ChainItemCollator(tiny.chat)([item])
    learned = batch["input_ids"][0][batch["chain_mask"][0]]
    assert tiny.chat.tokenizer.decode(learned, skip_special_tokens=True) == item.chain.removeprefix(item.given)


def test_only_matrices_of_blocks_go_to_muon(tiny):
    named = list(tiny.backbone.named_parameters())
    matrices, others = split_weights(named)
    assert len(matrices) + len(others) == len(named)
    assert all(weight.ndim == 2 for weight in matrices)
    embedding = tiny.backbone.get_input_embeddings().weight
    assert any(weight is embedding for weight in others)


@pytest.mark.slow
def test_the_recipe_runs_and_records_its_lessons(store, tmp_path):  # noqa: F811
    sizes = {"see-steps": 1, "look-steps": 2, "judge-steps": 2, "prefer-steps": 1}
    sizes |= {"batch": 2, "pair-batch": 2, "calibration-clips": 4}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    command = [sys.executable, "-m", "experiments.grow_tiny.grow", "--footage", str(store.folder)]
    subprocess.run([*command, "--out", str(tmp_path / "tiny"), *options], check=True)
    record = json.loads((tmp_path / "tiny" / "record.json").read_text(encoding="utf-8"))
    assert list(record["curves"]) == ["see", "look", "judge", "prefer"]
    model = DescoreModel.from_pretrained(tmp_path / "tiny" / "model", device="cpu")
    assert model.settings.reward_std["overall"] > 0
    assert (tmp_path / "tiny" / "chains").is_dir()
