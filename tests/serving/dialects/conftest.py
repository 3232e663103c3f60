"""Two videos, a server of all dialects behind a real socket, and what the Scorer makes of the same videos."""

import base64
import io
import json
import pickle
import threading
import time

import httpx2
import numpy as np
import pytest
import uvicorn
from PIL import Image

from descore import Scorer
from descore.errors import DescoreWarning
from descore.serving.app import create_app
from descore.serving.dialects import DIALECTS
from descore.serving.server import address_of, bind
from descore.serving.settings import ServerSettings
from descore.video.encoder import write_mp4
from tests.serving.conftest import StubScorer

FPS = 4.0
PROMPTS = ["a red ball", "a dog runs"]


@pytest.fixture(scope="session")
def videos():
    """Two videos of noise, (T, H, W, C)."""
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (8, 32, 48, 3), dtype=np.uint8) for _ in range(2)]


@pytest.fixture(scope="session")
def files(videos, tmp_path_factory):
    """The same as files, and one that is none."""
    folder = tmp_path_factory.mktemp("files")
    for name, video in zip("ab", videos, strict=True):
        write_mp4(folder / f"{name}.mp4", video, fps=4)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def offline(micro):
    with pytest.warns(DescoreWarning, match="never trained"):
        return Scorer(micro, name="micro", batch_size=4)


class Served:
    """An app behind a real socket, served in a thread."""

    def __init__(self, models, **settings):
        self.app = create_app(models, settings=ServerSettings(**settings))
        self.service = self.app.state.service
        self._socket = bind("127.0.0.1", 0)
        self.url = address_of(self._socket)
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="critical", lifespan="on"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        self.http = httpx2.Client(base_url=self.url, timeout=60)
        while not self._server.started:
            time.sleep(0.01)

    def close(self):
        self.http.close()
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="package")
def stub():
    return StubScorer()


@pytest.fixture(scope="package")  # its thread ends with these tests: others start processes by forking
def served(offline, stub, files):
    """A server of all dialects, with the micro model and the stub."""
    server = Served({"micro": offline, "stub": stub}, dialects=dict.fromkeys(DIALECTS, FPS), media_root=files)
    yield server
    stub.open.set()
    server.close()


@pytest.fixture
def http(served):
    return served.http


@pytest.fixture(scope="session")
def expected(offline, videos):
    """The Scorer's rewards of the frames."""
    return [offline.score(v, prompt=p, fps=FPS).reward for v, p in zip(videos, PROMPTS, strict=True)]


@pytest.fixture(scope="session")
def expected_of_files(offline, files):
    return [offline.score(files / f"{n}.mp4", prompt=p).reward for n, p in zip("ab", PROMPTS, strict=True)]


def bright(frames):
    """The stub's reward; scaling moves it a little."""
    return pytest.approx(frames.mean() / 10, abs=0.2)


def close_to(values):
    return pytest.approx(values, abs=1e-5)


@pytest.fixture
def own(stub):
    """A function: a server of its own with the stub and these settings."""
    servers = []

    def start(**settings):
        servers.append(Served({"stub": stub}, **{"dialects": dict.fromkeys(DIALECTS), **settings}))
        return servers[-1]

    yield start
    stub.open.set()
    for server in servers:
        server.close()


def part(kind, content, media_type):
    return {"type": kind, kind: {"url": f"data:{media_type};base64,{base64.b64encode(content).decode()}"}}


def pickled(images, prompts):
    return pickle.dumps({"images": images, "prompts": prompts})


def enqueued(array, prompt, **fields):
    file = io.BytesIO()
    np.save(file, array)
    return json.dumps({"prompts": [prompt], "reward_fn": {"descore": 1}, **fields}).encode() + b"\n" + file.getvalue()


def score_of_picture(offline, content, prompt, *, fps=1.0):
    return offline.score([Image.open(io.BytesIO(content))], prompt=prompt, fps=fps).reward
