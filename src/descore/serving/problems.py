"""What a request may fail of: a kind, its HTTP status, and one JSON form for all.

    {"error": {"kind": "no_video", "message": "clip.mp4: the file is empty"}}

In: errors of the package's own family. Out: a `ServiceError`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from descore.errors import ConfigError, DescoreError, VideoError, VideoLimitError, short_repr

Kind = Literal["request", "unauthorized", "not_found", "too_large", "no_video", "no_reward", "gone", "internal", "busy"]

STATUS: Mapping[Kind, int] = MappingProxyType(
    {
        "request": 400,
        "unauthorized": 401,
        "not_found": 404,
        "too_large": 413,
        "no_video": 415,
        "no_reward": 422,
        "gone": 499,  # as nginx has it: the client went before the answer came, and does not see this
        "internal": 500,
        "busy": 503,
    }
)
RETRY_AFTER = 1
"""Seconds after which a client may try again."""

_NAMED_FAULTS = 3
"""Faults of a request that a message names."""


class ServiceError(DescoreError):
    """Why a request has no result: its kind, and a message of one line."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def status(self) -> int:
        """Of HTTP."""
        return STATUS[self.kind]

    @property
    def headers(self) -> dict[str, str]:
        """That the status asks for (RFC 9110)."""
        if self.kind == "busy":
            return {"Retry-After": str(RETRY_AFTER)}
        return {"WWW-Authenticate": "Bearer"} if self.kind == "unauthorized" else {}

    def body(self) -> dict[str, Any]:
        """The JSON form."""
        return {"error": {"kind": self.kind, "message": str(self)}}


def service_error(error: DescoreError, *, of_video: Kind, name: str | None = None) -> ServiceError:
    """The ServiceError of any error of the family. of_video: the kind of a VideoError, "no_video" while a video is read
    and "no_reward" while it is scored. name: what the client calls the video."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, VideoError):
        of_video = "too_large" if isinstance(error, VideoLimitError) else of_video
        return ServiceError(of_video, f"{name or error.source}: {error.reason}")
    return ServiceError("request" if isinstance(error, ConfigError) else "internal", str(error))


def invalid(error: ValidationError) -> ServiceError:
    """The ServiceError of a body that does not fit: each fault with the path of its key, in one line."""
    faults = error.errors(include_url=False, include_context=False)
    named = [f"{_path_of(fault['loc'])}{_reason_of(fault)}" for fault in faults[:_NAMED_FAULTS]]
    more = f"; and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
    return ServiceError("request", "; ".join(named) + more)


def _path_of(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""


def _reason_of(fault: Mapping[str, Any]) -> str:
    message = " ".join(str(fault["msg"]).removeprefix("Value error, ").split())
    shown = "" if fault["type"] in ("missing", "value_error", "json_invalid") else f", got {short_repr(fault['input'])}"
    return f"{message[:1].lower()}{message[1:]}{shown}"
