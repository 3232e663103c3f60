"""Bounds, tokens and a busy server are those of all routes; which dialects are on, and where."""

import math
import pickle
import threading

import httpx2
import numpy as np
import pytest

from descore.errors import ConfigError
from descore.serving.dialects import DIALECTS, PICKLED, cosmos_rl, parse_dialects
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, in_base64, problem_of
from tests.serving.dialects import clients
from tests.serving.dialects.conftest import bright, enqueued, pickled


@pytest.mark.slow
def test_bounds_and_tokens_are_those_of_the_server(own, videos):
    server = own(api_key="secret", max_frames=7, max_source_pixels=32 * 48, max_prompt=20)
    http, picture = server.http, clients.picture_bytes(videos[0][0])
    for method, path in ROUTES:
        assert http.request(method, path).status_code == 401, path
    trusted = httpx2.Client(base_url=server.url.replace("http://", "http://any:secret@"), timeout=60)
    assert clients.flow_grpo(trusted, [picture], [PROMPT]) == [bright(videos[0][0])]
    wrong = httpx2.Client(base_url=server.url.replace("http://", "http://any:wrong@"))
    assert wrong.post("/", content=b"").status_code == 401
    for header in ("Basic ?", "Basic " + in_base64(b"\xff"), "Basic"):
        assert http.post("/", headers={"authorization": header}).status_code == 401
    assert error_of(trusted, [videos[0]], [PROMPT], "/?fps=4") == (413, "8 frames; this server takes 7")
    assert error_of(trusted, [np.zeros((33, 48, 3), "u1")], [PROMPT])[0] == 413
    assert error_of(trusted, [picture], ["x" * 21])[0] == 413
    assert error_of(trusted, [videos[0][:4]], [PROMPT])[1].startswith("a video of 4 frames without their fps; start")
    assert list(server.service.folder.iterdir()) == []
    trusted.close()
    wrong.close()


ROUTES = [
    ("POST", "/"), ("POST", "/score"), ("GET", "/rewards"), ("POST", "/compute"), ("POST", "/api/reward/enqueue"),
    ("POST", "/api/reward/pull"), ("POST", "/v1/chat/completions"), ("POST", "/classify"), ("GET", "/v1/models"),
    ("POST", "/flow_grpo"), ("POST", "/verl_omni"), ("POST", "/unirl/score"), ("GET", "/unirl/health"),
    ("POST", "/flow_factory/compute"), ("POST", "/cosmos_rl/api/reward/pull"), ("GET", "/openai/v1/models"),
]  # fmt: skip


def error_of(http, images, prompts, url="/"):
    answer = http.post(url, content=pickled(images, prompts))
    message = pickle.loads(answer.content)["error"]
    return answer.status_code, message.removeprefix("images[0]: a video of ")


@pytest.mark.slow
def test_a_busy_server_asks_each_client_to_come_again(own, stub, videos):
    server = own(max_queue=1)
    stub.entered.clear()
    stub.open.clear()
    cosmos = clients.CosmosRl(server.http)
    first = cosmos.enqueue(np.zeros((1, 8, 8, 3), "u1"), [PROMPT], media_type="image").json()["uuid"]
    assert stub.entered.wait(20)
    statuses = {
        path: server.http.request(m, path).status_code for m, path in ROUTES if m == "POST" and "pull" not in path
    }
    assert {path for path, status in statuses.items() if status == 500} == {"/", "/flow_grpo", "/verl_omni"}
    assert set(statuses.values()) == {500, 503}  # flow_grpo asks again on 500 alone
    assert cosmos.pull(first).status_code == 400  # asking for scores needs no place
    waiting = threading.Timer(0.2, stub.open.set)
    waiting.start()
    picture = clients.picture_bytes(videos[0][0])
    assert clients.flow_grpo(server.http, [picture], [PROMPT], tries=200) == [bright(videos[0][0])]
    assert cosmos.scores(first)["descore"] == [0.0]  # black


@pytest.mark.slow
def test_cosmos_rl_keeps_results_within_bounds(own, stub, monkeypatch):
    server = own()
    cosmos, black = clients.CosmosRl(server.http), np.zeros((1, 8, 8, 3), "u1")

    def finished():
        name = cosmos.enqueue(black, [PROMPT], media_type="image").json()["uuid"]
        cosmos.scores(name)
        return name

    monkeypatch.setattr(cosmos_rl, "MOST_RESULTS", 2)
    names = [finished() for _ in range(3)]
    assert [cosmos.pull(name).status_code for name in names] == [404, 200, 200]
    monkeypatch.setattr(cosmos_rl, "KEPT_SECONDS", 0.0)
    assert [cosmos.pull(name).status_code for name in names] == [404] * 3
    assert list(server.service.folder.iterdir()) == []
    stub.open.clear()
    late = cosmos.http.post(
        "/api/reward/enqueue?timeout=0.1", content=enqueued(black, PROMPT, media_type="image")
    ).json()["uuid"]
    monkeypatch.setattr(cosmos_rl, "KEPT_SECONDS", 60.0)
    assert math.isnan(cosmos.scores(late)["descore"][0])


def test_the_only_model_answers_to_any_name(own, videos):
    server = own(dialects={"openai": 4.0, "classify": None})
    assert clients.pref_grpo(server.http, videos[0], videos[1] // 2, PROMPT) == "Video 1 is better"


def test_clips_of_many_clients_share_batches(own, stub, videos):
    server = own(window=30.0)  # or until a batch is full
    stub.batches.clear()
    picture = clients.picture_bytes(videos[0][0])
    clients.flow_grpo(server.http, [picture] * 4, ["a", "b", "c", "d"])
    assert list(map(sorted, stub.batches)) == [["a", "b", "c", "d"]]  # in the order in which they were decoded


# Which are on, and where


def test_no_dialect_is_on_unless_it_is_named(serving):
    client = serving()
    own_routes = {("GET", "/v1/models")}
    for method, path in ROUTES:
        expected = 200 if (method, path) in own_routes else (404, 405)
        assert client.request(method, path).status_code in (expected if isinstance(expected, tuple) else (expected,))
    assert client.get("/health").json()["status"] == "alive"
    assert parse_dialects([]) == {}


def test_all_are_those_without_pickles():
    named = parse_dialects(["all"])
    assert set(named) == set(DIALECTS) - set(PICKLED)
    assert parse_dialects(["flow_grpo=16", "all=8", "openai=1.4"]) == {
        "unirl": 8.0, "flow_factory": 8.0, "cosmos_rl": 8.0, "classify": 8.0, "openai": 1.4, "flow_grpo": 16.0,
    }  # fmt: skip
    for wrong, words in (
        (["flowgrpo"], "unknown; there are flow_grpo, verl_omni, .* and all"),
        (["openai=0"], "NAME=FPS"),
        (["openai=nan"], "NAME=FPS"),
        (["openai=x"], "NAME=FPS"),
        (["unirl", "unirl=2"], "given twice"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_dialects(wrong)
    with pytest.raises(ConfigError, match="dialects has 'x'"):
        ServerSettings(dialects={"x": None})


def test_a_shared_path_is_that_of_the_first_named(own, videos):
    server = own(dialects={"verl_omni": None, "flow_grpo": 4.0})
    content = pickled([videos[0]], [PROMPT])
    assert server.http.post("/flow_grpo", content=content).status_code == 200
    answer = server.http.post("/", content=content)
    assert "--dialect verl_omni=16" in pickle.loads(answer.content)["error"]


def test_the_page_and_the_own_api_stay_as_they_are(http):
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert http.get("/health").json()["status"] == "alive"
    assert problem_of(http.post("/v1/score", json={}))[:2] == (400, "request")
    assert not [path for path in http.get("/openapi.json").json()["paths"] if "reward" in path or path == "/score"]
    models = http.get("/v1/models").json()
    assert [card["name"] for card in models["models"]] == [model["id"] for model in models["data"]]
