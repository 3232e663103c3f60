"""Results as the JSON objects that --json prints and that runs keep, and what a run's files must hold.

In: a score or an error, with the clip it belongs to. Out: a dict of plain values, always with the same keys; an absent
value is None. What is read back is checked against a model of its file (`check_fields`)."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from descore.errors import DataError, DescoreError, VideoError
from descore.types import Mark, RatedClip, Score

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


_NAMED = 4
"""Missing fields that a message names."""


class _Fields(BaseModel):
    """The fields that a file must have, of just these types; others may stand beside them."""

    model_config = ConfigDict(strict=True)


class _Marks(_Fields):
    subject: Mark
    dynamics: Mark
    camera: Mark
    environment: Mark
    style: Mark


class ClipFields(_Fields):
    """A line of clips.jsonl. Rewards that are no numbers are failures: see `without_bad_reward`."""

    video: str
    prompt: str
    reward: object
    error: str | None
    rewards: dict[str, object] | None = None
    thinking: str | None = None
    marks: _Marks | None = None
    unknown: list[str] | None = None
    overall: float | None = None
    truncated: bool | None = None
    left_out: int | None = None
    seconds: float | None = None
    file: dict[str, object] | None = None


class _Figure(_Fields):
    value: float | None
    low: float | None
    high: float | None
    n: int
    failed: int


class _Tied(_Fields):
    figure: _Figure
    threshold: float | None
    tie_rate: float | None
    predicted_tie_rate: float | None
    fitted_on: str | None = None


class _Bin(_Fields):
    mean_probability: float
    share: float
    share_low: float | None
    share_high: float | None
    n: int


class _Calibration(_Fields):
    bins: list[_Bin]
    brier: _Figure
    ece: _Figure


class _Correlation(_Fields):
    all: dict[str, _Figure | None] | None
    within: dict[str, _Figure | None] | None


class _Spread(_Fields):
    shares: list[float]
    accuracy: list[_Figure]
    accuracy_margin: list[_Figure]


class _Agreement(_Fields):
    accuracy: _Figure
    with_ties: _Tied
    with_ties_held_out: _Tied | None = None
    with_tie_margin: _Tied | None = None
    spread: _Spread | None = None
    compatible: float | None = None
    calibration: _Calibration | None
    correlation: _Correlation | None = None


class _MarkFigures(_Fields):
    subject: _Figure
    dynamics: _Figure
    camera: _Figure
    environment: _Figure
    style: _Figure
    all: _Figure
    asked: _Figure


class _Failure(_Fields):
    video: str
    prompt: str
    error: str


class _Worst(_Fields):
    pair: int
    label: str
    margin: float


class ResultFields(_Fields):
    """The contents of results.json."""

    scored: int
    of: int
    failures: list[_Failure]
    truncated: int
    unreadable: int
    left_out: int | None = None
    partial_overall: int = 0
    seconds: float | None
    labels: dict[str, _Agreement]
    marks: _MarkFigures | None
    by_source: dict[str, dict[str, object]] | None = None
    by_aspect: dict[str, dict[str, _Figure]] | None = None
    worst: list[_Worst]


class _StressRowFields(_Fields):
    perturbation: str
    expected: str
    why: str
    figure: _Figure
    shift: float | None
    n: int


class StressFields(_Fields):
    """The contents of stress.json."""

    model: str
    think: str | None = None
    tolerance: float | None = None
    failures: list[dict[str, str]] = []
    rows: list[_StressRowFields]


class ConfigFields(_Fields):
    """The contents of run.json."""

    model: str
    benchmark: str
    digest: str | None = None
    paradigm: str | None = None
    think: str | None = None
    versions: dict[str, str] | None = None


class _Published(_Fields):
    model: str
    label: str
    figure: str
    value: float
    source: str


class LabelFields(_Fields):
    """The contents of labels.json, but for clips and pairs."""

    title: str
    licence: str
    published: list[_Published]
    clips: list[dict[str, object]]
    pairs: list[dict[str, object]]


def check_fields(value: object, kind: Any, *, file: Path, line: int = 1, advice: str) -> None:  # noqa: ANN401
    """Refuse a record of a file that lacks fields of a kind, or has them of other types. DataError with the first."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors(include_url=False)]
        missing = [place for place, fault in faults if fault["type"] == "missing"]
        reason = f"has no {', '.join(missing[:_NAMED])}" if missing else f"{faults[0][0]}: {faults[0][1]['msg']}"
        raise DataError(str(file), line, f"{reason}; {advice}") from None
    except RecursionError:
        raise DataError(str(file), line, f"has too many brackets inside each other; {advice}") from None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
