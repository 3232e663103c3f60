"""Each dialect's client never gets a number for a clip without a reward, and learns why."""

import io
import math
import os
import pickle

import httpx2
import numpy as np
import pytest

from descore.serving.dialects import cosmos_rl
from descore.serving.problems import ServiceError
from tests.serving.conftest import PROMPT
from tests.serving.dialects import clients
from tests.serving.dialects.conftest import PROMPTS, bright, part


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_flow_grpo_and_verl_omni_raise_for_a_bad_clip(http, videos):
    good = clients.picture_bytes(videos[0][0], kind="JPEG")
    with pytest.raises(KeyError, match="outputs"):
        clients.flow_grpo(http, [good, good[:200]], PROMPTS)
    with pytest.raises(RuntimeError, match=r"HTTP 415: images\[0\]: frame 0 is no whole picture"):
        clients.verl_omni(http, good[:200], PROMPT)
    with pytest.raises(RuntimeError, match=r"HTTP 422: .*gives no reward"):
        clients.verl_omni(http, good, "no answer", url="/?model=stub")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": [b"x"]}, "expected a dict with images and prompts"),
        ([b"x"], "expected a dict with images and prompts"),
        ({"images": b"x", "prompts": ["a"]}, "expected a list or an array"),
        ({"images": np.float32(1), "prompts": ["a"]}, "expected a list or an array"),
        ({"images": np.array(1), "prompts": ["a"]}, "expected a list or an array"),
        ({"images": [], "prompts": []}, "no videos"),
        ({"images": ["x"], "prompts": ["a"]}, "images[0] is 'x'"),
        ({"images": [[]], "prompts": ["a"]}, "frames"),
        ({"images": [b"x"], "prompts": ["a", "b"]}, "1 videos, but 2 prompts"),
        ({"images": [b"x"], "prompts": [1]}, "expected a list of texts"),
        ({"images": [b"x"], "prompts": [" "]}, "the prompt is empty"),
        ({"images": np.zeros((1, 4, 8, 8, 2), "u1"), "prompts": ["a"]}, "2 colours"),
        ({"images": np.zeros((1, 8), "u1"), "prompts": ["a"]}, "images[0]"),
        ({"images": np.zeros((1, 2, 8, 8, 3), "i4"), "prompts": ["a"]}, "type torch.int32"),
        ({"images": np.full((1, 2, 8, 8, 3), 7.0), "prompts": ["a"]}, "beyond range"),
        ({"images": np.full((1, 2, 8, 8, 3), np.nan), "prompts": ["a"]}, "not finite"),
    ],
)
def test_pickles_of_something_else_are_named(http, fields, words):
    answer = http.post("/", content=pickle.dumps(fields))
    assert answer.status_code in (400, 415)
    assert words in pickle.loads(answer.content)["error"]


def test_a_malicious_pickle_is_refused_and_not_run(http, tmp_path):
    trap = tmp_path / "ran"
    answer = http.post("/", content=pickle.dumps({"images": [Runs(f"touch {trap}")], "prompts": ["a"]}))
    assert answer.status_code == 400
    assert "posix.system', which is not run" in pickle.loads(answer.content)["error"]
    assert not trap.exists()


def test_unirl_counts_a_bad_clip_as_failed(http, files):
    mp4 = [(files / f"{name}.mp4").read_bytes() for name in ("a", "broken")]
    rewards, successes, errors = clients.unirl(http, mp4, PROMPTS)
    assert successes == [True, False]
    assert rewards[0] != 0
    assert "requests[1]" in errors[1]
    for body, words in (
        ({"requests": [{"history": [], "required_rewards": ["micro"]}]}, "history"),
        ({"requests": [{"history": [{"text": "a"}], "required_rewards": ["micro"]}]}, "neither video_b64"),
        ({"requests": [], "protocol_version": "2"}, "protocol_version"),
        ({"requests": [], "grad_mode": True}, "grad_mode"),
        (both_videos(), "exclude each other"),
        (a_version(), "scorer_version"),
    ):
        answer = http.post("/score", json=body)
        assert answer.status_code == 400
        assert words in answer.json()["detail"]
    assert http.post("/score", json={"requests": []}).json()["results"] == []


def both_videos():
    turn = {"text": "a", "video_b64": "AAAA", "video_path": "a.mp4"}
    return {"requests": [{"history": [turn], "required_rewards": ["micro"]}]}


def a_version():
    turn = {"text": "a", "video_path": "a.mp4"}
    return {"requests": [{"history": [turn], "required_rewards": ["micro"], "scorer_version": "1"}]}


def test_unirl_reads_no_path_outside_the_media_root(http):
    turn = {"text": "a", "video_path": "/etc/passwd"}
    answer = http.post("/score", json={"requests": [{"history": [turn], "required_rewards": ["micro"]}]}).json()
    assert answer["results"] == [{}]
    assert "outside the media root" in answer["errors"][0]["micro"]


def test_flow_factory_raises_the_reason(http, videos):
    odd = [videos[0], [*videos[1][:-1], videos[1][-1][:8]]]
    with pytest.raises(RuntimeError, match=r"Server error: video\[1\]: images of different sizes"):
        clients.flow_factory(http, odd, PROMPTS)
    with pytest.raises(RuntimeError, match="Server error: 2 videos, but 1 prompts"):
        clients.flow_factory(http, videos, PROMPTS[:1])
    assert "neither video nor image" in http.post("/compute", json={"prompt": ["a"]}).json()["error"]
    assert "JSON" in http.post("/compute", content=b"{").json()["error"]


def test_cosmos_rl_gets_nan_for_a_bad_clip(http, videos):
    client = clients.CosmosRl(http, reward="stub")
    batch = np.stack(videos).transpose(0, 4, 1, 2, 3)
    scores = client.scores(client.enqueue(batch, [PROMPT, "no answer"]).json()["uuid"])["stub"]
    assert scores[0] == bright(videos[0])
    assert math.isnan(scores[1])
    crashed = client.scores(client.enqueue(batch[:1], ["crash"]).json()["uuid"])["stub"]
    assert math.isnan(crashed[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "no newline"),
        (b"{}\n", "prompts: field required"),
        (b'{"prompts": ["a"], "reward_fn": {"micro": 1}}\nnot an array', "no array in NumPy's"),
        (b'{"prompts": ["a"], "reward_fn": {}}\n', "no array"),
    ],
)
def test_cosmos_rl_names_what_cannot_be_read(http, content, words):
    answer = http.post("/api/reward/enqueue", content=content)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_cosmos_rl_refuses_arrays_that_it_cannot_score(http):
    client = clients.CosmosRl(http)
    for array, fields, words in (
        (np.zeros((1, 16, 4, 8, 8), "f2"), {}, "latents of 16 channels"),
        (np.zeros((1, 3, 4, 8, 8), "i8"), {}, "expected uint8 or floats"),
        (np.zeros((0, 3, 4, 8, 8), "u1"), {}, "expected uint8 or floats"),
        (np.zeros((3, 4, 8, 8), "u1"), {}, "layout BCTHW"),
        (np.zeros((1, 3, 4, 8, 8), "u1"), {"video_infos": [{}, {}]}, "video_infos"),
        (np.zeros((1, 3, 4, 8, 8), "u1"), {"reward_fn": {"hpsv2": 1.0}}, "no reward 'hpsv2'"),
        (np.zeros((1, 3, 4, 8, 8), "u1"), {"reward_fn": {"micro": 0.0}}, "positive weight"),
    ):
        answer = client.enqueue(array, ["a"], **fields)
        assert answer.status_code == 400, words
        assert words in answer.json()["message"]
    for name in ("", "unknown", "x" * 10_000):
        assert client.pull(name).status_code == 404  # not 400, which says: not ready yet
    assert http.post("/api/reward/pull", json=[1]).status_code == 422


def test_an_npy_header_takes_no_memory_and_runs_nothing():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": (2**40,), "fortran_order": False, "descr": "|u1"})
    for content in (file.getvalue(), object_npy(), b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 9000):
        with pytest.raises(ServiceError):
            cosmos_rl._array(content)


def object_npy():
    file = io.BytesIO()
    np.save(file, np.array([Runs("false")], dtype=object), allow_pickle=True)
    return file.getvalue()


def test_pref_grpo_gets_an_error_and_no_vote(http, videos):
    with pytest.raises(httpx2.HTTPStatusError, match="422"):
        clients.pref_grpo(http, *videos, "no answer", model="stub")
    no_caption = {"messages": [{"role": "user", "content": "who wins?"}], "model": "micro"}
    address = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/a.png"}}
    fetch = {"messages": [{"role": "user", "content": [address] * 2}], "model": "micro", "prompt": "a"}
    picture = part("image_url", clients.picture_bytes(videos[0][0]), "image/png")
    odd = {"messages": [{"role": "user", "content": [picture] * 3}], "model": "micro", "prompt": "a"}
    for body, words in (
        (no_caption, "no caption"),
        (fetch, "none is fetched"),
        (odd, "3 pictures"),
        ({**odd, "stream": True}, "stream"),
        ({"messages": []}, "messages"),
    ):
        answer = http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert words in answer.json()["error"]["message"]
    for body, words in (({"input": "a text"}, "no messages"), (odd | {"messages": []}, "no messages")):
        assert words in http.post("/classify", json=body).json()["error"]["message"]
