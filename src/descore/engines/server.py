"""An OpenAI-compatible server that has the export of a checkpoint, such as vLLM's: rewards by log-probabilities.

Frames travel without loss and with the times that the model reads. A server answers how it has read each request, and
gives log-probabilities of given tokens (`return_token_ids` and `logprob_token_ids`, as vLLM's does); one that does not
is refused, so that no reward is wrong."""

import os
import re
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

import httpx2
from PIL import Image

from descore.engines.exports import EngineCheckpoint, open_export
from descore.engines.two_requests import ChainTextError, TokenOutput, TokenRequest, TwoRequestEngine, suppressed_ids
from descore.errors import ConfigError, VideoError
from descore.model.chat import Chat, Tokens
from descore.types import Clip, Paradigm

API_KEY = "OPENAI_API_KEY"
"""The environment variable with a server's token, as the clients of OpenAI have it."""
TIMEOUT = 600.0
"""Seconds that a server may take for a chain."""
WAITS = (1.0, 3.0, 9.0)
"""Seconds before a request is sent again that a busy or failing server did not answer."""
_BUSY = (408, 409, 429, 500, 502, 503, 504)
_TIME = re.compile(r"<(\d+)\.(\d) seconds><\|vision_start\|>")


class ServerBackend:
    """See `two_requests.Backend`. `transport` and `waits` are for tests."""

    def __init__(
        self,
        address: str,
        checkpoint: EngineCheckpoint,
        *,
        transport: httpx2.BaseTransport | None = None,
        waits: Sequence[float] = WAITS,
    ) -> None:
        self.name, self.checkpoint, self._waits = address.rstrip("/"), checkpoint, waits
        key = os.environ.get(API_KEY)
        self._http = httpx2.Client(
            base_url=self.name,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(TIMEOUT, connect=10.0),
            transport=transport,
        )
        self._bias = {str(token): -100 for token in suppressed_ids(checkpoint)}
        rows = checkpoint.settings.vocabulary_rows
        self._read_ids = rows.ids if rows else []
        self._sent: set[str] = set()
        """Names of clips that the server has."""
        self.model, self.max_model_len = self._find_model()

    def send(self, requests: Sequence[TokenRequest]) -> list[TokenOutput | VideoError]:
        """All requests side by side: the server makes batches."""
        with ThreadPoolExecutor(max_workers=min(64, len(requests))) as pool:
            return list(pool.map(self._send_one, requests))

    def _find_model(self) -> tuple[str, int]:
        """The server's name of the checkpoint, and the tokens that it reads in all."""
        folder = self.checkpoint.folder.resolve().name
        listed = self._json(self._ask("GET", "/models"), "/models").get("data")
        known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        for one in known:
            if folder in (Path(str(one.get("id"))).name, Path(str(one.get("root"))).name):
                length = one.get("max_model_len")
                return str(one["id"]), length if isinstance(length, int) else self.checkpoint.longest
        names = ", ".join(str(one.get("id")) for one in known) or "nothing"
        raise ConfigError(
            f"{self.name}: serves {names}, expected {folder}; give --model the export that it serves, or start it with "
            f"--served-model-name {folder}"
        )

    def _send_one(self, request: TokenRequest) -> TokenOutput | VideoError:
        turn = request.turn
        if request.chain is not None and not is_said(self.checkpoint.chat, request.chain):
            return ChainTextError(turn.clip.source, "its text has other tokens, and a server is given text")
        try:
            answer = self._complete(request, with_frames=turn.uuid not in self._sent)
            self._sent.add(turn.uuid)
            return answer
        except _RequestError as fault:
            return VideoError(turn.clip.source, f"{self.name}: {fault}")

    def _complete(self, request: TokenRequest, *, with_frames: bool) -> TokenOutput:
        """The server's answer. One that has let go of a clip is given its frames again."""
        try:
            response = self._ask("POST", "/chat/completions", json=self._body(request, with_frames=with_frames))
        except _RequestError as fault:
            if with_frames or not fault.is_refusal:
                raise
            response = self._ask("POST", "/chat/completions", json=self._body(request, with_frames=True))
        return self._output_of(request, response)

    def _body(self, request: TokenRequest, *, with_frames: bool) -> dict[str, Any]:
        """Every setting is given: a server fills in what is not by the checkpoint's generation_config.json."""
        tenths = times_in_tenths(self.checkpoint.chat, request.turn.expanded_ids, frames=len(request.turn.clip.frames))
        body: dict[str, Any] = {
            "model": self.model,
            **messages_of(self.checkpoint.chat, request, with_frames=with_frames),
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_tokens,
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
            **{"return_token_ids": True, "return_tokens_as_token_ids": True},
            "media_io_kwargs": {"video": {"num_frames": -1, "fps": 10.0, "frames_indices": tenths}},
        }
        if request.chain is None:
            return {**body, "stop_token_ids": [self.checkpoint.chat.end_id], "logit_bias": self._bias}
        return {**body, "ignore_eos": True, "logprobs": True, "logprob_token_ids": self._read_ids}

    def _ask(self, method: str, path: str, **body: Any) -> httpx2.Response:  # noqa: ANN401
        """A response of status 200, asked for again while the server is busy. _RequestError for a request that it
        refuses or does not answer, ConfigError for what holds for all."""
        fault = _RequestError("does not answer")
        for wait in (*self._waits, None):
            try:
                response = self._http.request(method, path, **body)
                response.raise_for_status()
                response.json()
                return response
            except httpx2.ConnectError as error:
                fault = _RequestError(f"cannot be reached: {error}")
            except httpx2.HTTPStatusError as error:
                fault = self._refusal(error.response)
                if error.response.status_code not in _BUSY:
                    break
            except (httpx2.TransportError, httpx2.DecodingError, ValueError) as error:
                fault = _RequestError(f"does not answer: {str(error) or type(error).__name__}")
            if wait is not None:
                time.sleep(wait)
        if path == "/models":
            raise ConfigError(f"{self.name}: {fault}")
        raise fault

    def _refusal(self, response: httpx2.Response) -> "_RequestError":
        """The error of an answer that is none. ConfigError for a token or an address that is wrong."""
        reason = f"{response.status_code} {_message_of(response)}".strip()
        if response.status_code in (401, 403):
            raise ConfigError(f"{self.name}: {reason}; set its token in {API_KEY}")
        if response.status_code == 404 and not reason[4:]:
            raise ConfigError(f"{self.name}: is no OpenAI-compatible address; it mostly ends with /v1")
        if response.status_code == 400 and "media_io_kwargs" in reason:
            raise ConfigError(f"{self.name}: takes no times of frames; start vLLM's with --trust-request-mm-kwargs")
        return _RequestError(f"answers {reason}", is_refusal=response.status_code not in _BUSY)

    def _json(self, response: httpx2.Response, path: str) -> dict[str, Any]:
        content = response.json()
        if not isinstance(content, dict):
            raise ConfigError(f"{self.name}{path}: answers {type(content).__name__}, expected an object")
        return content

    def _output_of(self, request: TokenRequest, response: httpx2.Response) -> TokenOutput:
        answer = self._json(response, "/chat/completions")
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise _RequestError("answers without a choice")
        [choice] = choices
        prompt_ids, token_ids = answer.get("prompt_token_ids"), choice.get("token_ids")
        if not _are_tokens(prompt_ids) or not _are_tokens(token_ids):
            raise ConfigError(
                f"{self.name}: does not say which tokens it has read and written (return_token_ids); expected a server "
                "that does, such as vLLM 0.32"
            )
        if choice.get("finish_reason") not in ("stop", "length"):
            raise _RequestError(f"ended with {choice.get('finish_reason')!r}")
        logits = {} if request.chain is None else self._logits(choice)
        return TokenOutput(
            prompt_ids=list(prompt_ids),
            token_ids=list(token_ids),
            ended=choice["finish_reason"] == "stop",
            logits=logits,
        )

    def _logits(self, choice: Mapping[str, Any]) -> dict[int, float]:
        """The log-probabilities by token. ConfigError unless all that were asked for are there."""
        try:
            [position] = choice["logprobs"]["content"]
            found = {one["token"]: float(one["logprob"]) for one in position["top_logprobs"]}
            return {token: found[f"token_id:{token}"] for token in self._read_ids}
        except (KeyError, TypeError, ValueError) as fault:
            raise ConfigError(
                f"{self.name}: does not give log-probabilities of given tokens (logprob_token_ids); expected a server "
                "that does, such as vLLM 0.32"
            ) from fault


class _RequestError(Exception):
    """A request that has no answer. `is_refusal`: the server does not want it as it is."""

    def __init__(self, reason: str, *, is_refusal: bool = False) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal


def open_remote(address: str, source: str | Path, *, paradigm: Paradigm | None) -> TwoRequestEngine:
    """A server's engine for the export that it serves, or for a generative checkpoint. ConfigError for a server that
    does not answer, or serves something else."""
    checkpoint = open_export(source, paradigm=paradigm)
    backend = ServerBackend(address, checkpoint)
    longest = min(checkpoint.longest, backend.max_model_len)
    return TwoRequestEngine(checkpoint, backend, max_model_len=longest, dtype=checkpoint.dtype)


def messages_of(chat: Chat, request: TokenRequest, *, with_frames: bool) -> dict[str, Any]:
    """The conversation up to the chain, or with it and the query as far as the query. That text is the tokens of the
    request again is for the answer to say."""
    turn = request.turn
    video = {
        "type": "video_url",
        "uuid": turn.uuid,
        "video_url": {"url": frames_url(turn.clip)} if with_frames else None,
    }
    content = [video if part["type"] == "video" else part for part in chat.user_parts(turn.prompt)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if request.chain is None:
        return {"messages": messages, "add_generation_prompt": True}
    text = chat.tokenizer.decode(
        [*chat.before_query(request.chain), chat.query_id],
        skip_special_tokens=False,
        clean_up_tokenization_spaces=False,
    )
    if chat.layout == "chain and query in the user's turn":
        content[-1] = {"type": "text", "text": content[-1].get("text", "") + text}
    else:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
    return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}


def is_said(chat: Chat, chain: Tokens) -> bool:
    """Whether a chain's text has the chain's tokens: what was drawn by chance may be spelled in another way."""
    tail = [*chat.before_query(chain), chat.query_id]
    return bool(chat.tokenizer(_tail_text(chat, chain), add_special_tokens=False)["input_ids"] == tail)


def _tail_text(chat: Chat, chain: Tokens) -> str:
    """What stands behind the user's turn, as far as the query."""
    tail = [*chat.before_query(chain), chat.query_id]
    return str(chat.tokenizer.decode(tail, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def frames_url(clip: Clip) -> str:
    """The frames as vLLM takes frames that were sampled already. It opens each by its content, so that PNG, without
    loss, does for JPEG."""
    return "data:video/jpeg;base64," + ",".join(_png(frame) for frame in clip.frames)


def _png(frame: Any) -> str:  # noqa: ANN401
    file = BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return b64encode(file.getvalue()).decode()


def times_in_tenths(chat: Chat, expanded_ids: Tokens, *, frames: int) -> list[int]:
    """For each frame, the time that the model reads beside it, in tenths of a second: a whole number, as servers want
    a frame's number, at a rate of ten."""
    tenths = [10 * int(whole) + int(tenth) for whole, tenth in _TIME.findall(chat.tokenizer.decode(expanded_ids))]
    step = -(-frames // len(tenths))
    return [tenths[index // step] for index in range(frames)]


def _are_tokens(value: object) -> TypeGuard[Tokens]:
    return isinstance(value, list) and all(isinstance(token, int) for token in value)


def _message_of(response: httpx2.Response) -> str:
    """The one-line message of an error in OpenAI's form."""
    try:
        error = response.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (KeyError, TypeError, ValueError):
        return ""
    return " ".join(str(message).split())[:300]
