"""Who may ask, and how much: tokens, hosts, lengths, pixels, the media root, and files that are gone afterwards."""

import asyncio
import json

import pytest

from descore.errors import ConfigError, VideoError
from descore.serving.media import read_media
from descore.serving.settings import ServerSettings, check_access
from descore.video.sampling import VideoSampling
from tests.serving.conftest import PROMPT, in_base64, picture, problem_of, score_of


def test_a_token_is_asked_for_but_of_states(serving):
    client = serving(api_key="secret")
    for header in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "secret"},
        {"authorization": "Basic secret"},
    ):
        answer = client.get("/v1/models", headers=header)
        assert problem_of(answer)[:2] == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer"):
        assert client.get("/metrics", headers={"authorization": f"{scheme} secret"}).status_code == 200
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    assert client.get("/openapi.json").status_code == 401


def test_a_page_of_another_host_is_refused(serving):
    client = serving(local_only=True)
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert client.get("/v1/models", headers={"host": host}).status_code == 401
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("name", ["../secret.mp4", "link.mp4", "/etc/passwd", "sub/../../secret.mp4", "a\0b"])
def test_no_file_outside_the_media_root_is_read(client, name):
    status, kind, message = problem_of(score_of(client, name))
    assert (status, kind) == (400, "request")
    assert "outside the media root" in message


def test_without_a_media_root_no_file_is_read(serving):
    assert "upload the video" in problem_of(score_of(serving(media_root=None)))[2]


@pytest.mark.parametrize("name", ["http://169.254.169.254/clip.mp4", "file:///etc/passwd", "ftp://a/b"])
def test_no_address_is_fetched(client, name):
    assert score_of(client, name).status_code in (400, 415)


@pytest.mark.parametrize("names", [("video",), ("a", "b")])
def test_a_long_upload_is_refused(serving, names):
    client = serving(max_upload=1000)
    files = dict.fromkeys(names, ("x.mp4", b"x" * 2000))
    assert problem_of(client.post("/v1/score", data={"prompt": PROMPT}, files=files))[:2] == (413, "too_large")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_long_upload_without_a_length_is_refused(serving, kind):
    start = b'--x\r\nContent-Disposition: form-data; name="video"; filename="x"\r\n\r\n'
    chunks = (part for part in (start, *[b"x" * 500] * 10))
    answer = serving(max_upload=1000).post("/v1/score", content=chunks, headers={"content-type": kind})
    assert problem_of(answer)[:2] == (413, "too_large")


def test_prompts_chains_and_samples_are_bounded(serving):
    client = serving(max_prompt=10, max_samples=2, max_chain_tokens=5)
    assert "11 characters" in problem_of(score_of(client, prompt="x" * 11))[2]
    for over in ({"samples": 3}, {"max_chain_tokens": 6}):
        assert problem_of(score_of(client, prompt="x", **over))[:2] == (413, "too_large")
    assert score_of(client, prompt="x" * 10, samples=2, max_chain_tokens=5).status_code == 200


@pytest.mark.slow
def test_pixels_times_frames_are_bounded(serving):
    for bound in ({"max_decode": 32 * 32 * 5}, {"max_source_pixels": 32 * 31}):
        client = serving(**bound)
        assert problem_of(score_of(client))[:2] == (413, "too_large")
        frames = {"frames": [picture(9)] * 6, "fps": 6}
        answer = client.post("/v1/score", json={"prompt": PROMPT, "video": frames})
        assert problem_of(answer)[:2] == (413, "too_large")


def test_the_number_of_frames_is_bounded(serving):
    video = {"frames": [picture(9, size=(1, 1))] * 5, "fps": 6}
    for path, body in (
        ("score", {"prompt": PROMPT, "video": video}),
        ("batch", {"items": [{"prompt": "x", "video": video}]}),
    ):
        answer = serving(max_frames=4).post(f"/v1/{path}", json=body)
        assert problem_of(answer)[0] == 413
        assert "5 frames; this server takes 4" in problem_of(answer)[2]


def test_bounds_are_never_looser_than_the_checkpoint():
    sampling = VideoSampling(max_source_pixels=1000, max_decode=5000, timeout=1.0)
    assert ServerSettings().bounded(sampling) == sampling
    bounded = ServerSettings(max_decode=100, decode_seconds=0.5).bounded(sampling)
    assert (bounded.max_source_pixels, bounded.max_decode, bounded.timeout) == (1000, 100, 0.5)


def test_temporary_files_are_gone_after_any_answer(client, media):
    folder = client.app.state.service.folder
    assert list(folder.iterdir()) == []
    content = (media / "bright.mp4").read_bytes()
    for given in (content, b"no video", content[:100]):
        client.post("/v1/score", data={"prompt": PROMPT}, files={"video": given})
        client.post("/v1/score", json={"prompt": PROMPT, "video": {"base64": in_base64(given)}})
        client.post("/v1/score", json={"prompt": "crash", "video": {"base64": in_base64(given)}})
    client.post("/v1/score", json={"prompt": PROMPT, "video": {"frames": [picture(1), "?"], "fps": 1}})
    client.post("/v1/score", data={"prompt": PROMPT, "samples": "none"}, files={"video": content})
    assert list(folder.iterdir()) == []


def test_the_folder_is_gone_when_the_server_ends(serving):
    client = serving()
    folder = client.app.state.service.folder
    assert folder.is_dir()
    client.__exit__(None, None, None)
    assert not folder.exists()
    client.__enter__()  # so that the fixture can end it


def test_a_body_that_does_not_come_is_given_up(serving):
    client = serving(upload_seconds=0.05)
    sent = client.portal.call(silent_request, client.app)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["message"] == "the body was not here after 0.05 s"


def test_bodies_that_do_not_come_are_bounded(serving):
    client = serving(upload_seconds=3.0, max_queue=2)

    async def scenario():
        silent = [asyncio.create_task(silent_request(client.app)) for _ in range(2)]
        await asyncio.sleep(0.05)
        third = await silent_request(client.app)
        for task in silent:
            task.cancel()
        return third

    assert client.portal.call(scenario)[0]["status"] == 503
    assert score_of(client).status_code == 200


async def silent_request(app):
    """What the app sends to a client that never sends its body."""
    sent = []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
        "root_path": "", "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("broken", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_frame_that_is_no_picture_is_named(tmp_path, broken):
    (tmp_path / "00000003").write_bytes(broken)
    with pytest.raises(VideoError, match="frame 3 is no whole picture of PNG, JPEG, WEBP"):
        read_media(str(tmp_path), sampling=VideoSampling(), fps=2.0)


def test_other_machines_need_a_token_unless_said_aloud():
    with pytest.raises(ConfigError, match="--no-auth"):
        check_access("0.0.0.0", api_key=None, no_auth=False)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_access(host, api_key=None, no_auth=False)
    check_access("0.0.0.0", api_key="x", no_auth=False)
    check_access("0.0.0.0", api_key=None, no_auth=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        check_access("127.0.0.1", api_key="x", no_auth=True)


@pytest.mark.parametrize("key", ["", " x", "ü", "a\nb"])
def test_a_token_is_what_a_header_can_hold(key):
    with pytest.raises(ConfigError, match="api_key"):
        ServerSettings(api_key=key)
