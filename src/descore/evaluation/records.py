"""Results as the JSON objects that --json prints and that runs keep.

In: a score or an error, with the clip it belongs to. Out: a dict of plain values, always with the same keys; an absent
value is None."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
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
RUN_KEYS = (*KEYS, "rewards", "tokens", "seconds")
"""A run's record also has the reward of each named dimension, the tokens of all chains, and the seconds it took."""


def to_record(result: Score | VideoError, *, video: str, prompt: str, model: str) -> Record:
    """The record of one clip. `fps` is the source's, `times` are the sampled frames', in seconds.

    A mark of None is N/A, and `unknown` names the dimensions where that is since they cannot be known;
    `partial_overall` says that one of them is primary, so that the overall leaves out what matters most. `left_out`
    counts a generative model's chains without an answer that can be read, which have no part in the reward; `error`
    says why there is no reward."""
    asked = {"video": video, "prompt": prompt, "model": model}
    if isinstance(result, VideoError):
        return dict.fromkeys(KEYS) | asked | {"error": result.reason}
    return result.to_dict() | asked


def to_run_record(result: Score | VideoError, *, clip: RatedClip, model: str, seconds: float) -> Record:
    """The record of a benchmark's clip, with the keys of RUN_KEYS. `seconds` is its share of its batch's time."""
    record = dict.fromkeys(RUN_KEYS) | to_record(result, video=clip.video, prompt=clip.prompt, model=model)
    record["seconds"] = seconds
    if isinstance(result, VideoError):
        return record
    return record | {"rewards": dict(result.rewards), "tokens": sum(c.num_tokens for c in result.completions)}


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
