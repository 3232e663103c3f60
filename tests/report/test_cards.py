"""The page of cards: the same text for the same cards; it takes any text, any clip and any verdict."""

import base64
import io
from dataclasses import replace

import pytest
from PIL import Image
from tests.conftest import noise_clip
from tests.report.made_runs import HOSTILE
from tests.report.test_page import Page

from descore.report.cards import SIDE, CardSection, ClipCard, render_cards, score_card
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


def html_of(*cards, **section):
    return render_cards([CardSection(title="Clips", cards=cards, **section)], title="Title", generator="test")


def frames_of(page):
    uris = [image["src"].removeprefix("data:image/jpeg;base64,") for image in page.all("img")]
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def test_the_same_cards_give_the_same_page():
    cards = [score_card(score_of(), rank=1), score_card(score_of(std=0.1), rank=2)]
    assert html_of(*cards, note="a note") == html_of(*cards, note="a note")


def test_a_card_shows_reward_score_chain_and_marks():
    page = Page(html_of(score_card(score_of(std=0.125))))
    for shown in ("+0.50 ± 0.12", "+1.25", "I see a star.\nIt moves.", "“a star moves”", "not asked", "3.50 of 5"):
        assert shown in page.text
    assert ANSWER not in page.text
    assert "in truth" not in page.text


def test_a_ranked_card_leaves_the_prompt_to_its_section():
    page = Page(html_of(*(score_card(score_of(), rank=rank) for rank in (1, 2)), prompt="a star moves"))
    assert page.text.count("“a star moves”") == 1
    badges = [attributes["class"] for attributes in page.all("span") if "badge" in attributes.get("class", "")]
    assert badges == ["badge emphasized"] * 2


def test_true_marks_stand_where_they_differ():
    truth = Verdict(marks={**MARKS, "style": 0}, overall=2.5)
    page = Page(html_of(score_card(score_of(), truth=truth)))
    assert page.text.count("in truth") == 2
    assert "in truth wrong" in page.text
    assert "in truth 2.50" in page.text


@pytest.mark.parametrize(("frames", "shown"), [(1, 1), (3, 3), (40, 8)])
def test_frames_run_from_the_first_to_the_last(frames, shown):
    clip = noise_clip(0, frames=frames)
    page = Page(html_of(ClipCard(clip=clip, title="clip")))
    assert len(page.all("img")) == shown
    assert page.all("img")[0]["alt"] == f"Frame at {clip.times[0]:.2f} seconds"
    assert page.all("img")[-1]["alt"] == f"Frame at {clip.times[-1]:.2f} seconds"


@pytest.mark.parametrize(("width", "height", "shown"), [(32, 32, (32, 32)), (640, 320, (SIDE, SIDE // 2))])
def test_large_frames_are_scaled_down(width, height, shown):
    page = Page(html_of(ClipCard(clip=noise_clip(0, frames=2, width=width, height=height), title="clip")))
    assert {frame.size for frame in frames_of(page)} == {shown}


def test_a_missing_or_unread_chain_is_flagged():
    assert "(scored without thinking)" in html_of(score_card(score_of(completion_of(text="", verdict=None))))
    cut = Page(html_of(score_card(score_of(completion_of(verdict=None, flaw="no answer", truncated=True)))))
    assert "no marks: no answer" in cut.text
    assert "cut off after 8 tokens" in cut.text
    assert cut.all("table") == []


def test_the_page_has_no_script_and_fetches_nothing():
    html = html_of(score_card(score_of()))
    page = Page(html)
    assert page.all("script") == []
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "script-src 'none'" in policy
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "http" not in html.replace("http-equiv", "")


@pytest.mark.parametrize("text", [ODD, HOSTILE])
def test_any_text_stays_text(text):
    odd = replace(score_of(completion_of(text=text + ANSWER, truncated=True), prompt=text), model=text)
    section = CardSection(title=text, cards=[score_card(odd)], prompt=text, note=text)
    html = render_cards([section], title=text, generator="test", note=text, footer=text)
    page = Page(html.encode().decode())
    assert page.all("script") == []
    assert "\x1b" not in html
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
