"""The routes: what goes in each way, what comes out, and one form for all errors."""

import json

import pytest
from fastapi.testclient import TestClient

from descore import Scorer
from descore.errors import DescoreWarning
from descore.serving.app import create_app
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, URL, StubScorer, in_base64, picture, problem_of, score_of


def test_a_video_comes_in_four_ways(client, media):
    content = (media / "bright.mp4").read_bytes()
    form = client.post("/v1/score", data={"prompt": PROMPT}, files={"video": ("my clip.mp4", content)})
    encoded = client.post("/v1/score", json={"prompt": PROMPT, "video": {"base64": in_base64(content), "name": "mine"}})
    answers = [score_of(client), form, encoded]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.json()["video"] for answer in answers] == ["bright.mp4", "my clip.mp4", "mine"]
    assert len({answer.json()["reward"] for answer in answers}) == 1
    frames = {"frames": [picture(100)] * 6, "fps": 6}
    assert client.post("/v1/score", json={"prompt": PROMPT, "video": frames}).json()["reward"] == pytest.approx(10)


def test_frames_may_be_of_three_formats(client):
    for kind in ("PNG", "JPEG", "WEBP"):
        video = {"frames": [picture(100, kind=kind)] * 4, "fps": 2}
        answer = client.post("/v1/score", json={"prompt": PROMPT, "video": video}).json()
        assert answer["reward"] == pytest.approx(10, abs=0.1)
        assert answer["video"] == "<frames>"
    gif = {"frames": [picture(100, kind="GIF")] * 4, "fps": 2}
    status, kind, message = problem_of(client.post("/v1/score", json={"prompt": PROMPT, "video": gif}))
    assert (status, kind) == (415, "no_video")
    assert "frame 0" in message


def test_parameters_reach_the_scorer_from_json_and_forms(client, scorer, media):
    given = {"samples": 3, "seed": 7, "temperature": 0.5, "max_chain_tokens": 9}
    assert score_of(client, **given).status_code == 200
    with (media / "bright.mp4").open("rb") as file:
        fields = {"prompt": PROMPT, **{name: str(value) for name, value in given.items()}}
        assert client.post("/v1/score", data=fields, files={"video": file}).status_code == 200
    assert scorer.params == [{"think": "on", **given}] * 2


def test_compare_and_rank_order_by_reward(client):
    pair = {"prompt": PROMPT, "a": {"path": "bright.mp4"}, "b": {"path": "sub/dark.mp4"}}
    compared = client.post("/v1/compare", json=pair).json()
    assert compared["a"]["reward"] > compared["b"]["reward"]
    assert compared["probability"] > 0.99
    videos = [{"path": "sub/dark.mp4"}, {"path": "text.mp4"}, {"path": "bright.mp4"}]
    ranked = client.post("/v1/rank", json={"prompt": PROMPT, "videos": videos}).json()
    assert [(place["place"], place["index"]) for place in ranked["places"]] == [(1, 2), (2, 0)]
    [failure] = ranked["failed"]
    assert (failure["index"], failure["error"]["kind"]) == (1, "no_video")


def test_forms_hold_two_videos_or_several(client, media):
    bright, dark = (("x.mp4", (media / name).read_bytes()) for name in ("bright.mp4", "sub/dark.mp4"))
    compared = client.post("/v1/compare", data={"prompt": PROMPT}, files={"a": dark, "b": bright})
    assert compared.json()["probability"] < 0.01
    ranked = client.post("/v1/rank", data={"prompt": PROMPT}, files=[("videos", dark), ("videos", bright)])
    assert [place["index"] for place in ranked.json()["places"]] == [1, 0]


def test_a_batch_gives_a_line_for_each_item(client):
    names = ["bright.mp4", "text.mp4", "sub/dark.mp4"]
    items = [{"prompt": f"{PROMPT} {name}", "video": {"path": name}} for name in names]
    answer = client.post("/v1/batch", json={"items": items})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = {line["index"]: line for line in map(json.loads, answer.text.splitlines())}
    assert lines.keys() == {0, 1, 2}
    assert lines[1]["score"] is None
    assert lines[1]["error"]["kind"] == "no_video"
    assert [lines[index]["score"]["prompt"] for index in (0, 2)] == [items[0]["prompt"], items[2]["prompt"]]


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"prompt": PROMPT}, 400, "request", "video: field required"),
        ({"prompt": "  ", "video": {"path": "bright.mp4"}}, 400, "request", "the prompt is empty"),
        ({"prompt": PROMPT, "video": {}}, 400, "request", "one of path, base64, frames, url"),
        ({"prompt": PROMPT, "video": {"frames": [picture(1)]}}, 400, "request", "fps goes with frames"),
        ({"prompt": PROMPT, "video": {"path": "x", "url": "http://a"}}, 400, "request", "has path and url"),
        ({"prompt": PROMPT, "video": {"base64": "?"}}, 400, "request", "video.base64: no base64"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "model": "x"}, 400, "request", "this server has stub"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "samples": 0}, 400, "request", "samples"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "samples": 2, "think": "off"}, 400, "request", "samples"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "fps": 3}, 400, "request", "fps"),
        ({"prompt": PROMPT, "video": {"path": "absent.mp4"}}, 415, "no_video", "absent.mp4: no such file"),
        ({"prompt": PROMPT, "video": {"path": "text.mp4"}}, 415, "no_video", "text.mp4: "),
        ({"prompt": PROMPT, "video": {"path": "sub"}}, 415, "no_video", "sub: not a file"),
        ({"prompt": PROMPT, "video": {"base64": ""}}, 415, "no_video", "<base64>: the file is empty"),
        ({"prompt": PROMPT, "video": {"path": "x" * 5000}}, 415, "no_video", "cannot be opened"),
        ({"prompt": PROMPT, "video": {"base64": "é"}}, 400, "request", "no base64"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "timeout": 1e-9}, 503, "busy", "no answer within"),
        ({"prompt": PROMPT, "video": {"path": "bright.mp4"}, "seed": 2**70}, 400, "request", "seed"),
        ({"prompt": "no answer", "video": {"path": "bright.mp4"}}, 422, "no_reward", "bright.mp4: the chain gives no"),
        ({"prompt": "large", "video": {"path": "bright.mp4"}}, 413, "too_large", "memory"),
        ({"prompt": "crash", "video": {"path": "bright.mp4"}}, 500, "internal", "RuntimeError"),
    ],
)
def test_each_fault_has_its_kind(client, media, body, status, kind, words):
    found = problem_of(client.post("/v1/score", json=body))
    assert found[:2] == (status, kind)
    assert words in found[2]
    assert str(media) not in found[2]
    assert score_of(client).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "header", "status"),
    [
        ("/v1/score", b"{", "application/json", 400),
        ("/v1/score", b"\xff", "application/json", 400),
        ("/v1/score", b"[" * 100_000, "application/json", 400),
        ("/v1/score", b"prompt=x", "application/x-www-form-urlencoded", 400),
        ("/v1/score", b"what", "multipart/form-data", 400),
        ("/v1/score", b"--x\r\nbroken", "multipart/form-data; boundary=x", 400),
        ("/v1/batch", b'{"items": []}', "application/json", 400),
        ("/v1/none", b"", "application/json", 404),
        ("/health", b"", "application/json", 405),
    ],
)
def test_bodies_that_are_none_are_refused(client, path, content, header, status):
    answer = client.post(path, content=content, headers={"content-type": header})
    assert problem_of(answer)[0] == status


def test_one_key_twice_in_a_form_is_refused(client):
    files = [("prompt", (None, "a")), ("prompt", (None, "b")), ("video", ("x.mp4", b"x"))]
    assert "twice" in problem_of(client.post("/v1/score", files=files))[2]


def test_models_states_and_metrics_tell_what_is_there(serving):
    models = {"one": StubScorer(name="path/one"), "two": StubScorer(name="path/two")}
    client = serving(models=models)
    cards = client.get("/v1/models").json()["models"]
    assert [(card["name"], card["source"], card["default"]) for card in cards] == [
        ("one", "path/one", True),
        ("two", "path/two", False),
    ]
    assert score_of(client).json()["model"] == "one"
    assert score_of(client, model="two").json()["model"] == "two"
    score_of(client, "text.mp4")
    health = client.get("/health").json()
    assert (health["status"], health["models"]) == ("alive", {"one": "ready", "two": "ready"})
    assert client.get("/ready").json() == {"status": "ready"}
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'descore_queue_clips{state="admitted"} 0.0',
        'descore_batch_size_count{model="two"} 1.0',
        'descore_seconds_count{part="decode"} 3.0',
        'descore_errors_total{kind="no_video"} 1.0',
        'descore_requests_total{route="/v1/score",status="415"} 1.0',
        'descore_scores_total{model="one"} 1.0',
    ):
        assert line in lines


def test_openapi_has_examples_and_both_kinds_of_body(client):
    schema = client.get("/openapi.json").json()
    content = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    assert content["multipart/form-data"]["schema"]["properties"]["video"]["format"] == "binary"
    parts = schema["components"]["schemas"]
    for name in ("ScoreRequest", "CompareRequest", "RankRequest", "BatchRequest", "VideoInput", "ServedScore"):
        assert parts[name]["examples"]
    references = {text.split('"')[0] for text in json.dumps(schema).split("#/components/schemas/")[1:]}
    assert references <= parts.keys()
    assert set(schema["paths"]["/v1/score"]["post"]["responses"]) >= {"200", "400", "413", "415", "422", "503"}


def test_rewards_are_those_of_the_scorer(micro, media):
    with pytest.warns(DescoreWarning, match="never trained"):
        offline = Scorer(micro, name="micro", batch_size=3)
    app = create_app({"micro": offline}, settings=ServerSettings(media_root=media))
    names = ["bright.mp4", "sub/dark.mp4", "bright.mp4"]
    with TestClient(app, base_url=URL) as client:
        items = [{"prompt": f"{PROMPT} {n}", "video": {"path": name}} for n, name in enumerate(names)]
        text = client.post("/v1/batch", json={"items": items, "samples": 2, "seed": 3}).text
    lines = sorted(map(json.loads, text.splitlines()), key=lambda line: line["index"])
    for line, item, name in zip(lines, items, names, strict=True):
        alone = offline.score(media / name, prompt=item["prompt"], samples=2, seed=3)
        assert line["score"]["reward"] == pytest.approx(alone.reward, abs=1e-5)
        assert line["score"]["thinking"] == (alone.thinking or None)
