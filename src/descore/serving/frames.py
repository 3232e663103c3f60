"""The frames of a video that a model sees, as small pictures for a page."""

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from descore.serving.bodies import body_schema, read_body
from descore.serving.problems import ServiceError
from descore.serving.schema import VideoBody, VideoInput
from descore.serving.service import Service
from descore.types import Clip

_T = TypeVar("_T")

_LARGEST_SIDE = 384
"""Pixels of a picture."""


class FramesRequest(VideoBody):
    """A video whose frames a model would see."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"video": {"path": "clips/rabbit.mp4"}}]})

    video: VideoInput

    def inputs(self) -> Sequence[VideoInput]:
        """One."""
        return [self.video]


class FramesAnswer(BaseModel):
    """The frames of a video that a model sees."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    frames: list[str] = Field(repr=False)
    """WebP pictures as data URIs, at most 384 pixels wide and high."""
    times: list[float]
    """Seconds of the frames."""
    width: int
    """Pixels of the source, as it is displayed."""
    height: int
    fps: float
    """Frames per second of the source."""
    duration: float
    """Seconds."""


def add_frames(app: FastAPI, service: Service, *, responses: Mapping[int | str, Any]) -> None:
    """The route that gives frames. responses: what OpenAPI says of errors."""
    bounds = service.settings

    async def frames(request: HttpRequest) -> Response:
        """The frames of a video that a model sees, as pictures."""
        async with read_body(request, FramesRequest, service) as body:
            task = service.submit_reading(body.video, model=body.model)
            answer = await _in_time(task, seconds=min(body.timeout or bounds.timeout, bounds.timeout))
            if isinstance(answer, ServiceError):
                raise answer
            return Response(await asyncio.to_thread(_frames_json, answer), media_type="application/json")

    extra = body_schema(FramesRequest, files={"video": "A video file."})
    app.post("/v1/frames", response_model=FramesAnswer, responses=dict(responses), openapi_extra=extra)(frames)


async def _in_time(task: "asyncio.Task[_T]", *, seconds: float) -> _T:
    """What a task gives. ServiceError (busy) if it is late; then it is cancelled."""
    try:
        return await asyncio.wait_for(task, seconds)
    except TimeoutError:
        raise ServiceError("busy", f"no answer within {seconds:g} s") from None


def _frames_json(clip: Clip) -> str:
    width, height = clip.source_size
    return FramesAnswer(
        frames=_picture_uris(clip.frames),
        times=list(clip.times),
        width=width,
        height=height,
        fps=clip.source_fps,
        duration=clip.duration,
    ).model_dump_json()


def _picture_uris(frames_THWC: NDArray[np.uint8]) -> list[str]:
    """Frames (T, H, W, 3) as WebP in data URIs, small enough for a page."""
    return [_picture_uri(picture) for picture in frames_THWC]


def _picture_uri(picture_HWC: NDArray[np.uint8]) -> str:
    image, file = Image.fromarray(picture_HWC), io.BytesIO()
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    image.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
