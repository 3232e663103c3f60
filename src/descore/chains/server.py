"""A teacher behind an OpenAI-compatible server: one request, and what became of it.

    async with open_server(teacher, max_tokens=2048, timeout=300) as server:
        answer = await server.ask(body)

In: the body of a chat completion. Out: an `Answer`, or a `TeacherError` that says whether another try is worth it and
what the request may have cost. The key comes from the environment, and whatever leaves this module is without it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any

from descore.chains.config import TeacherConfig
from descore.chains.records import RequestFault
from descore.errors import ConfigError, DescoreError, how_to_install

_PACKAGES = ("openai", "aiolimiter", "yaml")
_MISSING_KEY = "not-needed"
"""The client wants a key also for servers that ask for none."""
_REASONING = ("reasoning_content", "reasoning")
"""Where servers put a model's reasoning: vLLM and DeepSeek, OpenRouter."""
_CHARACTERS_PER_TOKEN = 32
"""An answer with more characters than the limit of its tokens may have is not read to its end."""
_SPARE_CHARACTERS = 4096
_SHOWN = 200
"""Characters of a server's message that an error quotes."""
_AGAIN = {408, 409, 425, 429}
_REFUSED = {401: "refuses the key", 403: "does not permit this", 404: "has no such model or address"}
"""Status codes that every further request would get too."""
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a teacher wrote."""

    text: str
    thinking: str | None
    finish: str | None
    teacher: str
    tokens_in: int | None
    """None: the server did not state them."""
    tokens_out: int | None

    @property
    def tokens(self) -> tuple[int, int] | None:
        """In and out; None unless the server stated both."""
        return None if self.tokens_in is None or self.tokens_out is None else (self.tokens_in, self.tokens_out)


def fault_of_answer(answer: Answer) -> RequestFault | None:
    """Why what came to its end is no answer: the server's filter stopped it, or it is empty. An answer that was cut off
    at its limit is one, since another try would be cut off too."""
    if answer.finish == "content_filter":
        return RequestFault(kind="refused", message="the server's filter of contents stopped the answer")
    if not answer.text.strip() and answer.finish != "length":
        return RequestFault(kind="empty", message="the answer is empty")
    return None


class TeacherError(DescoreError):
    """A request that gave no answer."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        again: bool = False,
        billed: bool = False,
        tokens: tuple[int, int] | None = None,
        ends_run: bool = False,
        wait: float = 0.0,
    ) -> None:
        """kind: see `RequestFault`. again: another try may do. billed: the server may have counted tokens. tokens: in
        and out, where it stated them. ends_run: every other request would fail as well. wait: seconds that the server
        asks for."""
        super().__init__(message)
        self.kind, self.again, self.billed, self.tokens = kind, again, billed, tokens
        self.ends_run, self.wait = ends_run, wait


def require_packages(modules: Sequence[str] = _PACKAGES) -> None:
    """ConfigError if a package is missing that asking a server needs, or one of these."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigError(f"asking a teacher needs {', '.join(missing)}; {how_to_install('teacher')}")


def read_key(teacher: TeacherConfig) -> str | None:
    """The key that the settings name. ConfigError if the environment does not have it."""
    if teacher.api_key_env is None:
        return None
    key = os.environ.get(teacher.api_key_env, "").strip()
    if not key:
        raise ConfigError(f"teacher.api_key_env: the environment has no {teacher.api_key_env}; export it, with the key")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"teacher.api_key_env: {teacher.api_key_env} holds characters that no key has; export it anew"
        )
    return key


class Redactor:
    """Takes a key out of all texts."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, text: str) -> str:
        """The text with *** in place of the key."""
        return text.replace(self._key, "***") if self._key else text

    def answer(self, answer: Answer) -> Answer:
        """The answer without the key, which a server may have echoed."""
        return replace(
            answer,
            text=self(answer.text),
            thinking=answer.thinking and self(answer.thinking),
            finish=answer.finish and self(answer.finish),
            teacher=self(answer.teacher),
        )


class TeacherServer:
    """Asks one server. Tasks of one event loop share it."""

    def __init__(self, client: Any, *, model: str, max_tokens: int, timeout: float, redact: Redactor) -> None:  # noqa: ANN401
        self._client, self._model, self._timeout, self._redact = client, model, timeout, redact
        self._most = max_tokens * _CHARACTERS_PER_TOKEN + _SPARE_CHARACTERS

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """The answer to one request. TeacherError if there is none."""
        with self._teacher_errors():
            async with asyncio.timeout(self._timeout):
                return self._redact.answer(await self._stream(body))
        raise AssertionError("an error that is neither raised nor an answer")

    async def _stream(self, body: Mapping[str, Any]) -> Answer:
        stream = await self._client.chat.completions.create(
            **{name: value for name, value in body.items() if name in ("model", "messages")},
            extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            collected = _Collected(model=self._model, most=self._most)
            async for chunk in stream:
                collected.add(chunk)
            return collected.answer()

    @contextmanager
    def _teacher_errors(self) -> Iterator[None]:
        """Errors of the client as TeacherErrors, without the key and without the request."""
        import httpx2
        import openai

        try:
            yield
        except TeacherError:
            raise
        except (TimeoutError, openai.APITimeoutError):
            raise TeacherError(
                "timeout", f"no answer within {self._timeout:g} s; raise limits.timeout", again=True, billed=True
            ) from None
        except openai.APIStatusError as error:
            raise self._of_status(error) from None
        except openai.APIConnectionError as error:
            cause = self._redact(str(error.__cause__ or error))[:_SHOWN]
            raise _of_connection(error, cause) from None
        except (openai.APIError, httpx2.HTTPError) as error:  # an error inside of the stream, or its end
            reason = self._redact(str(error))[:_SHOWN]
            raise TeacherError("cut", f"the stream broke off: {reason}", again=True, billed=True) from None
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # of the client, given something else
            kind = type(error).__name__
            raise TeacherError(
                "format", f"what came is no chat completion ({kind}); is it such a server?", again=True, billed=True
            ) from None

    def _of_status(self, error: Any) -> TeacherError:  # noqa: ANN401  # openai's class, which is imported late
        status, reason = error.status_code, self._redact(_reason_of(error))[:_SHOWN]
        if status in _REFUSED or any(code in reason or code == error.code for code in _NO_MONEY):
            what = _REFUSED.get(status, "has no credit left")
            return TeacherError("refused", f"the server {what} ({status}): {reason}", ends_run=True)
        wait = _retry_after(error.response.headers)
        if status == 429:
            return TeacherError("limited", f"the server is asked too often (429): {reason}", again=True, wait=wait)
        if status >= 500 or status in _AGAIN:
            return TeacherError("server", f"the server failed ({status}): {reason}", again=True, wait=wait)
        return TeacherError("refused", f"the server refuses the request ({status}): {reason}")


def _of_connection(error: Any, cause: str) -> TeacherError:  # noqa: ANN401
    """A request that did not reach the server, or whose answer broke off."""
    import httpx2

    if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return TeacherError(
            "unreachable", f"the server cannot be reached ({cause}); is teacher.base_url right?", again=True
        )
    return TeacherError("cut", f"the connection broke off: {cause}", again=True, billed=True)


def _reason_of(error: Any) -> str:  # noqa: ANN401
    """The server's own message, in one line."""
    body = error.body if isinstance(error.body, Mapping) else {}
    return " ".join(str(body.get("message") or error.message).split())


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: a number, or the time to wait for (RFC 9110, section 10.2.3)."""
    milliseconds, text = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for value, unit in ((milliseconds, 1000.0), (text, 1.0)):
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            continue
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0


class _Collected:
    """The pieces of one answer."""

    def __init__(self, *, model: str, most: int) -> None:
        self._texts: dict[str, list[str]] = {"text": [], "thinking": []}
        self._model, self._most, self._length = model, most, 0
        self._finish: str | None = None
        self._usage: Any = None
        self._begun = False

    def add(self, chunk: Any) -> None:  # noqa: ANN401  # of the client
        self._begun = True
        self._usage = getattr(chunk, "usage", None) or self._usage
        self._model = getattr(chunk, "model", None) or self._model
        for choice in (chunk.choices or [])[:1]:
            extra = choice.delta.model_extra or {}
            self._append("text", choice.delta.content)
            self._append("thinking", next((extra[name] for name in _REASONING if extra.get(name)), None))
            self._finish = choice.finish_reason or self._finish

    def _append(self, name: str, piece: Any) -> None:  # noqa: ANN401
        if piece is None:
            return
        if not isinstance(piece, str):
            raise TypeError(f"a piece of type {type(piece).__name__}")
        self._texts[name].append(piece)
        self._length += len(piece)
        if self._length > self._most:
            raise TeacherError(
                "too_much", f"the answer has over {self._most:,} characters, more than its limit of tokens", billed=True
            )

    def answer(self) -> Answer:
        if not self._begun:
            message = "no piece of a streamed chat completion came; is teacher.base_url the address of such a server?"
            raise TeacherError("format", message, again=True, billed=True)
        if self._finish is None:
            raise TeacherError("cut", "the stream ended before the answer did", again=True, billed=True)
        answer = Answer(
            text="".join(self._texts["text"]),
            thinking="".join(self._texts["thinking"]) or None,
            finish=self._finish,
            teacher=str(self._model),
            tokens_in=_count(self._usage, "prompt_tokens"),
            tokens_out=_count(self._usage, "completion_tokens"),
        )
        if fault := fault_of_answer(answer):
            raise TeacherError(
                fault.kind, fault.message, again=fault.kind == "empty", billed=True, tokens=answer.tokens
            )
        return answer


def _count(usage: Any, name: str) -> int | None:  # noqa: ANN401
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


@asynccontextmanager
async def open_server(teacher: TeacherConfig, *, max_tokens: int, timeout: float) -> AsyncIterator[TeacherServer]:
    """The server of the settings. ConfigError without its packages or its key."""
    require_packages()
    import openai

    key = read_key(teacher)
    async with openai.AsyncOpenAI(
        api_key=key or _MISSING_KEY,
        base_url=teacher.base_url or "https://api.openai.com/v1",
        timeout=timeout,
        max_retries=0,  # repeated here, where each try is in the ledger
    ) as client:
        yield TeacherServer(client, model=teacher.model, max_tokens=max_tokens, timeout=timeout, redact=Redactor(key))
