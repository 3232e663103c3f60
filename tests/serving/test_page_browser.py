"""The page in a real browser: upload, ranking, comparison, errors, the token, and nothing else than the keyboard.

To look at the pictures: DESCORE_SCREENSHOTS=folder pytest tests/serving/test_page_browser.py"""

import asyncio
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from descore import scorer
from descore.serving.app import create_app
from descore.serving.schema import ServedScore
from descore.serving.settings import ServerSettings
from descore.types import DIMENSIONS, Verdict, preference_probability
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling
from tests.serving.chromium import BINARY
from tests.serving.conftest import StubScorer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]
HOSTILE = "<img src=x onerror=alarmed=1><script>alarmed=1</script>\u202e &amp;"
MARKS = dict.fromkeys(DIMENSIONS) | {"subject": 2, "dynamics": 0}
DONE = "!document.querySelector('#download').hidden"


class ChainScorer(StubScorer):
    """Writes a chain with all that a page must not take for its own, and an answer."""

    def _result(self, request):
        score = super()._result(request)
        if not hasattr(score, "completions"):
            return score
        verdict = Verdict(marks=MARKS, overall=3.5, unknown=("style",))
        text = f"I see a ball. {HOSTILE}\n" * 3 + '<answer>{"overall_score": 3.5}</answer>'
        return replace(score, completions=(replace(score.completions[0], text=text, verdict=verdict),))


@pytest.fixture
def stub():
    scorer = ChainScorer()
    yield scorer
    scorer.open.set()


@pytest.fixture
def page(live, open_page, stub):
    """A function: the page of a server with these settings."""

    def start(**settings):
        return open_page(live(create_app({"stub": stub}, settings=ServerSettings(**settings))))

    return start


def score(page, *paths, prompt="a red ball"):
    page.choose_files("#files", *paths)
    page.fill("#prompt", prompt)
    page.click("#score")


def test_clips_are_ranked_compared_and_downloaded(page, media, tmp_path):
    page = page()
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    score(page, media / "sub" / "dark.mp4", media / "bright.mp4")
    page.wait_for(DONE)
    assert page.texts(".clip h3") == ["bright.mp4", "dark.mp4"]
    assert [text.split() for text in page.texts(".clip .badge")] == [["Place", "1"], ["Place", "2"]]
    assert page.text("#status") == "best: bright.mp4"
    rewards = [float(text.split()[-1]) for text in page.texts(".clip .numbers")]
    assert rewards == [pytest.approx(20, abs=0.2), pytest.approx(4, abs=0.2)]
    assert page.run("[...document.querySelectorAll('.clip .frames img')].every((one) => one.naturalWidth === 32)")
    words = [text.split("\t") for text in page.text(".clip table").splitlines()]
    assert ["subject", "right"] in words
    assert ["dynamics", "wrong"] in words
    assert ["camera", "not asked"] in words
    assert ["style", "unknown"] in words
    chance = preference_probability(*rewards)
    assert chance > 0.999
    assert page.text("#verdict").endswith("over 99.9 %")
    page.click("#download")
    page.wait_for("true")
    file = wait_for_file(page, tmp_path / "descore.json")
    answer = json.loads(file.read_text())
    assert answer["prompt"] == "a red ball"
    assert [one["video"] for one in answer["results"]] == ["bright.mp4", "dark.mp4"]
    assert answer["results"][0]["marks"]["subject"] == 2


def wait_for_file(page, path):
    for _ in range(500):
        if path.exists():
            return path
        page.run("new Promise((done) => setTimeout(done, 20))")
    raise AssertionError(f"no {path}")


def test_a_probability_is_that_of_the_api(page, media, stub):
    page = page()
    stub._result = lambda request: replace(
        ChainScorer._result(stub, request), reward=1.25 if request.video.source == "bright.mp4" else 0.5
    )
    score(page, media / "sub" / "dark.mp4", media / "bright.mp4")
    page.wait_for(DONE)
    assert page.text("#verdict").endswith(f"{100 * preference_probability(1.25, 0.5):.1f} %")


def test_names_and_chains_never_become_html(page, media, tmp_path):
    hostile = tmp_path / '"><img src=x onerror=alarmed=1>.mp4'
    hostile.write_bytes((media / "bright.mp4").read_bytes())
    page = page()
    score(page, hostile, prompt=HOSTILE.replace("\u202e", ""))
    page.wait_for(DONE)
    assert page.text(".clip h3") == hostile.name
    chain = page.text(".clip .chain")
    assert chain.startswith("I see a ball. <img src=x onerror=alarmed=1>")
    assert "\u202e" not in chain
    assert "overall_score" not in chain
    assert not page.run("window.alarmed")


def test_a_refused_file_is_an_error_and_the_others_go_on(page, media):
    page = page()
    page.choose_files("#files", media / "text.mp4", media / "bright.mp4")
    page.wait_for("document.querySelector('.clip .notice')")
    page.fill("#prompt", "a red ball")
    page.click("#score")
    page.wait_for(DONE)
    assert "1 of 2 without a reward" in page.text("#status")
    assert page.texts(".clip h3") == ["bright.mp4", "text.mp4"]
    assert "not a video" in page.text(".clip .notice")


def test_errors_of_the_model_and_of_bounds_are_shown(page, media):
    page = page(max_upload=1000)
    score(page, media / "bright.mp4")
    page.wait_for(DONE)
    assert "this server takes 1 kB" in page.text(".clip .notice")
    page.click("#clear")
    assert page.run("document.querySelectorAll('.clip').length") == 0


def test_a_chain_without_a_reward_is_an_error(page, media):
    page = page()
    score(page, media / "bright.mp4", prompt="no answer")
    page.wait_for(DONE)
    assert "the chain gives no reward" in page.text(".clip .notice")


def test_the_page_shows_that_it_waits_and_can_be_cancelled(page, media, stub):
    stub.open.clear()
    page = page()
    score(page, media / "bright.mp4")
    page.wait_for("document.querySelector('.clip .waiting')")
    assert page.run("document.querySelector('#results').getAttribute('aria-busy')") == "true"
    assert page.run("document.querySelector('#score').disabled")
    page.click("#cancel")
    page.wait_for("document.querySelector('#cancel').hidden")
    assert page.text("#status") == "cancelled"


def streaming(app, events, gate):
    """The app, whose scores are streams of these events; the last ones come once the gate is open."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/v1/score"]

    async def stream():
        for event in events[:-1]:
            yield f"event: any\ndata: {json.dumps(event)}\n\n".encode()
        while not gate.is_set():
            await asyncio.sleep(0.02)
        yield f": a comment\r\n\r\ndata: {json.dumps(events[-1])}\r\n\r\n".encode()

    @app.post("/v1/score")
    async def score(request: Request):
        assert (await request.form())["stream"] == "true"
        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


PIECES = ["I see a ", f"ball {HOSTILE}. <ans", 'wer>{"overall']
WORDS = [{"sample": sample, "text": text} for text in PIECES for sample, text in ((0, text), (1, "another"))]


def test_a_chain_is_seen_as_it_is_written(live, open_page, stub, media):
    gate = threading.Event()
    result = ServedScore.of(stub._result(request_of(media / "bright.mp4")), model="stub").model_dump()
    app = streaming(create_app({"stub": stub}, settings=ServerSettings()), [*WORDS, result], gate)
    page = open_page(live(app))
    page.run("document.querySelector('#samples').value = 2")
    score(page, media / "bright.mp4")
    page.wait_for("document.querySelector('.chain.live')?.innerText.includes('ball')")
    page.wait_for("document.querySelectorAll('.chain.live')[1]?.innerText === 'anotheranotheranother'")
    labels = page.run("[...document.querySelectorAll('.chain.live')].map((one) => one.getAttribute('aria-label'))")
    assert labels == ["Chain 1 of bright.mp4", "Chain 2 of bright.mp4"]
    page.wait_for("!document.querySelector('.chain.live').innerText.includes('overall')")
    chain = page.text(".chain.live")
    assert chain.startswith("I see a ball <img src=x")
    assert page.run("document.querySelector('.chain.live').getAttribute('aria-busy')") == "true"
    assert "writing" in page.text(".clip .waiting")
    gate.set()
    page.wait_for(DONE)
    assert page.text("#status").startswith("bright.mp4: reward 20")
    assert not page.run("document.querySelector('.chain.live')")
    assert not page.run("window.alarmed")


@pytest.mark.parametrize(
    ("end", "words"),
    [({"error": {"kind": "no_reward", "message": "no room"}}, "no room"), ({}, "ended before the reward")],
)
def test_a_stream_that_fails_is_an_error(live, open_page, stub, media, end, words):
    gate = threading.Event()
    gate.set()
    page = open_page(live(streaming(create_app({"stub": stub}, settings=ServerSettings()), [*WORDS, end], gate)))
    score(page, media / "bright.mp4")
    page.wait_for(DONE)
    assert words in page.text(".clip .notice")


def request_of(path):
    return scorer.Request(video=read_clip(path, sampling=VideoSampling()), prompt="a red ball")


def test_a_busy_server_is_asked_again(page, media, stub):
    stub.open.clear()
    page = page(max_queue=1)
    page.choose_files("#files", media / "bright.mp4", media / "sub" / "dark.mp4")
    page.fill("#prompt", "a red ball")
    page.click("#score")
    page.wait_for("document.querySelectorAll('.clip .waiting').length === 2")
    stub.open.set()
    page.wait_for(DONE)
    assert page.text("#status") == "best: bright.mp4"


def test_the_token_is_asked_for_and_kept_in_memory_only(page, media):
    page = page(api_key="secret")
    page.wait_for("document.querySelector('#token-dialog').open")
    for token, reason in (("wrong", "The token is wrong."), ("secret", "")):
        page.fill("#token", token)
        page.press("Enter")
        if reason:
            page.wait_for(f"document.querySelector('#token-reason').textContent === {json.dumps(reason)}")
    page.wait_for("document.querySelector('#model').options.length === 1")
    score(page, media / "bright.mp4")
    page.wait_for(DONE)
    assert page.text("#status").startswith("bright.mp4: reward 20")
    assert page.run("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


def test_all_of_it_works_by_keyboard(page, media):
    page = page()
    page.choose_files("#files", media / "bright.mp4", media / "sub" / "dark.mp4")
    page.run("document.querySelector('#prompt').focus()")
    page.type("a red ball")
    for expected in ("files", "", "score"):
        page.press("Tab")
        assert page.run("document.activeElement.id") == expected
    page.press("Enter")
    page.wait_for(DONE)
    page.run("document.querySelector('.clip input').focus()")
    page.press(" ")
    assert page.run("document.querySelector('#comparison').hidden")
    page.press(" ")
    assert not page.run("document.querySelector('#comparison').hidden")
    page.run("document.querySelector('button.remove').focus()")
    page.press("Enter")
    assert page.text("#status") == "bright.mp4 removed"
    assert page.run("document.activeElement.ariaLabel") == "Remove dark.mp4"


def test_desk_phone_light_and_dark(page, media, tmp_path):
    folder = Path(os.environ.get("DESCORE_SCREENSHOTS") or tmp_path).absolute()
    page = page()
    score(page, media / "sub" / "dark.mp4", media / "bright.mp4")
    page.wait_for(DONE)
    for width in (1180, 400, 320):
        page.resize(width)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.screenshot(folder / f"score-{width}-{scheme}.png")
            background = page.run("getComputedStyle(document.body).backgroundColor")
            assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
        assert page.sticking_out() == []
    assert page.unnamed() == []
