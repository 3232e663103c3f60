"""Rewards that compare the clips of one prompt: how often each is preferred to the others of its group."""

import math
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from descore.errors import ConfigError
from descore.types import preference_probability


def win_rates(
    rewards: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
) -> Tensor:
    """Mean probability (B), float32, that each clip is preferred to the others of its group (Bradley & Terry 1952): the
    pairwise reward of Pref-GRPO, without a judge's call for each pair.

    rewards: (B); only differences within a group matter, so raw rewards, on whose scale the head was trained.
    std: (B), the standard deviation of each reward; the more uncertain two are, the nearer their probability is to 1/2.
    A deviation that is not known (NaN, as that of a single chain) counts as 0.
    groups: (B), what the clips of one group share, such as the prompt; without them all are one group.
    A reward that is NaN has no rate, and is nobody's opponent; a clip without an opponent has none either: NaN."""
    values = [float(value) for value in rewards]
    spread = [0.0] * len(values) if std is None else [_known(float(value)) for value in std]
    members = list(groups) if groups is not None else [None] * len(values)
    _check_lengths(len(values), std=len(spread), groups=len(members))
    rates = [math.nan] * len(values)
    by_group: dict[Hashable, list[int]] = {}
    for index, member in enumerate(members):
        if math.isfinite(values[index]):
            by_group.setdefault(member, []).append(index)
    for group in by_group.values():
        for index in group:
            rates[index] = _mean(
                preference_probability(values[index], values[other], variance=spread[index] ** 2 + spread[other] ** 2)
                for other in group
                if other != index
            )
    return torch.tensor(rates, dtype=torch.float32)


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
