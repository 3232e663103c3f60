"""The generator study's methods: losses and measures by hand, curves of best of N, and a dry run of everything."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.generator import (
    best_of,
    by_eye,
    curves,
    diversity,
    dpo,
    flow,
    grow,
    grpo,
    judged_pairs,
    page,
    progress,
    raft,
    refl,
    rewards,
    tune,
    tuning,
)
from experiments.generator.curves import TRUTH, Group
from experiments.generator.judge import judge
from experiments.generator.sheets import write_sheet
from experiments.generator.world import ASKED, FRAMES, SIDE, Part, ask, draw, draw_backdrop

from descore.data.schema import read_pairs
from descore.data.tables import read_rows
from descore.errors import ConfigError, DataError
from descore.io import read_records
from descore.rewards import read_scored
from descore.synthetic.truth import true_chain, true_marks


def flat(level):
    return np.full((FRAMES, SIDE, SIDE, 3), level, np.uint8)


def group(reward, truth, *, prompt="p", seed=0):
    return Group(prompt=prompt, seed=seed, values={"r": np.asarray(reward, float), TRUTH: np.asarray(truth, float)})


# Best of N.


def test_the_best_of_two_of_three_by_hand():
    """Of the three pairs the highest reward is in two, the middle one is best in one, the lowest in none."""
    assert curves.chosen_weights(np.array([5.0, 1.0, 3.0]), 2).tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert curves.best_of(group([5, 1, 3], [0, 9, 6]), by="r", count=2, value=TRUTH) == pytest.approx(2)


def test_one_of_n_is_the_mean_and_n_of_n_the_best():
    clips = group([5, 1, 3], [0, 9, 6])
    assert curves.best_of(clips, by="r", count=1, value=TRUTH) == pytest.approx(5)
    assert curves.best_of(clips, by="r", count=3, value="r") == pytest.approx(5)


def test_equal_rewards_share_their_weight():
    assert curves.chosen_weights(np.array([1.0, 1.0, 0.0]), 3).tolist() == [0.5, 0.5, 0]


def test_a_clip_without_a_reward_is_chosen_last():
    assert curves.chosen_weights(np.array([np.nan, 1.0, 2.0]), 2).tolist() == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_curve_gains_prompt_by_prompt_and_names_its_peak():
    """A reward that is right up to its second best clip, and whose favourite is worthless."""
    groups = [group([1, 2, 3, 4], [0, 1, 2, 0], prompt=str(number)) for number in range(4)]
    rows = curves.curve(groups, by="r", value=TRUTH, counts=(1, 2, 4))
    assert [row["mean"]["value"] for row in rows] == pytest.approx([0.75, (0 * 3 + 2 * 2 + 1) / 6, 0])
    assert rows[1]["gain"]["value"] == pytest.approx(5 / 6 - 0.75)
    assert curves.peak(rows) == 2
    assert rows[2]["by_seed"] == {"0": 0}
    assert curves.ahead(groups, first=TRUTH, second="r", count=4).value == 2


def test_pairs_that_a_reward_orders_as_the_truth_does():
    """Of the pairs whose truths differ one is right, one has equal rewards, and one lacks a reward."""
    clips = group([1, 2, 1, np.nan], [0, 1, 1, 1])
    assert curves.ordered([clips], by="r", value=TRUTH).value == pytest.approx((1 + 0.5) / 2)
    assert curves.ordered([clips], by=TRUTH, value=TRUTH).value == 1


def test_no_pair_is_no_figure():
    assert curves.ordered([group([1, 2], [0, 0])], by="r", value=TRUTH).n == 0


# Diversity.


def test_diversity_of_pixels_by_hand():
    assert diversity.pixel_diversity([flat(7), flat(7), flat(7)]) == 0
    assert diversity.pixel_diversity([flat(0), flat(255)]) == pytest.approx(1)
    assert diversity.pixel_diversity([flat(0), flat(255), flat(255)]) == pytest.approx(2 / 3)
    assert math.isnan(diversity.pixel_diversity([flat(7)]))


def test_diversity_of_place_counts_where_shapes_are():
    """One shape moved by 16 of 64 pixels: each is 8, or .125, from their mean."""
    frames = draw(Part.CALIBRATION, 0).frames
    background = np.median(frames, axis=(0, 1, 2)).astype(np.uint8)
    here = np.where(np.arange(SIDE)[:, None] < SIDE, background, frames)
    here[:, 20:32, 10:22] = (255, 135, 0)
    there = np.broadcast_to(background, frames.shape).copy()
    there[:, 20:32, 26:38] = (255, 135, 0)
    assert diversity.place_diversity([here, there]) == pytest.approx(0.125, abs=0.005)
    assert math.isnan(diversity.place_diversity([here, flat(7)]))


def test_diversities_are_means_over_prompts():
    """Of the two prompts one has black and white clips, and one has three of one grey and no shape in any."""
    groups = [[flat(0), flat(255)], [flat(7)] * 3]
    found = diversity.diversities(groups, [[True, False], [True, True, False]])
    assert found["pixels"] == pytest.approx(0.5)
    assert found["same_setting"] == 0  # the first prompt has one such clip only
    assert math.isnan(found["place"])


# Progress of runs.


def tuned(*, truth, reward, kl, seconds=None, name="run", seed=0):
    """A run whose looks have four clips of four prompts, all of one truth."""
    looks = [
        {
            "update": 10 * number,
            "overall": [truth[number]] * 4,
            "prompts": list("abcd"),
            "rewards": {"off": reward[number], "think": 0.0},
            "kl": kl[number],
            "seconds": {"generation": (seconds or kl)[number], "reward": 0.0},
            "marks": {},
            "diversity": {"pixels": 0.4 - 0.1 * number},
        }
        for number in range(len(truth))
    ]
    return progress.TunedRun(name=name, reward="off", plan={"name": name[:4], "seed": seed}, looks=looks)


def test_a_run_has_turned_where_reward_rises_and_truth_falls():
    runs = [
        tuned(name="hacked", truth=[0.3, 0.5, 0.4], reward=[0, 1, 2], kl=[0, 1, 2]),
        tuned(name="sound", truth=[0.3, 0.5, 0.6], reward=[0, 1, 2], kl=[0, 1, 2]),
        tuned(name="worse all over", truth=[0.3, 0.5, 0.4], reward=[0, 2, 1], kl=[0, 1, 2]),
    ]
    found = progress.findings(runs)["runs"]
    assert {name: of["turned"] for name, of in found.items()} == {
        "hacked": True,
        "sound": False,
        "worse all over": False,
    }
    assert found["hacked"]["best"]["update"] == 10
    assert found["hacked"]["gain"]["value"] == pytest.approx(0.2)
    assert found["hacked"]["loss"]["value"] == pytest.approx(-0.1)


def test_truth_at_equal_divergence_lies_between_looks():
    """Divergences 0, 2, 1, 4 count as 0, 2, 2, 4: at 3 it is half way from the third look to the fourth."""
    run = tuned(truth=[0.2, 0.4, 0.5, 0.7], reward=[0] * 4, kl=[0, 2, 1, 4])
    assert [progress.truth_at(run, "kl", value) for value in (0, 1, 2, 3)] == pytest.approx([0.2, 0.3, 0.4, 0.6])
    assert math.isnan(progress.truth_at(run, "kl", 5))


def test_runs_are_compared_as_far_as_all_have_come():
    short = tuned(name="short", truth=[0.2, 0.4], reward=[0, 1], kl=[0, 2], seconds=[0, 100])
    far = tuned(name="far", truth=[0.2, 0.6], reward=[0, 1], kl=[0, 4], seconds=[0, 50])
    record = progress.findings([short, far])
    assert record["at"]["kl"]["2"] == pytest.approx({"short": 0.4, "far": 0.4})
    assert record["at"]["seconds"]["50"] == pytest.approx({"short": 0.3, "far": 0.6})
    assert "truth at kl" in progress.tables(record)
    assert "| 100 | 0% |" in progress.tables(record)  # 100 seconds, none of them the reward's


def test_runs_of_several_seeds_are_taken_together():
    runs = [
        tuned(name="hack-seed0", truth=[0.3, 0.5, 0.4], reward=[0, 1, 2], kl=[0, 1, 2]),
        tuned(name="hack-seed1", truth=[0.3, 0.7], reward=[0, 3], kl=[0, 3], seed=1),
        tuned(name="other", truth=[0.3, 0.3], reward=[0, 0], kl=[0, 1]),
    ]
    seeds = progress.findings(runs)["seeds"]
    assert {name: of["runs"] for name, of in seeds.items()} == {"hack": 2, "other": 1}
    start, look = seeds["hack"]["looks"]  # the second seed has not come to a third look
    assert start["change"]["value"] == 0
    assert look["step"] == look["change"]
    last = progress.together(runs[:1])[2]
    assert (last["change"].value, last["step"].value) == pytest.approx((0.1, -0.1))
    assert look["change"] == {**look["change"], "value": pytest.approx(0.3), "low": pytest.approx(0.3), "n": 8}
    assert (look["truth"], look["reward"], look["kl"]) == pytest.approx((0.6, 2, 2))
    assert (
        "| hack | 2 | 10 | 0.600 | +0.300 [+0.300, +0.300] | +0.300 [+0.300, +0.300] | 2.00 | 2 | -25% |"
        in progress.tables(progress.findings(runs))
    )


def test_a_chart_places_points_by_their_value():
    """Values 0, 1 and 2 are at the lower edge, in the middle and at the upper edge; what is no number is left out."""
    drawn = page.chart([page.Line(name="<b>", values=[0, 1, math.nan, 2])], places=list("abcd"), title="t", axis="x")
    low, high = page.HEIGHT - page.BOTTOM, page.TOP
    assert re.findall(r'cy="([\d.]+)"', drawn) == [f"{low}.0", f"{(low + high) / 2:.1f}", f"{high}.0"]
    assert "&lt;b&gt;" in drawn
    assert page.chart([page.Line(name="none", values=[math.nan])], places=["a"], title="t", axis="x") == ""


def test_a_folder_without_looks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a run"):
        progress.read_run(tmp_path)


# Pairs by the judge.


def test_the_judge_prefers_the_better_clip_of_a_pair():
    overall = [0.2, 0.9, 0.21]
    pairs = judged_pairs.judged_pairs(overall, most=3, rng=np.random.default_rng(0))
    assert [{pair.a, pair.b} for pair in pairs] == [{0, 1}, {1, 2}, {0, 2}]  # the largest differences first
    assert [overall[getattr(pair, pair.preference)] for pair in pairs[:2]] == [0.9, 0.9]
    assert pairs[2].preference == "tie"
    assert len(judged_pairs.judged_pairs(overall, most=1, rng=np.random.default_rng(0))) == 1
    sides = [judged_pairs.judged_pairs(overall, most=1, rng=np.random.default_rng(k))[0].preference for k in range(20)]
    assert set(sides) == {"a", "b"}


def test_the_judge_marks_as_the_world_does():
    """Where it gives any: of drawn clips that show something else than was asked, its marks are the true ones."""
    taken = set()
    for number in range(40):
        shown, asked = draw(Part.CALIBRATION, number), ask(Part.CALIBRATION, number + 1).scene
        marks = judged_pairs.judged_marks(judge(shown.frames, asked))
        true = true_marks(asked, shown.scene, ASKED)
        assert {name: true[name] for name, mark in marks.items() if mark is not None} == {
            name: mark for name, mark in marks.items() if mark is not None
        }
        taken |= {(name, mark) for name, mark in marks.items()}
    assert {("subject", 1), ("subject", 2), ("dynamics", 0), ("dynamics", 1), ("dynamics", 2)} < taken
    assert {("environment", 0), ("environment", 2), ("camera", None), ("style", None)} < taken


def test_the_judge_tells_of_a_clip_what_it_shows():
    """Of drawn clips without flaws its chains are the true ones, and of a bare backdrop it has none."""
    for number in range(20):
        shown, asked = draw(Part.CALIBRATION, number), ask(Part.CALIBRATION, number + 1).scene
        chain, marks = judged_pairs.judged_chain(judge(shown.frames, asked), asked)
        assert chain == true_chain(asked, shown.scene, ASKED)
        assert marks == true_marks(asked, shown.scene, ASKED)
    assert judged_pairs.judged_chain(judge(draw_backdrop(Part.CALIBRATION, 0), asked), asked) is None


def test_a_worse_picture_is_told_as_more_blurred():
    told = [judged_pairs._blur(picture) for picture in (0.8, 0.79, 0.65, 0.64)]
    assert [tuple(flaw.strength for flaw in flaws) for flaws in told] == [(), (0.35,), (0.35,), (0.72,)]


@pytest.mark.slow
def test_judged_pairs_are_a_table_to_train_on(grown, tmp_path):
    model = grow.Generator.load(grown)
    chosen = judged_pairs.JudgedClips(prompts=2, clips=3, per_prompt=2)
    judged_pairs.write_judged_pairs(model, chosen, source="dry", out=tmp_path)
    pairs = list(read_pairs(tmp_path / "pairs.csv"))
    assert len(pairs) == 4
    assert {pair.prompt for pair in pairs} == {ask(Part.UPDATES, judged_pairs.FIRST + k).prompt for k in range(2)}
    assert all(Path(video).is_file() for pair in pairs for video in (pair.video_a, pair.video_b))


# By eye.


def test_judge_and_person_are_compared_clip_by_clip(tmp_path, monkeypatch):
    drawn = [draw(Part.CALIBRATION, number) for number in range(3)]
    monkeypatch.setattr(by_eye, "generate", lambda *_: [one.frames for one in drawn])
    by_eye.make(None, clips=3, out=tmp_path)
    with pytest.raises(ConfigError, match="no line is filled"):
        by_eye.compare(tmp_path)
    lines = [
        f"{number},{one.scene.shape.value},{one.scene.colour.value},{one.scene.action.value},{setting}"
        for number, (one, setting) in enumerate(zip(drawn, [drawn[0].scene.setting.value, "none", ""], strict=True))
    ]
    (tmp_path / by_eye.TABLE).write_text("\n".join(["clip,shape,colour,action,setting", *lines[:2], "2,,,,"]))
    record = by_eye.compare(tmp_path)
    assert record["clips"] == 2  # the third is not filled
    assert {column: figure["value"] for column, figure in record["agreement"].items()} == {
        **{"shape": 1, "colour": 1, "action": 1},
        "setting": 0.5,
    }
    assert record["differ"] == [
        {"clip": 1, "column": "setting", "person": "none", "judge": drawn[1].scene.setting.value}
    ]
    (tmp_path / by_eye.TABLE).write_text("clip,shape,colour,action,setting\n0,blob,red,still,sea\n")
    with pytest.raises(DataError, match="shape is 'blob', expected one of circle"):
        by_eye.compare(tmp_path)


# Losses.


def test_an_untrained_pair_costs_log_2():
    error = torch.tensor([0.3, 0.1])
    assert float(dpo.dpo_loss(error, error, (error, error), beta=2000)) == pytest.approx(math.log(2))


def test_dpo_by_hand():
    """The chosen clip's error falls by .1, the rejected one's stays: -log sigmoid(10 / 2 * .1) = log(1 + e^-.5)."""
    chosen, rejected, reference = torch.tensor([0.2]), torch.tensor([0.4]), (torch.tensor([0.3]), torch.tensor([0.4]))
    loss = dpo.dpo_loss(chosen, rejected, reference, beta=10)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.5)), abs=1e-6)


def test_advantages_are_within_groups():
    """Pointwise 0, 0, 3 have the mean 1 and deviation sqrt 2; groupwise their ranks are 1.5, 1.5, 3."""
    given = [0.0, 0.0, 3.0, 7.0, 7.0, 7.0]
    pointwise = grpo.group_advantages(given, group=3, comparison="pointwise")
    assert pointwise.tolist() == pytest.approx([-0.7071, -0.7071, 1.4142, 0, 0, 0], abs=1e-4)
    far = [0.0, 1.0, 300.0]
    ranks = grpo.group_advantages(far, group=3, comparison="groupwise")
    assert ranks.tolist() == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    for comparison in ("groupwise", "pointwise"):  # three times .1 has a deviation of 1e-17
        assert grpo.group_advantages([0.1] * 3, group=3, comparison=comparison).tolist() == [0, 0, 0]


def test_a_clip_without_a_reward_has_no_advantage():
    advantages = grpo.group_advantages([math.nan, 1.0, 2.0], group=3, comparison="groupwise")
    assert advantages.tolist() == [0, -1, 1]


def test_the_clipped_loss_by_hand():
    """Ratios 1.1 and .8 with advantages 1 and -1, within .9 and 1.05: -(1.05 - .9) / 2."""
    new, old = torch.tensor([1.1, 0.8]).log(), torch.zeros(2)
    loss = grpo.clipped_loss(new, old, torch.tensor([1.0, -1.0]), clip_range=0.05)
    assert float(loss) == pytest.approx(-(1.05 - 0.95) / 2)


def test_the_unit_range_clamps_without_a_gradient():
    values = torch.tensor([-1.0, 3.0, 5.0], requires_grad=True)
    unit = refl.unit_range(values)
    unit.sum().backward()
    assert unit.tolist() == [0, 1, 1]
    assert values.grad[2] == 0


def test_models_see_clips_at_twice_their_size():
    """Four quarters of a picture keep their values inside; memory and graph give the same."""
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    frames[:, : SIDE // 2, : SIDE // 2] = (255, 0, 128)
    larger = rewards.enlarged_frames(frames)
    assert larger.shape == (FRAMES, 2 * SIDE, 2 * SIDE, 3)
    assert larger[0, 10, 10].tolist() == [255, 0, 128]
    assert larger[0, 100, 100].tolist() == [0, 0, 0]
    values = flow.to_values([frames]).requires_grad_()
    videos = refl.as_videos(values)
    assert videos.shape == (1, FRAMES, 3, 2 * SIDE, 2 * SIDE)
    expected = torch.from_numpy(larger).permute(0, 3, 1, 2)
    torch.testing.assert_close(videos[0] * 255, expected.float(), atol=0.51, rtol=0)  # half a level of rounding
    videos.sum().backward()
    assert values.grad.abs().sum() > 0


# Rewards and options.


def test_rewards_by_hand_and_by_chance():
    scorers = rewards.open_rewards(["sharpness", "random"])
    sharp = scorers["sharpness"]([flat(9), draw(Part.TEST, 0).frames], ["", ""], ["a", "b"])["sharpness"]
    assert sharp[0] == 0 < sharp[1]
    first, again = (scorers["random"]([flat(9)], [""], [key])["random"] for key in ("a", "a"))
    assert first == again != scorers["random"]([flat(9)], [""], ["b"])["random"]
    with pytest.raises(ConfigError, match="sharpnes"):
        rewards.open_rewards(["sharpnes"])


def test_options_change_plan_and_settings():
    plan, settings = tuning.TuningPlan(method="grpo", reward="off"), grpo.GrpoSettings()
    plan, settings = tune.with_changes(["updates=3", "comparison=pointwise", "steps=4"], plan, settings)
    assert (plan.updates, plan.steps, settings.comparison, settings.steps) == (3, 4, "pointwise", 4)
    with pytest.raises(ConfigError, match="updatez"):
        tune.with_changes(["updatez=3"], plan, settings)
    with pytest.raises(ConfigError, match="expected a int"):
        tune.with_changes(["updates=many"], plan, settings)


def test_a_sheet_has_a_strip_for_each_clip(tmp_path):
    write_sheet(tmp_path / "sheet.png", [flat(0)] * 3, ["one", "two", "three"], columns=2)
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


# A dry run of everything.


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    return grow.grow(grow.DRY, out=tmp_path_factory.mktemp("grown"))


SMALL = ["updates=2", "look_every=2", "look_prompts=2", "look_clips=2", "steps=2"]
METHODS = {
    "raft": ["round_updates=1", "prompts=2", "clips=2", "batch=2"],
    "dpo": ["round_updates=1", "prompts=2", "clips=2", "pairs=1", "batch=2"],
    "grpo": ["prompts=2", "group=2", "trained_steps=1", "batch=2"],
    "refl": ["batch=2", "last_steps=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_stops_and_goes_on(name, grown, tmp_path):
    def run(updates, out):
        settings, method = tune.METHODS[name]
        plan = tuning.TuningPlan(method=name, reward="off", watched=("sharpness",), learning_rate=1e-3)
        plan, settings = tune.with_changes([*SMALL, f"updates={updates}", *METHODS[name]], plan, settings)
        return tuning.tune(plan, method(settings), generator=grown, out=out, settings={"name": name})

    run(1, tmp_path / "stopped")
    folders = run(2, tmp_path / "stopped"), run(2, tmp_path / "whole")
    stopped, whole = (grow.Generator.load(folder).state_dict() for folder in folders)
    before = grow.Generator.load(grown).state_dict()
    assert all(torch.equal(stopped[key], whole[key]) for key in whole)
    assert any(not torch.equal(before[key], whole[key]) for key in whole)
    looks = read_records(tmp_path / "whole" / tuning.LOOKS)
    assert [row["update"] for row in looks] == [0, 2]
    assert looks[0]["kl"] == 0 < looks[1]["kl"]
    assert set(looks[0]["rewards"]) == {"off", "sharpness"}
    updates = read_records(tmp_path / "whole" / tuning.UPDATES)
    assert len(updates) == 2
    assert ("descore/reward_mean" in updates[0]) == (name == "grpo")  # the guards see what is scored in memory
    assert page.page(best_of=None, runs=[tmp_path / "whole"]).count("data:image/png;base64,") == 2  # before and after
    with pytest.raises(ConfigError, match="another run"):
        tuning.tune(
            tuning.TuningPlan(method=name, reward="off"), None, generator=grown, out=tmp_path / "whole", settings={}
        )


@pytest.mark.slow
def test_a_run_may_train_what_reads_the_prompt_alone(grown, tmp_path):
    settings = grpo.GrpoSettings()
    plan = tuning.TuningPlan(method="grpo", reward="sharpness", watched=(), learning_rate=1e-3)
    plan, settings = tune.with_changes([*SMALL, "trained=text", *METHODS["grpo"]], plan, settings)
    folder = tuning.tune(plan, grpo.Grpo(settings), generator=grown, out=tmp_path, settings={})
    before, after = (grow.Generator.load(one).state_dict() for one in (grown, folder))
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {"embedding.weight", "transformer.blocks.0.attn2.to_k.weight"} < moved
    assert all(tuning.reads_prompt(name) for name in moved)
    assert not tuning.reads_prompt("transformer.patch_embedding.weight")


@pytest.mark.slow
def test_a_run_may_follow_the_judge(grown, tmp_path):
    """Of two drawn clips it chooses the one that shows what was asked; looks have its word as the followed reward."""
    (tmp_path / "first" / "clips").mkdir(parents=True)
    drawn = {f"{number:04d}-{index:02d}": (number, number + 10 * index) for number in range(2) for index in range(2)}
    for name, (_, shown) in drawn.items():
        np.save(tmp_path / "first" / "clips" / f"{name}.npy", draw(Part.UPDATES, shown).frames)
    settings = dpo.DpoSettings(prompts=2, clips=2, batch=2, first_round=str(tmp_path / "first"))
    plan = tuning.TuningPlan(method="dpo", reward=rewards.JUDGE, watched=("sharpness",))
    plan, settings = tune.with_changes([*SMALL, "updates=1"], plan, settings)
    tuning.tune(plan, dpo.Dpo(settings), generator=grown, out=tmp_path / "run", settings={})
    run = progress.read_run(tmp_path / "run")
    assert (run.reward, run.rewards()) == (rewards.JUDGE, run.truths())
    assert list(run.looks[0]["rewards"]) == ["sharpness", rewards.JUDGE]
    scored = {Path(row.video).stem: row.reward for row in read_scored(tmp_path / "first" / "scores-judge.csv")}
    assert scored == {
        name: pytest.approx(judge(draw(Part.UPDATES, shown).frames, ask(Part.UPDATES, asked).scene).overall)
        for name, (asked, shown) in drawn.items()
    }
    pairs = [row for _, row in read_rows(tmp_path / "run" / "round-0" / "pairs.jsonl")]
    assert [Path(row["chosen_video"]).stem for row in pairs] == ["0000-00", "0001-00"]


@pytest.mark.slow
def test_runs_share_their_first_round(grown, tmp_path):
    """Two runs by two rewards begin with the same clips; a third of other prompts is refused."""

    def run(name, reward, generator=grown, **changes):
        sizes = {"round_updates": 1, "prompts": 2, "clips": 3, "batch": 1} | changes
        settings = raft.RaftSettings(first_round=str(tmp_path / "first"), **sizes)
        plan = tuning.TuningPlan(method="raft", reward=reward, watched=(), learning_rate=1e-3)
        plan, _ = tune.with_changes(SMALL, plan, settings)
        tuning.tune(plan, raft.Raft(settings), generator=generator, out=tmp_path / name, settings={})
        return [row["video"] for _, row in read_rows(tmp_path / name / "round-0" / raft.BEST)]

    run("at once", "off")
    clips = sorted((tmp_path / "first" / "clips").glob("*.npy"))
    made = {clip: clip.stat().st_mtime_ns for clip in clips}
    assert len(made) == 6
    model, asked = grow.Generator.load(grown), ask(Part.UPDATES, 0).prompt
    plain = flow.generate(model, [asked] * 3, range(3), steps=2, guidance=1)  # looks are guided, rounds are not
    assert [np.load(clip).tolist() for clip in clips[:3]] == [frames.tolist() for frames in plain]
    best = run("again", "other=tiny")
    assert {clip: clip.stat().st_mtime_ns for clip in clips} == made
    assert sorted(path.name for path in (tmp_path / "first").glob("scores-*.csv")) == [
        "scores-off.csv",
        "scores-other.csv",
    ]
    scored = list(read_scored(tmp_path / "first" / "scores-other.csv"))
    assert [(tmp_path / "again" / "round-0" / video).resolve() for video in best] == [
        Path(max(scored[first : first + 3], key=lambda row: row.reward).video).resolve() for first in (0, 3)
    ]
    assert not list((tmp_path / "again" / "round-0").glob("clips"))
    assert list((tmp_path / "again" / "round-1" / "clips").glob("*.mp4"))  # of the second round, its own
    with pytest.raises(ConfigError, match="other prompts or of more clips or fewer; choose another folder"):
        run("fewer", "off", clips=2)
    grow.Generator(grow.DRY.network).save(tmp_path / "stranger")
    with pytest.raises(ConfigError, match="holds clips of another generator or other sampling; choose another folder"):
        run("stranger's", "off", generator=tmp_path / "stranger")


@pytest.mark.slow
def test_best_of_n_keeps_what_it_has_made(grown, tmp_path, monkeypatch, capsys):
    def run(*options):
        command = ["best_of", "--model", str(grown), "--prompts", "2", "--seeds", "1", "--steps", "2"]
        monkeypatch.setattr("sys.argv", [*command, "--out", str(tmp_path), *options])
        best_of.main()
        return json.loads((tmp_path / best_of.RECORD).read_text())

    first = run("--most", "2", "--rewards", "off", "random")
    clip = tmp_path / "clips/seed-0/prompt-001/001.npy"
    made = clip.stat().st_mtime_ns
    second = run("--most", "4", "--rewards", "off", "random")
    assert clip.stat().st_mtime_ns == made
    assert first["curves"]["off"][TRUTH][0]["n"] == 1
    assert [row["n"] for row in second["curves"]["random"]["random"]] == [1, 2, 4]
    assert set(second["seconds"]) == {"made", "judge", "off", "random"}
    assert all(seconds > 0 for seconds in second["seconds"].values())
    assert "truth by" in capsys.readouterr().out
    shown = page.page(best_of=tmp_path, runs=[])
    assert "Chosen by off" in shown
    assert shown.count("data:image/png;base64,") == 2  # a sheet for each prompt
    with pytest.raises(SystemExit, match="other sampling"):
        run("--most", "4", "--guidance", "1")
