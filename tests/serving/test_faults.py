"""What breaks under a server, and clients that misbehave: each costs what it must, and the next request is right."""

import os
import signal
import socket
import threading
from http.client import HTTPConnection

import httpx2
import pytest
from fastapi.testclient import TestClient

from descore.serving import connections
from descore.serving.app import create_app
from descore.serving.folders import server_folder
from descore.serving.server import bind, server_of
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, URL, StubScorer, problem_of, score_of
from tests.serving.test_serve import served  # noqa: F401  # a fixture

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(scorer, media):
    """Host and port of a server on a real socket."""
    app = create_app({"stub": scorer}, settings=ServerSettings(media_root=media, max_queue=4, upload_seconds=0.5))
    with bind("127.0.0.1", 0) as listening:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()
        server.should_exit = True
        thread.join()


def say(address, content=b""):
    connection = socket.create_connection(address, timeout=30)
    connection.sendall(content)
    return connection


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
