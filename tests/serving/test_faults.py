"""What breaks under a server, and clients that misbehave: each costs what it must, and the next request is right."""

import json
import os
import re
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from types import SimpleNamespace

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from uvicorn.server import ServerState

from descore.serving import connections
from descore.serving.app import create_app
from descore.serving.folders import server_folder
from descore.serving.guard import Guard
from descore.serving.server import bind, server_of
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, URL, StubScorer, problem_of, score_of
from tests.serving.test_serve import served  # noqa: F401  # a fixture

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Verbose(StubScorer):
    """One clip at a time. For the prompt "long" it writes more than the system keeps for a client that does not read,
    and closes."""

    def __init__(self):
        super().__init__(batch_size=1)

    def _result(self, request):
        score = super()._result(request)
        if request.prompt != "long":
            return score
        self.open.clear()
        return replace(score, completions=(replace(score.completions[0], text="x" * 24_000_000),))


@pytest.fixture
def verbose():
    scorer = Verbose()
    yield scorer
    scorer.open.set()


@pytest.fixture
def address(scorer, media):
    """Host and port of a server on a real socket."""
    with running(scorer, media) as address:
        yield address


@contextmanager
def running(scorer, media):
    app = create_app({"stub": scorer}, settings=ServerSettings(media_root=media, max_queue=4, upload_seconds=0.5))
    with bind("127.0.0.1", 0) as listening:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            scorer.open.set()
            server.should_exit = True
            thread.join()


def say(address, content=b""):
    connection = socket.create_connection(address, timeout=30)
    connection.sendall(content)
    return connection


def ask_and_not_read(address, path, body):
    """A connection on which a request was sent; returns when the other side has closed it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    poller = select.poll()
    poller.register(connection, 0)  # the end, and not what there is to read
    assert poller.poll(60_000), "the connection was not closed"
    return connection


def admitted(address):
    """Clips that are in the server."""
    page = httpx2.get(f"http://{address[0]}:{address[1]}/metrics", timeout=30).text
    return float(re.search(r'descore_queue_clips{state="admitted"} (\S+)', page)[1])


def rest_of(connection):
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def is_right(address):
    body = {"prompt": PROMPT, "video": {"path": "bright.mp4"}}
    answer = httpx2.post(f"http://{address[0]}:{address[1]}/v1/score", json=body, timeout=30)
    return answer.status_code == 200 and answer.json()["reward"] == pytest.approx(20, abs=0.1)


@pytest.mark.slow
def test_a_decoding_process_that_dies_is_started_again(client):
    before = score_of(client).json()
    [worker] = client.app.state.service._pool._workers
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    assert client.get("/health").json()["decoding"] == {"workers": 1, "alive": 0, "restarts": 0}
    assert score_of(client).json() == before
    assert client.get("/health").json()["decoding"] == {"workers": 1, "alive": 1, "restarts": 1}


def test_an_engine_that_fails_is_opened_again(scorer, media):
    again = StubScorer()
    opened = []

    def open_again(name):
        opened.append(name)
        return again

    app = create_app({"stub": scorer}, settings=ServerSettings(media_root=media), open_again=open_again)
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as client:
        before = score_of(client).json()
        assert client.get("/health").json()["models"] == {"stub": "ready"}
        assert problem_of(score_of(client, prompt="crash"))[:2] == (500, "internal")
        assert client.get("/health").json()["models"] == {"stub": "failed"}
        assert score_of(client).json() == before
        assert client.get("/health").json()["models"] == {"stub": "ready"}
    assert opened == ["stub"]
    assert (len(scorer.batches), len(again.batches)) == (2, 1)


def test_silent_connections_are_few_and_end(address, monkeypatch):
    monkeypatch.setattr(connections, "MOST_SILENT", 20)
    silent = [say(address, content) for content in (b"", b"GET / HT") for _ in range(40)]
    assert is_right(address)
    for connection in silent[:40]:
        assert rest_of(connection) == b""  # closed, long before its time
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.1)
    late = say(address, b"GET /health HTTP/1.1\r\nHost: ")
    assert rest_of(late) == b""
    assert is_right(address)
    for connection in silent:
        connection.close()


def test_a_connection_may_be_used_again_and_then_ends(address, monkeypatch):
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.3)
    connection = HTTPConnection(*address)
    for _ in range(3):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
    assert rest_of(connection.sock) == b""


@pytest.mark.slow
def test_an_answer_that_nobody_reads_is_given_up(verbose, media, monkeypatch):
    monkeypatch.setattr(connections, "BLOCKED_SECONDS", 0.3)
    body = {"prompt": "long", "video": {"path": "bright.mp4"}}
    with running(verbose, media) as address:
        for head in ({}, {"timeout": 5}):
            verbose.open.set()
            ask_and_not_read(address, "/v1/score", body | head).close()
        verbose.open.set()
        assert is_right(address)


@pytest.mark.slow
def test_work_for_a_stream_that_nobody_reads_leaves_the_queue(verbose, media, monkeypatch):
    monkeypatch.setattr(connections, "BLOCKED_SECONDS", 0.3)
    prompts = ["long", "b", "c", "d"]
    items = [{"prompt": prompt, "video": {"path": "bright.mp4"}} for prompt in prompts]
    with running(verbose, media) as address:
        ask_and_not_read(address, "/v1/batch", {"items": items}).close()
        while admitted(address):
            time.sleep(0.05)
        verbose.open.set()
        assert is_right(address)
    # Clips are scored in the order in which they were decoded; behind the long answer one was being scored.
    order = [prompt for [prompt] in verbose.batches]
    behind = order[order.index("long") + 1 :]
    assert behind[-1] == PROMPT
    assert len(behind) <= 2


class Wire:
    """A transport whose client reads what a test says."""

    def __init__(self):
        self.waiting, self.aborted = 0, False

    def get_extra_info(self, _):
        return None

    def get_write_buffer_size(self):
        return self.waiting

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


class Clock:
    """A loop in which time passes when a test says so."""

    def __init__(self):
        self.calls = []

    def call_later(self, seconds, call):
        self.calls.append(handle := SimpleNamespace(seconds=seconds, call=call, cancelled=False))
        handle.cancel = lambda: setattr(handle, "cancelled", True)
        return handle

    def pass_time(self):
        """Make the calls that are due within the time a client has to read."""
        due = [one for one in self.calls if not one.cancelled and one.seconds <= connections.BLOCKED_SECONDS]
        self.calls = []
        for one in due:
            one.call()


@pytest.fixture
def wired():
    """A connection whose answer is complete, and 100 bytes of it wait for the client."""
    wire, clock, config = Wire(), Clock(), uvicorn.Config(Guard, interface="asgi3")
    protocol = connections.BoundedProtocol(config, ServerState(), {}, _loop=clock)
    protocol.connection_made(wire)
    wire.waiting = 100
    protocol.pause_writing()
    yield wire, clock, protocol
    protocol.close()


def test_a_client_that_reads_slowly_keeps_its_connection(wired):
    wire, clock, protocol = wired
    for left in (99, 50, 49):
        wire.waiting = left
        clock.pass_time()
        assert not wire.aborted
    protocol.resume_writing()
    wire.waiting = 10
    clock.pass_time()
    assert not wire.aborted
    clock.pass_time()
    assert wire.aborted  # 10 bytes wait still


def test_a_client_that_has_read_all_is_only_silent(wired):
    wire, clock, protocol = wired
    wire.waiting = 0
    protocol.resume_writing()
    clock.pass_time()
    assert wire.aborted
    assert not connections.BoundedProtocol.silent


@pytest.mark.slow
def test_half_uploads_and_wrong_lengths_take_no_place(address, monkeypatch):
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.3)
    for head, body, closes in (
        (b"Content-Length: 1000\r\n\r\n", b'{"prompt": ', True),
        (b"Content-Length: 3\r\n\r\n", b'{"prompt": "longer than it says"}', False),
        (b"Content-Length: -1\r\n\r\n", b"{}", False),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"{}", False),
        (b"Content-Length: 99999999999\r\n\r\n", b"{}", False),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nabc\r\nzz\r\n", False),
        (b"Content-Length: 1000\r\n\r\n", b"{}", False),  # and then nothing
    ):
        connection = say(address, HEAD.replace(b"Host: x", b"Host: 127.0.0.1") + head + body)
        if closes:
            connection.close()
            continue
        connection.shutdown(socket.SHUT_WR) if b"zz" in body else None
        answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 4") or b"zz" in body, (head, answer)
    for _ in range(6):  # more than there are places
        assert is_right(address)


def test_a_folder_that_is_held_stays_and_an_orphan_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    orphan, other = tmp_path / "descore-serve-orphan", tmp_path / "descore-serve-other"
    for folder in (orphan, other):
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(b"a video")
    (orphan / "lock").touch()  # and nobody holds it; the other one has none, and may be anybody's
    with server_folder() as first, server_folder() as second:
        assert first.is_dir()
        assert second.is_dir()
        assert first != second
        assert not orphan.exists()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.slow
def test_the_folder_of_a_killed_server_goes_at_the_next_start(served, tmp_path):  # noqa: F811
    process, url = served()
    assert httpx2.get(f"{url}/ready").is_success
    [left] = tmp_path.glob("descore-serve-*")
    process.kill()
    process.wait()
    assert left.is_dir()
    _, url = served()
    assert httpx2.get(f"{url}/ready").is_success
    [new] = tmp_path.glob("descore-serve-*")
    assert new != left


@pytest.mark.slow
def test_no_request_of_the_schema_makes_the_server_fail(scorer, media):
    schemathesis = pytest.importorskip("schemathesis")
    import requests
    from hypothesis import HealthCheck, Phase, given, seed, settings

    app = create_app({"stub": scorer}, settings=ServerSettings(media_root=media))
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        seen = set()
        for operation in schema.get_all_operations():
            operation = operation.ok()

            @seed(7)
            @settings(
                max_examples=40,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def ask(case):
                sent = requests.Request(**case.as_transport_kwargs(base_url=URL)).prepare()
                answer = client.request(sent.method, sent.url, headers=dict(sent.headers), content=sent.body)
                seen.add(case.path)
                assert answer.status_code < 500 or answer.status_code == 503, (case, answer.text)

            ask()
    assert seen >= {"/v1/score", "/v1/compare", "/v1/rank", "/v1/batch", "/v1/frames", "/v1/models", "/health"}
