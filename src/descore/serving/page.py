"""The page for people, at `/`: its files, under headers that let it load nothing else, and frames of videos for it.

The look is that of the reports: their style sheet comes first."""

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from types import MappingProxyType
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

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the pages' content: scripts and styles of this server alone, none inside a page."""
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)

_PACKAGE = files("descore")
_STATIC = _PACKAGE / "serving" / "static"
_ASSETS = {
    "house.css": (_PACKAGE / "report" / "templates" / "page.css", "text/css"),
    "page.css": (_STATIC / "page.css", "text/css"),
    "common.js": (_STATIC / "common.js", "text/javascript"),
    "score.js": (_STATIC / "score.js", "text/javascript"),
}
_LARGEST_SIDE = 384
"""Pixels of a frame on the page."""


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


def add_page(app: FastAPI, service: Service, *, responses: Mapping[int | str, Any]) -> None:
    """The page that scores clips, and the route that gives it their frames."""
    bounds = service.settings
    add_files(app, page="index.html", values={"max_upload": bounds.max_upload, "max_prompt": bounds.max_prompt})

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


def add_files(app: FastAPI, *, page: str, values: Mapping[str, object]) -> None:
    """A page at `/`, with values of the server in it, and what it loads below `/page/`. They need no token."""
    content = Template((_STATIC / page).read_text(encoding="utf-8")).substitute(values)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=dict(HEADERS))

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise ServiceError("not_found", "no such file of the page")
        path, kind = _ASSETS[name]
        return Response(path.read_bytes(), media_type=f"{kind}; charset=utf-8", headers=dict(HEADERS))


async def _in_time(task: "asyncio.Task[_T]", *, seconds: float) -> _T:
    """What a task gives. ServiceError (busy) if it is late; then it is cancelled."""
    try:
        return await asyncio.wait_for(task, seconds)
    except TimeoutError:
        raise ServiceError("busy", f"no answer within {seconds:g} s") from None


def _frames_json(clip: Clip) -> str:
    width, height = clip.source_size
    return FramesAnswer(
        frames=picture_uris(clip.frames),
        times=list(clip.times),
        width=width,
        height=height,
        fps=clip.source_fps,
        duration=clip.duration,
    ).model_dump_json()


def picture_uris(frames_THWC: NDArray[np.uint8]) -> list[str]:
    """Frames (T, H, W, 3) as WebP in data URIs, small enough for a page."""
    return [_picture_uri(picture) for picture in frames_THWC]


def _picture_uri(picture_HWC: NDArray[np.uint8]) -> str:
    image, file = Image.fromarray(picture_HWC), io.BytesIO()
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    image.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
