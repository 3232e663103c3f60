"""Findings that can be checked by hand, on runs of a few pairs."""

import math
from dataclasses import replace

import pytest

from descore.evaluation.results import results_of
from descore.evaluation.runs import Run
from descore.report.findings import by_difference, by_generator, model_differences, thinking_effect, worst_mistakes
from descore.report.tables import by_benchmark, name_runs, thinking_pairs
from descore.types import Pair, RatedClip


def run_of(margins, preferences, *, ratings=None, sources=(None, None), **config):
    """A run of a pair per margin, each of its own prompt; b's reward is 0, a's the margin or None without a score."""
    clips, pairs, records = [], [], {}
    for k, (margin, preference) in enumerate(zip(margins, preferences, strict=True)):
        prompt, names = f"prompt {k}", (f"{k}/a.mp4", f"{k}/b.mp4")
        for place, (name, reward) in enumerate(zip(names, (margin, 0.0), strict=True)):
            rating = {} if ratings is None else {"overall": ratings[k][place]}
            clips.append(RatedClip(prompt=prompt, video=name, group=prompt, ratings=rating, source=sources[place]))
            error = "cannot be read" if reward is None else None
            records[name, prompt] = {"video": name, "prompt": prompt, "reward": reward, "error": error}
        pairs.append(
            Pair(prompt=prompt, video_a=names[0], video_b=names[1], preference={"overall": preference}, group=prompt)
        )
    known = {"model": "m", "benchmark": "b", "think": "on", "digest": "d", "limit": None, "samples": 1, "seed": 0}
    return Run(
        folder_name="folder",
        config=known | config,
        title="Bench",
        licence="",
        published=[],
        clips=tuple(clips),
        pairs=tuple(pairs),
        records=records,
        results=results_of(clips, pairs, records),
        frames={},
    )


def names_of(*runs):
    return [named.name for named in name_runs(runs)]


def test_thinking_is_counted_pair_by_pair():
    # a is preferred throughout: pairs 0 right in both, 1 helped, 2 hurt, 3 helped, 4 wrong in both, 5 without a score,
    # 6 a tie
    preferences = ["a"] * 6 + ["tie"]
    on = run_of([1, 1, -1, 3, -1, None, 1], preferences)
    off = run_of([1, -1, 1, -3, -1, 1, 1], preferences, think="off")
    [(named_on, named_off)] = thinking_pairs(name_runs([on, off]))
    effect = thinking_effect(named_on, named_off, "overall")
    assert (effect.both_right, effect.helped, effect.hurt, effect.both_wrong) == (1, 2, 1, 1)
    assert effect.net.value == pytest.approx((2 - 1) / 5)
    assert (effect.net.n, effect.net.failed) == (5, 1)
    assert effect.net.low < effect.net.value < effect.net.high
    # helped and hurt in turn, the largest move first
    assert [flip.prompt for flip in effect.flips] == ["prompt 3", "prompt 2", "prompt 1"]
    assert effect.flips[0].margin_off < 0 < effect.flips[0].margin_on


def test_a_flip_names_the_preferred_clip_first():
    on, off = run_of([-2, 1], ["b", "a"]), run_of([2, 1], ["b", "a"], think="off")
    [(named_on, named_off)] = thinking_pairs(name_runs([on, off]))
    [flip] = thinking_effect(named_on, named_off, "overall").flips
    assert (flip.preferred, flip.other) == ("0/b.mp4", "0/a.mp4")
    assert flip.margin_off < 0 < flip.margin_on


@pytest.mark.parametrize("other", [{"digest": "e"}, {"model": "n"}, {"benchmark": "c"}, {"limit": 3}, {"think": None}])
def test_only_like_runs_are_set_side_by_side(other):
    assert thinking_pairs(name_runs([run_of([1], ["a"]), run_of([1], ["a"], **{"think": "off"} | other)])) == []


def test_runs_of_other_pairs_have_no_effect():
    on, off = run_of([1, 1], ["a", "a"]), run_of([1], ["a"], think="off")
    [(named_on, named_off)] = thinking_pairs(name_runs([on, off]))
    assert thinking_effect(named_on, named_off, "overall") is None


def test_accuracy_over_the_difference_of_ratings():
    # four pairs, the ratings 1, 2, 3 and 4 apart, one in each part; only the least clear one is wrong
    run = run_of([-1, 1, 1, 1], ["a"] * 4, ratings=[(2, 1), (3, 1), (4, 1), (5, 1)])
    [named] = name_runs([run])
    result = by_difference(named, "overall")
    assert result.kind == "ratings"
    assert result.names == ("1", "2", "3", "4")
    assert [figure.value for figure in result.figures] == [0, 1, 1, 1]


def test_without_ratings_the_models_own_margin_is_taken():
    [named] = name_runs([run_of([0.1, -0.2, 3, 4], ["b", "b", "a", "a"])])
    result = by_difference(named, "overall")
    assert result.kind == "margin"
    assert [figure.value for figure in result.figures] == [0, 1, 1, 1]


def test_without_decided_pairs_there_is_no_accuracy():
    [named] = name_runs([run_of([1, 2], ["tie", "tie"])])
    assert by_difference(named, "overall") is None


def test_the_worst_of_each_run_in_turn_and_no_pair_twice():
    first = run_of([-3, -2, -1, 1], ["a"] * 4)
    second = run_of([-3, 1, -1, -5], ["a"] * 4, model="n")
    result = worst_mistakes(name_runs([first, second]), limit=3)
    assert [(mistake.run.name, mistake.pair.prompt) for mistake in result] == [
        ("m, thinking", "prompt 0"),
        ("n, thinking", "prompt 3"),
        ("m, thinking", "prompt 1"),  # the second run's next is prompt 0, shown already
    ]
    assert all(one.size > 0 for one in result)


def test_sources_hold_ratings_and_standardized_rewards():
    run = run_of([2, 2, None], ["a", "a", "a"], ratings=[(5, 1), (3, 1), (4, 1)], sources=("good", "poor"))
    good, poor = by_generator(name_runs([run]))
    assert (good.name, good.clips, good.ratings) == ("good", 3, {"overall": 4})
    assert (poor.name, poor.ratings) == ("poor", {"overall": 1})
    # rewards 2, 2 and 0, 0, 0: mean .8, standard deviation sqrt((2 * 1.2^2 + 3 * .8^2) / 5) = .98
    assert good.rewards[0] == pytest.approx(1.2 / math.sqrt(0.96))
    assert poor.rewards[0] == pytest.approx(-0.8 / math.sqrt(0.96))


def test_a_run_is_named_by_the_setting_that_differs():
    plain, off = run_of([1], ["a"], model="x/m"), run_of([1], ["a"], model="x/m", think="off")
    assert names_of(plain, off) == ["m, thinking", "m, at once"]
    seeds = [run_of([1], ["a"], seed=seed) for seed in (3, 4)]
    assert names_of(*seeds) == ["m, thinking, seed 3", "m, thinking, seed 4"]
    assert names_of(plain, replace(plain)) == ["m, thinking, folder, 1 of 2", "m, thinking, folder, 2 of 2"]
    assert names_of(run_of([1], ["a"], model="sharpness", think=None)) == ["sharpness"]


def test_a_model_keeps_its_style_on_every_benchmark():
    runs = [run_of([1], ["a"], benchmark=name, think=think) for name in "bc" for think in ("on", "off")]
    named = name_runs(runs)
    assert [one.style for one in named] == [0, 1, 0, 1]
    assert [len(group) for group in by_benchmark(named).values()] == [2, 2]


def test_models_are_compared_pair_by_pair_with_the_first():
    # a is preferred: pair 0 right in both, 1 and 2 only in the second, 3 only in the first, 4 without a score, 5 a tie
    preferences = ["a"] * 5 + ["tie"]
    first = run_of([1, -1, -1, 1, 1, 1], preferences)
    second = run_of([1, 1, 2, -1, None, 1], preferences, model="n")
    other = run_of([1], ["a"], model="of other pairs")
    [row] = model_differences(name_runs([first, second, other]))
    assert (row.first.name, row.run.name, row.label) == ("m, thinking", "n, thinking", "overall")
    assert (row.difference.gained, row.difference.lost) == (2, 1)
    assert row.difference.accuracy.value == pytest.approx((2 - 1) / 4)
    assert (row.difference.accuracy.n, row.difference.accuracy.failed) == (4, 1)
    assert model_differences(name_runs([first])) == []
    silent = run_of([None] * 6, preferences, model="silent")
    assert model_differences(name_runs([first, silent])) == []


def test_a_paired_interval_is_narrower_than_its_parts_suggest():
    """The second model is right where the first one is, and on pair 0 too; 9 of the 20 pairs are hard for both."""
    hard = [-1] * 10
    first, second = (run_of([one, *hard[1:], *[1] * 10], ["a"] * 20, model=str(one)) for one in (-1, 1))
    [row] = model_differences(name_runs([first, second]))
    accuracy = second.results["labels"]["overall"]["accuracy"]
    paired = row.difference.accuracy
    assert paired.value == pytest.approx(1 / 20)
    assert paired.high - paired.low < (accuracy["high"] - accuracy["low"]) / 2
