"""The generator study's check of its rewards, and its plan."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from experiments.generator import judge, reward_check, run, tune, tuning, world_pairs
from experiments.generator.rewards import open_rewards
from experiments.generator.world import Part, ask

from descore.data.schema import read_pairs
from descore.rubric import read_answer
from descore.scorer import Scorer
from descore.synthetic.scene import is_held_out
from descore.training.config import ColdStartConfig
from descore.training.config_file import read_config


def test_shares_by_hand():
    """The right clip scores 1; equal rewards count half, and a missing one is left out."""
    shares = reward_check._shares(np.array([[1, 0, 2, 1, math.nan, 0], [1, 0, 0, 1, 0, 0]]))
    assert {change: share["value"] for change, share in shares.items()} == {
        "shape": 1,
        "colour": 0.5,
        "action": 0.5,
        "setting": 1,
        "picture": 1,
    }
    assert (shares["setting"]["n"], shares["setting"]["failed"]) == (1, 1)


@pytest.mark.parametrize("index", [3, 4])
def test_a_changed_clip_differs_in_what_was_changed(index):
    prompt, clips = reward_check.clips_of(index)
    asked = ask(Part.CALIBRATION, index)
    parts = {name: judge.judge(frames, asked.scene).parts for name, frames in clips.items()}
    assert prompt == asked.prompt
    for change, part in zip(reward_check.CHANGES[:-1], ("shape", "colour", "motion", "setting"), strict=True):
        wrong = {name for name in ("shape", "colour", "motion", "setting") if parts[change][name] < 1}
        assert wrong == {part}
    assert parts["picture"]["picture"] < parts["right"]["picture"]
    assert all(parts["right"][name] == 1 for name in ("shape", "colour", "motion", "setting"))


def test_a_random_reward_is_right_half_of_the_time(monkeypatch):
    monkeypatch.setattr(reward_check, "clips_of", lambda _: ("", dict.fromkeys(["right", *reward_check.CHANGES])))
    record = reward_check.check(["random"], pairs=200)
    assert np.mean([share["value"] for share in record["right"]["random"].values()]) == pytest.approx(0.5, abs=0.05)
    assert "| random |" in reward_check.table(record)


# Pairs to train a reward on.


def test_world_pairs_differ_and_tell_the_truth():
    pairs = [world_pairs.plan_world_pair(index) for index in range(200)]
    plans = [plan for pair in pairs for plan in pair]
    for name in world_pairs.VARIED:
        wrong = np.mean([getattr(plan.shown, name) is not getattr(plan.asked, name) for plan in plans])
        assert 0.2 < wrong < 0.4
    assert not any(is_held_out(plan.shown) for plan in plans)
    assert all(read_answer(plan.chain).marks == plan.verdict.marks for plan in plans[:20])
    differ = [
        sum(getattr(a.shown, name) is not getattr(b.shown, name) for name in world_pairs.VARIED) + (a.flaws != b.flaws)
        for a, b in pairs
    ]
    assert np.mean(np.asarray(differ) <= 1) > 0.4  # half of the pairs, and chance
    better = [a.verdict.overall > b.verdict.overall for a, b in pairs if a.verdict.overall != b.verdict.overall]
    assert 0.35 < np.mean(better) < 0.65  # neither side is the better one


def test_world_pairs_are_a_table_to_train_on(tmp_path):
    world_pairs.write_world_pairs(count=2, out=tmp_path)
    rows = list(read_pairs(tmp_path / "pairs.csv"))
    assert [row.prompt for row in rows] == [world_pairs.plan_world_pair(index)[0].prompt for index in range(2)]
    assert all(row.a.chain and row.b.marks for row in rows)
    assert all(Path(video).is_file() for row in rows for video in (row.video_a, row.video_b))
    world_pairs.write_world_pairs(count=1, first=1, out=tmp_path / "others")
    assert [row.prompt for row in read_pairs(tmp_path / "others" / "pairs.csv")] == [rows[1].prompt]


def test_siblings_are_trained_by_a_config_that_is_valid():
    settings = Path(world_pairs.__file__).with_name("sibling.yaml")
    for one in (["data.chain_drop=1"], ["data.chain_drop=0.5", "loss.chain_weight=1"]):
        read_config(settings, ColdStartConfig, overrides=[*one, "run.out=runs/sibling"])


def test_a_generative_model_which_has_no_deviation_is_a_reward(tmp_path):
    Scorer.from_pretrained("tiny", paradigm="generative").model.save_pretrained(tmp_path)
    written = open_rewards([f"written={tmp_path}"], monitored=True)["written"]
    assert written.reward.normalize == "none"
    assert open_rewards(["think"])["think"].reward.normalize == "checkpoint"


# The plan of the whole study.


def planned(*siblings, seeds=2):
    return run.steps_of(model=Path("model"), out=Path("out"), siblings=siblings, seeds=seeds)


def test_the_study_has_each_method_reward_and_seed_once():
    names = [step.name for step in planned("generative=g", "discriminative=d", seeds=1)]
    assert names == [
        "best-of",
        *("raft-think-seed0", "raft-generative-seed0", "raft-discriminative-seed0"),
        *("dpo-think-seed0", "dpo-generative-seed0", "dpo-discriminative-seed0"),
        *("grpo-think-groupwise-seed0", "grpo-think-pointwise-seed0"),
        *("grpo-generative-groupwise-seed0", "grpo-generative-pointwise-seed0"),
        *("grpo-discriminative-groupwise-seed0", "grpo-discriminative-pointwise-seed0"),
        *("refl-think-seed0", "refl-off-seed0", "refl-discriminative-seed0"),  # text has no gradient
    ]
    assert len({step.result for step in planned()}) == len(planned()) == 1 + 2 * 6
    rounds = [step for step in planned() if "--first-round" in step.command]
    assert {step.name.partition("-")[0] for step in rounds} == {"raft", "dpo"}
    assert len({step.command[step.command.index("--first-round") + 1] for step in rounds}) == 1


def test_the_studys_commands_are_those_of_their_modules():
    for step in planned("discriminative=d")[1:]:
        module, method, *options = step.command
        changes = options[options.index("--set") + 1 :]
        settings, _ = tune.METHODS[method]
        plan, settings = tune.with_changes(changes, tuning.TuningPlan(method=method, reward=""), settings)
        assert module == "tune"
        assert plan.updates == run.UPDATES[method]
        assert getattr(settings, "comparison", step.name.split("-")[2]) == step.name.split("-")[2]
        assert step.seconds > 60


def test_a_step_that_fails_ends_the_study(tmp_path, monkeypatch):
    step = run.Step(name="bad", command=("bad",), result=tmp_path / "bad", seconds=1)
    monkeypatch.setattr(run, "_command", lambda _: [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    with pytest.raises(SystemExit, match="bad: exit code 3"):
        run.run(step, out=tmp_path)
    assert (tmp_path / "logs" / "bad.log").read_text() == "why\n"
