"""The protocol of Flow-Factory's reward servers.

    POST /compute  {"prompt": [...], "video": [[base64 picture, ...], ...]}  ->  {"rewards": [...]}

Without a video, `image` is scored as videos of one picture. The client (`flow_factory/rewards/my_reward_remote.py`)
asks `GET /health` first. Where the status is an error it asks again, and in the end says that it cannot connect; it
raises {"error": text} with status 200 at once, with the text. So that is the answer where asking again cannot help; a
busy server answers 503."""

from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import BaseModel
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from descore.serving.dialects.clips import DialectCall, DialectRoute, clips_of, error_answer, json_body
from descore.serving.problems import Kind, ServiceError
from descore.serving.schema import VideoInput
from descore.serving.service import Service

_WITH_STATUS: tuple[Kind, ...] = ("busy", "unauthorized", "internal")


class ComputeRequest(BaseModel):
    """What the client sends; conditions are not looked at."""

    prompt: list[str]
    image: list[str] | None = None
    """A picture each, in base64."""
    video: list[list[str]] | None = None
    """Pictures of each video, in base64."""


def flow_factory_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The routes of a reward server."""
    compute = partial(_compute, service=service, dialect=dialect)
    return [
        DialectRoute(method="POST", path="/compute", endpoint=compute, form=_error),
        DialectRoute(method="GET", path="/health", endpoint=_health, form=_error),
    ]


async def _compute(request: HttpRequest, *, service: Service, dialect: str) -> Response:
    """Rewards of videos, or of pictures."""
    call = DialectCall.of(request, service, dialect=dialect)
    body = await json_body(request, ComputeRequest)
    return JSONResponse({"rewards": await call.rewards(clips_of(_videos(call, body), body.prompt))})


async def _health(_: HttpRequest) -> Response:
    return JSONResponse({"status": "ok"})


def _videos(call: DialectCall, body: ComputeRequest) -> Sequence[VideoInput]:
    if body.video:
        return [call.pictures(frames, name=f"video[{index}]") for index, frames in enumerate(body.video)]
    if body.image:
        return [call.pictures([picture], name=f"image[{index}]") for index, picture in enumerate(body.image)]
    raise ServiceError("request", "neither video nor image; add 'video' to required_fields of the reward model")


def _error(error: ServiceError) -> Response:
    content: Mapping[str, str] = {"error": str(error)}
    return error_answer(error, content, status=None if error.kind in _WITH_STATUS else 200)
