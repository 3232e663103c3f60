"""The stage 2 study on values that a reader can count: gains, drift, curves, and how a run is read."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pytest
from experiments.dual_rl import curves, findings, from_tiny
from experiments.dual_rl.findings import CONDITIONS, MEASURES, Cell
from experiments.harness import BENCHMARKS, Items, Judgement, judgement_of

from descore.evaluation.records import RUN_KEYS
from descore.evaluation.runs import Run
from descore.types import DIMENSIONS, Pair, RatedClip


def judgement(split, right, *, written=None, reward=(0, 2, 4, 6), unreadable=0, unseen=0):
    """Four pairs, of which those are right; and as many marks and clips of the same prompts."""
    group_N = np.array([f"{split}:{number}" for number in range(4)])

    def items(values):
        return Items(value_N=np.array(values, np.float64), group_N=group_N)

    measures = {name: items(right) for name in MEASURES}
    return Judgement(
        right=measures | ({} if written is None else {"written": items(written)}),
        reward=items(reward),
        unreadable=unreadable,
        unseen=unseen,
        clips=4,
    )


def start(right=(1, 0, 0, 0), **values):
    return {split: judgement(split, right, **values) for split in BENCHMARKS}


def trained(condition, *by_seed, **values):
    """Each seed's model says the same of each split."""
    return {
        (condition, seed, split): judgement(split, right, **values)
        for seed, right in enumerate(by_seed)
        for split in BENCHMARKS
    }


def only(rows, **values):
    (match,) = [row for row in rows if all(row[key] == value for key, value in values.items())]
    return match


def test_a_gain_is_the_mean_over_seeds_of_their_gains():
    after = trained("default", (1, 1, 0, 0), (1, 1, 1, 1), unreadable=1)
    found = findings.findings(start((1, 0, 0, 0)), after)
    row = only(found["gains"], condition="default", measure="marks", domain="out-of-domain")
    assert (row["before"]["value"], row["after"]["value"]) == (1 / 4, (2 / 4 + 4 / 4) / 2)
    assert row["gain"]["value"] == (1 / 4 + 3 / 4) / 2
    assert (row["gain"]["n"], row["gain"]["groups"]) == (24, 12)  # 2 seeds of 3 splits of 4; prompts are shared
    assert row["gain"]["low"] > 0  # nothing became wrong, and of twelve prompts nine gained
    assert (row["by_seed"], row["gain_by_seed"]) == ({"0": 0.5, "1": 1.0}, {"0": 0.25, "1": 0.75})
    assert (row["unreadable_before"], row["clips_before"]) == (0, 12)
    assert (row["unreadable_after"], row["clips_after"]) == (6, 24)


def test_intervals_draw_prompts_with_all_their_seeds():
    """One seed gains on every prompt and the other on none: whichever prompts are drawn, the gain is a half. Pairs
    drawn one by one would give an interval of some width."""
    after = trained("default", (1, 1, 1, 1), (0, 0, 0, 0))
    found = findings.findings(start((0, 0, 0, 0)), after)
    gain = only(found["gains"], measure="pairs", domain="in-domain")["gain"]
    assert (gain["value"], gain["low"], gain["high"]) == (0.5, 0.5, 0.5)


def test_a_domain_pools_its_own_splits_only():
    after = trained("default", (0, 0, 0, 0))
    after |= {key: one for key, one in trained("default", (1, 1, 1, 1)).items() if key[2] == "drawn-wordings"}
    rows = findings.findings(start((0, 0, 0, 0)), after)["gains"]
    gains = {row["domain"]: row["gain"]["value"] for row in rows if row["measure"] == "pairs"}
    others = {"in-domain": 0, "drawn-combinations": 0, "drawn-generators": 0}
    assert gains == {**others, "drawn-wordings": 1, "out-of-domain": pytest.approx(1 / 3)}


def test_a_generative_model_gains_over_what_the_start_wrote():
    before = start((1, 1, 1, 1), written=(1, 1, 0, 0))
    after = trained("generative", (1, 1, 1, 0)) | trained("default", (1, 1, 1, 0))
    gains = findings.findings(before, after)["gains"]
    values = {"measure": "pairs", "domain": "in-domain"}
    assert only(gains, condition="generative", **values)["gain"]["value"] == 3 / 4 - 2 / 4
    assert only(gains, condition="default", **values)["gain"]["value"] == 3 / 4 - 4 / 4


def test_what_has_no_value_on_either_side_is_used_nowhere():
    nan = float("nan")
    found = findings.findings(start((nan, 0, 0, 1)), trained("default", (1, nan, 1, 1)))
    gain = only(found["gains"], measure="marks", domain="in-domain")["gain"]
    assert (gain["value"], gain["n"], gain["failed"]) == (1 / 2, 2, 2)


def test_judgements_of_other_prompts_are_not_compared():
    before = {split: judgement("another", (1, 0, 0, 0)) for split in BENCHMARKS}
    with pytest.raises(ValueError, match="not of the same prompts"):
        findings.findings(before, trained("default", (1, 0, 0, 0)))


def test_conditions_are_compared_pair_by_pair_if_present():
    after = trained("default", (1, 1, 1, 0)) | trained("no-bt", (0, 1, 1, 1))
    compared = findings.findings(start(), after)["compared"]
    assert {(row["one"], row["other"]) for row in compared} == {("default", "no-bt")}
    row = only(compared, measure="pairs", domain="in-domain")
    assert row["difference"]["value"] == 0  # one pair more, another one less
    assert row["difference"]["low"] < 0 < row["difference"]["high"]


def test_unseen_clips_are_counted_by_benchmark_and_seed():
    after = trained("default", (1, 1, 1, 1), (1, 1, 1, 1), unseen=1)
    row = only(findings.findings(start(unseen=3), after)["unseen"], split="drawn-wordings")
    assert (row["before"], row["by_seed"], row["clips"]) == (3, {"0": 1, "1": 1}, 4)


def test_drift_is_in_deviations_of_the_start():
    """Rewards 0, 2, 4, 6 on each of four splits: squares about 3 are 4 (9 + 1 + 1 + 9) = 80, over 15."""
    after = trained("no-bt", (1, 0, 0, 0), reward=(1, 5, 9, 13))  # twice the reward and one more: 4 more
    drift = findings.findings(start(), after | trained("generative", (1, 0, 0, 0)))["drift"]
    assert {row["condition"] for row in drift} == {"no-bt"}  # what is written has no scale to drift along
    row = only(drift, domain="out-of-domain")
    assert row["deviation"] == pytest.approx(sqrt(80 / 15))
    assert row["shift"]["value"] == pytest.approx(4 / sqrt(80 / 15))
    assert row["spread"] == pytest.approx(2)


def record(video, *, reward, overall, marks):
    known = {"video": video, "prompt": "p", "reward": reward, "overall": overall, "marks": marks}
    return dict.fromkeys(RUN_KEYS) | known | {"error": None if reward is not None else "no answer"}


def hand_made_run():
    """Clips v to z. Their prompt asks for no camera move; only the last chain says that there is one to judge."""
    true = dict.fromkeys(DIMENSIONS, 2) | {"camera": None}
    records = {
        "v": record("v", reward=2.0, overall=3.0, marks=true),
        "w": record("w", reward=1.0, overall=3.0, marks=true | {"subject": 0}),
        "x": record("x", reward=5.0, overall=4.0, marks=true),
        "y": record("y", reward=None, overall=None, marks=None),
        "z": record("z", reward=4.0, overall=5.0, marks=true | {"camera": 2})
        | {"thinking": "I see real footage. The picture is sharp."},
    }
    preferred = {("v", "w"): "a", ("x", "z"): "b", ("x", "w"): "tie", ("x", "y"): "a"}
    pairs = [
        Pair(prompt="p", video_a=a, video_b=b, preference={"overall": which}, group="p")
        for (a, b), which in preferred.items()
    ]
    return Run(
        folder_name="",
        config={},
        title="",
        licence="",
        published=(),
        clips=tuple(RatedClip(prompt="p", video=name, group="p", marks=true) for name in records),
        pairs=tuple(pairs),
        records={(name, "p"): one for name, one in records.items()},
        results={},
        frames={},
    )


def test_a_run_is_read_pair_by_pair_and_mark_by_mark():
    seen = judgement_of(hand_made_run())
    expected = {
        "pairs": [1, 0, np.nan],  # v over w; x over z, wrong; the tie left out; y has no score
        "written": [0, 1, np.nan],  # v and w equal, which decides nothing; z over x
        "marks": [1] * 5 + [0] + [1] * 4 + [1] * 5 + [np.nan] * 5 + [1, 1, 0, 1, 1],
        "asked": [1] * 4 + [0] + [1] * 3 + [1] * 4 + [np.nan] * 4 + [1] * 4,
    }
    for measure, values in expected.items():
        np.testing.assert_array_equal(seen.right[measure].value_N, values, err_msg=measure)
        assert len(seen.right[measure].group_N) == len(values)
    np.testing.assert_array_equal(seen.reward.value_N, [2, 1, 5, np.nan, 4])
    assert (seen.unreadable, seen.unseen, seen.clips) == (1, 1, 5)


def test_fluctuation_of_a_zigzag_by_hand():
    """0, 1, 0, 1 changes by 1, -1, 1: squares about 1/3 are 4/9 + 16/9 + 4/9, over 2. Means of three are 1/3 and 2/3,
    so that 2/3 and -2/3 are left in the middle: squares 4/9 + 4/9, over 1."""
    zigzag_T = np.array([0.0, 1.0, 0.0, 1.0])
    assert curves.step_to_step(zigzag_T) == pytest.approx(sqrt(4 / 3))
    assert curves.around_mean(zigzag_T, window=3) == pytest.approx(sqrt(8 / 9))


def test_a_steady_rise_or_too_few_updates_do_not_fluctuate():
    assert curves.step_to_step(np.arange(8.0)) == 0
    assert curves.around_mean(np.arange(8.0)) == pytest.approx(0, abs=1e-12)
    assert isnan(curves.step_to_step(np.arange(2.0)))
    assert isnan(curves.around_mean(np.arange(5.0)))


def lines(values, name="pair_accuracy"):
    return [{"step": step, "loss": 0.0, name: value} for step, value in enumerate(values, start=1)]


def test_fluctuations_of_both_objectives_stand_side_by_side():
    default, generative = (Cell(condition=name, seed=0) for name in ("default", "generative"))
    another = Cell(condition="default", seed=1)
    known = {default: lines([0, 1, 0, 1]), another: lines([0.5] * 4), generative: lines([0, 0, 3], "correctness")}
    with_both = known | {generative: [one | two for one, two in zip(known[generative], lines([1] * 3), strict=True)]}
    rows = curves.training(with_both)["fluctuation"]
    scored = only(rows, condition="default")
    assert scored["step_to_step_by_seed"] == {"0": pytest.approx(sqrt(4 / 3)), "1": 0}
    assert scored["step_to_step"] == pytest.approx(sqrt(4 / 3) / 2)
    assert scored["mean"] == 0.5
    assert scored["around_mean"] is None  # four updates have no moving mean of five
    written = only(rows, condition="generative", metric="correctness")
    assert written["step_to_step"] == pytest.approx(sqrt(9 / 2))  # changes 0 and 3
    assert only(rows, condition="generative", metric="pair_accuracy")["step_to_step"] == 0


def test_a_course_goes_from_the_first_third_to_the_last():
    cell = Cell(condition="no-bt", seed=2)
    row = only(curves.training({cell: lines([0, 2, 9, 9, 4, 6], "reward_drift")})["course"], metric="reward_drift")
    assert (row["first"], row["last"], row["last_by_seed"]) == (1, 5, {"2": 5})


def test_of_a_repeated_step_the_last_line_counts(tmp_path):
    logged = [*lines([1, 2, 3]), {"resumed_at": 1}, *lines([1, 7])[1:], {"step": 2, "eval_written_pair_accuracy": 0.5}]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in logged), encoding="utf-8")
    assert [line["pair_accuracy"] for line in curves.curve_of(file)] == [1, 7, 3]


def test_long_curves_are_thinned_and_gaps_are_none():
    cell = Cell(condition="default", seed=0)
    logged = [line if line["step"] != 4 else {"step": 4, "loss": 0.0} for line in lines(range(100))]
    curve = curves.training({cell: logged})["curves"]["default-seed0"]
    assert curve["step"] == [*range(1, 101, 3)]  # 48 points at most: every third
    assert curve["pair_accuracy"] == [0.0, None, *range(6, 100, 3)]


def test_the_record_is_json_and_its_tables_are_rectangular():
    conditions = {name: trained(name, (1, 1, 0, 0), (1, 1, 1, 0)) for name in CONDITIONS}
    after = conditions["default"] | conditions["generative"] | conditions["no-bt"]
    curve_by_cell = {
        Cell(condition=condition, seed=seed): lines([0, 1, 0, 1, 0, 1, 1])
        for condition, seed in dict.fromkeys((condition, seed) for condition, seed, _ in after)
    }
    found = findings.findings(start(), after) | curves.training(curve_by_cell)
    json.dumps(found, allow_nan=False)
    text = f"{findings.tables(found)}\n\n{curves.training_tables(found)}"
    widths = [{line.count("|") for line in part.split("\n")} for part in text.split("\n\n") if part.startswith("|")]
    assert widths == [{8}] * 4 + [{9}, {7}, {6}, {5}, {5}]
    assert "| default | 0.250 → 0.625: +0.375 [" in text
    assert "| marks | default | no-bt | +0.000 [" in text


def test_the_former_tiny_is_compared_by_label_and_mark():
    known = hand_made_run()
    labelled = replace(
        known, pairs=tuple(replace(p, preference=dict.fromkeys(from_tiny.FETV, "a")) for p in known.pairs)
    )
    runs = {**dict.fromkeys((*BENCHMARKS, "footage"), known), "fetv": labelled}
    better = {
        key: {**one, "reward": {"v": 2.0, "w": 1.0, "x": 5.0, "y": 0.0, "z": 6.0}[one["video"]]}
        for key, one in known.records.items()
    }
    rows = {
        what: from_tiny.row(what, *both)
        for what, *both in from_tiny.compared(runs, runs | {"drawn": replace(known, records=better)})
    }
    assert list(rows) == [
        f"{name}, {what}" for name in ("in-domain", "out-of-domain", "footage") for what in ("pairs", "marks")
    ] + [f"FETV, {label}" for label in from_tiny.FETV]
    assert rows["in-domain, pairs"]["before"]["value"] == 1 / 2  # v over w; x over z, wrong; y has no score
    assert rows["in-domain, pairs"]["after"]["value"] == 1
    assert rows["in-domain, pairs"]["gain"]["value"] == 1 / 2  # of the two that both scored
    assert rows["out-of-domain, pairs"]["gain"]["value"] == rows["in-domain, marks"]["gain"]["value"] == 0
    assert rows["FETV, alignment"]["before"]["n"] == 3  # v over w, x over z, x over w; not x over y


def test_the_committed_records_give_their_tables():
    folder = Path(findings.__file__).parent
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    text = f"{findings.tables(record)}\n\n{curves.training_tables(record)}"
    assert "+0.053 [+0.038, +0.068]" in text
    assert "| training accuracy | mean | deviation from step to step, by seed |" in text
    rows = json.loads((folder / "from_tiny.json").read_text(encoding="utf-8"))["compared"]
    assert "| out-of-domain, marks | 0.907" in from_tiny.table(rows)


@pytest.mark.slow
def test_a_dry_run_agrees_with_the_results_of_its_runs(tmp_path):
    command = [sys.executable, "-m", "experiments.dual_rl.run", "--dry", "--out", str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    written = (tmp_path / "record.json").read_bytes()
    gains = json.loads(written)["gains"]
    for name, when, condition in [("before", "before", "default"), ("no-bt-seed0", "after", "no-bt")]:
        for split, domain in {**dict(zip(BENCHMARKS, BENCHMARKS, strict=True)), "drawn": "in-domain"}.items():
            results = json.loads((tmp_path / "judged" / name / split / "results.json").read_text(encoding="utf-8"))
            found = {
                measure: only(gains, condition=condition, measure=measure, domain=domain)[when]
                for measure in ("pairs", "marks", "asked")
            }
            assert found["pairs"] == results["labels"]["overall"]["accuracy"]
            assert (found["marks"], found["asked"]) == (results["marks"]["all"], results["marks"]["asked"])
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    subprocess.run(command, check=True)
    assert (tmp_path / "record.json").read_bytes() == written
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == there
