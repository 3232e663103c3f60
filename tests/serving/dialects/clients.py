"""Clients that do what the trainers' own do; each names the file of its project that says so.

Each asks through an `httpx2` client, and gives what the trainer would hand on to its training loop."""

import base64
import io
import json
import pickle
import re
import time

import httpx2
import numpy as np
from PIL import Image


def picture_bytes(frame_HWC, *, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, kind)
    return file.getvalue()


def picture_text(frame_HWC, *, kind="PNG"):
    return base64.b64encode(picture_bytes(frame_HWC, kind=kind)).decode()


def flow_grpo(http, images, prompts, *, url="/", tries=5):
    """flow_grpo/rewards.py: a Retry of urllib3 on status 500 alone; then whatever came is unpickled."""
    for _ in range(tries):
        answer = http.post(url, content=pickle.dumps({"images": images, "prompts": np.array(prompts)}))
        if answer.status_code != 500:
            break
        time.sleep(0.05)
    return pickle.loads(answer.content)["outputs"]


def verl_omni(http, picture, prompt, *, url="/"):
    """verl_omni/utils/reward_score/http_scorer_client.py: one sample a call; retries on 408, 429 and 5xx."""
    payload = pickle.dumps({"images": [picture], "prompts": [prompt], "metadata": {}})
    for _ in range(3):
        answer = http.post(url, content=payload)
        if answer.status_code == 200:
            break
        if answer.status_code not in (408, 429) and answer.status_code < 500:
            break
    try:
        fields = pickle.loads(answer.content)
    except (pickle.UnpicklingError, EOFError):
        fields = {"error": answer.text}
    if answer.status_code != 200:
        raise RuntimeError(f"Scorer server returned HTTP {answer.status_code}: {fields['error']}")
    return float(fields["scores"][0])


def unirl(http, files, prompts, *, rewards=("descore",), base=""):
    """UniRL's RemoteRewardBackend with input_kind: video: /health first, then /score; rewards, successes, errors."""
    state = http.get(f"{base}/health")
    state.raise_for_status()
    missing = [name for name in rewards if name not in state.json()["rewards"]]
    if missing:
        raise ValueError(f"not served: {missing}")
    requests = [
        {
            "history": [{"text": prompt, "video_b64": base64.b64encode(file).decode()}],
            "required_rewards": list(rewards), "metadata": None, "request_id": f"r{index}", "sample_id": f"s{index}",
            "group_id": "g", "source_rank": 0, "policy_version": 3, "scorer_version": None, "idempotency_key": "k",
        }
        for index, (file, prompt) in enumerate(zip(files, prompts, strict=True))
    ]  # fmt: skip
    answer = http.post(f"{base}/score", json={"protocol_version": "1", "requests": requests})
    answer.raise_for_status()
    fields = answer.json()
    assert fields["protocol_version"] == "1"
    for sent, echoed in zip(requests, fields["identities"], strict=True):
        assert all(echoed[key] == sent[key] for key in ("request_id", "sample_id", "group_id", "policy_version"))
    found, successes, errors = [], [], []
    for result, error in zip(fields["results"], fields["errors"], strict=True):
        values = [next(iter(result[name].values())) for name in rewards if name in result]
        found.append(sum(values) / len(values) if values else 0.0)
        successes.append(len(values) == len(rewards))
        errors.append("; ".join(error.values()) or None)
    return found, successes, errors


def flow_factory(http, videos, prompts, *, base="", field="video"):
    """flow_factory/rewards/my_reward_remote.py: health, then /compute; three tries, and an `error` raises."""
    assert http.get(f"{base}/health").is_success
    frames = [[picture_text(frame) for frame in video] for video in videos]
    payload = {"prompt": prompts, "image": None, "video": None, "condition_images": None, "condition_videos": None}
    payload[field] = frames if field == "video" else [video[0] for video in frames]
    for attempt in range(3):
        try:
            answer = http.post(f"{base}/compute", json=payload)
            answer.raise_for_status()
            break
        except httpx2.HTTPError as error:
            if attempt == 2:
                raise RuntimeError(f"Failed to connect: {error}") from error
    fields = answer.json()
    if fields.get("error"):
        raise RuntimeError(f"Server error: {fields['error']}")
    return fields["rewards"]


class CosmosRl:
    """cosmos-rl's RemoteRewardCalculator: np.save behind a line of JSON; polls until the scores are there."""

    def __init__(self, http, *, reward="descore", base="", token=""):
        self.http, self.reward, self.base = http, reward, base
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def enqueue(self, array, prompts, **fields):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        data = {"prompts": prompts, "reward_fn": {self.reward: 1.0}, **fields}
        headers = {"Content-Type": "application/octet-stream", **self.headers}
        content = json.dumps(data).encode() + b"\n" + file.getvalue()
        return self.http.post(f"{self.base}/api/reward/enqueue", content=content, headers=headers)

    def pull(self, name, *, reward=None):
        data = {"uuid": name, "type": reward or self.reward}
        return self.http.post(f"{self.base}/api/reward/pull", data=data, headers=self.headers)

    def scores(self, name, *, seconds=30.0):
        """The scores, asked for until they are there."""
        until = time.monotonic() + seconds
        while (answer := self.pull(name)).status_code == 400 and time.monotonic() < until:
            time.sleep(0.02)
        assert answer.status_code == 200, answer.text
        fields = json.loads(answer.content)
        assert fields["type"] == self.reward
        return fields["scores"]


THINK = (
    "The first half of the frames belong to Video 1, and the second half of the frames belong to Video 2.\n"
    "containing only one of:\n- Video 1 is better\n- Video 2 is better\n"
    "1. The caption for the generated videos is: 「{prompt}」. The provided frames represent two candidate videos\n"
)
"""The parts of UnifiedReward-Think's text that matter here."""


def pref_grpo(http, first, second, prompt, *, base="", problem=THINK, frames=8, model="QwenVL"):
    """Pref-GRPO's vllm_request.py and unifiedreward_think.py: JPEG frames of both, then the text; the answer's tag."""
    images = [video[index] for video in (first, second) for index in np.linspace(0, len(video) - 1, frames, dtype=int)]
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture_text(image, kind='JPEG')}"}}
        for image in images
    ]
    content.append({"type": "text", "text": problem.replace("{prompt}", prompt)})
    messages = [{"role": "user", "content": content}]
    payload = {"model": model, "messages": messages, "do_sample": False, "max_tokens": 4096}
    answer = http.post(f"{base}/v1/chat/completions", json=payload)
    answer.raise_for_status()
    output = answer.json()["choices"][0]["message"]["content"]
    found = re.search(r"<answer>(.*?)</answer>", output, re.DOTALL)
    return found.group(1).strip() if found else output
