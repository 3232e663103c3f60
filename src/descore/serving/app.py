"""The routes: a body in, work for the service, an answer out.

app = create_app({"tiny": Scorer.from_pretrained("tiny")}, settings=ServerSettings())"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from descore.scorer import Scorer
from descore.serving.bodies import body_schema, read_body
from descore.serving.dialects.routes import add_routes, dialect_routes, rules_of
from descore.serving.dialects.unirl import unirl_states
from descore.serving.frames import FramesRequest, add_frames
from descore.serving.guard import Guard, add_error_handlers
from descore.serving.metrics import MEDIA_TYPE
from descore.serving.page import add_files
from descore.serving.problems import STATUS, Kind, ServiceError
from descore.serving.results import await_results, cancel, late, score_or_raise, seconds_of
from descore.serving.schema import (
    BatchLine,
    BatchRequest,
    CompareAnswer,
    CompareRequest,
    ErrorBody,
    Health,
    ModelList,
    RankAnswer,
    RankFailure,
    RankPlace,
    RankRequest,
    SamplingBody,
    ScoreRequest,
    ServedScore,
    State,
)
from descore.serving.service import Outcome, Service
from descore.serving.settings import ServerSettings
from descore.serving.streaming import stream_score

LINES = "application/x-ndjson"
_DESCRIPTION = (
    "Rewards for videos, by the prompts they were generated from. A video is a path below the server's media root, "
    "a file in base64, frames with their fps, an address of a host that the server allows, or an upload in a form."
)
_REASONS: Mapping[Kind, str] = {
    "request": "The request cannot be used.",
    "unauthorized": "No token, or a wrong one.",
    "too_large": "Beyond a bound of the server.",
    "no_video": "A video cannot be read.",
    "no_reward": "A video has no reward.",
    "busy": "No room or no time; Retry-After says when to try again.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    STATUS[kind]: {"model": ErrorBody, "description": reason} for kind, reason in _REASONS.items()
}
_BODIES = (ScoreRequest, CompareRequest, RankRequest, BatchRequest, FramesRequest)


def create_app(
    scorers: Mapping[str, Scorer], *, settings: ServerSettings, open_again: Callable[[str], Scorer] | None = None
) -> FastAPI:
    """The app of some models, by the names that requests use; the first is the default.

    `app.state.service` is the `Service`: its `stop` refuses what waits, before a server ends."""
    service = Service(scorers, settings=settings, open_again=open_again)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    # The pages of documentation would load scripts from another host.
    app = FastAPI(
        title="descore",
        version=version("descore"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    routes = dialect_routes(service)
    rules = rules_of(routes)
    app.add_middleware(Guard, service=service, rules=rules)
    add_error_handlers(app, service.metrics, rules=rules)
    _add_scoring(app, service)
    _add_states(app, service)
    add_frames(app, service, responses=_RESPONSES)
    add_files(app, page="index.html", values={"max_upload": settings.max_upload, "max_prompt": settings.max_prompt})
    add_routes(app, routes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_scoring(app: FastAPI, service: Service) -> None:
    """The routes that give rewards."""

    async def score(request: HttpRequest) -> Response:
        """Score one video. With `stream` the answer is events: the chain as it is written, then the score."""
        async with read_body(request, ScoreRequest, service) as body:
            if body.stream:
                return await stream_score(request, service, body)
            [result] = await _results(request, service, body)
            return _json(score_or_raise(result))

    async def compare(request: HttpRequest) -> Response:
        """Predict which of two videos of one prompt people prefer, and how probably."""
        async with read_body(request, CompareRequest, service) as body:
            a, b = await _results(request, service, body)
            return _json(CompareAnswer.of(score_or_raise(a), score_or_raise(b)))

    async def rank(request: HttpRequest) -> Response:
        """Order videos of one prompt, best first. A video without a reward is one failure, and the others go on."""
        async with read_body(request, RankRequest, service) as body:
            return _json(_ranking(await _results(request, service, body), service))

    async def batch(request: HttpRequest) -> Response:
        """Score videos of any prompts; a line of JSON for each as soon as it is ready."""
        async with read_body(request, BatchRequest, service) as body:
            tasks = service.submit(list(zip(body.inputs(), body.prompts(), strict=True)), body)
            return StreamingResponse(_lines(tasks, service, seconds=seconds_of(body, service)), media_type=LINES)

    file = {"video": "A video file."}
    pair = {"a": "A video file.", "b": "Another one of the same prompt."}
    many = {"videos": "Video files; repeat the field."}
    for path, route, form, files, answer in (
        ("/v1/score", score, ScoreRequest, file, ServedScore),
        ("/v1/compare", compare, CompareRequest, pair, CompareAnswer),
        ("/v1/rank", rank, RankRequest, many, RankAnswer),
        ("/v1/batch", batch, BatchRequest, {}, BatchLine),
    ):
        extra = body_schema(form, files=files)  # type: ignore[type-var]
        app.post(path, response_model=answer, responses=_RESPONSES, openapi_extra=extra)(route)


def _add_states(app: FastAPI, service: Service) -> None:
    """The routes that say how the server is."""

    @app.get("/v1/models")
    async def models() -> ModelList:
        """The models of this server."""
        return service.model_list()

    @app.get("/health", response_model_exclude_none=True)
    async def health() -> Health:
        """Whether the process answers at all, and what of it has failed."""
        rewards = unirl_states(service) if "unirl" in service.settings.dialects else None
        return Health(status="alive", models=service.states(), decoding=service.decoding(), rewards=rewards)

    @app.get("/ready", responses={503: {"model": ErrorBody}})
    async def ready() -> State:
        """Whether requests are answered: no longer while the server stops."""
        if not service.ready:
            raise ServiceError("busy", "the server is stopping, or has not started")
        return State(status="ready")

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(service.metrics.page(), media_type=MEDIA_TYPE)


async def _results(request: HttpRequest, service: Service, body: SamplingBody) -> list[Outcome]:
    """The results of a request's videos, all of one prompt."""
    [prompt] = body.prompts()
    return await await_results(request, service, [(video, prompt) for video in body.inputs()], body)


async def _lines(tasks: Sequence["asyncio.Task[Outcome]"], service: Service, *, seconds: float) -> AsyncIterator[bytes]:
    """A line for each task as it ends, and for what is late. A client that leaves cancels the rest."""
    index_of = {task: index for index, task in enumerate(tasks)}
    until = asyncio.get_running_loop().time() + seconds
    waiting = set(tasks)
    try:
        while waiting:
            left = until - asyncio.get_running_loop().time()
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done or waiting:
                yield _line(index_of[task], task.result() if done else late(seconds), service)
            waiting = waiting if done else set()
    finally:
        await cancel(tasks)


def _line(index: int, result: Outcome, service: Service) -> bytes:
    if isinstance(result, ServiceError):
        line = BatchLine(index=index, error=service.problem(result))
    else:
        line = BatchLine(index=index, score=result)
    return line.model_dump_json().encode() + b"\n"


def _ranking(results: Sequence[Outcome], service: Service) -> RankAnswer:
    scored = [(index, result) for index, result in enumerate(results) if isinstance(result, ServedScore)]
    scored.sort(key=lambda one: -one[1].reward)  # stable: equal rewards keep their order
    return RankAnswer(
        places=[RankPlace(place=place, index=index, score=score) for place, (index, score) in enumerate(scored, 1)],
        failed=[
            RankFailure(index=index, error=service.problem(result))
            for index, result in enumerate(results)
            if isinstance(result, ServiceError)
        ],
    )


def _json(answer: ServedScore | CompareAnswer | RankAnswer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema, with the bodies that the routes read by themselves."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema["components"]["schemas"]
        for body in _BODIES:
            model = body.model_json_schema(ref_template="#/components/schemas/{model}")
            components.update(model.pop("$defs", {}))
            components[body.__name__] = model
        app.openapi_schema = schema
    return app.openapi_schema
