"""Requests of many clients become batches of one model.

    queue = BatchQueue(score, max_size=8, window=0.01)
    result = await queue.result(item, key=params)

Items of equal keys share a batch. While the model works the next batch fills; only an idle model waits, for `window`
seconds. All but `score` runs in the event loop: a caller that is cancelled or late leaves the queue at once."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from descore.serving.problems import ServiceError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

STOPPING = "the server is stopping; ask another, or later"


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiting(Generic[_Item, _Result]):
    item: _Item
    key: object
    since: float
    """Of the loop's clock, in seconds."""
    answer: "asyncio.Future[_Result]"


class BatchQueue(Generic[_Item, _Result]):
    """Gathers items, and scores them one batch after another in a thread of its own. Belongs to one event loop."""

    def __init__(
        self,
        score: Callable[[Sequence[_Item]], Sequence[_Result]],
        *,
        max_size: int,
        window: float,
        on_wait: Callable[[float], object] = lambda seconds: None,  # noqa: ARG005
        on_rest: Callable[[], object] = lambda: None,
    ) -> None:
        """score: as many results as items; what it raises, all callers of its batch get.
        on_wait: called with the seconds that an item has waited. on_rest: called in the thread that scores, whenever a
        batch was answered and nothing waits."""
        self._score, self._max_size, self._window, self._on_wait = score, max_size, window, on_wait
        self._on_rest = on_rest
        self._waiting: list[_Waiting[_Item, _Result]] = []
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="descore-model")
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether items are scored."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to score."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Refuse what waits and what comes; the batch that is being scored ends."""
        self._stopping = True
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(ServiceError("busy", STOPPING))
        self._waiting.clear()
        self._changed.set()

    async def close(self) -> None:
        """Stop, and wait for the batch that is being scored."""
        self.stop()
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._thread.shutdown)

    async def result(self, item: _Item, *, key: object) -> _Result:
        """The result of one item. ServiceError (busy) where the queue stops before it is scored."""
        if self._stopping:
            raise ServiceError("busy", STOPPING)
        loop = asyncio.get_running_loop()
        waiting = _Waiting[_Item, _Result](item=item, key=key, since=loop.time(), answer=loop.create_future())
        self._waiting.append(waiting)
        self._changed.set()
        try:
            return await waiting.answer
        finally:
            with suppress(ValueError):  # it is being scored
                self._waiting.remove(waiting)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            batch = await self._gather()
            if not batch:
                continue
            for one in batch:
                self._on_wait(loop.time() - one.since)
            scored = loop.run_in_executor(self._thread, self._score, [one.item for one in batch])
            await asyncio.wait([scored])
            self._answer(batch, scored)
            if not self._waiting:
                await loop.run_in_executor(self._thread, self._on_rest)

    async def _gather(self) -> list[_Waiting[_Item, _Result]]:
        """The next batch: of the oldest item and those of its key. Empty where nothing waits any more."""
        while not self._waiting and not self._stopping:
            self._changed.clear()
            await self._changed.wait()
        await self._fill()
        if not self._waiting:
            return []
        key = self._waiting[0].key
        batch = [one for one in self._waiting if one.key == key][: self._max_size]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    async def _fill(self) -> None:
        """Wait until a batch is full, or its first item has waited for the window."""
        clock = asyncio.get_running_loop()
        while self._waiting and not self._stopping:
            first = self._waiting[0]
            left = first.since + self._window - clock.time()
            if left <= 0 or sum(one.key == first.key for one in self._waiting) >= self._max_size:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _answer(self, batch: Sequence[_Waiting[_Item, _Result]], scored: "asyncio.Future[Sequence[_Result]]") -> None:
        error = scored.exception()
        for index, one in enumerate(batch):
            if one.answer.done():  # cancelled meanwhile
                continue
            if error is not None:
                one.answer.set_exception(error)
            else:
                one.answer.set_result(scored.result()[index])
