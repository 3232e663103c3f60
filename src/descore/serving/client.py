"""A served model with the Scorer's face.

    with Client("http://127.0.0.1:8000") as client:
        result = client.score("clip.mp4", prompt="a red ball rolls to the left")

In: videos as `Scorer` takes them, which are uploaded. Out: `ServedScore` records. A busy server (503) is asked
again; no other request is repeated."""

import base64
import io
import json
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from descore.errors import ConfigError, DescoreError, VideoError, how_to_install
from descore.rubric import check_prompt
from descore.scorer import Request
from descore.serving.problems import STATUS, ServiceError
from descore.serving.schema import CompareAnswer, ErrorBody, ServedScore
from descore.video.reader import rgb_frames

if TYPE_CHECKING:
    import httpx2

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0
"""Seconds before a busy server is asked again: doubled each time, and never less than it says."""

_Answer = TypeVar("_Answer", bound=BaseModel)


class Client:
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
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url is {url!r}; expected http://HOST:PORT")
        api_key = os.environ.get("DESCORE_API_KEY") if api_key is None else api_key
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url, self.model, self.retries, self.concurrency = url, model, retries, concurrency
        try:
            self._httpx = import_module("httpx2")
        except ModuleNotFoundError:
            raise ConfigError(f"descore.Client needs httpx2; {how_to_install('serve')}") from None
        self._http: httpx2.Client = self._httpx.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )

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
        body, files = self._body({"video": video}, prompt, fps, sampling_params)
        return self._post("/v1/score", body, files, ServedScore)

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

        def outcome(request: Request | tuple[Any, str]) -> ServedScore | DescoreError:
            one = request if isinstance(request, Request) else Request(video=request[0], prompt=request[1])
            try:
                return self.score(
                    one.video, prompt=one.prompt, fps=fps if one.fps is None else one.fps, **sampling_params
                )
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
        body, files = self._body({"a": a, "b": b}, prompt, fps, sampling_params)
        return self._post("/v1/compare", body, files, CompareAnswer)

    def models(self) -> list[str]:
        """The names of the server's models, the default one first."""
        answer = self._ask(lambda: self._http.get("/v1/models"))
        return [card["name"] for card in answer.json()["models"]]

    def _body(
        self, videos: Mapping[str, Any], prompt: str, fps: float | None, sampling_params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
        """The fields of a request, and the files of those videos that are files."""
        body = {"prompt": check_prompt(prompt), "model": self.model, **sampling_params}
        files: dict[str, tuple[str, bytes]] = {}
        for key, video in videos.items():
            content = _content(video)
            if content is None:
                body[key] = _frames(video, fps)
            elif fps is not None:
                raise ConfigError(f"fps={fps:g} given, but a file states its own times")
            else:
                files[key] = content
        if files and len(files) < len(videos):
            raise ConfigError("one video is a file and the other one frames; give both as files or both as frames")
        return {key: value for key, value in body.items() if value is not None}, files

    def _post(
        self, path: str, body: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]], form: type[_Answer]
    ) -> _Answer:
        if files:
            fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}
            answer = self._ask(lambda: self._http.post(path, data=fields, files=dict(files)))
        else:
            answer = self._ask(lambda: self._http.post(path, json=dict(body)))
        try:
            return form.model_validate_json(answer.content)
        except ValidationError:
            raise ServiceError("internal", f"{self.url}: answers something else than descore serve") from None

    def _ask(self, send: "Callable[[], httpx2.Response]") -> "httpx2.Response":
        """An answer that is none of the errors. A busy server is asked again, after a while."""
        for attempt in range(self.retries + 1):
            answer = self._sent(send)
            if answer.status_code != STATUS["busy"] or attempt == self.retries:
                break
            time.sleep(_pause(answer.headers.get("retry-after", ""), attempt))
        if answer.is_success:
            return answer
        raise self._error_of(answer)

    def _sent(self, send: "Callable[[], httpx2.Response]") -> "httpx2.Response":
        try:
            return send()
        except self._httpx.TimeoutException as error:
            raise ServiceError("busy", f"{self.url}: no answer in time; raise the client's timeout") from error
        except self._httpx.HTTPError as error:
            raise ServiceError("internal", f"{self.url}: cannot be asked ({error}); does descore serve run?") from error

    def _error_of(self, answer: "httpx2.Response") -> DescoreError:
        """The error of an answer, of the type that Scorer raises."""
        try:
            problem = ErrorBody.model_validate_json(answer.content).error
        except ValidationError:
            return ServiceError("internal", f"{self.url}: status {answer.status_code}; is it descore serve?")
        if problem.kind in ("no_video", "no_reward"):
            name, _, reason = problem.message.partition(": ")
            return VideoError(name, reason)
        if problem.kind == "request":
            return ConfigError(problem.message)
        return ServiceError(problem.kind, problem.message)


def _pause(retry_after: str, attempt: int) -> float:
    """Seconds until the next try: doubled each time, at least what the server says, and partly random."""
    wait: float = min(_FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT)
    least = float(retry_after) if retry_after.isdecimal() else 0.0
    return least + random.uniform(wait / 2, wait)


def _content(video: Any) -> tuple[str, bytes] | None:  # noqa: ANN401  # what read_clip takes
    """The name and the content of a video that is a file; None for frames."""
    if isinstance(video, bytes | bytearray | memoryview):
        return "<bytes>", bytes(video)
    if isinstance(video, io.IOBase):
        return "<file>", _rest_of(video)
    if not isinstance(video, str | Path):
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


def _frames(video: Any, fps: float | None) -> dict[str, Any]:  # noqa: ANN401
    """Frames from memory as PNG, which loses nothing."""
    if fps is None:
        raise ConfigError("frames from memory have no times; give their fps, in frames per second")
    return {"frames": [_png(frame) for frame in rgb_frames(video)], "fps": fps, "name": "<frames>"}


def _png(frame_HWC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
