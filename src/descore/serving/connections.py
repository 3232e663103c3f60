"""Connections that say nothing are closed: each after a while, and the oldest as soon as there are too many.

A request that has come whole is none of them, whatever its answer takes. uvicorn bounds the time between two requests
only. In: bytes of a connection. Out: what uvicorn makes of them."""

from asyncio import AbstractEventLoop, Transport
from collections import OrderedDict
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT_SECONDS = 15.0
"""That a connection may take until the head of a request is there; between two requests too."""
MOST_SILENT = 512
"""Connections without a request that are kept."""


class BoundedProtocol(H11Protocol):
    """A connection."""

    silent: ClassVar["OrderedDict[BoundedProtocol, None]"] = OrderedDict()
    """Those without a request, the oldest first. Of all servers of this process; they share its files."""

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
        """Called by uvicorn."""
        super().on_response_complete()
        if self._waits and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._forget()
        super().connection_lost(exc)

    def close(self) -> None:
        """Say nothing more, and let go of it."""
        self._forget()
        self.transport.abort()

    @property
    def _waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._forget()
        loop: AbstractEventLoop = self.loop
        self._timer: Any = loop.call_later(SILENT_SECONDS, self.close)
        self.silent[self] = None

    def _forget(self) -> None:
        if self.silent.pop(self, self) is None:
            self._timer.cancel()
