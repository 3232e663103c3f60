"""A chain as it is written: pieces of its text, then the score that a request without stream gets."""

import json
import threading

import pytest

from descore import Request, Scorer
from tests.serving.conftest import PROMPT, problem_of
from tests.test_architecture import CLIP

RABBIT = "a rabbit sniffs a flower"


@pytest.fixture(scope="module")
def model():
    return Scorer.from_pretrained("tiny")


def events_of(answer):
    """(event, data) of a stream."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block]
    return [(event.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for event, data in blocks]


@pytest.fixture
def app(serving, model):
    return serving(models={"tiny": model})


def upload(client, **fields):
    return client.post("/v1/score", data={"prompt": RABBIT, **fields}, files={"video": CLIP.read_bytes()})


@pytest.mark.slow
def test_the_pieces_are_the_chain_and_the_score_is_the_same(app):
    plain = upload(app).json()
    *chain, (last, score) = events_of(upload(app, stream="true"))
    assert last == "score"
    assert score == plain
    assert {name for name, _ in chain} == {"chain"}
    assert len(chain) > 10
    assert "".join(data["text"] for _, data in chain).strip() == plain["thinking"]


@pytest.mark.slow
def test_each_chain_has_its_number(app):
    fields = {"samples": "3", "seed": "4", "max_chain_tokens": "24", "chains": "true"}
    *pieces, (_, score) = events_of(upload(app, stream="true", **fields))
    texts = ["".join(data["text"] for _, data in pieces if data["sample"] == sample).strip() for sample in range(3)]
    assert texts == [chain["text"] for chain in score["chains"]]
    assert score["rewards"] == upload(app, **fields).json()["rewards"]


def test_without_a_chain_there_is_a_score_alone(app):
    [(name, score)] = events_of(upload(app, stream="true", think="off"))
    assert name == "score"
    assert score == upload(app, think="off").json()


def test_errors_before_the_first_piece_have_their_status(app):
    for path, status, kind in (("text.mp4", 415, "no_video"), ("absent.mp4", 415, "no_video")):
        answer = app.post("/v1/score", json={"prompt": PROMPT, "video": {"path": path}, "stream": True})
        assert problem_of(answer)[:2] == (status, kind)
    assert not list(app.app.state.service.folder.iterdir())


@pytest.mark.slow
def test_a_late_stream_ends_with_an_error(serving, model, monkeypatch):
    written = threading.Event()
    score_each = model.score_each

    def slow(requests, **params):
        requests = [Request(video=r.video, prompt=r.prompt, on_token=held(r.on_token)) for r in requests]
        return score_each(requests, **params)

    def held(on_token):
        def watch(sample, token):
            wanted = on_token(sample, token)
            written.wait(0.05)
            return wanted

        return watch

    monkeypatch.setattr(model, "score_each", slow)
    app = serving(models={"tiny": model})
    *pieces, (name, data) = events_of(upload(app, stream="true", timeout="1.5"))
    assert pieces
    assert name == "error"
    assert data["error"]["kind"] == "busy"


@pytest.mark.slow
def test_a_client_that_leaves_ends_its_chain_and_no_other(model):
    clip = model.read(Request(video=CLIP, prompt=RABBIT))
    alone = model.score(clip, prompt=RABBIT)
    seen = []

    def leave(sample, token):
        seen.append((sample, token))
        return len(seen) < 5

    left, stayed = model.score_batch([Request(video=clip, prompt=RABBIT, on_token=leave), (clip, RABBIT)])
    assert len(seen) == 5
    assert [token for _, token in seen] == list(alone.typical.token_ids[:5])
    assert left.typical.num_tokens == 5
    assert stayed.typical.token_ids == alone.typical.token_ids
    assert stayed.reward == pytest.approx(alone.reward, abs=1e-5)


def test_the_stream_is_in_the_description(client):
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ScoreRequest"]
    assert schema["properties"]["stream"]["default"] is False
