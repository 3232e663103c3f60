"""The app in which people judge pairs: pairs to a page, votes to a journal. No model is opened.

    app = create_annotation_app(journal, settings=ServerSettings())

In: a `VoteJournal`. Out: a page at `/`, its routes, and the videos of the task, each under a name that nobody can
guess, with range requests; what a browser cannot play, it gets again as H.264."""

import asyncio
import mimetypes
import secrets
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, Self, TypeVar

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from descore.errors import ConfigError, VideoError
from descore.rewards.decoding import DecodingPool
from descore.serving.guard import Guard, add_error_handlers
from descore.serving.metrics import MEDIA_TYPE, ServerMetrics
from descore.serving.page import add_files
from descore.serving.playback import write_playable
from descore.serving.problems import ServiceError, invalid, service_error
from descore.serving.settings import ServerSettings
from descore.serving.votes import PairMember, Vote, VoteJournal
from descore.types import Preference

Choice = Literal["left", "tie", "right"]

_PATIENCE = 10.0
"""Seconds beyond those that a video may take, until the process that reads it is ended."""
_LONGEST_NAME, _LONGEST_REASON = 64, 200
_OTHER: Mapping[PairMember, PairMember] = {"a": "b", "b": "a"}


def _checked_name(name: str) -> str:
    """A rater's name: one line of visible text, in one form of Unicode."""
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"expected a name of 1 to {_LONGEST_NAME} visible characters")
    return name


RaterName = Annotated[str, AfterValidator(_checked_name)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


_FormType = TypeVar("_FormType", bound=_Form)


class PairRequest(_Form):
    """A pair to look at."""

    rater: RaterName
    number: int | None = Field(default=None, ge=1)
    """In the order in which pairs are shown; None: the first without a vote of this rater."""


class VoteRequest(_Form):
    """A vote: a choice by each label, or a reason to skip the pair."""

    rater: RaterName
    number: int = Field(ge=1)
    choices: dict[str, Choice] = Field(default_factory=dict)
    skipped: str | None = Field(default=None, max_length=_LONGEST_REASON)
    seconds: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.choices) == bool(self.skipped and self.skipped.strip()):
            raise ValueError("expected choices, or a reason to skip the pair")
        return self


class ShownVideo(BaseModel):
    """Where a video is."""

    source: str
    playable: str
    """The same as H.264."""


class ShownPair(BaseModel):
    """A pair as a rater sees it."""

    number: int
    prompt: str
    left: ShownVideo
    right: ShownVideo
    choices: dict[str, Choice]
    """Of an earlier vote of this rater."""
    skipped: str | None


class Progress(BaseModel):
    """What a rater has done, and the pair that comes next."""

    rater: str
    total: int
    done: int
    pair: ShownPair | None
    """None: all are done."""


class TaskCard(BaseModel):
    """What is judged."""

    name: str
    labels: list[str]
    total: int
    raters: list[str]


class AnnotationService:
    """The votes and videos of one task. Belongs to the event loop that opened it."""

    def __init__(self, journal: VoteJournal, *, settings: ServerSettings) -> None:
        self.journal, self.settings = journal, settings
        self.metrics = ServerMetrics()
        self.stopping = False
        task = journal.task
        videos = {video for pair in task.pairs.values() for video in (pair.video_a, pair.video_b)}
        self._names = {video: secrets.token_urlsafe(16) for video in videos}
        self._paths = {self._names[video]: task.path(video).resolve() for video in videos}
        self._copies: dict[str, asyncio.Task[Path]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep copies of videos while the block runs."""
        patience = self.settings.decode_seconds + _PATIENCE
        with TemporaryDirectory(prefix="descore-annotate-", ignore_cleanup_errors=True) as folder:
            self._folder = Path(folder)
            with DecodingPool(workers=1, patience=patience) as self._pool:
                yield

    @property
    def full(self) -> bool:
        """Votes are small, and always have room."""
        return False

    def stop(self) -> None:
        """Refuse what comes."""
        self.stopping = True

    def card(self) -> TaskCard:
        """What is judged."""
        task = self.journal.task
        labels = list(task.labels)
        return TaskCard(name=task.source.name, labels=labels, total=len(task.order), raters=self.journal.raters)

    def progress(self, rater: str, *, number: int | None = None) -> Progress:
        """A pair for a rater. ServiceError (request) for a number that no pair has."""
        order, votes = self.journal.task.order, self.journal.votes_of(rater)
        if number is None:
            number = next((place for place, key in enumerate(order, start=1) if key not in votes), None)
        pair = None if number is None else self._shown(rater, number)
        return Progress(rater=rater, total=len(order), done=len(votes), pair=pair)

    def _key(self, number: int) -> str:
        order = self.journal.task.order
        if number > len(order):
            raise ServiceError("request", f"number is {number}; there are {len(order)} pairs")
        return order[number - 1]

    def _shown(self, rater: str, number: int) -> ShownPair:
        task, key = self.journal.task, self._key(number)
        pair, left = task.pairs[key], task.left_of(key, rater=rater)
        videos = {"a": self._video(pair.video_a), "b": self._video(pair.video_b)}
        vote = self.journal.votes_of(rater).get(key)
        choices: dict[str, Choice] = {}
        for label, choice in ({} if vote is None else vote.choices).items():
            choices[label] = "tie" if choice == "tie" else "left" if choice == left else "right"
        return ShownPair(
            number=number,
            prompt=pair.prompt,
            left=videos[left],
            right=videos[_OTHER[left]],
            choices=choices,
            skipped=None if vote is None else vote.skipped,
        )

    def _video(self, video: str) -> ShownVideo:
        address = f"/v1/videos/{self._names[video]}"
        return ShownVideo(source=address, playable=f"{address}/playable")

    async def vote(self, form: VoteRequest) -> Progress:
        """Keep a vote, on the disk, and give the next pair. ServiceError (request) for labels that are not those of the
        task, internal if the vote cannot be written."""
        task, key = self.journal.task, self._key(form.number)
        if form.choices and form.choices.keys() != set(task.labels):
            raise ServiceError("request", f"choices: expected one for each of {', '.join(task.labels)}")
        left, pair = task.left_of(key, rater=form.rater), task.pairs[key]
        meaning: Mapping[Choice, Preference] = {"left": left, "tie": "tie", "right": _OTHER[left]}
        vote = Vote(
            rater=form.rater,
            prompt=pair.prompt,
            video_a=pair.video_a,
            video_b=pair.video_b,
            choices={label: meaning[form.choices[label]] for label in task.labels if form.choices},
            skipped=None if form.skipped is None else form.skipped.strip(),
            left=left,
            seconds=form.seconds,
        )
        try:
            await asyncio.to_thread(self.journal.add, vote)
        except ConfigError as error:
            raise ServiceError("internal", str(error)) from error
        return self.progress(form.rater)

    def path(self, name: str) -> Path:
        """The file of a video's name. ServiceError (not_found) for any other name."""
        if name not in self._paths:
            raise ServiceError("not_found", "no such video; open the page again")
        return self._paths[name]

    async def playable(self, name: str) -> Path:
        """The copy of a video that every browser plays, made when it is first asked for. ServiceError (no_video)."""
        path = self.path(name)
        if name not in self._copies:
            self._copies[name] = asyncio.create_task(self._copy(path, self._folder / f"{len(self._copies)}.mp4"))
        return await asyncio.shield(self._copies[name])

    async def _copy(self, path: Path, target: Path) -> Path:
        read = partial(write_playable, target=target, timeout=self.settings.decode_seconds)
        result = await asyncio.wrap_future(self._pool.submit(read, str(path)))
        if isinstance(result, VideoError):
            raise service_error(result, of_video="no_video", name=path.name)
        return target


def create_annotation_app(journal: VoteJournal, *, settings: ServerSettings) -> FastAPI:
    """The app of an open journal. `app.state.service` is its `AnnotationService`."""
    service = AnnotationService(journal, settings=settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="descore: judging by people", version=version("descore"), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.add_middleware(Guard, service=service)
    add_error_handlers(app, service.metrics)
    add_files(app, page="annotate.html", values={})
    _add_judging(app, service)
    _add_videos(app, service)
    return app


def _add_judging(app: FastAPI, service: AnnotationService) -> None:
    """The routes that give pairs and take votes."""

    @app.get("/v1/task")
    async def task() -> TaskCard:
        """What is judged."""
        return service.card()

    @app.post("/v1/pair", response_model=Progress)
    async def pair(request: HttpRequest) -> Progress:
        """A pair to look at: the next one, or one by its number."""
        form = await _read(request, PairRequest)
        return service.progress(form.rater, number=form.number)

    @app.post("/v1/vote", response_model=Progress)
    async def vote(request: HttpRequest) -> Progress:
        """Keep a vote; a second one of a rater on a pair replaces the first. The answer is the next pair."""
        return await service.vote(await _read(request, VoteRequest))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "alive"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(service.metrics.page(), media_type=MEDIA_TYPE)


async def _read(request: HttpRequest, form: type[_FormType]) -> _FormType:
    """A JSON body. ServiceError (request) for another one: no web page elsewhere can send this type unasked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json":
        raise ServiceError("request", f"content type {kind or 'not given'}; expected application/json")
    try:
        return form.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error) from None


def _add_videos(app: FastAPI, service: AnnotationService) -> None:
    """The routes that give videos; FileResponse answers range requests."""
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}

    @app.get("/v1/videos/{name}", response_class=FileResponse)
    async def video(name: str) -> FileResponse:
        """A video of the task, as it is."""
        path = service.path(name)
        kind = mimetypes.guess_type(path.name)[0] or ""
        kind = kind if kind.startswith("video/") or kind == "image/gif" else "application/octet-stream"
        return FileResponse(path, media_type=kind, headers=headers)

    @app.get("/v1/videos/{name}/playable", response_class=FileResponse)
    async def playable(name: str) -> FileResponse:
        """The same as H.264, for browsers that cannot play it as it is."""
        return FileResponse(await service.playable(name), media_type="video/mp4", headers=headers)
