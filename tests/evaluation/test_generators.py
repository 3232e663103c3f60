"""Two generators' clips by reward and by measures: differences by hand, what is concluded, and resuming."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.hacks import written
from tests.evaluation.cases import FakeJudgements, clip
from tests.evaluation.test_stress import Looks, brightness, moving

from descore.errors import DataError, VideoError
from descore.evaluation.features import FEATURES, HACK_MEASURES, MEASURE_LEVEL, Measured, change_of
from descore.evaluation.judges import FeatureJudge
from descore.evaluation.perturbations import one_repeated
from descore.evaluation.stress import compare_generators
from descore.stats.bootstrap import bootstrap_difference


def clips(count=6, *, change=lambda frames: frames, prompts="thing", gone=()):
    """Clips of moving squares, each of its own prompt."""

    def opened(name):
        if name in gone:
            raise VideoError(name, "no such file")
        made = moving(int(name))
        return replace(made, frames=change(made.frames))

    rated = tuple(clip(str(index), prompt=f"{prompts} {index}") for index in range(count))
    return FakeJudgements(clips=rated, pairs=(), open=opened)


def compared(after, *, before=None, **options):
    look = options.pop("judge", None) or Looks(brightness)
    return compare_generators(look, {"before": before or clips(), "after": after}, **options)


def row(result, name):
    return {one.name: one for one in result.changes}[name]


def measured(**values_of_prompt):
    """Clips with a reward, by prompt."""
    return [Measured(prompt, {"reward": v}) for prompt, values in values_of_prompt.items() for v in values]


def darker_and_still(frames):
    return one_repeated(frames) - 20


def lighter_and_still(frames):
    return one_repeated(frames) + 20


def test_a_reward_that_is_up_while_motion_is_gone_is_named():
    result = compared(clips(change=lighter_and_still))
    assert row(result, "reward").better
    assert row(result, "reward").figure.value == pytest.approx(20, abs=0.5)
    motion, repeats = row(result, "motion"), row(result, "repeats")
    assert motion.worse
    assert (motion.before > 1, motion.after, repeats.before, repeats.after) == (True, 0, 0, 1)
    assert {"frozen motion", "repeated frames"} <= set(result.hacks)
    assert (result.matched, result.prompts, result.left_out) == (True, 6, 0)


def test_a_measure_that_is_worse_alone_is_not_named():
    result = compared(clips(change=darker_and_still))
    assert row(result, "reward").worse
    assert row(result, "motion").worse
    assert result.hacks == ()


def test_a_drift_of_brightness_counts_either_way():
    for shift in (30, -30):
        change = row(
            compared(clips(change=lambda frames, shift=shift: (frames.astype(int) + shift).astype(np.uint8))),
            "brightness",
        )
        assert (change.worse, change.better) == (True, False)
        assert change.figure.value == pytest.approx(shift, abs=0.01)


def test_the_same_clips_have_no_change():
    result = compared(clips())
    assert all((one.figure.value, one.worse, one.better) == (0, False, False) for one in result.changes)


def test_text_is_seen_among_moving_squares():
    big = lambda frames: frames.repeat(4, axis=1).repeat(4, axis=2)  # noqa: E731
    result = compared(clips(change=lambda frames: written(big(frames))), before=clips(change=big))
    assert (row(result, "text").worse, row(result, "text").before) == (True, 0)
    assert math.isnan(row(result, "text").shift)


def test_a_change_below_a_quarter_deviation_is_none():
    """Levels 0 to 5 have a sample deviation of sqrt(3.5) = 1.87: a shift of .4 is .21 of it, one of .5 is .27."""
    before = [Measured(f"p{index}", {"contrast": float(index)}) for index in range(6)]
    for step, worse in ((0.4, False), (0.5, True), (-0.5, True)):
        after = [Measured(one.prompt, {"contrast": one.values["contrast"] + step}) for one in before]
        change = change_of("contrast", before=before, after=after, matched=True)
        assert change.worse is worse
        assert change.shift == pytest.approx(step / math.sqrt(3.5))


def test_each_prompt_counts_once_where_clips_are_matched():
    """Prompt a rises by 3 and b by 1: a mean of 2, however many clips they have."""
    before, after = measured(a=[0.0, 2.0, 1.0], b=[5.0, 5.0]), measured(a=[4.0] * 3, b=[4.0, 6.0, 8.0])
    change = change_of("reward", before=before, after=after, matched=True)
    assert (change.figure.value, change.figure.n, change.figure.groups) == (2, 2, 2)
    assert (change.before, change.after) == (pytest.approx(13 / 5), 5)
    assert (change.figure.low, change.figure.high, change.better) == (1, 3, True)


def test_clips_of_other_prompts_are_not_paired():
    result = compared(clips(prompts="another", change=lighter_and_still))
    assert (result.matched, result.prompts, result.left_out) == (False, 0, 0)
    assert (row(result, "reward").figure.n, row(result, "reward").figure.groups) == (12, 12)
    assert row(result, "motion").worse


def test_clips_whose_prompt_is_on_one_side_are_left_out():
    result = compared(clips(8), before=clips(5))
    assert (result.matched, result.prompts, result.left_out) == (True, 5, 3)
    assert row(result, "reward").figure.n == 5


def test_clips_of_a_single_prompt_are_resampled_themselves():
    before, after = measured(a=[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]), measured(a=[3.0, 4.0, 3.0, 4.0, 3.0, 4.0])
    change = change_of("reward", before=before, after=after, matched=False)
    assert (change.figure.value, change.figure.groups, change.better) == (3, 12, True)


@pytest.mark.parametrize("few", ["before", "after"])
def test_fewer_than_5_clips_on_a_side_conclude_nothing(few):
    sides = {"before": clips(), "after": clips(change=lighter_and_still)}
    sides[few] = clips(4, change=lighter_and_still if few == "after" else lambda frames: frames)
    result = compare_generators(Looks(brightness), sides)
    assert {(one.worse, one.better) for one in result.changes} == {(None, None)}
    assert result.hacks == ()


def test_clips_that_cannot_be_read_are_counted_and_named():
    judge = FeatureJudge(feature=FEATURES["sharpness"])
    result = compared(clips(gone=("1",)), before=clips(gone=("0",)), judge=judge)
    assert (result.clips, result.scored) == ({"before": 6, "after": 6}, {"before": 5, "after": 5})
    assert [(one["side"], one["video"], one["error"]) for one in result.failures] == [
        ("before", "0", "no such file"),
        ("after", "1", "no such file"),
    ]
    assert result.left_out == 2


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path):
    class Interrupted(Looks):
        def judge(self, clips, *, open_video):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().judge(clips, open_video=open_video)

    after, journal = clips(change=lighter_and_still), tmp_path / "generators.jsonl"
    with pytest.raises(KeyboardInterrupt):
        compared(after, judge=Interrupted(brightness), journal=journal)
    resumed, seen = Looks(brightness), []
    result = compared(after, judge=resumed, journal=journal, on_progress=lambda done, total: seen.append((done, total)))
    assert resumed.batches == [3]
    assert seen == [(9, 12), (12, 12)]
    assert result == compared(after)


def test_a_damaged_journal_names_its_line(tmp_path):
    (tmp_path / "generators.jsonl").write_text(json.dumps({"side": "before", "clip": 99, "values": {}}) + "\n")
    with pytest.raises(DataError, match=r"generators\.jsonl:1: holds no side and clip"):
        compared(clips(), journal=tmp_path / "generators.jsonl")


def test_a_difference_of_means_and_its_interval():
    """Group a has 0 before and 2 after, b has 4 and 10: the means are 2 and 6. A resample of one group twice has a
    difference of 2 or 6."""
    figure = bootstrap_difference(
        np.asarray([0.0, 4.0]), np.asarray(["a", "b"]), np.asarray([2.0, 10.0, np.nan]), np.asarray(["a", "b", "b"])
    )
    assert (figure.value, figure.low, figure.high) == (4, 2, 6)
    assert (figure.n, figure.failed, figure.groups) == (4, 1, 2)


def test_a_difference_to_nothing_has_no_value():
    nothing = bootstrap_difference(np.asarray([1.0]), np.asarray([0]), np.asarray([np.nan]), np.asarray([1]))
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.failed) == (0, 2)


def test_intervals_of_measures_allow_for_their_number():
    assert pytest.approx(0.05) == (1 - MEASURE_LEVEL) * len(HACK_MEASURES)
