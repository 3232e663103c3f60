"""Run the app with uvicorn on a socket, and stop it gracefully: what runs ends, what waits is refused.

In: an app and an address. Out: nothing; it returns when the process is asked to end."""

import math
import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from descore.errors import ConfigError
from descore.serving.connections import BoundedProtocol
from descore.serving.guard import GuardedService
from descore.serving.heap import bound_arenas

_BACKLOG = 2048
_KEEP_ALIVE = 15
"""Seconds that a connection may say nothing between two requests."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. ConfigError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen at {host}, port {port} ({reason}); choose another --port or --host"
        ) from error


def address_of(listening: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(app: FastAPI, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; a second SIGINT ends at once."""
    bound_arenas()
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all has ended
        server_of(app).run(sockets=[listening])


def server_of(app: FastAPI) -> uvicorn.Server:
    """Uvicorn for an app; a thread that runs it is stopped by `should_exit`."""
    service: GuardedService = app.state.service
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.settings.timeout),
        backlog=_BACKLOG,
    )
    return _Server(config, service)


class _Server(uvicorn.Server):
    """Refuses what waits as soon as it is asked to stop, rather than to score it first."""

    def __init__(self, config: uvicorn.Config, service: GuardedService) -> None:
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn; it waits for the requests that run."""
        self.service.stop()
        await super().shutdown(sockets=sockets)
