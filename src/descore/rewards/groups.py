"""Rewards that compare the clips of one prompt: how often each is preferred to the others of its group."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descore.errors import ConfigError, short_repr
from descore.types import preference_probability


def win_rates(
    rewards: Sequence[float | None] | Tensor,
    std: Sequence[float | None] | Tensor | None = None,
    *,
    groups: Sequence[Hashable] | Tensor | None = None,
) -> Tensor:
    """Mean probability (B), float32, that each clip is preferred to the others of its group (Bradley & Terry 1952): the
    pairwise reward of Pref-GRPO, without a judge's call for each pair.

    rewards: (B); only differences within a group matter, so raw rewards, on whose scale the head was trained.
    std: (B), the standard deviation of each reward; the more uncertain two are, the nearer their probability is to 1/2.
    A deviation that is not known (NaN or None, as that of a single chain) counts as 0.
    groups: (B), what the clips of one group share, such as the prompt; without them all are one group.
    A reward that is NaN or None has no rate, and is nobody's opponent; a clip without an opponent has none either: NaN.
    ConfigError for what is not B numbers, or not B groups."""
    values = each_number(rewards, name="rewards")
    spread = [0.0] * len(values) if std is None else [_known(value) for value in each_number(std, name="std")]
    members = [None] * len(values) if groups is None else _members(groups)
    _check_lengths(len(values), std=len(spread), groups=len(members))
    rates = [math.nan] * len(values)
    by_group: dict[Hashable, list[int]] = {}
    for index, member in enumerate(members):
        if math.isfinite(values[index]):
            by_group.setdefault(member, []).append(index)
    for group in by_group.values():
        for index in group:
            rates[index] = _mean(
                preference_probability(
                    values[index], values[other], variance=spread[index] * spread[index] + spread[other] * spread[other]
                )
                for other in group
                if other != index
            )
    return torch.tensor(rates, dtype=torch.float32)


def each_number(values: Any, *, name: str) -> list[float]:  # noqa: ANN401  # whatever a user gives
    """The values as a list of numbers, NaN for None. ConfigError for what is no list of numbers."""
    listed = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    try:
        if isinstance(listed, str | bytes | Mapping):
            raise TypeError
        return [math.nan if value is None else float(value) for value in listed]
    except (TypeError, ValueError, RuntimeError) as fault:
        raise ConfigError(
            f"{name}: found {short_repr(values)}; expected a list of numbers, one for each clip"
        ) from fault


def _members(groups: Any) -> list[Hashable]:  # noqa: ANN401
    """Groups that are equal where their values are: a tensor's items are not."""
    try:
        listed = list(groups.tolist() if isinstance(groups, Tensor | np.ndarray) else groups)
        members = [one.item() if isinstance(one, Tensor) else one for one in listed]
        set(members)  # TypeError for one without a hash
    except (TypeError, RuntimeError) as fault:
        raise ConfigError(f"groups: found {short_repr(groups)}; expected a name or number for each clip") from fault
    return members


def _known(std: float) -> float:
    if std < 0:
        raise ConfigError(f"std is {std:g}, expected a standard deviation of 0 or more")
    return 0.0 if math.isnan(std) else std


def _check_lengths(count: int, **lengths: int) -> None:
    for name, length in lengths.items():
        if length != count:
            raise ConfigError(f"{count} rewards, but {length} in {name}; expected one for each")


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan
