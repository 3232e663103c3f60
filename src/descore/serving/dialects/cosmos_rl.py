"""The protocol of cosmos-rl's reward service: enqueue, and pull until it is there.

    POST /api/reward/enqueue  {"prompts", "reward_fn": {"descore": 1.0}, "video_infos": [{"video_fps": 16}]}, a newline,
                              and an array in NumPy's .npy format  ->  {"uuid"}
    POST /api/reward/pull     uuid=...&type=descore  ->  {"scores": {"descore": [...]}}, or 400 while it is not there

Videos are (B, C, T, H, W), pictures (`media_type: image`) (B, H, W, C); uint8, or floats from 0 to 1. A clip without a
reward is NaN: the trainer then learns nothing from its group. Anything else it asks for again and again, or counts as
0. Results are kept for an hour, at most MOST_RESULTS of them; what is scored takes places of the server's queue.
Latents are refused: cosmos-rl's own service decodes them (its plug is `descore.rewards.cosmos_rl`).
Facts: reward_service/cosmos_rl_reward, its example clients, RemoteRewardCalculator."""

import asyncio
import io
import json
import logging
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from descore.errors import ConfigError, short_repr
from descore.rewards.frames import split_videos
from descore.serving.dialects.clips import (
    DialectCall,
    DialectRoute,
    clips_of,
    error_answer,
    named_model,
    pairs_of,
)
from descore.serving.problems import STATUS, ServiceError, invalid, service_error
from descore.serving.results import cancel, score_or_raise
from descore.serving.schema import BatchItem, ServedScore
from descore.serving.service import Outcome, Service

MOST_RESULTS = 10_000
"""That are kept for clients, about a kilobyte each."""
KEPT_SECONDS = 3600.0
"""Seconds that a result is kept."""

_log = logging.getLogger(__name__)

_LONGEST_HEADER = 10_000
_LONGEST_ID = 100
_COLOURS = 3


class VideoInfo(BaseModel):
    """What a client states of a video."""

    video_fps: float | None = None
    fps: float | None = None


class EnqueueRequest(BaseModel):
    """What stands before the array."""

    prompts: list[str]
    reward_fn: dict[str, float]
    """By the names of rewards, their weights; those that are not positive are not computed."""
    video_infos: list[VideoInfo] | None = None
    media_type: str | None = None


@dataclass(slots=True, eq=False)
class _Entry:
    """A request that was enqueued."""

    work: "asyncio.Task[None] | None" = None
    done: float | None = None
    """When the scores were there, on the monotonic clock."""
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By reward, and by name of the number."""
    info: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class RewardStore:
    """The requests that were enqueued, the oldest first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        """Requests that are worked on or kept."""
        return len(self._entries)

    def add(self, entry: _Entry) -> str:
        """Keep a request. Its name."""
        self._forget(room=1)
        name = str(uuid.uuid4())
        self._entries[name] = entry
        return name

    def get(self, name: str) -> _Entry | None:
        """The request of that name, unless it is forgotten."""
        self._forget()
        return self._entries.get(name)

    def _forget(self, *, room: int = 0) -> None:
        """Forget results that are old, and the oldest where there are too many. What is worked on is kept."""
        done = {name: entry.done for name, entry in self._entries.items() if entry.done is not None}
        old, spare = time.monotonic() - KEPT_SECONDS, max(len(self._entries) - MOST_RESULTS + room, 0)
        for number, (name, since) in enumerate(done.items()):
            if number < spare or since < old:
                del self._entries[name]


def cosmos_rl_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The routes of a reward service."""
    store = RewardStore()
    enqueue = partial(_enqueue, service=service, dialect=dialect, store=store)
    return [
        DialectRoute(method="POST", path="/api/reward/enqueue", endpoint=enqueue, form=_error),
        DialectRoute(
            method="POST",
            path="/api/reward/pull",
            endpoint=partial(_pull, store=store),
            form=_pull_error,
            has_clips=False,
        ),
        DialectRoute(method="POST", path="/api/reward/ping", endpoint=_ping, form=_error, has_clips=False),
    ]


async def _ping(_: HttpRequest) -> Response:
    return JSONResponse({"message": "Ping request received"})


async def _enqueue(request: HttpRequest, *, service: Service, dialect: str, store: RewardStore) -> Response:
    """Take a request in, and answer with its name."""
    call = DialectCall.of(request, service, dialect=dialect)
    body, array = await asyncio.to_thread(_parsed, await request.body())
    models = {name: named_model(service, name) for name, weight in body.reward_fn.items() if weight > 0}
    if not models:
        raise ServiceError("request", "reward_fn names no reward with a positive weight; expected one at least")
    entry = _Entry(info=_info(array, body))
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(dir=service.folder, ignore_cleanup_errors=True))
        clips = await _clips(call, _videos(array, body), body, folder=Path(folder))
        tasks = await _submitted(call, clips, models=models)
        entry.work = asyncio.create_task(_finish(entry, tasks, call, files=stack.pop_all()))
    return JSONResponse({"uuid": store.add(entry)})


async def _submitted(
    call: DialectCall, clips: Sequence[BatchItem], *, models: Mapping[str, str]
) -> "dict[str, list[asyncio.Task[Outcome]]]":
    """The tasks of all clips for each reward. ServiceError where there is no room for all: then none is left."""
    tasks: dict[str, list[asyncio.Task[Outcome]]] = {}
    try:
        for reward, model in models.items():
            body = call.body(clips, model=model)
            tasks[reward] = call.service.submit(pairs_of(body), body)
    except ServiceError:
        await cancel([task for of_reward in tasks.values() for task in of_reward])
        raise
    return tasks


async def _finish(
    entry: _Entry, tasks: Mapping[str, "Sequence[asyncio.Task[Outcome]]"], call: DialectCall, *, files: ExitStack
) -> None:
    """Wait for the results of a request, as long as its address says, and keep them."""
    start = time.monotonic()
    every = [task for of_reward in tasks.values() for task in of_reward]
    with files:
        _, late = await asyncio.wait(every, timeout=call.options.timeout)
        await cancel(list(late))
    for reward, of_reward in tasks.items():
        entry.scores[reward] = _scores([_outcome_of(task) for task in of_reward], call, reward=reward)
    entry.done = time.monotonic()
    entry.seconds = entry.done - start


def _outcome_of(task: "asyncio.Task[Outcome]") -> Outcome:
    if task.cancelled():
        return ServiceError("busy", "it was not ready in time, or the server stops")
    failure = task.exception()
    if failure is None:
        return task.result()
    _log.error("a clip that was enqueued could not be scored", exc_info=failure)
    return ServiceError("internal", type(failure).__name__)


def _scores(outcomes: Sequence[Outcome], call: DialectCall, *, reward: str) -> dict[str, list[float]]:
    """Lists of B numbers: the reward, under its own name and that of the plug, and each dimension if there are more."""
    scores = [outcome if isinstance(outcome, ServedScore) else None for outcome in outcomes]
    column = [_number(outcome, call) for outcome in outcomes]
    names = next((score.rewards for score in scores if score), {})
    parts = {name: [score.rewards[name] if score else math.nan for score in scores] for name in names}
    return {**(parts if len(parts) > 1 else {}), "descore_reward": column, reward: column}


def _number(outcome: Outcome, call: DialectCall) -> float:
    """The reward, NaN where there is none: the error is counted."""
    try:
        return call.options.reward_of(score_or_raise(outcome))
    except ServiceError as error:
        call.service.metrics.error(error.kind)
        return math.nan


async def _pull(request: HttpRequest, *, store: RewardStore) -> Response:
    """The scores of a request, of one of its rewards."""
    fields = await _pulled(request)
    name, reward = str(fields.get("uuid", ""))[:_LONGEST_ID], fields.get("type")
    entry = store.get(name)
    if entry is None:
        raise ServiceError("not_found", f"no request {short_repr(name)}: unknown, or its scores are no longer kept")
    if entry.done is None:
        return JSONResponse({"message": f"Not found scores for {name}: not ready yet"}, status_code=400)
    reward = str(reward or next(iter(entry.scores)))
    if reward not in entry.scores:
        known = ", ".join(entry.scores)
        raise ServiceError("not_found", f"no reward {short_repr(reward)} in that request; it asked for {known}")
    answer = {
        "scores": entry.scores[reward],
        "input_info": entry.info,
        "duration": f"{entry.seconds:.2f}",
        "decoded_duration": "0.00",
        "type": reward,
    }
    return Response(json.dumps(answer), media_type="application/json")  # NaN too, which Python's parsers read


async def _pulled(request: HttpRequest) -> Mapping[str, Any]:
    """The fields of a form, as the clients send it, or of a JSON body."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            fields = json.loads(await request.body())
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise ServiceError("request", "the body is no JSON object; expected uuid and type")
        return fields
    try:
        form = await request.form(max_files=0, max_fields=10)
    except HTTPException as error:
        raise ServiceError("request", f"the form cannot be read: {error.detail}") from None
    return dict(form)


def _parsed(content: bytes) -> tuple[EnqueueRequest, NDArray[Any]]:
    head, newline, rest = content.partition(b"\n")
    if not newline:
        raise ServiceError("request", "no newline between the JSON and the array; expected JSON, a newline, an array")
    try:
        return EnqueueRequest.model_validate_json(head), _array(rest)
    except ValidationError as error:
        raise invalid(error) from None


def _array(content: bytes) -> NDArray[Any]:
    """An array in NumPy's format, whose bytes are all there; no more memory is taken than they have."""
    file, npy = io.BytesIO(content), np.lib.format
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns, dtype = read_header(file, max_header_size=_LONGEST_HEADER)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        reason = short_repr(str(error))
        raise ServiceError("request", f"no array in NumPy's .npy format behind the JSON ({reason})") from None
    data = file.getbuffer()[file.tell() :]
    if dtype.kind not in "uf" or math.prod(shape) * dtype.itemsize != len(data) or not len(data):
        shown = f"shape {shape} of {dtype} with {len(data)} bytes"
        raise ServiceError("request", f"an array of {shown}; expected uint8 or floats, and as many bytes as they take")
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer=data, order="F" if columns else "C")
    return array


def _videos(array: NDArray[Any], body: EnqueueRequest) -> list[NDArray[Any]]:
    """Videos (T, C, H, W) each."""
    is_image = (body.media_type or "").casefold() == "image"
    if not is_image and array.ndim == 5 and array.shape[1] != _COLOURS:
        raise ServiceError(
            "request",
            f"latents of {array.shape[1]} channels; this server has no decoder for them: send pixels, or run "
            "cosmos-rl's own reward service with descore.rewards.cosmos_rl",
        )
    try:
        return split_videos(array, layout="BHWC" if is_image else "BCTHW")
    except ConfigError as error:
        raise service_error(error, of_video="no_video") from None


async def _clips(
    call: DialectCall, videos: Sequence[NDArray[Any]], body: EnqueueRequest, *, folder: Path
) -> list[BatchItem]:
    infos = body.video_infos or [VideoInfo()] * len(videos)
    if len(infos) != len(videos):
        raise ServiceError("request", f"{len(videos)} videos, but {len(infos)} video_infos; expected one for each")
    stored = [
        await call.array(video, folder=folder, name=f"videos[{index}]", fps=info.video_fps or info.fps)
        for index, (video, info) in enumerate(zip(videos, infos, strict=True))
    ]
    return clips_of(stored, body.prompts)


def _info(array: NDArray[Any], body: EnqueueRequest) -> dict[str, Any]:
    infos = [info.model_dump(exclude_none=True) for info in body.video_infos or ()]
    return {"shape": list(array.shape), "dtype": f"torch.{array.dtype}", "video_infos": infos}


def _error(error: ServiceError) -> Response:
    return error_answer(error, {"message": str(error)})


def _pull_error(error: ServiceError) -> Response:
    """As above; but 400 would mean that the scores are not there yet."""
    return error_answer(error, {"message": str(error)}, status=STATUS["no_reward"] if error.kind == "request" else None)
