"""The page's files and headers, and the frames that it shows."""

import base64
import io
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from descore.serving.page import HEADERS
from tests.serving.conftest import PROMPT, problem_of

STATIC = files("descore") / "serving" / "static"


def test_the_page_loads_nothing_but_its_own_files(client):
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    paths = re.findall(r'(?:src|href)="(/[^"]*)"', answer.text)
    assert "/page/score.js" in paths
    for path in paths:
        file = client.get(path)
        assert file.status_code == 200
        assert {name: file.headers[name] for name in HEADERS} == HEADERS


class Reader(HTMLParser):
    """Collects what a policy without inline scripts and styles would block."""

    def __init__(self):
        super().__init__()
        self.inline, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = dict(attrs)
        self.inline += [name for name in names if name == "style" or name.startswith("on")]
        self.inline += ["script"] if tag == "script" and not names.get("src") else []
        self.inline += ["address"] if any("//" in (value or "") for value in names.values()) else []


@pytest.mark.parametrize("page", [path.name for path in STATIC.iterdir() if path.name.endswith(".html")])
def test_pages_have_no_inline_script_or_style(page):
    reader = Reader()
    reader.feed((STATIC / page).read_text(encoding="utf-8"))
    assert {"main", "h1", "script"} <= set(reader.tags)
    assert reader.inline == []


@pytest.mark.parametrize("script", [path.name for path in STATIC.iterdir() if path.name.endswith(".js")])
def test_scripts_never_write_html(script):
    text = (STATIC / script).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|cookie", text)


def test_the_page_knows_the_bounds(serving):
    page = serving(max_upload=1234, max_prompt=56).get("/").text
    assert 'data-max-upload="1234"' in page
    assert 'maxlength="56"' in page


def test_the_page_opens_without_the_token_and_nothing_else_does(serving):
    client = serving(api_key="secret")
    assert client.get("/").status_code == client.get("/page/score.js").status_code == 200
    assert client.get("/page/../metrics").status_code == 401
    for path in ("/v1/models", "/openapi.json", "/metrics"):
        assert problem_of(client.get(path))[:2] == (401, "unauthorized")
    assert client.post("/v1/frames", json={"video": {"path": "bright.mp4"}}).status_code == 401


@pytest.mark.parametrize("name", ["app.py", "..%2Fapp.py", "%2Fetc%2Fpasswd", "index.html"])
def test_no_other_file_is_given(client, name):
    assert problem_of(client.get(f"/page/{name}"))[:2] == (404, "not_found")


def test_frames_are_those_that_the_model_sees(client, media):
    answer = client.post("/v1/frames", files={"video": (media / "bright.mp4").read_bytes()}).json()
    score = client.post("/v1/score", json={"prompt": PROMPT, "video": {"path": "bright.mp4"}}).json()
    assert answer["times"] == score["times"]
    assert len(answer["frames"]) == len(answer["times"])
    assert (answer["width"], answer["height"], answer["fps"], answer["duration"]) == (32, 32, 6, 1)
    kind, _, content = answer["frames"][0].partition(",")
    assert kind == "data:image/webp;base64"
    frame = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert frame.mean() == pytest.approx(10 * score["reward"], abs=3)


@pytest.mark.slow
def test_large_frames_are_made_small(client):
    file = io.BytesIO()
    Image.new("RGB", (1600, 800)).save(file, "PNG")
    frame = base64.b64encode(file.getvalue()).decode()
    answer = client.post("/v1/frames", json={"video": {"frames": [frame] * 4, "fps": 2}}).json()
    size = Image.open(io.BytesIO(base64.b64decode(answer["frames"][0].partition(",")[2]))).size
    assert max(size) <= 384
    assert (answer["width"], answer["height"]) == (1600, 800)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"video": {"path": "text.mp4"}}, 415, "no_video"),
        ({"video": {"path": "../secret.mp4"}}, 400, "request"),
        ({"video": {"path": "bright.mp4"}, "model": "other"}, 400, "request"),
        ({"video": {"path": "bright.mp4"}, "prompt": PROMPT}, 400, "request"),
        ({"video": {"frames": ["x"] * 9, "fps": 2}}, 413, "too_large"),
    ],
)
def test_frames_are_refused_as_scores_are(serving, body, status, kind):
    client = serving(max_frames=8)
    assert problem_of(client.post("/v1/frames", json=body))[:2] == (status, kind)


def test_frames_take_a_place_and_give_it_back(serving):
    client = serving(max_queue=1)
    for _ in range(3):
        assert client.post("/v1/frames", json={"video": {"path": "bright.mp4"}}).status_code == 200
    assert 'descore_queue_clips{state="admitted"} 0.0' in client.get("/metrics").text
