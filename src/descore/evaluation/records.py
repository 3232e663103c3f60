"""Results as the JSON objects that --json prints and that runs keep.

In: a score or an error, with the clip it belongs to. Out: a dict of plain values, always with the same keys; an absent
value is None."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from descore.errors import DescoreError, VideoError
from descore.types import RatedClip, Score

Record = dict[str, Any]

KEYS = (
    "video",
    "prompt",
    "model",
    "reward",
    "score",
    "std",
    "thinking",
    "marks",
    "unknown",
    "overall",
    "partial_overall",
    "truncated",
    "left_out",
    "fps",
    "times",
    "error",
)
RUN_KEYS = (*KEYS, "rewards", "samples", "tokens", "seconds", "file")
"""A run's record also has the reward of each named dimension, how many chains gave one, the tokens of all chains, the
seconds it took, and the `file_stamp` of what was read; None where no file was."""


def to_record(result: Score | DescoreError, *, video: str, prompt: str, model: str) -> Record:
    """The record of one clip. `fps` is the source's, `times` are the sampled frames', in seconds.

    A mark of None is N/A, and `unknown` names the dimensions where that is since they cannot be known;
    `partial_overall` says that one of them is primary, so that the overall leaves out what matters most. `left_out`
    counts a generative model's chains without an answer that can be read, which have no part in the reward; `error`
    says why there is no reward."""
    asked = {"video": video, "prompt": prompt, "model": model}
    if isinstance(result, DescoreError):
        return dict.fromkeys(KEYS) | asked | {"error": error_text(result)}
    return result.to_dict() | asked


def to_run_record(result: Score | DescoreError, *, clip: RatedClip, model: str, seconds: float) -> Record:
    """The record of a benchmark's clip, with the keys of RUN_KEYS. `seconds` is its share of its batch's time."""
    record = dict.fromkeys(RUN_KEYS) | to_record(result, video=clip.video, prompt=clip.prompt, model=model)
    record["seconds"] = seconds
    if isinstance(result, DescoreError):
        return record
    tokens = sum(completion.num_tokens for completion in result.completions)
    return record | {"rewards": dict(result.rewards), "samples": len(result.completions), "tokens": tokens}


def plain_record(clip: RatedClip, *, model: str, rewards: Mapping[str, float] | None = None, **known: object) -> Record:
    """A run's record of a clip that no chain was written for. The reward is the mean of `rewards` unless it is among
    the `known` values; other keys than RUN_KEYS are refused."""
    if unknown := set(known) - set(RUN_KEYS):
        raise TypeError(f"no such keys in a record: {', '.join(sorted(unknown))}")
    record: Record = dict.fromkeys(RUN_KEYS)
    record |= {"video": clip.video, "prompt": clip.prompt, "model": model}
    if rewards:
        record |= {"rewards": dict(rewards), "reward": math.fsum(rewards.values()) / len(rewards)}
    return record | known


def without_bad_reward(record: Record) -> Record:
    """A run's record as it counts: one with an error, or with a reward that is no finite number, has failed."""
    if record["reward"] is None:
        return record if record.get("error") else record | {"error": "its record has no reward and no error"}
    rewards = [record["reward"], *(record.get("rewards") or {}).values()]
    bad = next((reward for reward in rewards if not _is_finite(reward)), None)
    if bad is None and not record.get("error"):
        return record
    return record | {
        "reward": None,
        "rewards": None,
        "error": record.get("error") or f"its reward is {bad!r}, no number",
    }


def file_stamp(path: Path) -> Record | None:
    """By which a file that has changed is told: its size in bytes, the time of its last change in nanoseconds, and a
    digest of its content. A folder's is of all files in it. None if there is no such file, or it cannot be read."""
    try:
        files, digest = _files_in(path), hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.relative_to(path).as_posix()}\n{content}\n".encode("utf-8", "surrogateescape"))
        return None if not files else {**_size_and_time(files), "digest": digest.hexdigest()[:16]}
    except OSError:
        return None


def is_unchanged(path: Path, stamp: Mapping[str, Any]) -> bool:
    """Whether a file is the one of a stamp. With the same size and time it is taken to be; else its content is read."""
    try:
        now = _size_and_time(_files_in(path))
    except OSError:
        return False
    if all(stamp.get(key) == value for key, value in now.items()):
        return True
    return now["size"] == stamp.get("size") and (file_stamp(path) or {}).get("digest") == stamp.get("digest")


def _files_in(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _size_and_time(files: Sequence[Path]) -> dict[str, int]:
    stats = [file.stat() for file in files]
    return {"size": sum(s.st_size for s in stats), "mtime_ns": max((s.st_mtime_ns for s in stats), default=0)}


def to_line(record: Mapping[str, Any]) -> str:
    """One line of JSON. ASCII only, so that any terminal and any file name can be written; never NaN."""
    return json.dumps(record, allow_nan=False)


def to_plain(value: object) -> Any:  # noqa: ANN401
    """Records, mappings and sequences as JSON knows them; a number that is not finite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def error_text(error: DescoreError) -> str:
    """Why a clip has no score, as its record's `error` says it."""
    return error.reason if isinstance(error, VideoError) else str(error)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
