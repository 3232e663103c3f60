"""Whatever a chain's answer holds, it is read or it is an AnswerError of one short line."""

import json

import pytest

from descore.errors import AnswerError
from descore.report.text import chain_prose
from descore.rubric import read_answer, write_answer
from descore.types import DIMENSIONS, Completion, Verdict

VERDICT = Verdict(marks={"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}, overall=3.5)
ANSWER = write_answer(VERDICT)
JSON = ANSWER.removeprefix("<answer>").removesuffix("</answer>")


def answer(overall, marks=None):
    marks = marks or json.dumps(dict.fromkeys(DIMENSIONS, 2))
    return f'<answer>{{"dimensional_scores": {marks}, "overall_score": {overall}}}</answer>'


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (answer("4" * 400), "'overall_score' is a whole number of 1328 bits"),
        (answer("-" + "4" * 400), "'overall_score' is a whole number of 1328 bits"),
        (answer("1e400"), "is inf; expected a number"),
        (answer("4" * 6000), "a number of too many digits"),
        (answer("[" * 1200), "too many brackets|not JSON"),
        (answer("[" * 200_000), "too many brackets"),
        (answer("[" * 200_000 + "]" * 200_000), "too many brackets"),
        (answer('{"a":' * 200_000), "too many brackets"),
        (answer(json.dumps("x" * 10_000)), "'overall_score' is 'xxx"),
        (answer("4", '{"subject": ' + "1" * 400 + "}"), "mark for 'subject' is a whole number of 1326 bits"),
        (answer("4", '{"subject": [[2]]}'), "mark for 'subject' is"),
        (answer("4", '{"subject": NaN}'), "mark for 'subject' is nan"),
        (answer("4", '{"subject": "\\ud83d"}'), "mark for 'subject' is"),
        ("<answer>" * 100_000, "no <answer>"),
        ("</answer>" * 100_000, "no <answer>"),
        ("</answer> <answer>", "no <answer>"),
        ("<answer></answer>", "not JSON"),
        ("<answer>```</answer>", "not JSON"),
        ("<answer>``````</answer>", "not JSON"),
        (f"<answer>```json\n{JSON}</answer>", "not JSON"),
    ],
    ids=range(20),
)
def test_an_odd_answer_is_an_answer_error(chain, reason):
    with pytest.raises(AnswerError, match=reason) as error:
        read_answer(chain)
    assert len(str(error.value)) < 160


@pytest.mark.parametrize(
    "chain",
    [
        f"I will write <answer> at the end. {ANSWER}",
        f"It goes between <answer> and </answer>. {ANSWER}",
        f"First {ANSWER.replace('3.50', '1.00')}, but no: {ANSWER}",
        f"{ANSWER} That was the </answer>",
        f"{ANSWER} and <answer>",
        f"<answer>\n```json\n{JSON}\n```\n</answer>",
        f"<answer>```{JSON}```</answer>",
        f"```json\n{ANSWER}\n```",
    ],
)
def test_the_last_answer_is_read(chain):
    assert read_answer(chain) == VERDICT


def test_prose_ends_where_the_answer_begins():
    text = f"The <answer> follows. {ANSWER} <answer>"
    completion = Completion(
        token_ids=[1], text=text, truncated=False, verdict=VERDICT, flaw=None, rewards={"overall": 3.5}
    )
    assert chain_prose(completion) == "The <answer> follows."
