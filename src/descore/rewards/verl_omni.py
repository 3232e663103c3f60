"""A reward for verl-omni.

`verl_omni/reward_loop/reward_manager/multi.py` calls `compute_score(data_source, solution_image, ground_truth,
extra_info, ...)` once for each sample, many at once under asyncio; further keys of the YAML come as keyword arguments:

    reward:
      reward_functions:
        descore:
          path: pkg://descore.rewards.verl_omni
          name: compute_score                   # or compute_score_sync
          required: true                        # else the trainer counts an error as a reward of 0
          model: path/to/checkpoint
          fps: 16

The prompt is `ground_truth`, as in the trainer's own video rewards, or `extra_info[prompt_key]`; a clip's own
`extra_info["fps"]` counts where the YAML has no fps."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any

from torch import Tensor

from descore.errors import ConfigError, DescoreError, short_repr
from descore.rewards.adapter import adapter_settings, open_reward
from descore.rewards.batcher import CallBatcher
from descore.rewards.function import RewardFunction
from descore.scorer import Scorer

GATHER_SECONDS = 0.02
"""Seconds that a call waits for others where the model is idle."""

_YAML = "{} below reward.reward_functions.descore"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sample:
    video: Tensor
    prompt: str
    fps: float | None


_Batcher = CallBatcher[_Sample, dict[str, float]]
_batchers: dict[tuple[object, ...], _Batcher] = {}
_lock = threading.Lock()


async def compute_score(
    data_source: object = None,  # noqa: ARG001  # the name of the data set
    solution_image: Tensor | None = None,
    ground_truth: object = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    prompt_key: str | None = None,
    model: str | Scorer | None = None,
    fps: float | None = None,
    think: str | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    max_chain_tokens: int | None = None,
    normalize: str | None = None,
    weights: Mapping[str, float] | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> dict[str, float]:
    """One sample's `score` and the terms that it is made of, as metrics; concurrent calls are scored as batches.

    solution_image: the video (T, C, H, W) or picture (C, H, W), uint8, or floats in [0, 1]. The others: see
    `AdapterSettings`. A clip without a reward raises its error, and the others of its batch have theirs."""
    settings = {
        "model": model, "fps": fps, "think": think, "samples": samples, "temperature": temperature, "seed": seed,
        "max_chain_tokens": max_chain_tokens, "normalize": normalize, "weights": weights, "batch_size": batch_size,
        "device": device, "dtype": dtype,
    }  # fmt: skip
    batcher, sample = _prepared(solution_image, ground_truth, extra_info, prompt_key=prompt_key, **settings)
    return await batcher.result_async(sample)


@wraps(compute_score)
def compute_score_sync(*inputs: Any, **settings: Any) -> dict[str, float]:  # noqa: ANN401
    """The same for callers that are not asynchronous, such as the threads of an executor; they share the batches."""
    given = signature(compute_score).bind(*inputs, **settings).arguments
    given.pop("data_source", None)
    batcher, sample = _prepared(**{"solution_image": None, "ground_truth": None, "extra_info": None, **given})
    return batcher.result(sample)


def _prepared(
    solution_image: Tensor | None,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None,
    *,
    prompt_key: str | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[_Batcher, _Sample]:
    info = extra_info or {}
    sample = _Sample(
        video=_video(solution_image),
        prompt=_prompt(ground_truth if prompt_key is None else info.get(prompt_key), prompt_key),
        fps=_fps(info.get("fps")) if settings.get("fps") is None else None,
    )
    return _batcher_of(settings), sample


def _fps(value: Any) -> float | None:  # noqa: ANN401  # a number, or an array of one
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"extra_info['fps'] is {short_repr(value)}; expected frames per second") from None


def _video(solution_image: Tensor | None) -> Tensor:
    if solution_image is None or solution_image.ndim not in (3, 4):
        shown = "nothing" if solution_image is None else f"shape {tuple(solution_image.shape)}"
        raise ConfigError(f"solution_image has {shown}; expected a video (T, C, H, W) or a picture (C, H, W)")
    return solution_image if solution_image.ndim == 4 else solution_image[None]


def _prompt(value: object, key: str | None) -> str:
    if isinstance(value, str):
        return value
    place = "ground_truth" if key is None else f"extra_info[{key!r}]"
    raise ConfigError(
        f"{place} is {short_repr(value)}; expected the prompt, or write prompt_key: its key in extra_info"
    )


def _batcher_of(settings: Mapping[str, Any]) -> _Batcher:
    """The batcher of some settings; the model is opened by its first batch, and no event loop waits for it."""
    model, chosen = settings.get("model"), adapter_settings(**settings)
    key = (chosen.model_dump_json(), id(model) if isinstance(model, Scorer) else None)
    with _lock:
        if key not in _batchers:
            _batchers[key] = CallBatcher(_Opened(settings).score, window=GATHER_SECONDS, max_size=chosen.batch_size)
        return _batchers[key]


class _Opened:
    """A reward that is opened when it is first asked for, in the batcher's thread."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.reward: RewardFunction | None = None

    def score(self, batch: Sequence[_Sample]) -> list[dict[str, float] | DescoreError]:
        """A dict or an error for each sample. What only fails together is tried one by one."""
        if self.reward is None:
            self.reward = open_reward(_YAML, layout="TCHW", on_error="nan", needs_fps=False, **self.settings)
        try:
            return _scored(self.reward, batch)
        except ConfigError as fault:  # of a video's type or axes: a batch is refused as a whole
            return [fault] if len(batch) == 1 else [result for one in batch for result in self.score([one])]


def _scored(reward: RewardFunction, batch: Sequence[_Sample]) -> list[dict[str, float] | DescoreError]:
    rates = [reward.fps if sample.fps is None else sample.fps for sample in batch]
    if None in rates:
        line = _YAML.format("fps: 16")
        raise ConfigError(f"no fps is given; write {line} with your videos' own, or extra_info['fps'], or DESCORE_FPS")
    result = reward(
        videos=[sample.video for sample in batch],
        prompts=[sample.prompt for sample in batch],
        fps=[rate for rate in rates if rate is not None],
    )
    rows = [
        {"score": float(result.rewards[index]), **{name: float(term[index]) for name, term in result.terms.items()}}
        for index in range(len(result))
    ]
    return [result.errors.get(index, row) for index, row in enumerate(rows)]
