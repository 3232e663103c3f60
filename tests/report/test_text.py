"""Records, figures and untrusted texts in words that are safe to show."""

import subprocess
import sys

from tests.conftest import noise_clip
from tests.report.test_cards import ANSWER, completion_of

from descore.report.text import (
    chain_prose,
    clip_facts,
    completion_warnings,
    decimal,
    interval_text,
    number,
    one_line,
    plain,
    signed_decimal,
)


def test_prose_leaves_out_an_answer_that_was_read():
    assert chain_prose(completion_of()) == "I see a star.\nIt moves."
    assert ANSWER in chain_prose(completion_of(verdict=None, flaw="the overall is not a number"))


def test_warnings_name_cut_off_and_missing_marks():
    assert completion_warnings(completion_of()) == []
    assert completion_warnings(completion_of(truncated=True, flaw="no\nanswer")) == [
        "the thinking was cut off after 8 tokens",
        "no marks: no answer",
    ]


def test_text_cannot_steer_a_terminal():
    assert plain("a\x1b[2Jb\rc\td\n") == "a�[2Jb�c   d\n"
    assert one_line("a\n\n b\udcff") == "a b�"
    assert plain("naïve 猫 🐈") == "naïve 猫 🐈"


def test_facts_read_well():
    assert clip_facts(noise_clip(0)) == "32x32, 1 fps, 4.0 s"


def test_figures_are_written_without_their_zero():
    assert [decimal(value) for value in (0.7341, 1.0, -0.05, 0.0, -0.0001, None, float("nan"))] == [
        ".734",
        "1.000",
        "−.050",
        ".000",
        ".000",
        "–",
        "–",
    ]
    assert [signed_decimal(value) for value in (0.05, -0.05, 0.0, 1.5)] == ["+.050", "−.050", ".000", "+1.500"]
    assert interval_text({"low": 0.1, "high": 0.25}) == "[.100, .250]"
    assert interval_text({"low": None, "high": None}) == interval_text(None) == ""
    assert [number(value) for value in (1234.5, -0.000355, None)] == ["1,234", "−0.000355", "–"]


def test_the_module_imports_neither_numpy_nor_torch():
    code = "import sys, descore.report.text; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
