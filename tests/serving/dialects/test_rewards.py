"""Each dialect, asked as its trainer's client asks: it gets the Scorer's rewards."""

import base64
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import PROMPT
from tests.serving.dialects import clients
from tests.serving.dialects.conftest import FPS, PROMPTS, bright, close_to, part, pickled, score_of_picture


def test_flow_grpo_gets_rewards_of_pictures(http, offline, videos):
    pictures = [clients.picture_bytes(video[0], kind="JPEG") for video in videos]
    found = clients.flow_grpo(http, pictures, PROMPTS)
    assert found == close_to([score_of_picture(offline, p, q) for p, q in zip(pictures, PROMPTS, strict=True)])


def test_the_fps_of_a_single_picture_does_not_matter(offline, videos):
    content = clients.picture_bytes(videos[0][0])
    assert score_of_picture(offline, content, PROMPT, fps=1.0) == score_of_picture(offline, content, PROMPT, fps=30.0)


def test_flow_grpo_gets_rewards_of_videos_in_any_form(http, videos, expected, files, expected_of_files):
    as_bytes = [[clients.picture_bytes(frame) for frame in video] for video in videos]
    floats = np.stack(videos).astype(np.float32) / 255
    for images in (np.stack(videos), videos, floats, list(floats), as_bytes):
        assert clients.flow_grpo(http, images, PROMPTS) == close_to(expected)
    mp4 = [(files / f"{name}.mp4").read_bytes() for name in "ab"]
    assert clients.flow_grpo(http, mp4, PROMPTS) == close_to(expected_of_files)


def test_verl_omni_gets_the_reward_of_its_picture(http, offline, videos):
    picture = clients.picture_bytes(videos[0][0], kind="JPEG")
    reward = score_of_picture(offline, picture, PROMPT)
    for url in ("/", "/verl_omni", "/flow_grpo"):
        assert clients.verl_omni(http, picture, PROMPT, url=url) == close_to(reward)


def test_unirl_gets_rewards_of_files(http, files, expected_of_files):
    mp4 = [(files / f"{name}.mp4").read_bytes() for name in "ab"]
    for base in ("", "/unirl"):
        rewards, successes, errors = clients.unirl(http, mp4, PROMPTS, base=base)
        assert rewards == close_to(expected_of_files)
        assert successes == [True, True]
        assert errors == [None, None]
    assert http.get("/rewards").json() == {"rewards": ["descore", "micro", "stub"]}
    with pytest.raises(ValueError, match="not served"):
        clients.unirl(http, mp4, PROMPTS, rewards=["videoalign"])


def test_unirl_gets_several_rewards_paths_and_pictures(http, files, videos, offline, expected_of_files):
    picture = clients.picture_bytes(videos[0][0])
    requests = [
        {"history": [{"text": "x", "image_b64": "!"}, {"text": PROMPTS[0], "video_path": str(files / "a.mp4")}],
         "required_rewards": ["micro", "stub"]},
        {"history": [{"text": PROMPT, "image_b64": base64.b64encode(picture).decode()}], "required_rewards": ["micro"]},
    ]  # fmt: skip
    fields = http.post("/score", json={"requests": requests}).json()
    assert fields["results"][0]["micro"]["reward"] == close_to(expected_of_files[0])
    assert fields["results"][0]["stub"]["reward"] > 0
    assert fields["results"][1] == {"micro": {"reward": close_to(score_of_picture(offline, picture, PROMPT))}}
    assert fields["errors"] == [{}, {}]


def test_flow_factory_gets_rewards_of_frames_and_pictures(http, videos, expected, offline):
    for base in ("", "/flow_factory"):
        assert clients.flow_factory(http, videos, PROMPTS, base=base) == close_to(expected)
    pictures = [clients.picture_bytes(video[0]) for video in videos]
    found = clients.flow_factory(http, videos, PROMPTS, field="image")
    assert found == close_to([score_of_picture(offline, p, q) for p, q in zip(pictures, PROMPTS, strict=True)])


def test_cosmos_rl_enqueues_and_pulls(http, offline, videos, expected):
    client = clients.CosmosRl(http)
    batch = np.stack(videos).transpose(0, 4, 1, 2, 3)  # (B, C, T, H, W)
    assert client.http.post("/api/reward/ping", data={"info_data": "{}"}).json()["message"]
    for array, fps in ((batch, FPS), (batch.astype(np.float32) / 255, None)):  # None: as --dialect says
        fields = {"video_infos": [{"video_fps": fps}] * 2} if fps else {}
        name = client.enqueue(array, PROMPTS, **fields).json()["uuid"]
        scores = client.scores(name)
        assert scores["descore"] == scores["descore_reward"] == close_to(expected)
        assert client.scores(name) == scores  # a client whose connection broke asks again
    fast = client.enqueue(batch, PROMPTS, video_infos=[{"video_fps": 8}] * 2).json()["uuid"]
    assert client.scores(fast)["descore"] == close_to(
        [offline.score(v, prompt=p, fps=8).reward for v, p in zip(videos, PROMPTS, strict=True)]
    )
    pictures = client.enqueue(np.stack([v[0] for v in videos]), PROMPTS, media_type="image").json()["uuid"]
    alone = [offline.score(v[:1], prompt=p, fps=1).reward for v, p in zip(videos, PROMPTS, strict=True)]
    assert client.scores(pictures)["descore"] == close_to(alone)


def test_cosmos_rl_gets_one_reward_for_each_name(http, videos):
    client = clients.CosmosRl(http, reward="micro")
    batch = np.stack(videos).transpose(0, 4, 1, 2, 3)
    name = client.enqueue(batch, PROMPTS, reward_fn={"micro": 1.0, "stub": 0.5, "left out": 0.0}).json()["uuid"]
    assert set(client.scores(name)) == {"micro", "descore_reward"}
    answer = client.pull(name, reward="stub").json()
    assert answer["scores"]["stub"] == [bright(video) for video in videos]
    assert answer["input_info"]["shape"] == [2, 3, 8, 32, 48]
    assert client.pull(name, reward="left out").status_code == 404


def test_pref_grpo_gets_a_vote(http, offline, videos):
    a, b = (offline.score(as_jpeg(video), prompt=PROMPT, fps=FPS).reward for video in videos)
    first, second = (1, 2) if a > b else (2, 1)
    for base in ("", "/openai"):
        assert vote(http, videos, base=base) == f"Video {first} is better"
        assert vote(http, videos[::-1], base=base) == f"Video {second} is better"
    assert vote(http, [videos[0]] * 2) == "Both videos are equally good"
    flex = 'Answer as JSON {"winner": "Video 1"}. Text Caption: [{prompt}]'
    assert json.loads(vote(http, videos, problem=flex)) == {"winner": f"Video {first}"}
    pictures = "Image 1 is better or Image 2 is better? Text Caption: [{prompt}]"
    assert vote(http, videos, problem=pictures, frames=1).startswith("Image ")


def as_jpeg(video):
    return [Image.open(io.BytesIO(clients.picture_bytes(frame, kind="JPEG"))) for frame in video]


def vote(http, videos, **options):
    return clients.pref_grpo(http, *videos, PROMPT, model="micro", **options)


def test_the_chat_answer_has_what_openai_clients_read(served, http, offline, files):
    openai = pytest.importorskip("openai")
    ours = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in ours.models.list()] == ["micro", "stub"]
    parts = [part("video_url", (files / f"{name}.mp4").read_bytes(), "video/mp4") for name in "ab"]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    answer = ours.chat.completions.create(model="micro", messages=messages, extra_body={"prompt": PROMPT})
    scores = [offline.score(files / f"{name}.mp4", prompt=PROMPT) for name in "ab"]
    assert answer.model == "micro"
    assert answer.choices[0].finish_reason == "stop"
    text = answer.choices[0].message.content
    assert all(f"Video {n}: reward {score.reward:.4f}" in text for n, score in enumerate(scores, 1))
    assert text.count("<answer>") == 1
    assert answer.usage.completion_tokens == sum(c.num_tokens for score in scores for c in score.completions)
    assert answer.usage.prompt_tokens == sum(score.prompt_tokens for score in scores) > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    with pytest.raises(openai.NotFoundError, match="this server has micro, stub"):
        ours.chat.completions.create(model="gpt", messages=messages, extra_body={"prompt": PROMPT})
    with pytest.raises(openai.BadRequestError, match="no caption"):
        ours.chat.completions.create(model="micro", messages=messages)
    assert http.get("/openai/v1/models").json() == http.get("/v1/models").json()


def test_classify_gives_the_raw_reward(http, files, videos, expected, expected_of_files):
    text = {"type": "text", "text": PROMPTS[0]}
    file = [part("video_url", (files / "a.mp4").read_bytes(), "video/mp4"), text]
    frames = [*(part("image_url", clients.picture_bytes(frame), "image/png") for frame in videos[0]), text]
    for content, reward in ((file, expected_of_files[0]), (frames, expected[0])):
        body = {"model": "micro", "messages": [{"role": "user", "content": content}], "use_activation": False}
        answer = http.post("/classify", json=body).json()
        [data] = answer["data"]
        assert data == {"index": 0, "label": "reward", "probs": [close_to(reward)], "num_classes": 1}
        assert answer["usage"]["prompt_tokens"] > 0
        assert (answer["object"], answer["model"]) == ("list", "micro")
    body["mm_processor_kwargs"] = {"fps": 8.0}
    assert http.post("/classify", json=body).json()["data"][0]["probs"] != [close_to(expected[0])]


def test_an_address_carries_settings(http, videos, offline):
    score = offline.score(videos[0], prompt=PROMPT, fps=8, think="off")
    url = "/?fps=8&think=off&model=micro"
    assert clients.flow_grpo(http, [videos[0]], [PROMPT], url=url) == close_to([score.reward])
    assert clients.flow_grpo(http, [videos[0]], [PROMPT], url="/?model=stub") == [bright(videos[0])]
    for wrong in ("?fps=0", "?fps=x", "?fbs=8", "?model=none", "?samples=99"):
        assert "error" in pickle.loads(http.post(f"/{wrong}", content=pickled([videos[0]], [PROMPT])).content)
    answer = http.post("/?normalize=checkpoint", content=pickled([videos[0]], [PROMPT]))  # micro stores no mean
    assert "stores no mean" in pickle.loads(answer.content)["error"]
