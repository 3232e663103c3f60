"""The form of vLLM's classification API, as for a reward model with one label.

    POST /classify  {"messages": [{"role": "user", "content": [video, the prompt as text]}]}
                    ->  {"data": [{"index": 0, "label": "reward", "probs": [1.2], "num_classes": 1}], "usage": ...}

A video is a `video_url` part with a data address, or its frames are `image_url` parts; the text parts are its prompt.
The raw reward is given with or without `use_activation`, as vLLM does for a model of regression. Errors are in OpenAI's
form. Facts: vllm/entrypoints/pooling/classify/protocol.py; verl's reward loop reads data[-1].probs[-1]."""

import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from descore.serving.dialects.clips import DialectCall, DialectRoute, clips_of, json_body, video_input
from descore.serving.dialects.openai import (
    ChatContent,
    ChatMessage,
    chat_content,
    chat_model,
    openai_error,
    openai_usage,
)
from descore.serving.problems import ServiceError
from descore.serving.results import score_or_raise
from descore.serving.schema import VideoInput
from descore.serving.service import Service

LABEL = "reward"


class ClassifyRequest(BaseModel):
    """What a client sends."""

    model: str | None = None
    messages: list[ChatMessage] | None = None
    input: Any = None
    """Texts, which hold no video."""
    mm_processor_kwargs: dict[str, Any] = Field(default_factory=dict)
    """As vLLM's: `fps` is that of the frames."""


def classify_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The route of a classification server."""
    classify = partial(_classify, service=service, dialect=dialect)
    return [DialectRoute(method="POST", path="/classify", endpoint=classify, form=openai_error)]


async def _classify(request: HttpRequest, *, service: Service, dialect: str) -> Response:
    """The reward of a video."""
    call = DialectCall.of(request, service, dialect=dialect)
    body = await json_body(request, ClassifyRequest)
    if not body.messages:
        raise ServiceError("request", "no messages; expected one with a video and its prompt, as a text has no video")
    content = chat_content(body.messages)
    clips = clips_of(_videos(call, content, fps=body.mm_processor_kwargs.get("fps")), [content.text])
    model = chat_model(service, body.model)
    [score] = [score_or_raise(outcome) for outcome in await call.outcomes(clips, model=model)]
    data = {"index": 0, "label": LABEL, "probs": [call.options.reward_of(score)], "num_classes": 1}
    answer = {"id": f"classify-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": model}
    return JSONResponse({**answer, "data": [data], "usage": openai_usage([score])})


def _videos(call: DialectCall, content: ChatContent, *, fps: object) -> Sequence[VideoInput]:
    """The one video of a request."""
    if bool(content.images) == bool(content.videos) or len(content.videos) > 1:
        found = f"{len(content.images)} pictures and {len(content.videos)} videos"
        raise ServiceError("request", f"{found}; expected one video, or the frames of one")
    if content.videos:
        return [video_input(base64=content.videos[0], name="video")]
    stated = float(fps) if isinstance(fps, int | float) and fps > 0 else None
    return [call.pictures(content.images, name="video", fps=stated)]
