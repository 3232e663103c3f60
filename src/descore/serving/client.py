"""A served model with the Scorer's face.

    with Client("http://127.0.0.1:8000") as client:
        result = client.score("clip.mp4", prompt="a red ball rolls to the left")

    async with AsyncClient("http://127.0.0.1:8000") as client:
        result = await client.score("clip.mp4", prompt="a red ball rolls to the left")

In: videos as `Scorer` takes them, which are uploaded, and addresses that the server may fetch. Out: `ServedScore`
records, and with `stream` the chain as it is written. A busy server (503) is asked again; no other request is
repeated."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self

from descore.errors import DescoreError
from descore.scorer import Request
from descore.serving.asking import Asking, ChainPiece, ModelNames, full_request
from descore.serving.schema import CompareAnswer, ModelList, ServedScore

if TYPE_CHECKING:
    import httpx2

    from descore.serving.remote import ServedScorer


class Client(Asking):
    """Asks a server that `descore serve` runs. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 120.0,
        retries: int = 8,
        concurrency: int = 8,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        """url: of the server. api_key: its token; None: the environment's DESCORE_API_KEY. model: one of the server's.
        timeout: seconds for one answer. retries: how often a busy server is asked again. concurrency: requests that
        `score_batch` has under way. transport: of httpx, for tests and proxies."""
        super().__init__(url, api_key=api_key, model=model, retries=retries, concurrency=concurrency)
        self._http = self.httpx.Client(base_url=url, headers=self.headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(self, video: Any, *, prompt: str, fps: float | None = None, **sampling_params: Any) -> ServedScore:  # noqa: ANN401
        """Score one video: see `Scorer.score`, whose errors it raises; ServiceError for those of the server."""
        request = self.request({"video": video}, prompt=prompt, fps=fps, sampling_params=sampling_params)
        return self.record(self._ask("POST", "/v1/score", request), ServedScore)

    def stream(
        self,
        video: Any,  # noqa: ANN401
        *,
        prompt: str,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> Iterator[ChainPiece | ServedScore]:
        """Score one video: pieces of its chains as they are written, and then the score. Errors as those of `score`.

        Nothing is sent before the first piece is asked for. An iterator that is closed ends the chains."""
        sent: dict[str, Any] = {"fps": fps, "sampling_params": sampling_params, "stream": True}
        with self._answer("POST", "/v1/score", self.request({"video": video}, prompt=prompt, **sent)) as response:
            for event in self.events(response):
                yield self.piece(event)
                if event.event == "score":
                    return
        raise self.unfinished()

    def score_batch(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> list[ServedScore]:
        """Score many videos, each a Request or a (video, prompt), several at a time. The first one in order that cannot
        be scored raises its error; `score_each` goes on instead."""
        results = []
        for result in self.score_each(requests, fps=fps, **sampling_params):
            if isinstance(result, DescoreError):
                raise result
            results.append(result)
        return results

    def score_each(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> Iterator[ServedScore | DescoreError]:
        """The same in order, as results come, with its error in the place of what cannot be scored. `requests` is read
        no further ahead than `concurrency`."""

        def outcome(given: Request | tuple[Any, str]) -> ServedScore | DescoreError:
            try:
                one = full_request(given, fps=fps)
                return self.score(one.video, prompt=one.prompt, fps=one.fps, **sampling_params)
            except DescoreError as error:
                return error

        under_way: deque[Future[ServedScore | DescoreError]] = deque()
        threads = ThreadPoolExecutor(self.concurrency)
        try:
            for request in requests:
                under_way.append(threads.submit(outcome, request))
                if len(under_way) >= self.concurrency:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def compare(
        self,
        a: Any,  # noqa: ANN401
        b: Any,  # noqa: ANN401
        *,
        prompt: str,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> CompareAnswer:
        """How probably people prefer video a to video b, both generated from `prompt`."""
        request = self.request({"a": a, "b": b}, prompt=prompt, fps=fps, sampling_params=sampling_params)
        return self.record(self._ask("POST", "/v1/compare", request), CompareAnswer)

    def models(self) -> list[str]:
        """The names of the server's models, the default one first."""
        return [one.name for one in self.record(self._ask("GET", "/v1/models", {}), ModelNames).models]

    def model_list(self) -> ModelList:
        """What the server's models are, the default one first."""
        return self.record(self._ask("GET", "/v1/models", {}), ModelList)

    def open_scorer(self) -> "ServedScorer":
        """The model as `RewardFunction` and the trainers' adapters take it; they ask for it themselves."""
        from descore.serving.remote import ServedScorer

        return ServedScorer(self)

    def _ask(self, method: str, path: str, request: dict[str, Any]) -> Any:  # noqa: ANN401
        """A whole response that is none of the errors."""
        with self._answer(method, path, request) as response:
            response.read()
            return response

    @contextmanager
    def _answer(self, method: str, path: str, request: dict[str, Any]) -> Iterator[Any]:
        """A response that is none of the errors, as it comes. A busy server is asked again, after a while."""
        attempt = 0
        while True:
            try:
                with self._http.stream(method, path, **request) as response:
                    if response.is_success:
                        yield response
                        return
                    response.read()
            except self.httpx.HTTPError as error:
                raise self.failure(error) from error
            if (pause := self.pause(response, attempt)) is None:
                raise self.error_of(response)
            attempt += 1
            time.sleep(pause)


class AsyncClient(Asking):
    """The same for an event loop: the methods are awaited, and `score_each` is an asynchronous iterator."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 120.0,
        retries: int = 8,
        concurrency: int = 8,
        transport: "httpx2.AsyncBaseTransport | None" = None,
    ) -> None:
        """See `Client`."""
        super().__init__(url, api_key=api_key, model=model, retries=retries, concurrency=concurrency)
        self._http = self.httpx.AsyncClient(base_url=url, headers=self.headers, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(self, video: Any, *, prompt: str, fps: float | None = None, **sampling_params: Any) -> ServedScore:  # noqa: ANN401
        """Score one video: see `Client.score`. The video is read in a thread."""
        request = await asyncio.to_thread(
            self.request, {"video": video}, prompt=prompt, fps=fps, sampling_params=sampling_params
        )
        return self.record(await self._ask("POST", "/v1/score", request), ServedScore)

    async def stream(
        self,
        video: Any,  # noqa: ANN401
        *,
        prompt: str,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> AsyncIterator[ChainPiece | ServedScore]:
        """Score one video, and give its chains as they are written: see `Client.stream`."""
        sent: dict[str, Any] = {"fps": fps, "sampling_params": sampling_params, "stream": True}
        request = await asyncio.to_thread(self.request, {"video": video}, prompt=prompt, **sent)
        async with self._answer("POST", "/v1/score", request) as response:
            async for event in self.events(response):
                yield self.piece(event)
                if event.event == "score":
                    return
        raise self.unfinished()

    async def score_batch(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> list[ServedScore]:
        """Score many videos: see `Client.score_batch`."""
        results = []
        async for result in self.score_each(requests, fps=fps, **sampling_params):
            if isinstance(result, DescoreError):
                raise result
            results.append(result)
        return results

    async def score_each(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> AsyncIterator[ServedScore | DescoreError]:
        """Score many videos: see `Client.score_each`. What is under way is cancelled where the iterator is closed."""

        async def outcome(given: Request | tuple[Any, str]) -> ServedScore | DescoreError:
            try:
                one = full_request(given, fps=fps)
                return await self.score(one.video, prompt=one.prompt, fps=one.fps, **sampling_params)
            except DescoreError as error:
                return error

        under_way: deque[asyncio.Task[ServedScore | DescoreError]] = deque()
        try:
            for request in requests:
                under_way.append(asyncio.create_task(outcome(request)))
                if len(under_way) >= self.concurrency:
                    yield await under_way[0]
                    under_way.popleft()
            while under_way:
                yield await under_way[0]
                under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def compare(
        self,
        a: Any,  # noqa: ANN401
        b: Any,  # noqa: ANN401
        *,
        prompt: str,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> CompareAnswer:
        """How probably people prefer video a to video b, both generated from `prompt`."""
        videos = {"a": a, "b": b}
        request = await asyncio.to_thread(self.request, videos, prompt=prompt, fps=fps, sampling_params=sampling_params)
        return self.record(await self._ask("POST", "/v1/compare", request), CompareAnswer)

    async def models(self) -> list[str]:
        """The names of the server's models, the default one first."""
        return [one.name for one in self.record(await self._ask("GET", "/v1/models", {}), ModelNames).models]

    async def _ask(self, method: str, path: str, request: dict[str, Any]) -> Any:  # noqa: ANN401
        async with self._answer(method, path, request) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def _answer(self, method: str, path: str, request: dict[str, Any]) -> AsyncIterator[Any]:
        attempt = 0
        while True:
            try:
                async with self._http.stream(method, path, **request) as response:
                    if response.is_success:
                        yield response
                        return
                    await response.aread()
            except self.httpx.HTTPError as error:
                raise self.failure(error) from error
            if (pause := self.pause(response, attempt)) is None:
                raise self.error_of(response)
            attempt += 1
            await asyncio.sleep(pause)
