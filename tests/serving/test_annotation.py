"""The app in which people judge: pairs, votes and videos over HTTP."""

import io
import json
from contextlib import ExitStack

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from descore.errors import ConfigError
from descore.serving.annotation import create_annotation_app
from descore.serving.settings import ServerSettings
from descore.serving.votes import VoteJournal, read_task
from descore.video.encoder import write_mp4
from tests.serving.conftest import URL, problem_of

ROWS = [("a red ball", "sub/dark.mp4", "bright.mp4"), ("words", "text.mp4", "bright.mp4")]


@pytest.fixture(scope="module")
def table(media):
    """Pairs of the media folder, under names that are the same on each machine: sides are drawn from them."""
    table = media.parent / "pairs.csv"
    lines = [f"{prompt},media/{a},media/{b}" for prompt, a, b in ROWS]
    table.write_text("\n".join(["prompt,video_a,video_b", *lines]) + "\n")
    return table


@pytest.fixture
def judging(table, tmp_path):
    """A function: a client of an app with these settings."""
    with ExitStack() as stack:

        def start(*, labels=(), out=tmp_path / "votes.jsonl", pairs=table, **settings):
            journal = stack.enter_context(VoteJournal.open(read_task(pairs, labels=labels), out))
            app = create_annotation_app(journal, settings=ServerSettings(**settings))
            return stack.enter_context(TestClient(app, base_url=URL, raise_server_exceptions=False))

        yield start


def pair_of(client, rater="Ann", **fields):
    return client.post("/v1/pair", json={"rater": rater, **fields})


def vote(client, number=1, rater="Ann", **fields):
    return client.post("/v1/vote", json={"rater": rater, "number": number, **fields})


def journal_of(tmp_path):
    lines = (tmp_path / "votes.jsonl.journal").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_a_vote_is_for_the_video_that_was_on_its_side(judging, table, tmp_path):
    client = judging()
    for rater in ("Ann", "Bob", "Cid", "Dan", "Eve"):
        for choice in ("left", "tie", "right"):
            shown = pair_of(client, rater, number=1).json()["pair"]
            videos = {side: client.get(shown[side]["source"]).content for side in ("left", "right")}
            assert vote(client, rater=rater, choices={"overall": choice}).status_code == 200
            kept = journal_of(tmp_path)[-1]
            if choice == "tie":
                assert kept["choices"] == {"overall": "tie"}
            else:
                chosen = kept[f"video_{kept['choices']['overall']}"]
                assert videos[choice] == (table.parent / chosen).read_bytes()
            again = pair_of(client, rater, number=1).json()["pair"]
            assert again["choices"] == {"overall": choice}
            assert again["left"] == shown["left"]
    assert {line["left"] for line in journal_of(tmp_path)} == {"a", "b"}


def test_a_rater_goes_from_pair_to_pair_and_back(judging):
    client = judging(labels=["looks", "motion"])
    assert client.get("/v1/task").json() == {
        "name": "pairs.csv",
        "labels": ["looks", "motion"],
        "total": 2,
        "raters": [],
    }
    first = pair_of(client).json()
    assert (first["done"], first["total"], first["pair"]["number"]) == (0, 2, 1)
    second = vote(client, choices={"looks": "left", "motion": "tie"}).json()
    assert (second["done"], second["pair"]["number"]) == (1, 2)
    assert second["pair"]["prompt"] != first["pair"]["prompt"]
    end = vote(client, 2, skipped="the prompt is unclear").json()
    assert (end["done"], end["pair"]) == (2, None)
    assert pair_of(client, number=2).json()["pair"]["skipped"] == "the prompt is unclear"
    assert pair_of(client, "Bob").json()["done"] == 0
    assert client.get("/v1/task").json()["raters"] == ["Ann"]


def test_a_new_server_goes_on(judging, tmp_path):
    client = judging()
    vote(client, choices={"overall": "tie"})
    with pytest.raises(ConfigError, match="another process"):
        judging()
    other = tmp_path / "other.jsonl"
    for file in tmp_path.glob("votes.jsonl*"):  # the journal, and the table, which a busy machine may write later
        other.with_name(file.name.replace("votes", "other")).write_bytes(file.read_bytes())
    assert pair_of(judging(out=other)).json()["pair"]["number"] == 2


def test_a_name_is_one_whatever_its_spaces(judging):
    client = judging()
    assert pair_of(client, "  Ann \n Lee ").json()["rater"] == "Ann Lee"
    vote(client, rater="A\u0301da", choices={"overall": "tie"})  # A and an accent
    assert pair_of(client, "\u00c1da").json()["done"] == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"rater": "Ann", "number": 3, "choices": {"overall": "left"}}, "there are 2 pairs"),
        ({"rater": "Ann", "number": 0, "choices": {"overall": "left"}}, "number"),
        ({"rater": "Ann", "number": 1, "choices": {"overall": "a"}}, "left"),
        ({"rater": "Ann", "number": 1, "choices": {"looks": "left"}}, "expected one for each of overall"),
        ({"rater": "Ann", "number": 1, "choices": {"overall": "tie", "x": "tie"}}, "expected one for each of overall"),
        ({"rater": "Ann", "number": 1}, "choices, or a reason"),
        ({"rater": "Ann", "number": 1, "skipped": " "}, "choices, or a reason"),
        ({"rater": "Ann", "number": 1, "skipped": "x", "choices": {"overall": "tie"}}, "choices, or a reason"),
        ({"rater": "Ann", "number": 1, "skipped": "x" * 201}, "skipped"),
        ({"rater": " ", "number": 1, "skipped": "x"}, "visible characters"),
        ({"rater": "A\u202en", "number": 1, "skipped": "x"}, "visible characters"),
        ({"rater": "x" * 65, "number": 1, "skipped": "x"}, "visible characters"),
        ({"rater": "Ann", "number": 1, "skipped": "x", "seconds": -1}, "seconds"),
    ],
)
def test_a_vote_that_cannot_be_kept_is_refused(judging, tmp_path, body, words):
    status, kind, message = problem_of(judging().post("/v1/vote", json=body))
    assert (status, kind) == (400, "request")
    assert words in message
    assert journal_of(tmp_path) == []


def test_no_page_elsewhere_can_vote(judging):
    """A form of another site may send text/plain, but not JSON, and no name of its own for this machine."""
    client = judging(local_only=True)
    body = json.dumps({"rater": "Ann", "number": 1, "skipped": "x"})
    assert problem_of(client.post("/v1/vote", content=body, headers={"content-type": "text/plain"}))[0] == 400
    assert problem_of(client.get("/v1/task", headers={"host": "evil.example"}))[0] == 401


def test_a_vote_that_is_not_on_the_disk_is_an_error(judging, monkeypatch):
    client = judging()

    def full(*_):
        raise ConfigError("votes.jsonl: cannot be written (No space left on device); make room")

    monkeypatch.setattr("descore.serving.votes.append_records", full)
    assert problem_of(vote(client, choices={"overall": "tie"}))[:2] == (500, "internal")
    assert pair_of(client).json()["done"] == 0


def test_videos_come_in_ranges_and_only_those_of_the_table(judging, media):
    client = judging()
    source = pair_of(client).json()["pair"]["left"]["source"]
    whole = client.get(source)
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(source, headers={"range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert client.get(source, headers={"range": "bytes=99999999-"}).status_code == 416
    for name in ("secret.mp4", "..%2Fsecret.mp4", str(media / "bright.mp4"), "0", "%2Fetc%2Fpasswd"):
        assert client.get(f"/v1/videos/{name}").status_code == 404


def test_a_token_guards_all_but_the_page_and_the_videos(judging):
    client = judging(api_key="secret")
    for answer in (client.get("/v1/task"), pair_of(client), vote(client, choices={"overall": "tie"})):
        assert problem_of(answer)[:2] == (401, "unauthorized")
    client.headers["authorization"] = "Bearer secret"
    source = pair_of(client).json()["pair"]["left"]["source"]
    del client.headers["authorization"]
    assert client.get("/").status_code == client.get("/page/annotate.js").status_code == 200
    assert client.get(source).status_code == 200  # its name is the secret: a browser sends no token with a video


def test_a_video_that_no_browser_plays_is_made_again(judging, tmp_path):
    frames = np.stack([np.full((50, 66, 3), 20 * number, dtype=np.uint8) for number in range(8)])
    write_mp4(tmp_path / "a.mp4", frames, fps=4, codec="mpeg4")
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / "b.gif", save_all=True, append_images=pictures[1:], duration=250)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("prompt,video_a,video_b\np,a.mp4,b.gif\n")
    client = judging(pairs=pairs)
    shown = pair_of(client).json()["pair"]
    for side in ("left", "right"):
        answer = client.get(shown[side]["playable"])
        assert answer.headers["content-type"] == "video/mp4"
        with av.open(io.BytesIO(answer.content)) as container:
            [stream] = container.streams
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 66, 50)
            copied = list(container.decode(stream))
        assert [frame.time for frame in copied] == pytest.approx([0.25 * number for number in range(8)], abs=0.001)
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in copied]
        assert levels == pytest.approx([20 * number for number in range(8)], abs=4)
    assert client.get(shown["left"]["playable"], headers={"range": "bytes=0-9"}).status_code == 206


def test_a_file_that_is_no_video_says_why(judging, tmp_path):
    (tmp_path / "a.mp4").write_text("only words")
    (tmp_path / "b.mp4").write_text("only words")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("prompt,video_a,video_b\np,a.mp4,b.mp4\n")
    client = judging(pairs=pairs)
    status, kind, message = problem_of(client.get(pair_of(client).json()["pair"]["left"]["playable"]))
    assert (status, kind) == (415, "no_video")
    assert str(tmp_path) not in message
