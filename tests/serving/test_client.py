"""`descore.Client`: the Scorer's face on a server, its errors, and its patience."""

import io
import json
import threading
from dataclasses import replace

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image

import descore
from descore.errors import ConfigError, VideoError
from descore.serving import asking
from descore.serving import client as module
from descore.serving.problems import ServiceError
from descore.video.reader import read_clip
from tests.serving.conftest import PROMPT, URL


@pytest.fixture(autouse=True)
def no_token_from_outside(monkeypatch):
    monkeypatch.delenv("DESCORE_API_KEY", raising=False)


@pytest.fixture
def ours(client):
    """A client of ours whose requests go to the app at once."""
    with descore.Client(URL, transport=client._transport) as opened:
        yield opened


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client would have waited."""
    seconds = []
    monkeypatch.setattr(module.time, "sleep", seconds.append)
    return seconds


def answering(*answers):
    """A transport that gives these answers in turn, and the requests that it saw."""
    seen, waiting = [], list(answers)

    def handle(request):
        seen.append(request)
        return waiting.pop(0)

    return httpx2.MockTransport(handle), seen


def busy(retry_after="2"):
    body = {"error": {"kind": "busy", "message": "no room"}}
    return httpx2.Response(503, json=body, headers={"retry-after": retry_after} if retry_after else {})


def test_files_are_scored_as_paths_bytes_and_open_files(ours, media):
    path = media / "bright.mp4"
    with path.open("rb") as file:
        scores = [ours.score(video, prompt=PROMPT) for video in (path, str(path), path.read_bytes(), file)]
    assert [score.video for score in scores] == ["bright.mp4", "bright.mp4", "<bytes>", "<file>"]
    assert len({score.reward for score in scores}) == 1


def test_frames_are_scored_as_arrays_tensors_and_images(ours):
    pixels = np.full((6, 32, 32, 3), 100, dtype=np.uint8)
    images = [Image.fromarray(frame) for frame in pixels]
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    for video in (pixels, images, floats, list(pixels), pixels[None]):
        assert ours.score(video, prompt=PROMPT, fps=6).reward == pytest.approx(10)


def test_a_clip_arrives_as_it_is(ours, media, scorer):
    clip = read_clip(media / "bright.mp4", sampling=scorer.settings.sampling)
    answer = ours.score(clip, prompt=PROMPT)
    assert answer.reward == pytest.approx(float(clip.frames.mean()) / 10, abs=1e-12)
    assert (answer.video, answer.times, answer.fps) == (clip.source, list(clip.times), clip.source_fps)
    large = replace(clip, frames=clip.frames.repeat(8, axis=1))
    with pytest.raises(VideoError, match="expected multiples of 16"):
        ours.score(large, prompt=PROMPT)
    with pytest.raises(ConfigError, match="times has 1 numbers; expected one for each frame"):
        ours.score(replace(clip, times=clip.times[:1]), prompt=PROMPT)


def test_an_address_is_left_to_the_server(ours):
    with pytest.raises(ConfigError, match="this server fetches no addresses"):
        ours.score("https://videos.example/a.mp4", prompt=PROMPT)


def test_all_chains_come_where_they_are_asked_for(ours, media):
    assert ours.score(media / "bright.mp4", prompt=PROMPT).chains is None
    answer = ours.score(media / "bright.mp4", prompt=PROMPT, chains=True)
    assert [chain.rewards for chain in answer.chains] == [answer.rewards]


def test_frames_arrive_as_they_were_sent():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    sent = asking._in_json(pixels, 2.0)["frames"]
    back = [np.asarray(Image.open(io.BytesIO(asking.base64.b64decode(text)))) for text in sent]
    assert (np.stack(back) == pixels).all()


def test_compare_and_parameters_reach_the_server(ours, media, scorer):
    compared = ours.compare(media / "bright.mp4", media / "sub" / "dark.mp4", prompt=PROMPT, samples=2, seed=5)
    assert compared.probability > 0.99
    assert (scorer.params[0]["samples"], scorer.params[0]["seed"]) == (2, 5)
    assert ours.models() == ["stub"]


def stream_of(*events):
    """An answer of server-sent events, in pieces that end within them."""
    content = b"".join(f"event: {name}\ndata: {json.dumps(data)}".encode() + b"\n\n" for name, data in events)
    pieces = iter([content[at : at + 7] for at in range(0, len(content), 7)])
    return httpx2.Response(200, content=pieces, headers={"content-type": "text/event-stream; charset=utf-8"})


def test_a_chain_comes_as_it_is_written(ours, media, pauses):
    plain = ours.score(media / "bright.mp4", prompt=PROMPT)
    assert list(ours.stream(media / "bright.mp4", prompt=PROMPT)) == [plain]  # the stub writes no chain
    chain = [("chain", {"sample": k % 2, "text": text}) for k, text in enumerate(("The ", "A\u2028", "ball"))]
    transport, seen = answering(busy(), stream_of(*chain, ("score", plain.model_dump(mode="json"))))
    *pieces, score = descore.Client(URL, transport=transport).stream(b"x", prompt=PROMPT, samples=2)
    assert [(piece.sample, piece.text) for piece in pieces] == [(0, "The "), (1, "A\u2028"), (0, "ball")]
    assert score == plain
    assert (len(seen), len(pauses)) == (2, 1)
    assert [b'name="stream"\r\n\r\ntrue' in request.read() for request in seen] == [True, True]


def test_a_stream_that_goes_wrong_raises(ours, media):
    with pytest.raises(VideoError, match=r"text\.mp4"):
        next(ours.stream(media / "text.mp4", prompt=PROMPT))
    with pytest.raises(ConfigError, match="the method stream gives a chain as it is written"):
        ours.score(media / "bright.mp4", prompt=PROMPT, stream=True)
    piece = ("chain", {"sample": 0, "text": "The"})
    for events, error, message in (
        (
            [piece, ("error", {"error": {"kind": "busy", "message": "no answer within 3 s"}})],
            ServiceError,
            "within 3 s",
        ),
        ([piece, ("error", {"error": {"kind": "no_reward", "message": "a: no"}})], VideoError, "no"),
        ([piece], ServiceError, "the answer ended before the reward"),
        ([("chain", {"text": 3})], ServiceError, "something else than descore serve"),
    ):
        transport, _ = answering(stream_of(*events))
        with pytest.raises(error, match=message):
            list(descore.Client(URL, transport=transport).stream(b"x", prompt=PROMPT))


def test_a_stream_that_is_left_ends_the_request():
    transport, _ = answering(answer := stream_of(*[("chain", {"sample": 0, "text": "The"})] * 3))
    pieces = descore.Client(URL, transport=transport).stream(b"x", prompt=PROMPT)
    assert next(pieces).text == "The"
    assert not answer.is_closed
    pieces.close()
    assert answer.is_closed


def test_a_batch_keeps_its_order_and_raises_its_first_error(ours, media):
    names = ["bright.mp4", "sub/dark.mp4"] * 10
    scores = ours.score_batch([(media / name, f"{PROMPT} {n}") for n, name in enumerate(names)])
    assert [score.prompt for score in scores] == [f"{PROMPT} {n}" for n in range(20)]
    mixed = [(media / name, PROMPT) for name in ("bright.mp4", "text.mp4", "absent.mp4")]
    assert [type(result) for result in ours.score_each(mixed)] == [type(scores[0]), VideoError, VideoError]
    with pytest.raises(VideoError, match=r"text\.mp4"):
        ours.score_batch(mixed)


def test_requests_are_read_no_further_ahead_than_needed(ours, media):
    taken = []

    def requests():
        for number in range(100):
            taken.append(number)
            yield media / "bright.mp4", PROMPT

    next(ours.score_each(requests()))
    assert len(taken) <= ours.concurrency


def test_errors_are_those_of_the_scorer(ours, media):
    for error, video, options in (
        (VideoError, media / "text.mp4", {}),
        (VideoError, media / "absent.mp4", {}),
        (VideoError, io.StringIO("text"), {}),
        (ConfigError, media / "bright.mp4", {"samples": 0}),
        (ConfigError, media / "bright.mp4", {"sample": 3}),
        (ConfigError, media / "bright.mp4", {"fps": 3}),
        (ConfigError, np.zeros((4, 32, 32, 3), dtype=np.uint8), {}),
        (VideoError, np.zeros((4, 32), dtype=np.uint8), {"fps": 2}),
    ):
        with pytest.raises(error):
            ours.score(video, **{"prompt": PROMPT, **options})
    with pytest.raises(VideoError, match="the chain gives no reward"):
        ours.score(media / "bright.mp4", prompt="no answer")
    with pytest.raises(ConfigError, match="the prompt is empty"):
        ours.score(media / "bright.mp4", prompt=" ")


def test_a_busy_server_is_asked_again_with_growing_pauses(pauses):
    models = httpx2.Response(200, json={"models": [{"name": "x"}]})
    transport, seen = answering(busy(), busy(), busy(""), models)
    assert descore.Client(URL, transport=transport).models() == ["x"]
    assert len(seen) == 4
    for pause, (least, most) in zip(pauses, [(2.125, 2.25), (2.25, 2.5), (0.5, 1.0)], strict=True):
        assert least <= pause <= most


def test_patience_ends_and_other_errors_are_not_repeated(pauses):
    transport, seen = answering(*[busy()] * 3)
    with pytest.raises(ServiceError, match="no room"):
        descore.Client(URL, transport=transport, retries=2).models()
    assert (len(seen), len(pauses)) == (3, 2)
    for status in (400, 404, 413, 500, 502):
        transport, seen = answering(httpx2.Response(status, text="what"))
        with pytest.raises(ServiceError, match=f"status {status}"):
            descore.Client(URL, transport=transport).models()
        assert len(seen) == 1
    assert len(pauses) == 2


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9: cannot be asked .* does descore serve run"):
        descore.Client("http://127.0.0.1:9").models()
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        descore.Client("127.0.0.1:8000")
    transport, _ = answering(httpx2.Response(200, text="<html>"))
    with pytest.raises(ServiceError, match="something else than descore serve"):
        descore.Client(URL, transport=transport).score(b"x", prompt=PROMPT)


def test_the_token_comes_from_the_environment_too(monkeypatch):
    transport, seen = answering(*[httpx2.Response(200, json={"models": []}) for _ in range(2)])
    descore.Client(URL, transport=transport, api_key="given").models()
    monkeypatch.setenv("DESCORE_API_KEY", "from outside")
    descore.Client(URL, transport=transport).models()
    assert [request.headers["authorization"] for request in seen] == ["Bearer given", "Bearer from outside"]


def test_threads_may_share_a_client(ours, media):
    results = []

    def ask():
        results.append(ours.score(media / "bright.mp4", prompt=PROMPT).reward)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len(set(results)) == 1
