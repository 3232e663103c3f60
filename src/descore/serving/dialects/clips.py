"""What all dialects share: the settings that an address carries, videos in the forms that clients send, and rewards.

    http://HOST:PORT/?fps=16&think=off        any parameter of POST /v1/score, and normalize

In: a request and the clips that a dialect found in it. Out: a score or an error for each, by way of the same service,
batches and bounds as all other requests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from descore.errors import DescoreError, short_repr
from descore.rewards.frames import FrameFormat, grey_levels
from descore.serving.problems import ServiceError, invalid, service_error
from descore.serving.results import await_results, score_or_raise
from descore.serving.schema import BatchItem, BatchRequest, SamplingBody, ServedScore, UploadedVideo, VideoInput
from descore.serving.service import Outcome, Service
from descore.serving.settings import ServerSettings
from descore.video.reader import HIGHEST_FPS, LOWEST_FPS

DEFAULT = "descore"
"""The name of the default model where a dialect asks for rewards by name; the models' own names work too."""

Endpoint = Callable[[HttpRequest], Awaitable[Response]]
ErrorForm = Callable[[ServiceError], Response]

_Model = TypeVar("_Model", bound=BaseModel)

_UNIT = FrameFormat(range=(0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectRoute:
    """One route of a dialect."""

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    form: ErrorForm
    """How an error is answered."""
    has_clips: bool = True
    """Whether its requests bring videos, and so are refused while the server is full."""


class DialectOptions(SamplingBody):
    """The settings that an address may carry as its query."""

    fps: float | None = Field(default=None, ge=LOWEST_FPS, le=HIGHEST_FPS)
    """Frames per second of videos that come as frames. Default: that of --dialect NAME=FPS."""
    normalize: Literal["none", "checkpoint"] = "none"
    """Whether rewards are standardized by the checkpoint's mean and deviation, as in the trainers' plugs."""

    def reward_of(self, score: ServedScore) -> float:
        """The number that a trainer gets. ServiceError (no_reward) where it is to be standardized and cannot be."""
        if self.normalize == "none":
            return score.reward
        if score.score is None:
            raise ServiceError("no_reward", f"{score.model} stores no mean and deviation; leave out normalize")
        return score.score


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectCall:
    """A request of a trainer's client."""

    dialect: str
    request: HttpRequest
    service: Service
    options: DialectOptions

    @classmethod
    def of(cls, request: HttpRequest, service: Service, *, dialect: str) -> Self:
        """The call of a request. ServiceError (request) for a query that holds something else."""
        options = validated(DialectOptions, dict(request.query_params))
        return cls(dialect=dialect, request=request, service=service, options=options)

    @property
    def bounds(self) -> ServerSettings:
        """Of the server."""
        return self.service.settings

    def fps(self, *, frames: int, stated: float | None = None) -> float:
        """Frames per second of a video of so many frames; `stated` is what the request says of it. A single picture
        needs none. ServiceError (request) where nobody says."""
        rate = stated or self.options.fps or self.bounds.dialects.get(self.dialect)
        if rate is not None or frames == 1:
            return rate or 1.0
        raise ServiceError(
            "request",
            f"a video of {frames} frames without their fps; start the server with --dialect {self.dialect}=16 (the "
            "frames per second that your videos have)",
        )

    def pictures(self, frames: Sequence[str], *, name: str, fps: float | None = None) -> VideoInput:
        """The video of pictures in base64."""
        rate = self.fps(frames=len(frames), stated=fps) if frames else None
        return video_input(frames=list(frames), fps=rate, name=name)

    async def array(self, frames_TCHW: NDArray[Any], *, folder: Path, name: str, fps: float | None) -> VideoInput:
        """The video of an array, uint8 or floats from 0 to 1, which is stored in this folder. ServiceError beyond a
        bound, and for values that are no frames."""
        count = len(frames_TCHW)
        if count > self.bounds.max_frames:
            reason = f"{name}: a video of {count:,} frames; this server takes {self.bounds.max_frames:,}"
            raise ServiceError("too_large", reason)
        rate = self.fps(frames=count, stated=fps)
        file = folder / f"{name}.npy"
        try:
            await asyncio.to_thread(_store, frames_TCHW, file, name=name)
        except DescoreError as error:
            raise service_error(error, of_video="no_video") from None
        return UploadedVideo(file=file, name=name, fps=rate)

    async def outcomes(self, clips: Sequence[BatchItem], *, model: str | None = None) -> list[Outcome]:
        """The results of clips, in order. model: one of the server's, where the request's body names one."""
        body = self.body(clips, model=model)
        return await await_results(self.request, self.service, pairs_of(body), body)

    async def rewards(self, clips: Sequence[BatchItem], *, model: str | None = None) -> list[float]:
        """The rewards of clips, in order. The first clip without one raises its error."""
        scores = [score_or_raise(outcome) for outcome in await self.outcomes(clips, model=model)]
        return [self.options.reward_of(score) for score in scores]

    def body(self, clips: Sequence[BatchItem], *, model: str | None = None) -> BatchRequest:
        """The request as one of our own. ServiceError for none, and for what is beyond a bound."""
        if not clips:
            raise ServiceError("request", "no videos in the request; expected one at least")
        own = self.options.model_dump(exclude={"fps", "normalize"})
        body = BatchRequest(items=list(clips), **{**own, "model": model or self.options.model})
        if beyond := body.beyond(self.bounds):
            raise ServiceError("too_large", beyond)
        return body


def pairs_of(body: BatchRequest) -> list[tuple[VideoInput, str]]:
    """The videos with their prompts."""
    return list(zip(body.inputs(), body.prompts(), strict=True))


def clips_of(videos: Sequence[VideoInput], prompts: object) -> list[BatchItem]:
    """A clip for each video and its prompt. ServiceError (request) unless there are as many texts as videos."""
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ServiceError("request", f"the prompts are {short_repr(prompts)}; expected a list of texts")
    if len(prompts) != len(videos):
        raise ServiceError("request", f"{len(videos)} videos, but {len(prompts)} prompts; expected one for each")
    pairs = zip(videos, prompts, strict=True)
    return [validated(BatchItem, {"prompt": prompt, "video": video}) for video, prompt in pairs]


def video_input(**fields: Any) -> VideoInput:  # noqa: ANN401
    """A VideoInput of these fields. ServiceError (request) for what is none."""
    return validated(VideoInput, fields)


def validated(form: type[_Model], fields: Mapping[str, Any]) -> _Model:
    """A body of these fields. ServiceError (request) for what does not fit."""
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from None


async def json_body(request: HttpRequest, form: type[_Model]) -> _Model:
    """The body of a request as JSON, whatever type it states. ServiceError (request) for what does not fit."""
    content = await request.body()
    try:
        return await asyncio.to_thread(form.model_validate_json, content)
    except ValidationError as error:
        raise invalid(error) from None


def model_names(service: Service) -> dict[str, str]:
    """The server's models by the names under which a dialect asks for them."""
    return {DEFAULT: next(iter(service.scorers)), **{name: name for name in service.scorers}}


def named_model(service: Service, name: str) -> str:
    """The server's name of a model. ServiceError (request) for one that is not here."""
    names = model_names(service)
    if name not in names:
        raise ServiceError("request", f"no reward {short_repr(name)}; this server has {', '.join(names)}")
    return names[name]


def error_answer(error: ServiceError, content: Mapping[str, Any], *, status: int | None = None) -> JSONResponse:
    """The answer of an error with this content. status: of HTTP; None: our own."""
    return JSONResponse(content, status_code=status or error.status, headers=error.headers)


def _store(frames_TCHW: NDArray[Any], file: Path, *, name: str) -> None:
    native = frames_TCHW.astype(frames_TCHW.dtype.newbyteorder("="), order="C", copy=True)
    levels_TCHW, _ = grey_levels(torch.from_numpy(native), form=_UNIT, source=name)
    np.save(file, levels_TCHW.numpy(), allow_pickle=False)
