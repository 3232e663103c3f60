"""The picture of scores: a pure function that takes any text, any clip and any verdict."""

from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import noise_clip

from descore.report.card import MARK_COLOURS, WIDTH, Section, draw_card, draw_page
from descore.report.drawing import font, paragraph, shorten, wrap
from descore.report.text import facts, flags, one_line, plain, prose
from descore.types import Completion, Score, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}
ANSWER = '<answer>{"dimensional_scores": {}, "overall_score": 3.5}</answer>'
ODD = "猫が走る 🐈 \x1b[31m مرحبا\udcff \u200b" + "w" * 400


def completion_of(**changes):
    completion = Completion(
        token_ids=[1] * 9,
        text=f"I see a star.\nIt moves.\n{ANSWER}",
        truncated=False,
        verdict=Verdict(marks=MARKS, overall=3.5),
        flaw=None,
        rewards={"overall": 0.5},
    )
    return replace(completion, **changes)


def score_of(completion=None, *, clip=None, **changes):
    score = Score(
        clip=clip or noise_clip(0),
        prompt="a star moves",
        model="m",
        reward=0.5,
        score=1.25,
        std=None,
        completions=(completion or completion_of(),),
    )
    return replace(score, **changes)


def has_colour(picture, colour):
    wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return bool((np.asarray(picture) == wanted).all(axis=-1).any())


def test_a_page_is_the_same_for_the_same_scores():
    scores = (score_of(), score_of(std=0.1))
    sections = [
        Section(title="Ranked", note="a note", scores=scores, ranked=True),
        Section(title="Rest", scores=scores),
    ]
    one, other = (draw_page(sections, title="Title", note="note", footer="footer") for _ in range(2))
    assert one.mode == "RGB"
    assert one.width == WIDTH
    assert one.tobytes() == other.tobytes()


def test_a_page_grows_with_its_scores():
    heights = [draw_page([Section(title="t", scores=(score_of(),) * n)], title="t").height for n in (0, 1, 3)]
    assert heights[0] < heights[1] < heights[2]


def test_every_mark_has_its_colour_and_no_verdict_has_none():
    with_marks, without = draw_card(score_of()), draw_card(score_of(completion_of(verdict=None, flaw="no answer")))
    assert all(has_colour(with_marks, fill) for _, fill in MARK_COLOURS.values())
    # a grey like that of N/A is found at the edges of any letter
    assert not any(has_colour(without, MARK_COLOURS[mark][1]) for mark in (0, 1, 2))


@pytest.mark.parametrize("ranked", [True, False])
def test_any_text_can_be_drawn(ranked):
    odd = score_of(completion_of(text=ODD * 30 + ANSWER, truncated=True), prompt=ODD * 5)
    page = draw_page([Section(title=ODD, note=ODD, scores=(odd,), ranked=ranked)], title=ODD)
    assert page.width == WIDTH
    assert page.height < 2500


@pytest.mark.parametrize(("frames", "width", "height"), [(1, 32, 32), (40, 64, 64), (4, 640, 32), (3, 32, 640)])
def test_clips_of_any_shape_fit(frames, width, height):
    card = draw_card(score_of(clip=noise_clip(0, frames=frames, width=width, height=height)))
    assert card.width == WIDTH
    assert card.height < 1500


def test_no_thinking_is_said():
    assert draw_card(score_of(completion_of(text="", verdict=None))).height > 0


def test_prose_leaves_out_an_answer_that_was_read_and_keeps_one_that_was_not():
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


def test_lines_fit_their_width():
    text = "some words of unlike length and a " + "verylong" * 20
    for line in wrap(text, width=120, size=16):
        assert font(16).getlength(line) <= 120
    assert "".join(wrap(text, width=120, size=16)).replace(" ", "") == text.replace(" ", "")
    assert font(16).getlength(shorten(text, width=120, size=16)) <= 120


def test_long_paragraphs_end_with_an_ellipsis():
    def height(text):
        return paragraph(text, width=200, size=16, ink="#000000", paper="#ffffff", most=3).height

    assert height("word " * 100) == height("word\n" * 2 + "word") == 3 * height("word")
