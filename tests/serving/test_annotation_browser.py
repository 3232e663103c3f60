"""The page on which people judge, in a real browser: by keyboard and by hand, with videos that it cannot play.

To look at the pictures: DESCORE_SCREENSHOTS=folder pytest tests/serving/test_annotation_browser.py"""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from descore.serving.annotation import create_annotation_app
from descore.serving.settings import ServerSettings
from descore.serving.votes import VoteJournal, read_task, read_votes
from descore.video.encoder import write_mp4
from tests.serving.chromium import BINARY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]
HOSTILE = "<img src=x onerror=alarmed=1>"
PLAYING = "[...document.querySelectorAll('video')].every((one) => one.currentTime > .2 && one.videoWidth === 64)"


@pytest.fixture
def table(tmp_path):
    """Three pairs: of H.264, of a codec that browsers do not play, and with a file that is no video."""
    for name, codec in (("a", "libx264"), ("b", "libx264"), ("old", "mpeg4"), ("hevc", "libx265")):
        noise = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), dtype=np.uint8)
        write_mp4(tmp_path / f"{name}.mp4", noise, fps=12, codec=codec)
    (tmp_path / "words.mp4").write_text("only words")
    rows = [(f"one {HOSTILE}", "a", "b"), ("two", "hevc", "old"), ("three", "words", "b")]
    lines = [json.dumps({"prompt": p, "video_a": f"{a}.mp4", "video_b": f"{b}.mp4"}) for p, a, b in rows]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def page(live, open_page, table, tmp_path):
    """A function: the page of a server with these labels and settings."""
    with ExitStack() as stack:

        def start(*labels, **settings):
            journal = stack.enter_context(VoteJournal.open(read_task(table, labels=labels), tmp_path / "votes.jsonl"))
            return open_page(live(create_annotation_app(journal, settings=ServerSettings(**settings))))

        yield start


def enter(page, name="Ann"):
    page.fill("#rater", name)
    page.press("Enter")
    page.wait_for("document.querySelector('#status').textContent.startsWith('pair ')")


def go_to(page, prompt):
    """Skip pairs until this one is shown."""
    while prompt not in page.text("#prompt"):
        before = page.text("#progress-text")
        page.click("#skip-now")
        page.wait_for(f"document.querySelector('#progress-text').textContent !== {json.dumps(before)}")


def votes(tmp_path):
    return read_votes(tmp_path / "votes.jsonl.journal")[1]


def test_keys_play_choose_and_save(page, tmp_path):
    page = page("looks", "motion")
    enter(page)
    go_to(page, "one")
    page.wait_for(PLAYING)
    times = page.run("[...document.querySelectorAll('video')].map((one) => one.currentTime)")
    assert abs(times[0] - times[1]) < 0.2
    page.press(" ")
    assert page.run("[...document.querySelectorAll('video')].every((one) => one.paused)")
    before = page.text("#progress-text")
    for key in ("1", "3", "Enter"):
        page.press(key)
    page.wait_for(f"document.querySelector('#progress-text').textContent !== {json.dumps(before)}")
    kept = votes(tmp_path)[-1]
    other = "b" if kept.left == "a" else "a"
    assert kept.choices == {"looks": kept.left, "motion": other}
    assert kept.seconds > 0


def test_a_pair_can_be_judged_again_and_skipped_with_a_reason(page, tmp_path):
    page = page()
    enter(page)
    page.press("2")
    page.press("Enter")
    page.wait_for("document.querySelector('#status').textContent.startsWith('pair 2')")
    page.press("b")
    page.wait_for("document.querySelector('#status').textContent.includes('your vote is filled in')")
    assert page.run("document.querySelector('input[value=tie]').checked")
    page.press("s")
    assert page.run("document.activeElement.id") == "reason"
    page.run("(reason.value = '', reason.dispatchEvent(new Event('change')))")
    page.click("#skip-now")
    assert page.text("#status") == "write the reason first"
    page.type("both are black")
    page.click("#skip-now")
    page.wait_for("document.querySelector('#status').textContent.startsWith('pair 2')")
    assert [(vote.choices, vote.skipped) for vote in votes(tmp_path)] == [
        ({"overall": "tie"}, None),
        ({}, "both are black"),
    ]


def test_a_vote_without_a_choice_is_not_saved(page, tmp_path):
    page = page("looks", "motion")
    enter(page)
    page.press("1")
    page.click("#save")
    assert page.text("#status") == "choose left, tie or right first"
    assert votes(tmp_path) == []


def test_codecs_that_the_browser_lacks_are_played_all_the_same(page):
    page = page()
    enter(page)
    go_to(page, "two")
    page.wait_for(PLAYING)
    sources = page.run("[...document.querySelectorAll('video')].map((one) => one.src.endsWith('playable'))")
    assert sources == [True, True]


def test_a_file_that_is_no_video_says_so(page):
    page = page()
    enter(page)
    go_to(page, "three")
    page.wait_for("document.querySelector('#sides').innerText.includes('words.mp4: not a video')")


def test_prompts_never_become_html(page):
    page = page()
    enter(page, HOSTILE)
    go_to(page, "one")
    assert page.text("#prompt") == f"“one {HOSTILE}”"
    assert HOSTILE in page.text("#progress-text")
    assert not page.run("window.alarmed")


def test_raters_go_on_and_see_the_end(page, open_page):
    page = page()
    enter(page)
    for number in (1, 2, 3):
        page.wait_for(f"document.querySelector('#status').textContent.startsWith('pair {number}')")
        page.press("3")
        page.press("Enter")
    page.wait_for("!document.querySelector('#end').hidden")
    assert "all 3 pairs" in page.text("#end-text")
    page = open_page(page.run("location.href"))
    page.wait_for("document.querySelector('#raters option').value === 'Ann'")
    page.fill("#rater", "Bob")
    page.press("Enter")
    page.wait_for("document.querySelector('#progress-text').textContent === '0 of 3, Bob'")


def test_the_token_is_asked_for(page):
    page = page(api_key="secret")
    page.wait_for("document.querySelector('#token-dialog').open")
    page.fill("#token", "secret")
    page.press("Enter")
    page.wait_for("document.activeElement.id === 'rater'")
    enter(page)
    go_to(page, "one")
    page.wait_for(PLAYING)


def test_desk_phone_light_and_dark(page, tmp_path):
    folder = Path(os.environ.get("DESCORE_SCREENSHOTS") or tmp_path).absolute()
    page = page("looks", "motion")
    enter(page)
    go_to(page, "one")
    page.wait_for(PLAYING)
    page.press("1")
    page.press("s")
    for width in (1180, 400, 320):
        page.resize(width)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.screenshot(folder / f"judge-{width}-{scheme}.png")
        assert page.sticking_out() == []
    assert page.unnamed() == []
