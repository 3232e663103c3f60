"""Videos from addresses: only of named hosts, only public ones, and only what fits."""

import asyncio
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from descore.errors import ConfigError
from descore.serving import fetching
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, problem_of

NAME = "videos.example"


class _Site(BaseHTTPRequestHandler):
    """A bright video, redirects, and what must not be read."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers["host"]))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", self.server.addresses.get(rest, f"/{rest}"))
            self.end_headers()
            return
        if kind == "slow":
            self.server.patience.wait(10)
        self.send_response(404 if kind == "absent" else 200)
        self.end_headers()
        self.wfile.write(self.server.video if kind != "long" else bytes(100_000))

    def log_message(self, *_):
        pass


@pytest.fixture
def site(media, monkeypatch):
    """A server that the name videos.example leads to, as if loopback were public."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.seen, server.addresses, server.patience = [], {}, threading.Event()
    server.video = (media / "bright.mp4").read_bytes()
    server.place = f"{NAME}:{server.server_port}"
    server.resolved = {NAME: ["127.0.0.1"]}
    lookup = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        known = server.resolved.get(host)
        return [(2, 1, 6, "", (ip, port)) for ip in known] if known else lookup(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    is_public = fetching.is_public
    monkeypatch.setattr(fetching, "is_public", lambda ip: ip == "127.0.0.1" or is_public(ip))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.patience.set()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(client, url):
    return client.post("/v1/score", json={"prompt": PROMPT, "video": {"url": url}})


def test_a_video_is_fetched_from_a_named_host(serving, site):
    client = serving(allow_urls=(site.place,))
    answer = ask(client, f"http://{site.place}/folder/clip.mp4?token=secret").json()
    assert answer["video"] == "clip.mp4"
    assert answer["reward"] == pytest.approx(20, abs=0.1)
    assert site.seen == [("/folder/clip.mp4?token=secret", site.place)]
    assert ask(client, f"http://{site.place}/to/clip.mp4").json()["reward"] == pytest.approx(20, abs=0.1)


def test_other_addresses_are_refused(serving, site):
    client = serving(allow_urls=(site.place, "10.0.0.7", "internal.example", "mixed.example"))
    site.resolved |= {"internal.example": ["192.168.1.1"], "mixed.example": ["93.184.215.14", "169.254.169.254"]}
    for url, words in (
        ("http://other.example/clip.mp4", "does not fetch from other.example"),
        (f"http://{NAME}/clip.mp4", f"does not fetch from {NAME}"),
        (f"http://{site.place}.evil.example/", "no address"),
        (f"http://a:b@{site.place}/clip.mp4", "a name or a password"),
        ("file:///etc/passwd", "expected http or https"),
        ("clip.mp4", "expected http or https"),
        ("http://10.0.0.7/", "is not public"),
        ("http://internal.example/", "is not public"),
        ("http://mixed.example/", "is not public"),
    ):
        status, kind, message = problem_of(ask(client, url))
        assert (status, kind) == (400, "request"), url
        assert words in message
    assert not site.seen


def test_a_redirect_is_checked_like_an_address(serving, site):
    site.addresses |= {"away": "http://other.example/", "file": "file:///etc/passwd", "round": "/to/round"}
    client = serving(allow_urls=(site.place,))
    for name, words in (("away", "other.example"), ("file", "expected http"), ("round", "more than 5 redirects")):
        assert words in problem_of(ask(client, f"http://{site.place}/to/{name}"))[2]
    assert len(site.seen) == 2 + fetching.REDIRECTS + 1


def test_a_name_that_changes_its_address_leads_nowhere_else(serving, site, monkeypatch):
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    lookup = socket.getaddrinfo
    asked = []

    def resolve(host, *args, **kwargs):
        if host == NAME:
            asked.append(host)
            site.resolved[NAME] = next(answers)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    client = serving(allow_urls=(site.place,))
    assert ask(client, f"http://{site.place}/clip.mp4").status_code == 200
    assert asked == [NAME]  # the connection went to the address, not to the name
    assert "is not public" in problem_of(ask(client, f"http://{site.place}/clip.mp4"))[2]


def test_what_is_too_long_slow_or_absent_is_no_video(serving, site):
    client = serving(allow_urls=(site.place,), max_upload=50_000, upload_seconds=0.3)
    assert problem_of(ask(client, f"http://{site.place}/long"))[:2] == (413, "too_large")
    assert problem_of(ask(client, f"http://{site.place}/absent"))[:2] == (415, "no_video")
    assert "not here after 0.3 s" in problem_of(ask(client, f"http://{site.place}/slow"))[2]
    service = client.app.state.service
    assert not list(service.folder.iterdir())


def test_no_host_is_allowed_by_default(client):
    assert "fetches no addresses" in problem_of(ask(client, "http://videos.example/a.mp4"))[2]
    with pytest.raises(ConfigError, match="expected HOST or HOST:PORT"):
        ServerSettings(allow_urls=("https://videos.example/",))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "::7f00:1",
    ],
)
def test_private_addresses_are_known_in_all_their_forms(address):
    assert not fetching.is_public(address)


def test_public_addresses_are_public():
    assert all(map(fetching.is_public, ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8")))


def test_the_certificate_is_checked_for_the_name(site):
    import httpx2

    arguments = asyncio.run(fetching._pinned(httpx2.URL(f"http://{site.place}/a?b=c"), [site.place]))
    assert str(arguments["url"]) == f"http://127.0.0.1:{site.server_port}/a?b=c"
    assert arguments["extensions"] == {"sni_hostname": NAME}
    assert arguments["headers"]["Host"] == site.place
