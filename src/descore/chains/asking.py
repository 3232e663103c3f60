"""Ask a server for all chains that are missing: several at a time, within its rates, a deadline and a budget.

In: tasks, and the numbers of their chains that are missing. Out: each outcome, as it comes, to a callback; and why it
was stopped, if not all was asked. Until the first answer has come, requests go one at a time: a wrong key costs one of
them, and the first answer says what a request of this kind takes."""

import asyncio
import math
import random
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from descore.chains.config import CollectConfig
from descore.chains.ledger import Ledger
from descore.chains.messages import TokenEstimate, chat_body, estimate_tokens, frame_parts, video_parts
from descore.chains.records import RequestFault
from descore.chains.server import Answer, TeacherError, TeacherServer, open_server
from descore.chains.tasks import AskedWith, ChainTask
from descore.errors import ConfigError, DescoreError, DescoreWarning, VideoError
from descore.video.reader import read_clip

MissingChains = tuple[ChainTask, Sequence[int]]
"""A task, and which of its K chains are missing."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Seconds before a request is repeated: doubled each time, and never less than the server says."""
_MINUTE = 60.0
"""Seconds that the limits a minute are for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOutcome:
    """What became of one request: an answer, or a fault."""

    answer: Answer | None
    fault: RequestFault | None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0


KeepOutcome = Callable[[ChainTask, int, ChainOutcome], None]
"""Called with a task, the number of its chain, and what became of the request for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    task: ChainTask
    number: int
    body: dict[str, Any]
    estimate: TokenEstimate

    @property
    def key(self) -> str:
        return self.task.keys[self.number]


@dataclass(frozen=True, slots=True)
class ClipMessage:
    """What a server is sent about a clip."""

    content: list[dict[str, Any]]
    estimate: TokenEstimate


def show_clip(task: ChainTask, config: CollectConfig, asked_with: AskedWith) -> ClipMessage:
    """Read a task's clip, and write the message for it. VideoError if it cannot be read."""
    clip = read_clip(task.path, sampling=asked_with.sampling)
    shown = frame_parts(clip) if config.teacher.video == "frames" else video_parts(task.path)
    return ClipMessage(task.text.around(shown), estimate_tokens(clip, task.text, config.teacher))


def ask_server(
    missing: Iterable[MissingChains], config: CollectConfig, asked_with: AskedWith, *, ledger: Ledger, keep: KeepOutcome
) -> str | None:
    """Ask for all missing chains. Returns why it was stopped early, or None.

    ConfigError without the server's packages or its key, or if the server is the reason and it gave no answer."""

    async def ask() -> str | None:
        async with open_server(
            config.teacher, max_tokens=asked_with.max_tokens, timeout=config.limits.timeout
        ) as server:
            asker = _Asker(server, config, asked_with, ledger=ledger, keep=keep)
            try:
                await asker.ask_all(missing)
            except* DescoreError as group:
                raise _first(group) from None
            if asker.at_fault and not asker.answered:
                raise ConfigError(f"the teacher gave no answer: {asker.stopped}")
            return asker.stopped

    return asyncio.run(ask())


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Asker:
    """The state that the requests of one run share."""

    def __init__(
        self, server: TeacherServer, config: CollectConfig, asked_with: AskedWith, *, ledger: Ledger, keep: KeepOutcome
    ) -> None:
        from aiolimiter import AsyncLimiter

        limits = config.limits
        self.server, self.config, self.limits, self.asked_with = server, config, limits, asked_with
        self.ledger, self.keep = ledger, keep
        self.stopped: str | None = None
        self.at_fault = False
        """Whether the server is why it was stopped."""
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._clips = asyncio.Semaphore(2 * limits.concurrency)  # the next clips are read while answers are written
        self._settled, self._first = asyncio.Condition(), asyncio.Lock()
        per_minute = (limits.requests_per_minute, limits.tokens_per_minute)
        self._requests, self._tokens = (None if most is None else AsyncLimiter(most, _MINUTE) for most in per_minute)
        self._end = math.inf if limits.deadline is None else monotonic() + limits.deadline * 60
        self._not_before = 0.0
        """When the server may be asked again, on the monotonic clock."""
        self.answered = self._failed_in_a_row = 0
        self._tokens_out = 0
        self._ratio = 1.0
        """The most tokens that a request took, over the most that were estimated for it."""

    async def ask_all(self, missing: Iterable[MissingChains]) -> None:
        """Ask for everything, or until something stops it."""
        async with asyncio.TaskGroup() as group:
            for task, numbers in missing:
                await self._clips.acquire()
                if self._is_over():
                    break
                group.create_task(self._ask_clip(task, numbers))

    def _stop(self, reason: str, *, at_fault: bool = False) -> None:
        if self.stopped is None:
            self.stopped, self.at_fault = reason, at_fault

    def _is_over(self, wait: float = 0.0) -> bool:
        """Whether nothing more is to be asked, now or after so many seconds."""
        if monotonic() + wait >= self._end:
            self._stop(f"the deadline of {self.limits.deadline:g} minutes")
        return self.stopped is not None

    async def _ask_clip(self, task: ChainTask, numbers: Sequence[int]) -> None:
        try:
            prepared = await asyncio.to_thread(show_clip, task, self.config, self.asked_with)
            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(self._ask_chain(task, number, prepared))
        except VideoError as error:
            for number in numbers:
                self.keep(
                    task, number, ChainOutcome(answer=None, fault=RequestFault(kind="unreadable", message=str(error)))
                )
        finally:
            self._clips.release()

    async def _ask_chain(self, task: ChainTask, number: int, prepared: ClipMessage) -> None:
        seed, most = self.config.teacher.seed + number, self.asked_with.max_tokens
        body = chat_body(self.config.teacher, prepared.content, seed=seed, max_tokens=most)
        request = _Request(task=task, number=number, body=body, estimate=prepared.estimate)
        async with self._slots, self._alone_at_first():
            await self._ask_until_settled(request)

    @asynccontextmanager
    async def _alone_at_first(self) -> AsyncIterator[None]:
        """One at a time until an answer has come."""
        if not self.answered:
            async with self._first:
                if not self.answered:
                    yield
                    return
        yield

    async def _ask_until_settled(self, request: _Request) -> None:
        """Ask, again where that is worth it, and keep what becomes of it, unless something stops the run first."""
        cost, tries = 0.0, self.limits.retries + 1
        for attempt in range(tries):
            place = await self._reserve(request)
            if place is None:
                return
            start = monotonic()
            try:
                answer = await self.server.ask(request.body)
            except TeacherError as error:
                cost += await self._settle_error(place, error)
                if not error.again or attempt + 1 == tries:
                    self._fail(request, error, cost=cost, seconds=monotonic() - start)
                    return
                await self._pause(attempt, error.wait)
            else:
                await self._settle(place, request, answer, cost=cost, seconds=monotonic() - start)
                return

    def _fail(self, request: _Request, error: TeacherError, *, cost: float, seconds: float) -> None:
        if error.ends_run or error.kind == "unreachable":
            self._stop(str(error), at_fault=True)
            return
        fault = RequestFault(kind=error.kind, message=str(error))
        self.keep(request.task, request.number, ChainOutcome(answer=None, fault=fault, cost=cost, seconds=seconds))
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.limits.max_failures:
            count = self._failed_in_a_row
            what = "a request failed, since" if count == 1 else f"{count} requests in a row failed, the last one since"
            self._stop(f"{what} {error}", at_fault=True)

    async def _reserve(self, request: _Request) -> int | None:
        """A place in the ledger, once the rates allow the request and the budget has room; None if the run is over."""
        await self._keep_pace(request)
        tokens_in = math.ceil(request.estimate.most * self._ratio)
        async with self._settled:
            while not self._is_over():
                place = self.ledger.reserve(request.key, tokens_in=tokens_in, tokens_out=self.asked_with.max_tokens)
                if place is not None:
                    return place
                if not self.ledger.under_way:
                    self._stop(f"the budget of {self.limits.budget:g}, which has no room for another request")
                    break
                await self._settled.wait()
        return None

    async def _keep_pace(self, request: _Request) -> None:
        """Wait until the server may be asked again, and for the limits a minute."""
        while not self._is_over() and (wait := self._not_before - monotonic()) > 0:
            if self._is_over(wait):
                return
            await asyncio.sleep(wait)
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            expected = request.estimate.likely + self._expected_answer()
            await self._tokens.acquire(min(expected, self._tokens.max_rate))

    def _expected_answer(self) -> int:
        """Tokens of an answer: the mean of those that came, or at first the limit."""
        return self._tokens_out // self.answered if self.answered else self.asked_with.max_tokens

    async def _pause(self, attempt: int, wait: float) -> None:
        """Wait before a request is repeated. While a server asks to wait, nothing else is sent either."""
        if wait > _LONGEST_WAIT:
            advice = "wait with it, or stop and give the same command later; limits.deadline bounds a run"
            warnings.warn(f"the server asks to wait {wait:,.0f} s: {advice}", DescoreWarning, stacklevel=2)
        self._not_before = max(self._not_before, monotonic() + wait)
        longest = min(_FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT)
        pause = random.uniform(longest / 2, longest)
        if not self._is_over(pause):
            await asyncio.sleep(pause)

    async def _settle(self, place: int, request: _Request, answer: Answer, *, cost: float, seconds: float) -> None:
        """Keep an answer, and only then settle it: a kill between the two loses money on paper, and no answer."""
        outcome = ChainOutcome(
            answer=answer,
            fault=None,
            tokens_in=answer.tokens_in or 0,
            tokens_out=answer.tokens_out or 0,
            cost=cost + self.ledger.cost_of(place, answer.tokens),
            seconds=seconds,
        )
        self.keep(request.task, request.number, outcome)
        async with self._settled:
            if answer.tokens is not None:
                self.ledger.settle(place, tokens_in=outcome.tokens_in, tokens_out=outcome.tokens_out)
                self._ratio = max(self._ratio, outcome.tokens_in / request.estimate.most)
            else:
                self.ledger.settle_unknown(place)
            self.answered, self._failed_in_a_row = self.answered + 1, 0
            self._tokens_out += outcome.tokens_out
            self._settled.notify_all()

    async def _settle_error(self, place: int, error: TeacherError) -> float:
        async with self._settled:
            if error.billed and error.tokens is None:
                cost = self.ledger.settle_unknown(place)
            else:
                tokens_in, tokens_out = error.tokens or (0, 0)
                cost = self.ledger.settle(place, tokens_in=tokens_in, tokens_out=tokens_out)
            if error.ends_run:
                self._stop(str(error), at_fault=True)
            self._settled.notify_all()
        return cost
