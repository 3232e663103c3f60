"""The protocol of UniRL's reward service, version 1.

    POST /score  {"requests": [{"history": [{"text", "video_b64"}], "required_rewards": ["descore"]}]}
                 ->  {"results": [{"descore": {"reward": 1.2}}], "errors": [{}], "identities": [...]}
    GET /rewards, GET /health: the names that may be required, `descore` for the default model

A clip without a reward is absent from its `results` and has its reason in `errors`; UniRL then counts the sample as
failed. The last turn of a history counts: `video_b64` (a file), `video_path` (below the media root), or `image_b64`.
Facts: unirl-reward-service/reward_service/schemas.py and server.py, UniRL's RemoteRewardBackend."""

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
    named_model,
    video_input,
)
from descore.serving.problems import ServiceError
from descore.serving.schema import BatchItem, VideoInput
from descore.serving.service import Outcome, Service

_VERSION = "1"


class HistoryTurn(BaseModel):
    """A text and what was generated from it."""

    text: str
    image_b64: str | None = None
    video_b64: str | None = None
    video_path: str | None = None


class RewardIdentity(BaseModel):
    """What a client calls a sample; it comes back as it was."""

    request_id: str | None = None
    sample_id: str | None = None
    group_id: str | None = None
    source_rank: int | None = None
    policy_version: int | None = None
    idempotency_key: str | None = None


class SampleRequest(RewardIdentity):
    """A sample, and the rewards that it is to get."""

    history: list[HistoryTurn] = Field(min_length=1)
    required_rewards: list[str]
    scorer_version: str | None = None


class SamplesRequest(BaseModel):
    """What the client sends."""

    protocol_version: str = _VERSION
    requests: list[SampleRequest]
    grad_mode: bool = False


def unirl_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The routes of a reward service."""
    score, names = partial(_score, service=service, dialect=dialect), partial(_names, service=service)
    return [
        DialectRoute(method="POST", path="/score", endpoint=score, form=_error),
        DialectRoute(method="GET", path="/rewards", endpoint=names, form=_error),
        DialectRoute(method="GET", path="/health", endpoint=partial(_health, service=service), form=_error),
    ]


def unirl_states(service: Service) -> dict[str, list[str]]:
    """The state of each reward by its name, as UniRL looks for it in GET /health."""
    return {name: ["ready" if service.ready else "stopping"] for name in model_names(service)}


async def _names(_: HttpRequest, *, service: Service) -> Response:
    return JSONResponse({"rewards": list(model_names(service))})


async def _health(_: HttpRequest, *, service: Service) -> Response:
    return JSONResponse({"status": "ok", "rewards": unirl_states(service)})


async def _score(request: HttpRequest, *, service: Service, dialect: str) -> Response:
    """The rewards of samples; each by as many models as it requires."""
    call = DialectCall.of(request, service, dialect=dialect)
    body = await json_body(request, SamplesRequest)
    _check(body)
    results: list[dict[str, dict[str, float]]] = [{} for _ in body.requests]
    errors: list[dict[str, str]] = [{} for _ in body.requests]
    for name in dict.fromkeys(name for sample in body.requests for name in sample.required_rewards):
        model = named_model(service, name)
        indices = [index for index, sample in enumerate(body.requests) if name in sample.required_rewards]
        clips = [_clip(call, body.requests[index], name=f"requests[{index}]") for index in indices]
        for index, outcome in zip(indices, await call.outcomes(clips, model=model), strict=True):
            _enter(outcome, call, name=name, result=results[index], error=errors[index])
    return JSONResponse({"results": results, "errors": errors, **_identities(body.requests)})


def _check(body: SamplesRequest) -> None:
    if body.protocol_version != _VERSION:
        raise ServiceError("request", f"protocol_version {short_repr(body.protocol_version)}; expected {_VERSION}")
    if body.grad_mode:
        raise ServiceError("request", "grad_mode: no gradients over HTTP; use descore's DifferentiableReward")
    if any(sample.scorer_version is not None for sample in body.requests):
        raise ServiceError("request", "scorer_version: this server has none; leave out expected_scorer_version")


def _clip(call: DialectCall, sample: SampleRequest, *, name: str) -> BatchItem:
    [clip] = clips_of([_video(call, sample.history[-1], name=name)], [sample.history[-1].text])
    return clip


def _video(call: DialectCall, turn: HistoryTurn, *, name: str) -> VideoInput:
    if turn.video_b64 is not None and turn.video_path is not None:
        raise ServiceError("request", f"{name}: video_b64 and video_path exclude each other")
    if turn.video_b64 is not None or turn.video_path is not None:
        return video_input(base64=turn.video_b64, path=turn.video_path, name=name)
    if turn.image_b64 is not None:
        return call.pictures([turn.image_b64], name=name)
    raise ServiceError(
        "request", f"{name}: neither video_b64, video_path nor image_b64 in the last turn of its history"
    )


def _enter(
    outcome: Outcome, call: DialectCall, *, name: str, result: dict[str, dict[str, float]], error: dict[str, str]
) -> None:
    """Enter a reward, the number first that UniRL's client takes by default, or why there is none."""
    if isinstance(outcome, ServiceError):
        error[name] = call.service.problem(outcome).message
    else:
        parts = outcome.rewards if len(outcome.rewards) > 1 else {}
        result[name] = {"reward": call.options.reward_of(outcome), **parts}


def _identities(samples: Sequence[SampleRequest]) -> dict[str, Any]:
    kept = set(RewardIdentity.model_fields)
    identities = [{**sample.model_dump(include=kept), "scorer_version": None} for sample in samples]
    return {"identities": identities, "protocol_version": _VERSION}


def _error(error: ServiceError) -> Response:
    return error_answer(error, {"detail": str(error)})
