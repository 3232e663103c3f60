"""`descore.AsyncClient`: the same face for an event loop."""

import asyncio
import json

import httpx2
import numpy as np
import pytest

import descore
from descore.errors import ConfigError, VideoError
from descore.serving.problems import ServiceError
from descore.serving.schema import ServedScore
from tests.serving.conftest import PROMPT, URL

SCORE = ServedScore.model_json_schema()["examples"][0]


def busy():
    return httpx2.Response(503, json={"error": {"kind": "busy", "message": "no room"}}, headers={"retry-after": "2"})


class Site:
    """Answers in turn, and otherwise with a score; counts what is under way."""

    def __init__(self, *answers, seconds=0.0):
        self.answers, self.seconds = list(answers), seconds
        self.seen, self.now, self.most = [], 0, 0

    async def __call__(self, request):
        self.seen.append(request)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now -= 1
        return self.answers.pop(0) if self.answers else httpx2.Response(200, json=SCORE)

    def client(self, **options):
        return descore.AsyncClient(URL, transport=httpx2.MockTransport(self), **options)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client would have waited."""
    seconds, sleep = [], asyncio.sleep

    async def record(delay):
        seconds.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return seconds


@pytest.mark.slow
def test_videos_are_scored_on_a_server_as_by_the_other_client(client, media):
    pixels = np.full((6, 32, 32, 3), 100, dtype=np.uint8)
    transport = httpx2.ASGITransport(client.app)

    async def ask():
        async with descore.AsyncClient(URL, transport=transport) as ours:
            one = await ours.score(media / "bright.mp4", prompt=PROMPT)
            frames = await ours.score(pixels, prompt=PROMPT, fps=6)
            compared = await ours.compare(media / "bright.mp4", media / "sub" / "dark.mp4", prompt=PROMPT)
            return one, frames, compared, await ours.models()

    async def serve():  # the app belongs to the loop that it is opened in
        async with client.app.router.lifespan_context(client.app):
            return await ask()

    one, frames, compared, models = asyncio.run(serve())
    assert one.video == "bright.mp4"
    assert frames.reward == pytest.approx(10)
    assert compared.probability > 0.99
    assert models == ["stub"]


def test_only_a_busy_server_is_asked_again(pauses):
    site = Site(busy(), busy())

    async def ask(site, **options):
        async with site.client(**options) as ours:
            return await ours.score(b"video", prompt=PROMPT)

    assert asyncio.run(ask(site)).reward == SCORE["reward"]
    assert len(site.seen) == 3
    waits = [pause for pause in pauses if pause > 1]
    assert 2.125 <= waits[0] <= 2.25
    assert 2.25 <= waits[1] <= 2.5
    site = Site(*[busy()] * 3)
    with pytest.raises(ServiceError, match="no room"):
        asyncio.run(ask(site, retries=1))
    assert len(site.seen) == 2
    for status in (400, 401, 413, 422, 500, 502):
        site = Site(httpx2.Response(status, text="what"))
        with pytest.raises(ServiceError, match=f"status {status}"):
            asyncio.run(ask(site))
        assert len(site.seen) == 1


def test_many_are_under_way_at_a_time_and_come_in_order():
    site, taken = Site(seconds=0.01), []

    def requests():
        for number in range(12):
            taken.append(number)
            yield b"video", f"{PROMPT} {number}"

    async def ask():
        async with site.client(concurrency=4) as ours:
            each = ours.score_each(requests())
            first = await anext(each)
            read = len(taken)
            rest = [one async for one in each]
            return first, read, rest

    first, read, rest = asyncio.run(ask())
    assert [first, *rest] == [ServedScore.model_validate(SCORE)] * 12
    assert read == site.most == 4


def test_an_iterator_that_is_closed_cancels_what_is_under_way():
    site = Site(seconds=0.05)

    async def ask():
        async with site.client(concurrency=3) as ours:
            each = ours.score_each([(b"video", PROMPT)] * 9)
            await anext(each)
            await each.aclose()
            return site.now

    assert asyncio.run(ask()) == 0
    assert len(site.seen) == 3


def test_errors_stand_in_their_places(tmp_path):
    problem = httpx2.Response(415, json={"error": {"kind": "no_video", "message": "a.mp4: is empty"}})
    site = Site(problem)
    requests = [(b"video", PROMPT), (tmp_path / "absent.mp4", PROMPT), (b"video", " ")]

    async def ask():
        async with site.client(concurrency=1) as ours:
            each = [one async for one in ours.score_each(requests)]
            with pytest.raises(VideoError, match="absent"):
                await ours.score_batch(requests[1:])
            return each

    unreadable, absent, empty = asyncio.run(ask())
    assert str(unreadable) == "a.mp4: is empty"
    assert isinstance(absent, VideoError)
    assert isinstance(empty, ConfigError)


def test_a_chain_comes_as_it_is_written(pauses):
    async def content():
        yield b'event: chain\ndata: {"sample": 0, "text": "The ball"}\n\nevent: sc'
        yield f"ore\ndata: {json.dumps(SCORE)}\n\n".encode()

    async def ask():
        site = Site(busy(), httpx2.Response(200, content=content(), headers={"content-type": "text/event-stream"}))
        async with site.client() as client:
            pieces = [piece async for piece in client.stream(b"x", prompt=PROMPT)]
        return pieces, len(site.seen)

    [piece, score], asked = asyncio.run(ask())
    assert (piece.text, score, asked) == ("The ball", ServedScore.model_validate(SCORE), 2)
    assert pauses


def test_a_stream_that_is_left_ends_the_request():
    async def content():
        while True:
            yield b'event: chain\ndata: {"sample": 0, "text": "The ball"}\n\n'

    async def ask():
        answer = httpx2.Response(200, content=content(), headers={"content-type": "text/event-stream"})
        async with Site(answer).client() as client:
            pieces = client.stream(b"x", prompt=PROMPT)
            assert (await anext(pieces)).text == "The ball"
            await pieces.aclose()
        return answer.is_closed

    assert asyncio.run(ask())
