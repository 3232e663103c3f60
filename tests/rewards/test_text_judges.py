"""The adapters for training a judge on text: TRL, ms-swift and EasyR1, called as these trainers call a reward."""

import json
import math
from functools import partial

import pytest

from descore.errors import ConfigError, DataError
from descore.rewards.easyr1 import REWARD_TYPE, judge_scores
from descore.rewards.ms_swift import JUDGE_ORMS
from descore.rewards.trl import (
    answer_format,
    completion_text,
    mark_agreement,
    preference_agreement,
    rating_agreement,
)
from descore.rubric import marks_json, write_answer
from descore.types import DIMENSIONS, Verdict

TRUE = {"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}


def chain(overall=3.0, **marks):
    """A chain that ends in an answer with the true marks but these."""
    return "The ball is red.\n" + write_answer(Verdict(marks={**TRUE, **marks}, overall=overall))


def trl_rewards(functions, completions, weights=None, **columns):
    """A caller as TRL's GRPOTrainer: columns by name, None as nan, the sum of what is not nan, names for the log."""
    rows = {}
    for function in functions:
        values = function(
            prompts=["judge"] * len(completions), completions=completions, completion_ids=[[1]] * len(completions),
            trainer_state=None, **columns,
        )  # fmt: skip
        rows[function.__name__] = [math.nan if value is None else value for value in values]
    table = list(zip(*rows.values(), strict=True))
    total = [
        sum(w * value for w, value in zip(weights or [1.0] * len(rows), row, strict=True) if not math.isnan(value))
        for row in table
    ]
    return rows, total


def swift_rewards(name, completions, **columns):
    """A caller as ms-swift: a class by its name, made with what its signature asks for, called with completions."""
    made = JUDGE_ORMS[name]
    return made(args=object())(completions, messages=[[]] * len(completions), **columns)


def easyr1_rewards(rows, **settings):
    """A caller as EasyR1's batch manager: a partial of the function, and one list of dicts for all."""
    assert REWARD_TYPE == "batch"
    function = partial(judge_scores, **settings)
    return function([{"response": r, "response_length": len(r), "ground_truth": g} for r, g in rows])


def test_marks_agree_by_fifths():
    completions = [chain(), chain(style=1), chain(style=1, camera=2), "no answer"]
    rows, total = trl_rewards(
        [answer_format, mark_agreement], completions, [0.2, 1.0], marks=[marks_json(TRUE)] * 3 + [TRUE]
    )
    assert rows == {"answer_format": [1, 1, 1, 0], "mark_agreement": [1, 0.8, 0.6, 0]}
    assert total == pytest.approx([1.2, 1.0, 0.8, 0])


def test_a_row_without_a_label_is_left_out():
    rows, total = trl_rewards([answer_format, mark_agreement], [chain(), chain()], marks=[None, TRUE])
    assert math.isnan(rows["mark_agreement"][0])
    assert total == [1, 2]
    assert rating_agreement([chain(), chain()], rating=[None, ""]) == [None, None]


def test_ratings_agree_by_their_distance():
    """On 1 to 5, one apart is a quarter, four apart is all."""
    completions = [chain(3.5), chain(4.5), chain(1.0), chain(5.0), "none"]
    assert rating_agreement(completions, rating=[3.5, "3.5", 5, 5.0, 5]) == [1, 0.75, 0, 1, 0]
    with pytest.raises(DataError, match=r"<batch>:2: rating is 70; expected 1 to 5, the scale of the answer"):
        rating_agreement([chain(), chain()], rating=[3, 70])


def test_preferences_agree_with_the_other_sides_answers():
    """Pair 7: people prefer a. Its answers 4 and 2 stand against 3 of b (and a b without one): 4 is right, 2 wrong, and
    b's 3 is below one of two. Pair 8 is a tie: 3 against 3 is right, 3 against 5 half."""
    completions = [chain(4), chain(2), chain(3), "none", chain(3), chain(3), chain(5)]
    columns = {
        "pair": [7, 7, "7", "7", 8, 8, 8],
        "side": ["a", "A", "b", "b", "a", "b", "b"],
        "preference": ["a", "a", "a", "a", "tie", "tie", "tie"],
    }
    assert preference_agreement(completions, **columns) == [1, 0, 0.5, 0, 0.75, 1, 0.5]


def test_a_preference_without_the_other_side_is_left_out():
    columns = {"pair": [1, 2, 3], "side": ["a", "b", None], "preference": ["a", "b", "a"]}
    assert preference_agreement([chain(), chain(), chain()], **columns) == [None, None, None]
    assert preference_agreement([chain(), chain()], pair=[1, 1], side=["a", "b"], preference=["", None]) == [None, None]


def test_completions_of_every_form():
    answer = chain()
    parts = [{"type": "text", "text": answer[:9]}, {"type": "text", "text": answer[9:]}]
    for completion in (
        answer,
        [{"role": "assistant", "content": answer}],
        [{"role": "assistant", "content": "?"}, {"role": "assistant", "content": parts}],
    ):
        assert completion_text(completion) == answer
        assert answer_format([completion]) == [1]
    assert answer_format([[], [{"role": "assistant", "content": None}]]) == [0, 0]


@pytest.mark.parametrize(
    ("function", "columns", "message"),
    [
        (mark_agreement, {}, "the data set has no column 'marks'; add it, or leave this reward out"),
        (rating_agreement, {"marks": [TRUE]}, "the data set has no column 'rating'"),
        (preference_agreement, {"pair": [1], "side": ["a"]}, "the data set has no column 'preference'"),
        (mark_agreement, {"marks": [TRUE, TRUE]}, "1 completions, but 2 in the column 'marks'"),
        (mark_agreement, {"marks": [{"subject": 2}]}, "<batch>:1: marks has subject; expected a mark for each of"),
        (preference_agreement, {"pair": [1], "side": ["left"], "preference": ["a"]}, "side is 'left'; expected a or b"),
        (preference_agreement, {"pair": [None], "side": ["a"], "preference": ["a"]}, "pair is empty"),
    ],
)
def test_columns_that_cannot_be_read(function, columns, message):
    with pytest.raises(ValueError, match=message):
        function([chain()], **columns)


def test_ms_swift_gets_numbers_and_nan():
    completions = [chain(), chain(style=2), "none"]
    assert swift_rewards("descore_format", completions) == [1, 1, 0]
    marks = swift_rewards("descore_marks", completions, marks=[TRUE, TRUE, None])
    assert marks[:2] == [1, 0.8]
    assert math.isnan(marks[2])
    assert swift_rewards("descore_rating", completions, rating=[3, 5, 1]) == [1, 0.5, 0]
    sides = {"pair": [1, 1, 1], "side": list("abb"), "preference": ["tie"] * 3}
    assert swift_rewards("descore_preference", completions, **sides) == [1, 1, 0]


def test_easyr1_gets_the_weighted_mean_and_its_parts():
    marks, rating = json.dumps({"marks": TRUE}), json.dumps({"marks": TRUE, "rating": 4.0})
    first, second, third = easyr1_rewards(
        [(chain(style=1), marks), (chain(3.0), rating), ("none", rating)], format_weight=0.5, rating_weight=2.0
    )
    assert first == pytest.approx({"overall": (0.8 + 0.5) / 1.5, "marks": 0.8, "format": 1})
    assert second == pytest.approx({"overall": (1 + 2 * 0.75 + 0.5) / 3.5, "marks": 1, "rating": 0.75, "format": 1})
    assert third == {"overall": 0, "marks": 0, "rating": 0, "format": 0}


def test_easyr1_compares_the_sides_of_a_pair():
    sides = [json.dumps({"pair": "1", "side": side, "preference": "b"}) for side in "ab"]
    rows = easyr1_rewards([(chain(2), sides[0]), (chain(4), sides[1])], format_weight=0)
    assert [row["overall"] for row in rows] == [1, 1]
    with pytest.raises(
        ConfigError, match="ground_truth 0 has no label to compare with; expected marks, rating, or pair"
    ):
        easyr1_rewards([(chain(2), sides[0])])


@pytest.mark.parametrize(
    ("ground_truth", "settings", "message"),
    [
        ("4", {}, "ground_truth 0 is '4'; expected labels as JSON"),
        ("right", {}, "ground_truth 0 is 'right'; expected labels as JSON"),
        ("{}", {}, "ground_truth 0 has no label"),
        ('{"rating": 3}', {"rating_weight": 0, "format_weight": 0}, "the weights of rating, format add up to 0"),
    ],
)
def test_ground_truths_that_cannot_be_used(ground_truth, settings, message):
    with pytest.raises(ConfigError, match=message):
        easyr1_rewards([(chain(), ground_truth)], **settings)


def test_the_names_of_ms_swift_are_all_of_trls():
    functions = {answer_format, mark_agreement, rating_agreement, preference_agreement}
    assert {made.function for made in JUDGE_ORMS.values()} == functions
    assert set(DIMENSIONS) == set(TRUE)
