"""A chain as it is written, as server-sent events: pieces of its text, then the score.

    event: chain
    data: {"sample": 0, "text": "The ball"}

In: a request that asks for them. Out: the events, which a client that leaves ends, and its chains with them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from tokenizers.decoders import DecodeStream

from descore.serving.problems import ServiceError
from descore.serving.results import cancel, late, score_or_raise, seconds_of, while_connected
from descore.serving.schema import ScoreRequest
from descore.serving.service import Outcome, Service

EVENTS = "text/event-stream"


class ChainTexts:
    """Takes tokens in the model's thread, and gives their texts in the event loop that it is made in."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401  # transformers' tokenizers share no typed base
        self._tokenizer = tokenizer.backend_tokenizer
        self._loop = asyncio.get_running_loop()
        self._texts: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        self._decoders: dict[int, DecodeStream] = {}
        self._wanted = True

    def add(self, sample: int, token: int) -> bool:
        """Take the next token of a chain. Returns whether anybody waits for more."""
        if sample not in self._decoders:
            self._decoders[sample] = DecodeStream(skip_special_tokens=True)
        text = self._decoders[sample].step(self._tokenizer, token)  # None within a character
        if text:
            self._loop.call_soon_threadsafe(self._texts.put_nowait, (sample, text))
        return self._wanted

    def end(self) -> None:
        """There is no more."""
        self._texts.put_nowait(None)

    def close(self) -> None:
        """Nobody waits any more."""
        self._wanted = False

    async def next(self) -> tuple[int, str] | None:
        """The next text with the number of its chain; None behind the last."""
        return await self._texts.get()


async def stream_score(request: HttpRequest, service: Service, body: ScoreRequest) -> StreamingResponse:
    """The response that streams a score. It begins with the first text, or with the score: what goes wrong before is
    raised as for any other request, and the files of the body are not needed any more."""
    _, scorer = service.scorer_of(body.model)
    texts, seconds = ChainTexts(scorer.chat.tokenizer), seconds_of(body, service)
    until = asyncio.get_running_loop().time() + seconds
    [task] = service.submit([(body.video, body.prompt)], body, on_token=texts.add)
    task.add_done_callback(lambda _: texts.end())
    started = False
    try:
        async with asyncio.timeout(seconds):
            first = await while_connected(request, texts.next())
        if first is None:
            score_or_raise(task.result())
        started = True
    except TimeoutError:
        raise late(seconds) from None
    finally:
        if not started:
            texts.close()
            await cancel([task])
    events = _events(first, texts, task, service, until=until, seconds=seconds)
    return StreamingResponse(events, media_type=EVENTS, headers={"Cache-Control": "no-store"})


async def _events(
    text: tuple[int, str] | None,
    texts: ChainTexts,
    task: "asyncio.Task[Outcome]",
    service: Service,
    *,
    until: float,
    seconds: float,
) -> AsyncIterator[bytes]:
    try:
        while text is not None:
            yield _event("chain", json.dumps({"sample": text[0], "text": text[1]}))
            async with asyncio.timeout_at(until):
                text = await texts.next()
        yield _last(task.result(), service)
    except TimeoutError:
        yield _last(late(seconds), service)
    finally:
        texts.close()
        await cancel([task])


def _last(result: Outcome, service: Service) -> bytes:
    if isinstance(result, ServiceError):
        service.metrics.error(result.kind)
        return _event("error", json.dumps(result.body()))
    return _event("score", result.model_dump_json())


def _event(name: str, data: str) -> bytes:
    """Data is JSON of one line."""
    return f"event: {name}\ndata: {data}\n\n".encode()
