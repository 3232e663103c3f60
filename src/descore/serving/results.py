"""Wait for the results of a request, as long as its client waits and within its time.

In: videos with their prompts, and a request's body. Out: a score or an error for each; nothing is left running."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from descore.serving.problems import ServiceError
from descore.serving.schema import SamplingBody, ServedScore, VideoBody, VideoInput
from descore.serving.service import Outcome, Service

_T = TypeVar("_T")


async def await_results(
    request: HttpRequest, service: Service, videos: Sequence[tuple[VideoInput, str]], body: SamplingBody
) -> list[Outcome]:
    """The results of videos with their prompts, in order.

    ServiceError: what `Service.submit` raises; busy when the time is over, gone where the client leaves before."""
    tasks = service.submit(videos, body)
    with service.metrics.timed("request"):
        try:
            async with asyncio.timeout(seconds := seconds_of(body, service)):
                return await while_connected(request, _all_of(tasks))
        except TimeoutError:
            raise late(seconds) from None
        finally:
            await cancel(tasks)


def seconds_of(body: VideoBody, service: Service) -> float:
    """Seconds that a request may take."""
    return min(body.timeout or service.settings.timeout, service.settings.timeout)


def late(seconds: float) -> ServiceError:
    """The error of a result that is not there in time."""
    return ServiceError("busy", f"no answer within {seconds:g} s")


def score_or_raise(result: Outcome) -> ServedScore:
    """The score; an error is raised."""
    if isinstance(result, ServiceError):
        raise result
    return result


async def cancel(tasks: Sequence["asyncio.Task[Outcome]"]) -> None:
    """Cancel what is not done, and wait until its files are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _all_of(tasks: Sequence["asyncio.Task[Outcome]"]) -> list[Outcome]:
    return [await task for task in tasks]


async def while_connected(request: HttpRequest, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What the work gives. ServiceError (gone) if the client leaves before."""
    work = asyncio.create_task(coroutine)
    leaving = asyncio.create_task(_until_disconnected(request))
    try:
        either: list[asyncio.Future[Any]] = [work, leaving]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ServiceError("gone", "the client left")
        return work.result()
    finally:
        leaving.cancel()
        work.cancel()


async def _until_disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
