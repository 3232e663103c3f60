"""What all adapters share: a user's settings, and one model for all that ask for the same.

In: keyword arguments, or where a trainer hands on none, environment variables of the same names in capitals behind
DESCORE_ (DESCORE_MODEL, DESCORE_FPS, ...). A keyword argument goes before its variable. Out: a `RewardFunction`."""

import json
import os
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor

from descore.errors import ConfigError
from descore.rewards.frames import OVERSHOOT, Range
from descore.rewards.function import RewardFunction
from descore.rewards.monitor import RewardMonitor
from descore.rewards.terms import Normalize
from descore.scorer import SamplingParams, Scorer

ENVIRONMENT = "DESCORE_"
"""What the names of the environment variables begin with."""

_TEXTS = ("model", "device", "dtype", "think", "normalize")
"""The settings whose variable is taken as it stands; all others are written as in JSON."""

UNIT: Range = (0, 1)
"""The range of the floating point frames of most trainers."""


class AdapterSettings(SamplingParams):
    """The settings of an adapter."""

    model_config = ConfigDict(title="descore settings")

    model: str | None = None
    """A checkpoint's folder or hub id, or `tiny`. Without one there is no reward."""
    fps: PositiveFloat | None = None
    """Frames per second of the generated videos. Trainers hand on frames without it, so it has no default."""
    device: str | None = None
    """Where the model is. None: where the trainer says, else a GPU if there is one."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """The model's precision. None: bfloat16 on a GPU, float32 on a CPU."""
    batch_size: PositiveInt = 8
    """Clips that the model scores at once."""
    normalize: Normalize = "checkpoint"
    """By the checkpoint's mean and deviation, by those of the rewards so far (`running`), or not at all (`none`)."""
    weights: dict[str, float] | None = None
    """Of the reward's terms by name; None: the head's reward alone."""
    overshoot: float = Field(default=OVERSHOOT, ge=0, lt=1)
    """Values beyond the range by up to this share of it are clamped; a clip with others has no reward."""
    allow_untrained: bool = False
    """Accept a head that was never trained, whose rewards are noise."""


_scorers: dict[tuple[object, ...], Scorer] = {}
_loading = threading.Lock()


def open_reward(
    call: str,
    *,
    layout: str | None = None,
    range: Range | None = UNIT,  # as in RewardFunction
    on_error: Literal["nan", "raise"] = "raise",
    needs_fps: bool = True,
    monitor: RewardMonitor | None = None,
    **settings: Any,  # noqa: ANN401
) -> RewardFunction:
    """The reward function of some settings. The same model, device, precision and batch size are opened once.

    call: the line that a user writes, with {} where settings go, for messages. needs_fps: the trainer's media do not
    state their frames per second. monitor: counts the rewards. settings: fields of `AdapterSettings`; None is as good
    as left out; `model` may also be a Scorer.
    Settings that cannot be used, no model, and no fps where it is needed raise ConfigError."""
    model, chosen = settings.get("model"), adapter_settings(**settings)
    _check_given(chosen, call, needs_fps=needs_fps)
    return RewardFunction(
        model if isinstance(model, Scorer) else shared_scorer(chosen),
        fps=chosen.fps,
        layout=layout,
        range=range,
        overshoot=chosen.overshoot,
        normalize=chosen.normalize,
        weights=chosen.weights,
        monitor=monitor,
        on_error=on_error,
        allow_untrained=chosen.allow_untrained,
        **{name: getattr(chosen, name) for name in SamplingParams.model_fields},
    )


def adapter_settings(**settings: Any) -> AdapterSettings:  # noqa: ANN401
    """The settings that are given, and those of the environment. None is as good as left out."""
    given = {**_from_environment(), **{name: value for name, value in settings.items() if value is not None}}
    return AdapterSettings(**{name: _plain(value) for name, value in given.items()})


def shared_scorer(settings: AdapterSettings) -> Scorer:
    """The scorer of these settings, opened when it is first asked for: trainers make a reward for training and another
    for evaluation, and a model fits into memory once."""
    key = (settings.model, settings.device, settings.dtype, settings.batch_size)
    with _loading:
        if key not in _scorers:
            assert settings.model is not None
            _scorers[key] = Scorer.from_pretrained(
                settings.model,
                device=settings.device,
                dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
                batch_size=settings.batch_size,
            )
        return _scorers[key]


def array_layout(frames: object) -> str | None:
    """The layout of a batch of frames, or of a list of clips, where their type says it: tensors have their colours
    before the pixels, arrays behind them. Without T for pictures; None for what is neither."""
    if isinstance(frames, list | tuple) and frames:
        inner = array_layout(frames[0][None]) if isinstance(frames[0], Tensor | np.ndarray) else None
        return inner and inner.removeprefix("B")
    if isinstance(frames, Tensor):
        return {5: "BTCHW", 4: "BCHW"}.get(frames.ndim)
    if isinstance(frames, np.ndarray):
        return {5: "BTHWC", 4: "BHWC"}.get(frames.ndim)
    return None


def trainers_own(module: str, name: str, *, otherwise: Any) -> Any:  # noqa: ANN401  # a class that need not be there
    """A trainer's class, such as the base of its rewards, or ours of the same face where it is not installed."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as fault:
        if (fault.name or "").split(".")[0] != module.split(".")[0]:
            raise  # the trainer is there, and lacks something
        return otherwise


def _from_environment() -> dict[str, Any]:
    variables = {name: os.environ.get(ENVIRONMENT + name.upper(), "") for name in AdapterSettings.model_fields}
    return {name: text if name in _TEXTS else _from_json(text) for name, text in variables.items() if text}


def _from_json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text  # which the settings then refuse, by name
    return value


def _plain(value: object) -> Any:  # noqa: ANN401  # what the settings check
    """A value as the settings have it: the names of models, devices and types, and a dict for a mapping."""
    if isinstance(value, Scorer):
        return value.name
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return str(value) if isinstance(value, torch.device | os.PathLike) else value


def _check_given(settings: AdapterSettings, call: str, *, needs_fps: bool) -> None:
    if settings.model is None:
        line = call.format("model='path/to/checkpoint'")
        raise ConfigError(f"no model is given; write {line}, or set {ENVIRONMENT}MODEL")
    if settings.fps is None and needs_fps:
        line = call.format("fps=16")
        raise ConfigError(
            f"no fps is given, and the trainer's frames do not state it; write {line} with the frames per second that "
            f"your videos have, or set {ENVIRONMENT}FPS"
        )
