"""A scorer that is quick and can be made to wait, small videos, and an app with its client."""

import base64
import io
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from descore.errors import VideoError
from descore.model.checkpoint import CheckpointSettings
from descore.serving.app import create_app
from descore.serving.server import address_of, bind
from descore.serving.settings import ServerSettings
from descore.types import Completion, Score
from descore.video.encoder import write_mp4
from descore.video.sampling import VideoSampling
from tests.serving.chromium import Chromium

URL = "http://127.0.0.1"
PROMPT = "a red ball"


class StubScorer:
    """Rewards a clip by its brightness. `open` lets batches through; prompts make it fail."""

    chat = SimpleNamespace(tokenizer=SimpleNamespace(backend_tokenizer=None))  # a chain would come in one piece

    def __init__(self, *, name="stub", batch_size=4, paradigm="descore"):
        self.name, self.batch_size = name, batch_size
        self.settings = CheckpointSettings(
            paradigm=paradigm,
            trained_on="nothing: it is a stub",
            max_chain_tokens=12,
            sampling=VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16),
        )
        self.engine = SimpleNamespace(device="cpu", dtype=torch.float32)
        self.open, self.entered = threading.Event(), threading.Event()
        self.open.set()
        self.batches, self.params = [], []

    def score_each(self, requests, **params):
        requests = list(requests)
        self.batches.append([request.prompt for request in requests])
        self.params.append(params)
        self.entered.set()
        assert self.open.wait(20)
        if any(request.prompt == "crash" for request in requests):
            raise RuntimeError("a fault of the program")
        if any(request.prompt == "large" for request in requests):
            raise torch.OutOfMemoryError
        return [self._result(request) for request in requests]

    def _result(self, request):
        clip, prompt = request.video, request.prompt
        if prompt == "no answer":
            return VideoError(clip.source, "the chain gives no reward")
        reward = float(clip.frames.mean()) / 10
        completion = Completion(
            token_ids=(), text="", truncated=False, verdict=None, flaw=None, rewards={"overall": reward}
        )
        return Score(
            clip=clip, prompt=prompt, model=self.name, reward=reward, score=None, std=None, completions=(completion,)
        )


@pytest.fixture
def scorer():
    return StubScorer()


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder with a dark and a bright video, one that is none, and a link to the outside."""
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "media"
    (root / "sub").mkdir(parents=True)
    for name, level in (("sub/dark", 40), ("bright", 200)):
        write_mp4(root / f"{name}.mp4", np.full((6, 32, 32, 3), level, dtype=np.uint8), fps=6)
    (root / "text.mp4").write_text("these are only words\n")
    write_mp4(outside / "secret.mp4", np.full((6, 32, 32, 3), 99, dtype=np.uint8), fps=6)
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    return root


@pytest.fixture
def serving(scorer, media):
    """A function: a client of a server with these settings."""
    clients = []

    def start(*, models=None, **settings):
        app = create_app(models or {"stub": scorer}, settings=ServerSettings(**{"media_root": media, **settings}))
        client = TestClient(app, base_url=URL, raise_server_exceptions=False)
        clients.append(client)
        client.__enter__()
        return client

    yield start
    scorer.open.set()
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serving):
    return serving()


def in_base64(content):
    return base64.b64encode(content).decode()


def picture(level, *, size=(32, 32), kind="PNG"):
    """A grey picture in base64."""
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, kind)
    return in_base64(file.getvalue())


def score_of(client, video="bright.mp4", prompt=PROMPT, **fields):
    """The answer of /v1/score for a file of the media root."""
    return client.post("/v1/score", json={"prompt": prompt, "video": {"path": video}, **fields})


def problem_of(answer):
    """Status, kind and message of an error, which has no more than these."""
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"kind", "message"}
    assert "\n" not in body["error"]["message"]
    return answer.status_code, body["error"]["kind"], body["error"]["message"]


@pytest.fixture
def live():
    """A function: the address of a server that runs this app, in a thread of its own."""
    running = []

    def start(app):
        listening = bind("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        return address_of(listening)

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser, for all tests of a file."""
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def open_page(chromium):
    """A function that opens a page and waits for its script. What the page complains of fails the test."""
    pages = []

    def start(url):
        page = chromium.open(url)
        pages.append(page)
        page.wait_for("document.body.dataset.ready")
        return page

    yield start
    for page in pages:
        assert page.complaints() == []
        page.close()
