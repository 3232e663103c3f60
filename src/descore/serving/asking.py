"""What the clients have in common: requests out of videos, answers and errors out of responses. Nothing is sent here.

In: videos as `Scorer` takes them. Out: the arguments of an HTTP request; of its response, a record or the error that
`Scorer` raises."""

import base64
import io
import json
import os
import random
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from descore.errors import ConfigError, DescoreError, VideoError, how_to_install
from descore.rubric import check_prompt
from descore.scorer import Request
from descore.serving.problems import STATUS, ServiceError
from descore.serving.schema import ErrorBody, Problem, ServedScore
from descore.types import Clip
from descore.video.reader import rgb_frames

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0
"""Seconds before a busy server is asked again: doubled each time, and never less than it says."""

_Answer = TypeVar("_Answer", bound=BaseModel)


class ChainPiece(BaseModel):
    """A piece of a chain, as it is written."""

    sample: int
    """The chain's number, from 0."""
    text: str


class _Named(BaseModel):
    name: str


class ModelNames(BaseModel):
    """The names of a server's models, and whatever else it says of them."""

    models: list[_Named]


class Asking:
    """The base of both clients: how a server is asked. See `Client` for the parameters."""

    def __init__(self, url: str, *, api_key: str | None, model: str | None, retries: int, concurrency: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url is {url!r}; expected http://HOST:PORT")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}, expected at least 1")
        api_key = os.environ.get("DESCORE_API_KEY") if api_key is None else api_key
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url, self.model, self.retries, self.concurrency = url, model, retries, concurrency
        try:
            self.httpx: Any = import_module("httpx2")
        except ModuleNotFoundError:
            raise ConfigError(f"a client of a server needs httpx2; {how_to_install('serve')}") from None

    def request(
        self,
        videos: Mapping[str, Any],
        *,
        prompt: str,
        fps: float | None,
        sampling_params: Mapping[str, Any],
        stream: bool = False,
    ) -> dict[str, Any]:
        """The arguments of a POST request about these videos: a form where they are files, else JSON."""
        if "stream" in sampling_params:
            raise ConfigError("stream is no sampling parameter; the method stream gives a chain as it is written")
        body = {"prompt": check_prompt(prompt), "model": self.model, "stream": stream or None, **sampling_params}
        files: dict[str, tuple[str, bytes]] = {}
        for key, video in videos.items():
            content = _content(video)
            if content is None:
                body[key] = _in_json(video, fps)
            elif fps is not None:
                raise ConfigError(f"fps={fps:g} given, but a file states its own times")
            else:
                files[key] = content
        if files and len(files) < len(videos):
            raise ConfigError("one video is a file and the other one is not; give both as files, or both as frames")
        body = {key: value for key, value in body.items() if value is not None}
        if not files:
            return {"json": body}
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}
        return {"data": fields, "files": files}

    def record(self, response: Any, form: type[_Answer]) -> _Answer:  # noqa: ANN401  # httpx2 is loaded when used
        """What a response holds."""
        try:
            return form.model_validate_json(response.content)
        except ValidationError:
            raise self._foreign() from None

    def pause(self, response: Any, attempt: int) -> float | None:  # noqa: ANN401
        """Seconds until a busy server is asked again: doubled each time, at least what it says, and partly random.
        None where it is not asked again."""
        if response.status_code != STATUS["busy"] or attempt >= self.retries:
            return None
        wait: float = min(_FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT)
        retry_after = response.headers.get("retry-after", "")
        least = float(retry_after) if retry_after.isdecimal() else 0.0
        return least + random.uniform(wait / 2, wait)

    def error_of(self, response: Any) -> DescoreError:  # noqa: ANN401
        """The error of a response, of the type that Scorer raises."""
        try:
            return _error_of(ErrorBody.model_validate_json(response.content).error)
        except ValidationError:
            return ServiceError("internal", f"{self.url}: status {response.status_code}; is it descore serve?")

    def events(self, response: Any) -> Any:  # noqa: ANN401
        """What iterates over a response's server-sent events, of any length, as they come."""
        return self.httpx.EventSource(response, max_event_size=None)

    def piece(self, event: Any) -> ChainPiece | ServedScore:  # noqa: ANN401
        """What an event holds. The error of an event is raised, as that of a response."""
        try:
            if event.event == "chain":
                return ChainPiece.model_validate_json(event.data)
            if event.event == "score":
                return ServedScore.model_validate_json(event.data)
            problem = ErrorBody.model_validate_json(event.data).error
        except ValidationError:
            raise self._foreign() from None
        raise _error_of(problem)

    def _foreign(self) -> ServiceError:
        return ServiceError("internal", f"{self.url}: answers something else than descore serve")

    def unfinished(self) -> ServiceError:
        """The error of a stream that has ended without its score."""
        return ServiceError("gone", f"{self.url}: the answer ended before the reward")

    def failure(self, error: Exception) -> DescoreError:
        """The error of a request without a response."""
        if isinstance(error, self.httpx.TimeoutException):
            return ServiceError("busy", f"{self.url}: no answer in time; raise the client's timeout")
        return ServiceError("internal", f"{self.url}: cannot be asked ({error}); does descore serve run?")


def _error_of(problem: Problem) -> DescoreError:
    """The error that Scorer raises for a problem; ServiceError for those of the server."""
    if problem.kind in ("no_video", "no_reward"):
        name, _, reason = problem.message.partition(": ")
        return VideoError(name, reason)
    if problem.kind == "request":
        return ConfigError(problem.message)
    return ServiceError(problem.kind, problem.message)


def full_request(given: Request | tuple[Any, str], *, fps: float | None) -> Request:
    """A request in full, with an fps that it does not state."""
    one = given if isinstance(given, Request) else Request(video=given[0], prompt=given[1])
    return Request(video=one.video, prompt=one.prompt, fps=fps if one.fps is None else one.fps)


def _is_address(video: object) -> bool:
    return isinstance(video, str) and video.startswith(("http://", "https://"))


def _content(video: Any) -> tuple[str, bytes] | None:  # noqa: ANN401  # what read_clip takes
    """The name and the content of a video that is a file; None for one that goes into JSON."""
    if isinstance(video, bytes | bytearray | memoryview):
        return "<bytes>", bytes(video)
    if isinstance(video, io.IOBase):
        return "<file>", _rest_of(video)
    if not isinstance(video, str | Path) or _is_address(video):
        return None
    try:
        return str(video), Path(video).read_bytes()
    except OSError as error:
        raise VideoError(str(video), f"cannot be opened ({error.strerror or error})") from error


def _rest_of(file: io.IOBase) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise VideoError("<file>", "opened as text; open it in binary mode: open(path, 'rb')")
    try:
        return file.read()  # type: ignore[attr-defined,no-any-return]
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise VideoError("<file>", f"cannot be read ({error})") from error


def _in_json(video: Any, fps: float | None) -> dict[str, Any]:  # noqa: ANN401
    """An address, a clip, or frames from memory; pictures as PNG, which loses nothing."""
    if (_is_address(video) or isinstance(video, Clip)) and fps is not None:
        raise ConfigError(f"fps={fps:g} given, but a clip and a file state their own times")
    if _is_address(video):
        return {"url": video}
    if isinstance(video, Clip):
        return {
            "frames": [_png(frame) for frame in video.frames],
            "fps": video.source_fps,
            "times": list(video.times),
            "frame_numbers": None if video.frame_numbers is None else list(video.frame_numbers),
            "name": video.source,
        }
    if fps is None:
        raise ConfigError("frames from memory have no times; give their fps, in frames per second")
    return {"frames": [_png(frame) for frame in rgb_frames(video)], "fps": fps, "name": "<frames>"}


def _png(frame_HWC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
