"""Results as the JSON objects that --json prints.

In: a result, and what was asked. Out: a dict of plain values, always with the same keys; what is absent is None.
Knows records; knows nothing of screens."""

import json
import math
from collections.abc import Mapping
from typing import Any

from descore.errors import VideoError
from descore.types import Score

KEYS = (
    "video",
    "prompt",
    "model",
    "reward",
    "score",
    "std",
    "thinking",
    "marks",
    "overall",
    "truncated",
    "fps",
    "times",
    "error",
)


def to_record(result: Score | VideoError, *, video: str, prompt: str, model: str) -> dict[str, Any]:
    """The record of one clip. `fps` is the source's, `times` are the sampled frames', in seconds; a mark of None is
    N/A; `error` says why there is no reward."""
    record: dict[str, Any] = dict.fromkeys(KEYS)
    record |= {"video": video, "prompt": prompt, "model": model}
    if isinstance(result, VideoError):
        return record | {"error": result.reason}
    verdict = result.verdict
    return record | {
        "reward": _number(result.reward),
        "score": _number(result.score),
        "std": _number(result.std),
        "thinking": result.thinking or None,
        "marks": None if verdict is None else dict(verdict.marks),
        "overall": None if verdict is None else _number(verdict.overall),
        "truncated": result.truncated,
        "fps": _number(result.clip.source_fps),
        "times": list(result.clip.times),
    }


def to_line(record: Mapping[str, Any]) -> str:
    """One line of JSON. ASCII only, so that any terminal and any file name can be written; never NaN."""
    return json.dumps(record, allow_nan=False)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
