"""The work behind the routes: clips are admitted, decoded in other processes, and scored in batches.

In: videos and prompts of requests. Out: a `ServedScore` or a `ServiceError` for each; rewards are those of `Scorer`."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, TypeVar

import torch

from descore.errors import ConfigError, DescoreError
from descore.model.generation import OnToken
from descore.rewards.decoding import DecodingPool
from descore.rubric import check_prompt
from descore.scorer import Request, SamplingParams, Scorer
from descore.serving.batching import STOPPING, BatchQueue
from descore.serving.fetching import fetch
from descore.serving.folders import server_folder
from descore.serving.heap import give_back_memory
from descore.serving.media import FETCHED, StoredVideo, store
from descore.serving.metrics import ServerMetrics
from descore.serving.problems import ServiceError, service_error
from descore.serving.schema import ModelCard, ModelList, OpenAIModel, Problem, SamplingBody, ServedScore, VideoInput
from descore.serving.settings import ServerSettings
from descore.types import Clip, Score

_PATIENCE = 10.0
"""Seconds beyond those that a video may take, until the process that reads it is ended."""

_T = TypeVar("_T")

Outcome: TypeAlias = ServedScore | ServiceError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Item:
    clip: Clip
    prompt: str
    params: SamplingParams
    on_token: OnToken | None


_Queue: TypeAlias = BatchQueue[_Item, Score | ServiceError]


class Service:
    """One or several models, and the processes that decode for them. Belongs to the event loop that opened it."""

    def __init__(
        self,
        scorers: Mapping[str, Scorer],
        *,
        settings: ServerSettings,
        open_again: Callable[[str], Scorer] | None = None,
    ) -> None:
        """scorers: by the names that requests use; the first is the default. open_again: opens the scorer of a name
        whose engine has failed."""
        if not scorers:
            raise ConfigError("a server needs at least one model")
        self.scorers, self.settings = dict(scorers), settings
        self.metrics = ServerMetrics()
        self.stopping = False
        self._created = int(time.time())
        self._admitted = 0
        self._open_again, self._failed = open_again, set[str]()
        self._queues: dict[str, _Queue] = {}
        self._stack = ExitStack()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.metrics.watch("admitted", lambda: self._admitted)
        self.metrics.watch("waiting", lambda: sum(map(len, self._queues.values())))

    async def open(self) -> None:
        """Start the decoding processes, and the models' threads."""
        settings = self.settings
        self.folder = self._stack.enter_context(server_folder())
        patience = settings.decode_seconds + _PATIENCE
        self._pool = self._stack.enter_context(DecodingPool(workers=settings.workers, patience=patience))
        self._pool.start()
        for name, scorer in self.scorers.items():
            queue: _Queue = BatchQueue(
                partial(self._score, name),
                max_size=scorer.batch_size,
                window=settings.window,
                on_wait=self.metrics.waited,
                on_rest=give_back_memory,
            )
            queue.start()
            self._queues[name] = queue

    def stop(self) -> None:
        """Refuse what waits and what comes; what is being scored ends."""
        self.stopping = True
        for queue in self._queues.values():
            queue.stop()

    async def close(self) -> None:
        """Stop, and end all processes, threads and files."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))
        await asyncio.to_thread(self._stack.close)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return bool(self._queues) and not self.stopping and all(queue.alive for queue in self._queues.values())

    def states(self) -> "dict[str, Literal['ready', 'failed']]":
        """Of each model."""
        return {name: "failed" if name in self._failed else "ready" for name in self.scorers}

    def decoding(self) -> dict[str, int]:
        """How the decoding processes are."""
        return {"workers": self.settings.workers, "alive": self._pool.alive, "restarts": self._pool.restarts}

    @property
    def full(self) -> bool:
        """Whether there is room for no clip."""
        return self._admitted >= self.settings.max_queue

    def scorer_of(self, name: str | None) -> tuple[str, Scorer]:
        """The scorer of a model's name. ServiceError (request) for one that is not here."""
        name = next(iter(self.scorers)) if name is None else name
        if name not in self.scorers:
            raise ServiceError("request", f"no model {name!r}; this server has {', '.join(self.scorers)}")
        return name, self.scorers[name]

    def cards(self) -> list[ModelCard]:
        """What the server's models are."""
        default = next(iter(self.scorers))
        return [_card(name, scorer, default=name == default) for name, scorer in self.scorers.items()]

    def model_list(self) -> ModelList:
        """The same with their names as OpenAI's clients read them."""
        return ModelList(
            models=self.cards(), data=[OpenAIModel(id=name, created=self._created) for name in self.scorers]
        )

    def submit(
        self, videos: Sequence[tuple[VideoInput, str]], body: SamplingBody, *, on_token: OnToken | None = None
    ) -> list[asyncio.Task[Outcome]]:
        """A task for each video with its prompt, of a body's model and parameters; a cancelled one takes nothing from
        the others.

        ServiceError at once: busy without room for all, too_large where there never is; request for an unknown model,
        or parameters or a prompt that it cannot use."""
        name, scorer = self.scorer_of(body.model)
        try:
            params = body.sampling_params().resolved(scorer.settings.paradigm)
            for _, prompt in videos:
                check_prompt(prompt)
        except DescoreError as error:
            raise service_error(error, of_video="no_video") from error
        self._check_room(len(videos))
        return [
            self._task(
                self._outcome(
                    video, partial(_Item, prompt=prompt, params=params, on_token=on_token), name, chains=body.chains
                )
            )
            for video, prompt in videos
        ]

    def submit_reading(self, video: VideoInput, *, model: str | None) -> "asyncio.Task[Clip | ServiceError]":
        """A task for the frames of a video as a model sees them; it takes a place as any other.

        ServiceError at once: busy without room, request for an unknown model."""
        _, scorer = self.scorer_of(model)
        self._check_room(1)
        return self._task(self._read(video, scorer))

    async def _read(self, video: VideoInput, scorer: Scorer) -> Clip | ServiceError:
        try:
            return await self._clip(video, scorer)
        except DescoreError as error:
            return service_error(error, of_video="no_video")

    def _check_room(self, count: int) -> None:
        most = self.settings.max_queue
        if count > most:
            raise ServiceError("too_large", f"{count} videos in one request; this server takes {most} at a time")
        if self.stopping:
            raise ServiceError("busy", STOPPING)
        if self._admitted + count > most:
            raise ServiceError("busy", f"{self._admitted} of {most} places are taken; try again later")

    def _task(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """A task with a place in the server, which it gives back however it ends."""
        self._admitted += 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._leave)
        return task

    def _leave(self, task: "asyncio.Task[Any]") -> None:
        self._admitted -= 1
        self._tasks.discard(task)

    async def _outcome(self, video: VideoInput, item_of: Callable[..., _Item], name: str, *, chains: bool) -> Outcome:
        """The score of a video, or why it has none."""
        scorer = self.scorers[name]
        try:
            clip = await self._clip(video, scorer)
            item = item_of(clip=clip)
            result = await self._queues[name].result(item, key=item.params.model_dump_json())
        except DescoreError as error:
            result = service_error(error, of_video="no_video")
        return ServedScore.of(result, model=name, chains=chains) if isinstance(result, Score) else result

    def problem(self, error: ServiceError) -> Problem:
        """An error as clients see it; it is counted."""
        self.metrics.error(error.kind)
        return Problem(kind=error.kind, message=str(error))

    async def _clip(self, video: VideoInput, scorer: Scorer) -> Clip:
        """The clip, read in another process."""
        with TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as own, self.metrics.timed("decode"):
            if video.url is not None:
                await self._fetch(video.url, Path(own) / FETCHED)
            file = await asyncio.to_thread(store, video, bounds=self.settings, folder=Path(own))
            return await self._decoded(file, scorer)

    async def _fetch(self, address: str, target: Path) -> None:
        if not self.settings.allow_urls:
            raise ServiceError("request", "video.url: this server fetches no addresses; upload the video")
        with self.metrics.timed("fetch"):
            await fetch(address, target, bounds=self.settings)

    async def _decoded(self, file: StoredVideo, scorer: Scorer) -> Clip:
        sampling = self.settings.bounded(scorer.settings.sampling)
        reading = self._pool.submit(file.reader(sampling), str(file.path))
        try:
            result = await asyncio.wrap_future(reading)
        except ConfigError as error:  # the processes do not start
            raise ServiceError("internal", str(error)) from error
        if isinstance(result, Clip):
            return replace(result, source=file.name)
        raise service_error(result, of_video="no_video", name=file.name)

    def _score(self, name: str, items: Sequence[_Item]) -> list[Score | ServiceError]:
        """The results of a batch, in the model's thread. An engine that failed in the last one is opened again."""
        if name in self._failed and self._open_again is not None:
            try:
                self.scorers[name] = self._open_again(name)
            except DescoreError as error:
                raise ServiceError("internal", f"the engine of {name} cannot be opened again: {error}") from error
        self._failed.discard(name)
        answered = False
        try:
            with self.metrics.timed("score"):
                results = _scored(self.scorers[name], items)
            answered = True
        finally:
            if not answered:
                self._failed.add(name)
        self.metrics.batch(len(items), model=name, scored=sum(isinstance(result, Score) for result in results))
        return results


def _scored(scorer: Scorer, items: Sequence[_Item]) -> list[Score | ServiceError]:
    """The results of items of the same parameters. What the memory does not hold together is scored one by one."""
    requests = [Request(video=item.clip, prompt=item.prompt, on_token=item.on_token) for item in items]
    try:
        results = list(scorer.score_each(requests, **items[0].params.model_dump()))
    except torch.OutOfMemoryError:
        if len(items) == 1:
            name = items[0].clip.source
            return [ServiceError("too_large", f"{name}: too large for the memory of the model's device")]
        return [_scored(scorer, [item])[0] for item in items]
    except DescoreError as error:  # of the parameters, such as a limit that leaves no room
        return [service_error(error, of_video="no_reward")] * len(items)
    return [
        result.without_frames() if isinstance(result, Score) else service_error(result, of_video="no_reward")
        for result in results
    ]


def _card(name: str, scorer: Scorer, *, default: bool) -> ModelCard:
    settings = scorer.settings
    return ModelCard(
        name=name,
        source=scorer.name,
        default=default,
        paradigm=settings.paradigm,
        dimensions=list(settings.dimensions),
        device=str(scorer.engine.device),
        dtype=str(scorer.engine.dtype).removeprefix("torch."),
        max_chain_tokens=settings.max_chain_tokens,
        frames_per_second=settings.sampling.fps,
        max_frames=settings.sampling.max_frames,
        settings=settings.model_dump_json(),
    )
