"""The form of OpenAI's chat API, for clients that ask a judge about two videos, as Pref-GRPO does.

    POST /v1/chat/completions  frames of video 1, as many of video 2, and a text with the caption
                               ->  "<think>...</think><answer>Video 1 is better</answer>"

Frames are `image_url` parts with data addresses, the first half of them video 1's; or there are two `video_url` parts
with files. The caption stands in 「...」 or behind `Text Caption: [`, or it is the body's `prompt`. Where the text asks
for JSON with a "winner", the answer is that. Equal rewards give `Both videos are equally good`, half a win for each. A
model's name that is not here means the only model, as Pref-GRPO always asks for QwenVL. Errors are in OpenAI's form: no
vote, and the client asks again or raises. Facts: Pref-GRPO's vllm_utils/vllm_request.py, fastvideo/rewards/."""

import json
import re
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from descore.errors import short_repr
from descore.serving.dialects.clips import (
    DialectCall,
    DialectRoute,
    clips_of,
    error_answer,
    json_body,
    model_names,
    video_input,
)
from descore.serving.problems import ServiceError
from descore.serving.results import score_or_raise
from descore.serving.schema import ServedScore, VideoInput
from descore.serving.service import Service

EQUAL = 1e-5
"""Rewards that differ by less are equal: so much the same video's differ with its place in a batch."""

_CAPTIONS = (re.compile(r"「(.*)」", re.DOTALL), re.compile(r"Text Caption: \[(.*)\]", re.DOTALL))
_ANSWER = re.compile(r"<answer>.*", re.DOTALL)
_KINDS = {
    "request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "not_found": "not_found_error",
    "busy": "overloaded_error",
    "internal": "server_error",
}


class MediaAddress(BaseModel):
    """Where a picture or a video is: a data address."""

    url: str


class ContentPart(BaseModel):
    """A part of a message."""

    type: str
    text: str | None = None
    image_url: MediaAddress | None = None
    video_url: MediaAddress | None = None


class ChatMessage(BaseModel):
    """A message; those of other roles than the user's are not looked at."""

    role: str
    content: str | list[ContentPart]


class ChatRequest(BaseModel):
    """What a client sends; how a text would be sampled is not looked at."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    prompt: str | None = None
    """The caption, for clients of one's own."""
    fps: float | None = Field(default=None, gt=0)
    """Frames per second of the frames, for clients of one's own."""
    stream: bool | None = None
    n: int | None = None


class ChatContent(BaseModel):
    """What the user's messages hold, in order."""

    text: str
    images: list[str]
    """In base64."""
    videos: list[str]
    """Files in base64."""


def openai_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The routes of a chat server."""
    complete = partial(_complete, service=service, dialect=dialect)
    return [
        DialectRoute(method="POST", path="/v1/chat/completions", endpoint=complete, form=openai_error),
        DialectRoute(method="GET", path="/v1/models", endpoint=partial(_models, service=service), form=openai_error),
    ]


def openai_error(error: ServiceError) -> Response:
    """An error in OpenAI's form."""
    kind = _KINDS.get(error.kind, "invalid_request_error")
    return error_answer(error, {"error": {"message": str(error), "type": kind, "param": None, "code": error.kind}})


def openai_usage(scores: Sequence[ServedScore]) -> dict[str, Any]:
    """The tokens of prompts, their frames included, and of chains."""
    prompt, completion = sum(score.prompt_tokens for score in scores), sum(score.chain_tokens for score in scores)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _models(_: HttpRequest, *, service: Service) -> Response:
    return JSONResponse(service.model_list().model_dump())


async def _complete(request: HttpRequest, *, service: Service, dialect: str) -> Response:
    """Which of two videos is better."""
    call = DialectCall.of(request, service, dialect=dialect)
    body = await json_body(request, ChatRequest)
    if body.stream or (body.n or 1) != 1:
        raise ServiceError("request", "stream and n are not supported here; ask for one answer at once")
    content = chat_content(body.messages)
    prompt = _caption(content.text) if body.prompt is None else body.prompt
    clips = clips_of(_two_videos(call, content, fps=body.fps), [prompt, prompt])
    model = chat_model(service, body.model)
    a, b = [score_or_raise(outcome) for outcome in await call.outcomes(clips, model=model)]
    return JSONResponse(_completion(_answer(a, b, text=content.text), usage=openai_usage([a, b]), model=model))


def chat_content(messages: Sequence[ChatMessage]) -> ChatContent:
    """The text, pictures and videos of the user's messages. ServiceError (request) for a part that is none."""
    parts: list[ContentPart] = []
    for message in messages:
        if message.role == "user":
            own = message.content
            parts += [ContentPart(type="text", text=own)] if isinstance(own, str) else own
    return ChatContent(
        text="\n".join(part.text for part in parts if part.text),
        images=[_data_of(part.image_url.url) for part in parts if part.image_url],
        videos=[_data_of(part.video_url.url) for part in parts if part.video_url],
    )


def chat_model(service: Service, name: str | None) -> str:
    """The server's name of the model that is asked for; where there is one only, any name means it.

    ServiceError (not_found) for a name that none of several has."""
    names = model_names(service)
    if name is None or (name not in names and len(service.scorers) == 1):
        return next(iter(service.scorers))
    if name not in names:
        raise ServiceError("not_found", f"no model {short_repr(name)}; this server has {', '.join(service.scorers)}")
    return names[name]


def _data_of(address: str) -> str:
    """The base64 text of a data address."""
    head, comma, data = address.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise ServiceError("request", f"the address {short_repr(address)}; none is fetched: send data:TYPE;base64,DATA")
    return data


def _caption(text: str) -> str:
    for pattern in _CAPTIONS:
        if match := pattern.search(text):
            return match[1]
    raise ServiceError(
        "request", "no caption in the text; expected 「CAPTION」 or Text Caption: [CAPTION], or a prompt"
    )


def _two_videos(call: DialectCall, content: ChatContent, *, fps: float | None) -> list[VideoInput]:
    if len(content.videos) == 2 and not content.images:
        return [video_input(base64=file, name=f"video {number}") for number, file in enumerate(content.videos, 1)]
    half, odd = divmod(len(content.images), 2)
    if content.videos or odd or not half:
        found = f"{len(content.images)} pictures and {len(content.videos)} videos"
        raise ServiceError("request", f"{found}; expected the frames of two videos, as many of each, or two files")
    halves = content.images[:half], content.images[half:]
    return [call.pictures(frames, name=f"video {number}", fps=fps) for number, frames in enumerate(halves, 1)]


def _answer(a: ServedScore, b: ServedScore, *, text: str) -> str:
    """The chains and rewards, and which video is better, in the words that the text asks for."""
    medium = "Image" if "Image 1 is better" in text else "Video"
    better = None if abs(a.reward - b.reward) <= EQUAL else f"{medium} {1 if a.reward > b.reward else 2}"
    if '"winner"' in text:
        return json.dumps({"winner": better or "tie"})
    thoughts = [
        f"{medium} {number}: reward {score.reward:.4f}. {_ANSWER.sub('', score.thinking or '').strip()}".strip()
        for number, score in enumerate((a, b), 1)
    ]
    verdict = f"{better} is better" if better else f"Both {medium.lower()}s are equally good"
    return "<think>\n" + "\n\n".join(thoughts) + f"\n</think>\n<answer>{verdict}</answer>"


def _completion(answer: str, *, usage: dict[str, Any], model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage,
    }
