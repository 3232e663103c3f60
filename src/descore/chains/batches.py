"""A teacher by batch files, at half the price: requests as OpenAI's Batch API takes them, and their results read back.

    batches/requests-0001.jsonl    what is asked: {"custom_id", "method", "url", "body"} a line
    batches/NAME.jsonl             what came back, under any other name: {"custom_id", "response", "error"} a line

In: tasks, and the numbers of their chains that are missing. Out: request files, and the outcome of each result to a
callback. What is in a request file and has no result yet is waited for; to ask it anew, remove the file."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descore.chains.asking import ChainOutcome, KeepOutcome, MissingChains, show_clip
from descore.chains.config import CollectConfig
from descore.chains.ledger import Ledger
from descore.chains.messages import chat_body
from descore.chains.records import RequestFault
from descore.chains.server import Answer, fault_of_answer
from descore.chains.tasks import AskedWith, ChainTask
from descore.errors import DataError, VideoError
from descore.io import atomic_write, parse_json_object

MOST_REQUESTS, MOST_BYTES = 50_000, 190 * 1024 * 1024
"""Of one file. OpenAI takes 50,000 requests and 200 MB."""
_URL = "/v1/chat/completions"
_REQUESTS = re.compile(r"requests-(\d+)\.jsonl")
_ID = re.compile(rb'\{"custom_id": "[0-9a-f]+-(\d+)"')


@dataclass(slots=True)
class BatchFiles:
    """What a session has written and read."""

    written: list[Path] = field(default_factory=list)
    requests: int = 0
    """In the files that were written."""
    waiting: int = 0
    """Requests in earlier files that have no result yet."""
    stopped: str | None = None


def read_results(
    folder: Path, missing: Sequence[MissingChains], *, teacher: str, ledger: Ledger, keep: KeepOutcome
) -> None:
    """Hand on the results in the folder that are waited for. DataError for a line that is no result."""
    by_key = {task.keys[number]: (task, number) for task, numbers in missing for number in numbers}
    for file in sorted(folder.glob("*.jsonl")):
        if _REQUESTS.fullmatch(file.name):
            continue
        for line, record in _records(file):
            name = record.get("custom_id")
            if not isinstance(name, str) or not {"response", "error"} & record.keys():
                raise DataError(str(file), line, "is no result of a batch; expected custom_id, response and error")
            key, _, number = name.partition("-")
            place = int(number) if number.isdecimal() else -1
            if key in by_key and ledger.open_key(place) == key:
                outcome = _outcome_of(record, teacher, ledger, place, file=file, line=line)
                keep(*by_key[key], outcome)
                ledger.settle(place, tokens_in=outcome.tokens_in, tokens_out=outcome.tokens_out)


def write_requests(
    folder: Path,
    missing: Iterable[MissingChains],
    config: CollectConfig,
    asked_with: AskedWith,
    *,
    ledger: Ledger,
    keep: KeepOutcome,
) -> BatchFiles:
    """Write request files for what is missing and not waited for, as far as the budget has room. A clip that cannot be
    read is an outcome at once.

    Each request is reserved before its file is written; what a kill leaves without a file costs nothing."""
    files, lines = BatchFiles(), list[bytes]()
    asked = _release_lost(folder, ledger)
    for task, number, body, tokens_in in _bodies(missing, config, asked_with, asked, files, keep):
        key = task.keys[number]
        place = ledger.reserve(key, tokens_in=tokens_in, tokens_out=asked_with.max_tokens)
        if place is None:
            files.stopped = f"the budget of {config.limits.budget:g}, which has no room for another request"
            break
        line = _request_line(f"{key}-{place}", body)
        if lines and (sum(map(len, lines)) + len(line) > MOST_BYTES or len(lines) == MOST_REQUESTS):
            _write_file(folder, lines, files)
            lines = []
        lines.append(line)
    if lines:
        _write_file(folder, lines, files)
    return files


def _bodies(
    missing: Iterable[MissingChains],
    config: CollectConfig,
    asked_with: AskedWith,
    asked: set[str],
    files: BatchFiles,
    keep: KeepOutcome,
) -> Iterator[tuple[ChainTask, int, dict[str, Any], int]]:
    """Each request that is in no file yet, with the most tokens that it takes."""
    for task, numbers in missing:
        files.waiting += sum(task.keys[number] in asked for number in numbers)
        new = [number for number in numbers if task.keys[number] not in asked]
        if not new:
            continue
        try:
            prepared = show_clip(task, config, asked_with)
        except VideoError as error:
            for number in new:
                keep(task, number, ChainOutcome(answer=None, fault=RequestFault(kind="unreadable", message=str(error))))
            continue
        for number in new:
            seed = config.teacher.seed + number
            body = chat_body(config.teacher, prepared.content, seed=seed, max_tokens=asked_with.max_tokens)
            yield task, number, body, math.ceil(prepared.estimate.most)


def _request_line(name: str, body: Mapping[str, Any]) -> bytes:
    record = {"custom_id": name, "method": "POST", "url": _URL, "body": body}
    return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def _write_file(folder: Path, lines: Sequence[bytes], files: BatchFiles) -> None:
    numbers = [int(match[1]) for path in folder.glob("*.jsonl") if (match := _REQUESTS.fullmatch(path.name))]
    path = folder / f"requests-{max(numbers, default=0) + 1:04d}.jsonl"
    atomic_write(path, b"".join(lines))
    files.written.append(path)
    files.requests += len(lines)


def _release_lost(folder: Path, ledger: Ledger) -> set[str]:
    """The keys that are waited for: under way in the ledger, and in a request file. What is under way and in no file
    was never sent, and costs nothing."""
    in_files: set[int] = set()
    for path in folder.glob("*.jsonl"):
        if _REQUESTS.fullmatch(path.name):
            with path.open("rb") as file:
                in_files |= {int(match[1]) for line in file if (match := _ID.match(line))}
    waiting: set[str] = set()
    for key, place in ledger.places():
        if place in in_files:
            waiting.add(key)
        else:
            ledger.settle(place, tokens_in=0, tokens_out=0)
    return waiting


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, parse_json_object(line.rstrip(), file=file, line=number)


def _outcome_of(
    record: Mapping[str, Any], teacher: str, ledger: Ledger, place: int, *, file: Path, line: int
) -> ChainOutcome:
    response = record.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    if not isinstance(response, Mapping) or not isinstance(body, Mapping) or response.get("status_code") != 200:
        return ChainOutcome(answer=None, fault=RequestFault(kind="refused", message=_reason(record, body)))
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        message = choice["message"]
        tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        answer = Answer(
            text=str(message["content"] or ""),
            thinking=message.get("reasoning_content") or message.get("reasoning") or None,
            finish=choice.get("finish_reason"),
            teacher=str(body.get("model") or teacher),
            tokens_in=tokens[0],
            tokens_out=tokens[1],
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(str(file), line, "has no chat completion; expected choices with a message, and usage") from None
    cost, fault = ledger.cost_of(place, tokens), fault_of_answer(answer)
    known = None if fault else answer
    return ChainOutcome(answer=known, fault=fault, tokens_in=tokens[0], tokens_out=tokens[1], cost=cost)


def _reason(record: Mapping[str, Any], body: object) -> str:
    """Why a request of a batch has no answer, in the words of whoever ran it."""
    error: Any = (body.get("error") if isinstance(body, Mapping) else None) or record.get("error")
    if isinstance(error, Mapping) and isinstance(error.get("error"), Mapping):
        error = error["error"]  # vLLM puts the whole answer of a refused request here
    message = error.get("message") or error.get("code") if isinstance(error, Mapping) else error
    return f"the batch has no answer to it: {' '.join(str(message).split())[:200]}"
