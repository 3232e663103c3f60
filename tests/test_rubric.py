"""Answers are read as they were written, and whatever is wrong has its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.errors import AnswerError, ConfigError
from descore.rubric import DEFAULT_RUBRIC, fill_rubric, overall_of, read_answer, write_answer
from descore.types import DIMENSIONS, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}
GOOD = DEFAULT_RUBRIC[DEFAULT_RUBRIC.index("<answer>") :].replace("3.50", "4")


@given(
    st.fixed_dictionaries({name: st.sampled_from([0, 1, 2, None]) for name in DIMENSIONS}),
    st.integers(100, 500).map(lambda cents: cents / 100),
)
def test_a_written_answer_reads_back(marks, overall):
    verdict = Verdict(marks=marks, overall=overall)
    assert read_answer(f"I see.\n{write_answer(verdict)}") == verdict


def test_the_default_rubric_asks_for_what_is_read():
    verdict = read_answer(DEFAULT_RUBRIC)
    assert verdict == Verdict(marks=MARKS, overall=3.5)


def test_the_last_answer_counts():
    first = write_answer(Verdict(marks=MARKS, overall=1.0))
    last = write_answer(Verdict(marks=MARKS, overall=5.0))
    assert read_answer(f"{first} no, wait: {last}").overall == 5.0


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ("", "no <answer>"),
        ("<answer>5", "no <answer>"),
        ("<answer>5</answer>", "no object 'dimensional_scores'"),
        ("<answer>{</answer>", "not JSON"),
        (GOOD.replace("4}", "6}"), "is 6; expected 1.00 to 5.00"),
        (GOOD.replace("4}", "NaN}"), "is nan; expected a number"),
        (GOOD.replace("4}", "true}"), "is True; expected a number"),
        (GOOD.replace("overall_score", "overall"), "is None; expected a number"),
        (GOOD.replace("2,", "3,", 1), "'subject' is 3"),
        (GOOD.replace("style", "stile"), "no mark for 'style'"),
    ],
)
def test_what_cannot_be_read_has_its_reason(chain, reason):
    with pytest.raises(AnswerError) as fault:
        read_answer(chain)
    assert reason in str(fault.value)


def test_overall_by_hand():
    """Weights 2, 2, 1, 1, 1; camera does not apply: (2*2 + 2*1 + 1*2 + 1*0) / 6 = 4/3; 1 + 2 * 4/3 = 3.67."""
    assert overall_of(MARKS) == 3.67
    assert overall_of(dict.fromkeys(DIMENSIONS, 2)) == 5.0
    assert overall_of(dict.fromkeys(DIMENSIONS, 0)) == 1.0
    assert overall_of(dict.fromkeys(DIMENSIONS)) == 3.0


@pytest.mark.parametrize("rubric", ["no place", "{prompt} and {prompt}"])
def test_a_rubric_has_one_place_for_the_prompt(rubric):
    with pytest.raises(ConfigError, match="exactly once"):
        fill_rubric(rubric, prompt="x")


def test_a_prompt_with_braces_is_only_text():
    assert fill_rubric("<{prompt}>", prompt="{prompt} {0}") == "<{prompt} {0}>"
