"""Single calls become batches: many callers each have one item, and the model wants them together.

    batcher = CallBatcher(score, window=0.02, max_size=8)       # score: a list of items to as many results
    result = batcher.result(item)                               # from any thread
    result = await batcher.result_async(item)                   # from any event loop

While the model works on one batch the next one fills, so the window is waited for only where the model is idle."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from descore.errors import DescoreError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Batch(Generic[_Item]):
    items: list[_Item] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)


class CallBatcher(Generic[_Item, _Result]):
    """Gathers the items of concurrent calls, and scores them one batch after another in a thread of its own."""

    def __init__(
        self, score: Callable[[Sequence[_Item]], Sequence[_Result | DescoreError]], *, window: float, max_size: int
    ) -> None:
        """score: a result or an error for each item; what it raises, all callers of its batch get.
        window: seconds that the first item of a batch waits for others. max_size: items of a batch."""
        self._score, self._window, self._max_size = score, window, max_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="descore-reward")
        self._lock = threading.Lock()
        self._filling: tuple[_Batch[_Item], Future[Sequence[_Result | DescoreError]]] | None = None

    def result(self, item: _Item) -> _Result:
        """The result of one item, which this thread waits for. Raises the item's error."""
        job, index = self._submit(item)
        return _unwrap(job.result()[index])

    async def result_async(self, item: _Item) -> _Result:
        """The result of one item, while the event loop goes on. A cancelled caller takes nothing from the others."""
        job, index = self._submit(item)
        results = await asyncio.shield(asyncio.wrap_future(job))
        return _unwrap(results[index])

    def _submit(self, item: _Item) -> tuple[Future[Sequence[_Result | DescoreError]], int]:
        with self._lock:
            if self._filling is None:
                batch = _Batch[_Item]()
                self._filling = batch, self._thread.submit(self._run, batch)
            batch, job = self._filling
            batch.items.append(item)
            if len(batch.items) == self._max_size:
                self._filling = None
                batch.full.set()
            return job, len(batch.items) - 1

    def _run(self, batch: _Batch[_Item]) -> Sequence[_Result | DescoreError]:
        batch.full.wait(self._window)
        with self._lock:
            if self._filling is not None and self._filling[0] is batch:
                self._filling = None
        return self._score(batch.items)


def _unwrap(result: _Result | DescoreError) -> _Result:
    if isinstance(result, DescoreError):
        raise result
    return result
