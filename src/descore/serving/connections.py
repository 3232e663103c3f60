"""Connections that say nothing are closed, each after a while and the oldest as soon as there are too many; and those
that take nothing of their answer.

A request that has come whole is not silent, whatever its answer takes, and a client that reads slowly keeps its
connection as long as it reads. uvicorn bounds the time between two requests only. In: bytes of a connection. Out: what
uvicorn makes of them; where a connection is closed, the work of its request leaves the queue."""

from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections import OrderedDict
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT_SECONDS = 15.0
"""That a connection may take until the head of a request is there; between two requests too."""
MOST_SILENT = 512
"""Connections without a request that are kept."""
BLOCKED_SECONDS = 30.0
"""That a client may take nothing of an answer that waits for it. A browser that has enough of a video asks again."""

_AT_ONCE = pack("ii", 1, 0)


class BoundedProtocol(H11Protocol):
    """A connection."""

    silent: ClassVar["OrderedDict[BoundedProtocol, None]"] = OrderedDict()
    """Those without a request, the oldest first. Of all servers of this process; they share its files."""

    _blocked: TimerHandle | None = None
    """Looks whether the client has read; None where nothing waits for it."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self._wait()
        while len(self.silent) > MOST_SILENT:
            next(iter(self.silent)).close()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        super().data_received(data)
        if not self._waits:
            self._forget()

    def on_response_complete(self) -> None:
        """Called by uvicorn, when it has written an answer; the client may have it still to read."""
        super().on_response_complete()
        self._watch_reader()
        if self._waits and not self.transport.is_closing():
            self._wait()

    def pause_writing(self) -> None:
        """Called by asyncio, when much of an answer waits for the client."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Called by asyncio, when little of it does."""
        super().resume_writing()
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._forget()
        self._let_reader_be()
        super().connection_lost(exc)

    def close(self) -> None:
        """Say nothing more, and let go of it."""
        self._forget()
        self._let_reader_be()
        self.transport.abort()

    @property
    def _waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._forget()
        self._timer = self._later(SILENT_SECONDS, self._end_silence)
        self.silent[self] = None

    def _end_silence(self) -> None:
        """Close it, unless the last answer is still being read."""
        if self._blocked is None:
            self.close()
        else:
            self._timer = self._later(SILENT_SECONDS, self._end_silence)

    def _forget(self) -> None:
        if self.silent.pop(self, self) is None:
            self._timer.cancel()

    def _watch_reader(self) -> None:
        """Close it after a while in which the client takes nothing of what waits for it now."""
        self._let_reader_be()
        size = self.transport.get_write_buffer_size()
        if size and (self.flow.write_paused or self._waits):
            self._blocked = self._later(BLOCKED_SECONDS, lambda: self._check_reader(size))

    def _check_reader(self, size: int) -> None:
        if self.transport.get_write_buffer_size() < size:
            self._watch_reader()
            return
        if (own := self.transport.get_extra_info("socket")) is not None:
            own.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)  # else the system would go on offering the rest
        self.close()

    def _let_reader_be(self) -> None:
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None

    def _later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        loop: AbstractEventLoop = self.loop
        return loop.call_later(seconds, call)
