"""Records and untrusted texts in words that are safe to show."""

from tests.conftest import noise_clip
from tests.report.test_cards import ANSWER, completion_of

from descore.report.text import facts, flags, one_line, plain, prose


def test_prose_leaves_out_an_answer_that_was_read():
    assert prose(completion_of()) == "I see a star.\nIt moves."
    assert ANSWER in prose(completion_of(verdict=None, flaw="the overall is not a number"))


def test_flags_name_what_a_reader_must_know():
    assert flags(completion_of()) == []
    assert flags(completion_of(truncated=True, flaw="no\nanswer")) == [
        "the thinking was cut off after 8 tokens",
        "no marks: no answer",
    ]


def test_text_cannot_steer_a_terminal():
    assert plain("a\x1b[2Jb\rc\td\n") == "a�[2Jb�c   d\n"
    assert one_line("a\n\n b\udcff") == "a b�"
    assert plain("naïve 猫 🐈") == "naïve 猫 🐈"


def test_facts_read_well():
    assert facts(noise_clip(0)) == "32x32, 1 fps, 4.0 s"
