"""Rollouts: G chains for each clip of some pairs, written by the model as it is now, and what each chain is worth.

    rollout = sample(model, pairs, config=config, step=7)

In: a model, readable pairs, the settings of stage 2. Out: chains with their tokens, rewards and parts. Each chain is
drawn with a seed from (run's seed, step, pair, side, chain), so neither batches nor processes nor a restart change it.
Knows a model and rules; knows nothing of advantages, losses or updates.

Shapes: B pairs, C = 2 B clips (all a, then all b), G chains for each, K named dimensions."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descore.data.chat import Inputs
from descore.model.generation import think_and_score
from descore.model.modeling import DescoreModel
from descore.training.collate import Shown, TrainingPair
from descore.training.rl.config import RlConfig
from descore.training.rl.rewards import Function, reward_groups
from descore.types import Completion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """Pairs, and the chains that were written for them."""

    pairs: tuple[TrainingPair, ...]
    prompts: Inputs
    """The laid-out prompts of the C clips, on the model's device."""
    groups: tuple[tuple[Completion, ...], ...]
    """C groups of G completions."""

    @property
    def rewards(self) -> Tensor:
        """Rewards of the completions (C, G, K), float32, on the CPU; nan where a generative model wrote none."""
        unread = [math.nan] * len(self.pairs[0].preference_K)
        return torch.tensor([[list(c.rewards.values()) or unread for c in group] for group in self.groups])

    @property
    def rollout_rewards(self) -> Tensor:
        """Rollout rewards (C, G); nan where they are not known."""
        rows = [[math.nan if c.rollout_reward is None else c.rollout_reward for c in group] for group in self.groups]
        return torch.tensor(rows)

    def counted(self, *, mask_truncated: bool) -> Tensor:
        """Which chains are part of their group (C, G): whose worth is known and, if asked for, that ended by
        themselves."""
        counts = [
            [c.rollout_reward is not None and not (mask_truncated and c.truncated) for c in group]
            for group in self.groups
        ]
        return torch.tensor(counts)


def sample(
    model: DescoreModel,
    pairs: Sequence[TrainingPair],
    *,
    config: RlConfig,
    step: int,
    function: Function | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Rollout:
    """Write and reward `num_generations` chains for each clip of these pairs. The model is left in its evaluation mode.

    function: the user's own part, of `load_function`. autocast: the precision that the model learns in."""
    both: list[Shown] = [p.a for p in pairs] + [p.b for p in pairs]
    laid_out = model.chat.lay_out_prompts([s.clip for s in both], [s.prompt for s in both])
    prompts = {name: value.to(model.device) for name, value in laid_out.items()}
    model.eval()
    with autocast():
        completions = think_and_score(
            model,
            prompts,
            limit=limit_of(model, config),
            samples=config.rollout.num_generations,
            temperature=config.rollout.temperature,
            seeds=[_seed(config.optim.seed, step, p.number, side) for side in (0, 1) for p in pairs],
        )
    groups = reward_groups(completions, pairs, config=config, function=function)
    return Rollout(pairs=tuple(pairs), prompts=prompts, groups=groups)


def limit_of(model: DescoreModel, config: RlConfig) -> int:
    """Tokens that a chain may have before its end of turn is forced."""
    return config.rollout.max_completion_length or model.settings.max_chain_tokens


def _seed(seed: int, step: int, number: int, side: int) -> int:
    return int(np.random.SeedSequence([seed, step, number, side]).generate_state(1, np.uint64)[0])
