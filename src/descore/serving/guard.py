"""What is checked of a request before its body is read, and while it is: host, token, room, length, and time; and how
errors are answered.

An ASGI middleware around the routes. Every answer and its status is counted."""

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from descore.serving.batching import STOPPING
from descore.serving.metrics import ServerMetrics
from descore.serving.problems import STATUS, Kind, ServiceError
from descore.serving.settings import LOOPBACK_NAMES, ServerSettings

OPEN_ROUTES = ("/health", "/ready", "/")
"""That need no token: what runs servers asks them, and a browser opens a page before it can send one."""
OPEN_FILES = ("/page/", "/v1/videos/")
"""The files of that page, which hold nothing of a request; and videos under names that nobody can guess: a browser
sends no token with them."""

_BEARER, _BASIC = "bearer ", "basic "


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRules:
    """What is different for routes that speak another protocol."""

    forms: Mapping[tuple[str, str], Callable[[ServiceError], Response]] = field(default_factory=dict)
    """By method and path: how an error is answered there."""
    without_clips: frozenset[str] = frozenset()
    """Paths whose requests bring no video; they are answered while the server is full."""

    def response(self, error: ServiceError, scope: Scope) -> Response:
        """The answer of an error, in the form of the route that was asked."""
        return self.forms.get((scope["method"], scope["path"]), problem_response)(error)


_OWN_FORM = RouteRules()


class GuardedService(Protocol):
    """What is behind a guard."""

    settings: ServerSettings
    metrics: ServerMetrics
    stopping: bool

    @property
    def full(self) -> bool:
        """Whether there is room for no request with a body."""

    def stop(self) -> None:
        """Refuse what waits and what comes."""


class Guard:
    """Refuses what may not enter."""

    def __init__(self, app: ASGIApp, *, service: GuardedService, rules: RouteRules = _OWN_FORM) -> None:
        self.app, self.service, self.rules = app, service, rules
        self._posted = 0
        """Requests with a body that are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by Starlette with each request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        counted = _Counted(send)
        try:
            await self._answer(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.service.metrics.request(route, counted.status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except ServiceError as error:
            self.service.metrics.error(error.kind)
            await self.rules.response(error, scope)(scope, receive, send)
            return
        bounds = self.service.settings
        body = _BoundedBody(receive, most=bounds.max_upload, seconds=bounds.upload_seconds)
        has_body = scope["method"] == "POST"
        self._posted += has_body
        try:
            await self.app(scope, body, send)
        finally:
            self._posted -= has_body

    def _check(self, scope: Scope) -> None:
        headers, bounds = Headers(scope=scope), self.service.settings
        if bounds.local_only and _host_of(headers.get("host", "")) not in LOOPBACK_NAMES:
            raise ServiceError("unauthorized", "the Host header names another machine; this server answers its own")
        path = scope["path"]
        is_open = scope["method"] in ("GET", "HEAD") and (path in OPEN_ROUTES or path.startswith(OPEN_FILES))
        if bounds.api_key is not None and not is_open:
            _check_token(headers.get("authorization", ""), bounds.api_key)
        if scope["method"] == "POST" and scope["path"] not in self.rules.without_clips:
            self._check_room()
        _check_length(headers.get("content-length"), bounds.max_upload)

    def _check_room(self) -> None:
        service = self.service
        if service.stopping:
            raise ServiceError("busy", STOPPING)
        if service.full or self._posted >= service.settings.max_queue:
            raise ServiceError("busy", f"all {service.settings.max_queue} places are taken; try again later")


def problem_response(error: ServiceError) -> JSONResponse:
    """The answer of an error in our own form."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def _host_of(header: str) -> str:
    """The name in a Host header, without its port and without the brackets of an IPv6 address."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].casefold()


def _check_token(header: str, api_key: str) -> None:
    """Bearer TOKEN; or Basic with the token as password, which clients send for http://any:TOKEN@HOST, and which is all
    that many trainers' clients can send."""
    if header[: len(_BASIC)].casefold() == _BASIC:
        token = _password_of(header[len(_BASIC) :].strip())
    else:
        token = header[len(_BEARER) :].strip() if header[: len(_BEARER)].casefold() == _BEARER else None
    if token is None or not hmac.compare_digest(token.encode(), api_key.encode()):
        raise ServiceError("unauthorized", "no token or a wrong one; expected the header Authorization: Bearer TOKEN")


def _password_of(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:  # of base64, and of UTF-8
        return None


def _check_length(header: str | None, most: int) -> None:
    if header is not None and header.isdecimal() and int(header[:20]) > most:
        raise _too_long(most)


def _too_long(most: int) -> ServiceError:
    return ServiceError("too_large", f"a body of more than {most:,} bytes; send fewer or smaller videos")


class _BoundedBody:
    """Receives a request's body up to a length, and until a time. Afterwards it waits for the client to leave."""

    def __init__(self, receive: Receive, *, most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._length, self._complete = 0, False
        self._start = perf_counter()

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        message = await self._in_time(self._receive)
        if message["type"] == "http.request":
            self._length += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        if self._length > self._most:
            raise _too_long(self._most)
        return message

    async def _in_time(self, receive: Callable[[], Awaitable[Message]]) -> Message:
        left = self._start + self._seconds - perf_counter()
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await receive()
        except TimeoutError:
            raise ServiceError("request", f"the body was not here after {self._seconds:g} s") from None


class _Counted:
    """Sends an answer, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, STATUS["internal"]  # where nothing is sent, the server failed

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def add_error_handlers(app: FastAPI, metrics: ServerMetrics, *, rules: RouteRules = _OWN_FORM) -> None:
    """One JSON form for all errors of an app, but where the rules say otherwise; they are counted."""

    async def refused(request: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        metrics.error(error.kind)
        return rules.response(error, request.scope)

    async def unrouted(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind: Kind = "not_found" if error.status_code == STATUS["not_found"] else "request"
        metrics.error(kind)
        body = ServiceError(kind, f"{error.detail}; see /openapi.json").body()
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    async def gone(_: HttpRequest, error: Exception) -> Response:
        return problem_response(ServiceError("gone", f"the client left ({type(error).__name__})"))

    async def broken(request: HttpRequest, error: Exception) -> Response:  # Starlette logs it with its traceback
        failure = ServiceError("internal", f"the server failed ({type(error).__name__}); see its log")
        return rules.response(failure, request.scope)

    app.add_exception_handler(ServiceError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, broken)
