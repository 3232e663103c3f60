"""The recipe of the bundled model: what tokens are labelled with, what has a loss, and that the whole recipe runs."""

import json
import sys

import numpy as np
import pytest
import torch
from experiments.footage.cutouts import CutOuts, moving_cut_out
from experiments.grow_tiny import grow, vision
from experiments.grow_tiny.lessons import NO_CLIP, ChainItemCollator, compare
from experiments.grow_tiny.meanings import MEANING
from experiments.grow_tiny.optimizer import split_weights
from experiments.grow_tiny.teacher import Teacher
from experiments.grow_tiny.token_truth import (
    CLASSES,
    UNKNOWN,
    Harmed,
    of_cut_out,
    of_drawn,
    of_real,
    strengths,
)
from tests.experiments.test_footage import films, store  # noqa: F401  # fixtures
from tests.experiments.test_generated import source  # noqa: F401  # a fixture
from tests.experiments.test_generated import store as generated  # noqa: F401  # a fixture
from tests.experiments.test_teacher import random_weights
from tests.experiments.test_views import letters

from descore.model.modeling import DescoreModel
from descore.synthetic.generators import Flaw
from descore.synthetic.scene import ATTRIBUTES, Style
from descore.synthetic.splits import Split, corpus, draw_plan, plan_example


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
    flaws_N = strengths((Flaw(name="blur", strength=0.3),))
    truth = of_real(Harmed(frames_THWC=clip.frames, flaws_N=flaws_N, known=False), np.arange(8))
    known = {name for name, label_V in truth.labels.items() if (label_V != UNKNOWN).any()}
    assert known == {"setting"}
    assert truth.labels["setting"].tolist() == [len(ATTRIBUTES["setting"])] * 64
    assert np.nanmax(truth.flaws_N) == pytest.approx(0.3)
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


@pytest.fixture
def cut_outs(store):  # noqa: F811
    """Nine discs in the store of footage, of which one is for testing."""
    y_HW, x_HW = np.mgrid[-1:1:90j, -1:1:90j]
    rgba_HW4 = np.full((90, 90, 4), 200, np.uint8)
    rgba_HW4[..., 3] = 255 * (x_HW**2 + y_HW**2 < 0.9)
    np.save(store.folder / "cutouts.npy", np.tile(rgba_HW4.ravel(), 9))
    rows = [{"name": "a ball", "at": n * rgba_HW4.size, "width": 90, "height": 90} for n in range(9)]
    (store.folder / "cutouts.json").write_text(json.dumps(rows), encoding="utf-8")
    return CutOuts(store.folder)


def test_a_cut_out_is_where_it_is_said_to_be(cut_outs):
    """Over a still ground all that changes from frame to frame is under its cover, and it moves its way."""
    ground = draw_plan(next(plans()), size=(96, 96)).clip
    for seed in range(12):
        laid = moving_cut_out(cut_outs, ground, rng=np.random.default_rng(seed))
        if not laid.still:
            continue
        change_THW = np.abs(np.diff(laid.clip.frames.astype(int), axis=0)).max(axis=3)
        assert not change_THW[(laid.cover_THW[1:] == 0) & (laid.cover_THW[:-1] == 0)].any()
        truth = of_cut_out(laid, Harmed(frames_THWC=laid.clip.frames, flaws_N=strengths(())), np.arange(8))
        assert set(truth.labels["way"]) <= {UNKNOWN, laid.way}
        assert (truth.labels["way"] == laid.way).any()
        assert truth.labels["camera"].tolist() == [0] * 36


@pytest.fixture
def quick(monkeypatch):
    """A teacher of random weights, few texts for the tokenizer, and few first views."""
    monkeypatch.setattr(grow.Teacher, "open", lambda _: Teacher(random_weights()))
    monkeypatch.setattr(grow, "released_weights", lambda _: random_weights())
    monkeypatch.setattr(grow, "FOOTAGE_PROMPTS", 4)
    monkeypatch.setattr(grow, "corpus", lambda _: corpus(200))
    monkeypatch.setattr(vision, "FIRST_VIEWS", 8)


class MiniLm:
    """Stands for the sentence encoder: vectors by the letters of a text."""

    def __init__(self, _):
        pass

    def common_words(self, count):
        return ["harbour", "corgi"][:count]

    def embed(self, texts):
        return torch.nn.functional.pad(letters(texts), (0, MEANING - 8))


@pytest.mark.slow
@pytest.mark.usefixtures("cut_outs", "quick")
def test_the_recipe_runs_resumes_and_records(store, generated, tmp_path, monkeypatch):  # noqa: F811
    """All lessons, at one or two updates each; a second run finds all of them done and writes the same model."""
    monkeypatch.setattr(grow, "MiniLm", MiniLm)
    sizes = {"see-steps": 1, "read-steps": 1, "look-steps": 2, "judge-steps": 2, "prefer-steps": 1}
    sizes |= {"batch": 2, "read-batch": 4, "pair-batch": 2, "calibration-clips": 4}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    stores = ["--footage", str(store.folder), "--generated", str(generated.folder)]
    monkeypatch.setattr(sys, "argv", ["grow", *stores, "--out", str(tmp_path / "tiny"), *options])
    grow.main()
    record = json.loads((tmp_path / "tiny" / "record.json").read_text(encoding="utf-8"))
    assert list(record["curves"]) == ["see", "read", "look", "judge", "prefer"]
    assert [record["curves"][name][-1]["step"] for name in ("see", "read", "look")] == [1, 1, 2]
    assert all(np.isfinite(record["curves"][name][-1]["loss"]) for name in ("see", "read", "look"))
    model = DescoreModel.from_pretrained(tmp_path / "tiny" / "model", device="cpu")
    start = DescoreModel.from_pretrained(tmp_path / "tiny" / "start", device="cpu").backbone
    eyes_and_words = [name for name, _ in start.named_parameters() if "visual" in name or "embed_tokens" in name]
    for name in eyes_and_words:
        left = torch.equal(model.backbone.get_parameter(name), start.get_parameter(name).to(torch.bfloat16).float())
        assert left is (".merger." not in name), name
    assert model.settings.reward_std["overall"] > 0
    assert sum(weight.numel() for weight in model.parameters()) <= 20e6
    assert sum(file.stat().st_size for file in (tmp_path / "tiny" / "model").iterdir()) <= 45e6
    weights = (tmp_path / "tiny" / "model" / "model.safetensors").read_bytes()
    grow.main()
    assert (tmp_path / "tiny" / "model" / "model.safetensors").read_bytes() == weights
