"""The statistics of a run, on records small enough to do by hand."""

import json

import pytest
from tests.evaluation.cases import GOOD, FakeJudgements, FixedJudge, clip, four_clips, pair

from descore.evaluation.results import key_of, results_of
from descore.types import DIMENSIONS

MARKS = dict(zip(DIMENSIONS, (2, 1, None, None, 0), strict=True))


def results(judged, rewards, **changes):
    records = {
        key_of(c): record
        for c, record in zip(judged.clips, FixedJudge(rewards).judge(judged.clips, open_video=judged.open), strict=True)
    }
    for video, change in changes.items():
        next(record for record in records.values() if record["video"] == video).update(change)
    return results_of(judged.clips, judged.pairs, records)


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0)])
def test_a_gold_scorer_is_always_right_and_its_mirror_never(sign, value):
    result = results(four_clips(), {video: sign * reward for video, reward in GOOD.items()})
    assert result["labels"]["overall"]["accuracy"]["value"] == value
    assert result["labels"]["overall"]["accuracy"]["groups"] == 2
    assert (result["scored"], result["of"], result["failures"]) == (4, 4, [])
    assert result["seconds"] == 2.0


def test_a_failed_clip_is_a_failure_and_never_a_number():
    result = results(four_clips(), {**GOOD, "v1": None})
    accuracy = result["labels"]["overall"]["accuracy"]
    assert (accuracy["value"], accuracy["n"], accuracy["failed"]) == (1.0, 1, 1)
    assert (result["scored"], result["of"]) == (3, 4)
    assert result["failures"] == [{"video": "v1", "prompt": "p", "error": "broken"}]
    assert results_of(four_clips().clips, (), {})["failures"][0]["error"] == "never tried"


def test_results_without_scores_are_json_with_null():
    result = results(four_clips(), {})
    assert result["labels"]["overall"]["accuracy"]["value"] is None
    assert result["labels"]["overall"]["reward"] is None
    assert result["worst"] == []
    json.dumps(result, allow_nan=False)


def test_a_label_uses_its_own_reward_or_the_mean():
    judged = FakeJudgements(
        clips=(clip("v0"), clip("v1")), pairs=(pair("v0", "v1", {"motion": "a", "look": "b", "all": "a"}),)
    )
    result = results(judged, {"v0": {"motion": 3.0, "look": 1.0}, "v1": {"motion": 1.0, "look": 2.0}})["labels"]
    assert {label: result[label]["reward"] for label in result} == {
        "motion": "motion",
        "look": "look",
        "all": "motion + look",
    }
    assert [result[label]["accuracy"]["value"] for label in ("motion", "look", "all")] == [1.0, 1.0, 1.0]


def test_ties_have_a_threshold_and_a_rate():
    judged = four_clips()
    judged.pairs += (pair("v0", "v1", {"other": "tie"}), pair("v2", "v3", {"other": "b"}, prompt="q"))
    result = results(judged, {**GOOD, "v1": 0.9})["labels"]["other"]
    assert result["with_ties"]["tie_rate"] == 0.5
    assert result["with_ties"]["threshold"] == pytest.approx(0.1)
    assert result["with_ties"]["figure"]["value"] == result["compatible"] == 1.0
    assert result["with_ties_held_out"]["fitted_on"] == "the other half"


def test_ratings_are_correlated_and_their_absence_is_null():
    rated = tuple(clip(f"v{i}", ratings={"quality": float(i)}) for i in range(4))
    result = results(FakeJudgements(clips=rated, pairs=()), {f"v{i}": i**2 for i in range(4)})["labels"]["quality"]
    assert result["correlation"]["all"]["spearman"]["value"] == pytest.approx(1)
    assert result["correlation"]["within"]["kendall"]["value"] == pytest.approx(1)
    assert results(four_clips(), GOOD)["labels"]["overall"]["correlation"] is None


def test_marks_count_where_true_marks_are_known():
    judged = four_clips()
    judged.clips = tuple(clip(c.video, prompt=c.prompt, marks=MARKS if c.video != "v3" else None) for c in judged.clips)
    right, wrong_na = dict(MARKS), {**MARKS, "camera": 2}
    changes = {
        "v0": {"thinking": "t", "marks": right},
        "v1": {"thinking": "t", "marks": wrong_na},
        "v2": {"thinking": "babble", "marks": None},
        "v3": {"thinking": "t", "marks": right},
    }
    result = results(judged, GOOD, **changes)
    assert result["unreadable"] == 1
    assert result["marks"]["camera"]["value"] == 0.5  # v0 right, v1 wrong, v2 says nothing
    assert result["marks"]["camera"]["failed"] == 1
    assert (result["marks"]["all"]["value"], result["marks"]["all"]["n"]) == (0.9, 10)
    assert (result["marks"]["asked"]["value"], result["marks"]["asked"]["n"]) == (1.0, 6)
    assert results(judged, GOOD)["marks"] is None  # nothing was written


def test_cut_chains_are_counted():
    assert results(four_clips(), GOOD, v0={"truncated": True})["truncated"] == 1


def test_sources_and_aspects():
    clips = tuple(clip(f"v{i}", source="east" if i < 2 else "west", ratings={"look": float(i)}) for i in range(4))
    pairs = (pair("v0", "v1", "b", aspect="faces"), pair("v2", "v3", "a", aspect="hands"), pair("v0", "v3", "a"))
    result = results(FakeJudgements(clips=clips, pairs=pairs), {"v0": 1.0, "v1": 2.0, "v2": 3.0})
    assert result["by_source"] == {
        "east": {"reward": 1.5, "n": 2, "failed": 0, "ratings": {"look": 0.5}},
        "west": {"reward": 3.0, "n": 1, "failed": 1, "ratings": {"look": 2.5}},
    }
    assert {aspect: figure["n"] for aspect, figure in result["by_aspect"]["overall"].items()} == {
        "faces": 1,
        "hands": 0,
    }


def test_worst_mistakes_come_first_without_ties_or_repeats():
    clips = tuple(clip(f"v{i}") for i in range(4))
    pairs = (
        pair("v0", "v1", {"x": "b"}),  # margin 1, wrong
        pair("v0", "v2", {"x": "b"}),  # margin 4, wrong
        pair("v0", "v3", {"x": "a"}),  # margin 9, right
        pair("v1", "v3", {"x": "tie"}),
    )
    result = results(FakeJudgements(clips=clips, pairs=pairs), {"v0": 9.0, "v1": 8.0, "v2": 5.0, "v3": 0.0})["worst"]
    assert [(mistake["pair"], mistake["label"]) for mistake in result] == [(1, "x"), (0, "x")]
    # In root mean squares: the mean square of 1, 4, 9 and 8 (the tie's) is 40.5.
    assert result[0]["margin"] == pytest.approx(4 / 40.5**0.5)
    assert result[1]["margin"] == pytest.approx(1 / 40.5**0.5)


def test_a_mistake_is_listed_under_its_worst_label():
    pairs = (pair("v0", "v1", {"x": "b", "y": "b"}), pair("v0", "v2", {"x": "a"}))
    rewards = {"v0": {"x": 1.0, "y": 1.0}, "v1": {"x": 0.0, "y": 0.0}, "v2": {"x": -7.0, "y": 0.0}}
    [mistake] = results(FakeJudgements(clips=tuple(clip(f"v{i}") for i in range(3)), pairs=pairs), rewards)["worst"]
    assert (mistake["pair"], mistake["label"], mistake["margin"]) == (0, "y", 1.0)  # under x 1 of 5


def spread_of(rewards, *, label="overall", **more):
    """The spread's worth where v0, v2 and v4 are preferred to the next clip; v4 is not sure of its reward."""
    prompts = dict(zip("024", "pqr", strict=True))
    clips = tuple(clip(f"v{i}", prompt="pqr"[i // 2]) for i in range(6))
    pairs = tuple(pair(f"v{i}", f"v{int(i) + 1}", {label: "a"}, prompt=p) for i, p in prompts.items())
    changes = {f"v{i}": {"std": 2.0 if i > 3 else 0.1, "samples": 4} | more for i in range(6)}
    return results(FakeJudgements(clips=clips, pairs=pairs), rewards, **changes)["labels"][label]["spread"]


WRONG_IN_THE_LAST = {"v0": 1.0, "v1": 0.0, "v2": 1.0, "v3": 0.0, "v4": 0.0, "v5": 1.0}


def test_the_spread_of_several_chains_has_a_worth():
    """All margins are 1; the error of the wrong one is twenty times as large."""
    spread = spread_of(WRONG_IN_THE_LAST)
    assert (spread["auroc"]["value"], spread["auroc_margin"]["value"]) == (1.0, 0.5)
    assert (spread["clear"]["value"], spread["clear_accuracy"]["value"]) == (pytest.approx(2 / 3), 1.0)


@pytest.mark.parametrize("more", [{"samples": 1, "std": None}, {"samples": None}])
def test_single_chains_and_old_records_have_no_spread(more):
    assert spread_of(WRONG_IN_THE_LAST, **more) is None


def test_a_dimension_beside_others_has_no_spread_of_its_own():
    rewards = {video: {"VQ": reward, "MQ": 0.0} for video, reward in WRONG_IN_THE_LAST.items()}
    assert spread_of(rewards, label="VQ") is None
    assert spread_of(rewards, label="both")["auroc"]["value"] == 1.0  # by the mean, whose deviation is recorded
