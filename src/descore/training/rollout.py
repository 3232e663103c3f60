"""Rollouts: G chains for each clip of some pairs, written by the model as it is now, and what each chain is worth.

    rollout = sample(model, pairs, config=config, step=7)

In: a model, readable pairs, the settings of stage 2. Out: chains with their tokens, rewards and parts. Each chain is
drawn with a seed from (run's seed, step, pair, side, chain), so neither batches nor processes nor a restart change it.
Knows a model and rules; knows nothing of advantages, losses or updates.

Shapes: B pairs, C = 2 B clips (all a, then all b), G chains for each, K named dimensions."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from descore.data.chat import Inputs, Tokens
from descore.errors import AnswerError, ConfigError
from descore.maths.rollout_rewards import RolloutWeights, correctness, rate
from descore.model.descore_model import DescoreModel
from descore.model.thinker import Thought, think_and_score
from descore.rubric import read_answer
from descore.training.collate import MISSING, Shown, TrainingPair
from descore.training.rl_config import Opponents, RewardsConfig, RlConfig
from descore.types import Mark, Verdict

Function = Callable[[str, str, Mapping[str, Mark] | None], float]
"""A user's own part of the rollout reward: from a chain's text, the prompt and the reference marks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """A sampled chain and what it is worth."""

    tokens: Tokens
    """Ids, the end of turn included."""
    text: str
    """Without the end of turn."""
    truncated: bool
    """It reached the limit and was ended from outside."""
    verdict: Verdict | None
    """None if its answer cannot be read."""
    reward_K: Tensor
    """The clip's reward behind this chain, (K,), float32, on the CPU; in the generative paradigm the overall score, nan
    if there is none."""
    parts: Mapping[str, float]
    """By name, the parts of the rollout reward that are known."""
    rollout_reward: float | None
    """Their weighted sum; None where the chain cannot be told from others: then nothing is learned from it but the
    reward."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """Pairs, and the chains that were written for them."""

    pairs: tuple[TrainingPair, ...]
    prompts: Inputs
    """The laid-out prompts of the C clips, on the model's device."""
    groups: tuple[tuple[Chain, ...], ...]
    """C groups of G chains."""

    @property
    def rewards(self) -> Tensor:
        """Rewards behind the chains (C, G, K), float32, on the CPU."""
        return torch.stack([torch.stack([chain.reward_K for chain in group]) for group in self.groups])

    @property
    def rollout_rewards(self) -> Tensor:
        """What the chains are worth (C, G); nan where that is not known."""
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
    """Write and rate `num_generations` chains for each clip of these pairs. The model is left in its evaluation mode.

    function: the user's own part, of `load_function`. autocast: the precision that the model learns in."""
    both: list[Shown] = [p.a for p in pairs] + [p.b for p in pairs]
    laid_out = model.chat.lay_out_prompts([s.clip for s in both], [s.prompt for s in both])
    prompts = {name: value.to(model.device) for name, value in laid_out.items()}
    model.eval()
    with autocast():
        thoughts = think_and_score(
            model,
            prompts,
            limit=limit_of(model, config),
            samples=config.rollout.num_generations,
            temperature=config.rollout.temperature,
            seeds=[_seed(config.optim.seed, step, p.number, side) for side in (0, 1) for p in pairs],
        )
    written = [[_Written.of(thought, model) for thought in group] for group in thoughts]
    groups = _rate(written, pairs, config=config, function=function)
    return Rollout(pairs=tuple(pairs), prompts=prompts, groups=groups)


def limit_of(model: DescoreModel, config: RlConfig) -> int:
    """Tokens that a chain may have before its end of turn is forced."""
    return config.rollout.max_completion_length or model.settings.max_chain_tokens


def load_function(name: str | None) -> Function | None:
    """The function that a config names as module:function. ConfigError if there is none."""
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as fault:
        raise ConfigError(f"rewards.function: {module} cannot be imported: {fault}") from fault
    if not callable(found):
        raise ConfigError(f"rewards.function: {module} has no function {attribute!r}; expected module:function")
    return cast(Function, found)


def _seed(seed: int, step: int, number: int, side: int) -> int:
    return int(np.random.SeedSequence([seed, step, number, side]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Written:
    """A chain before it is rated."""

    tokens: Tokens
    text: str
    truncated: bool
    verdict: Verdict | None
    reward_K: Tensor

    @classmethod
    def of(cls, thought: Thought, model: DescoreModel) -> "_Written":
        text = model.chat.decode_chain(thought.chain)
        # A copy: what was made in inference mode takes no part in a graph.
        reward_K = thought.rewards_K.clone()
        return cls(
            tokens=thought.chain, text=text, truncated=thought.truncated, verdict=_verdict(text), reward_K=reward_K
        )


def _verdict(text: str) -> Verdict | None:
    try:
        return read_answer(text)
    except AnswerError:
        return None


def _rate(
    written: Sequence[Sequence[_Written]],
    pairs: Sequence[TrainingPair],
    *,
    config: RlConfig,
    function: Function | None,
) -> tuple[tuple[Chain, ...], ...]:
    """Each group's chains with their parts. The opponents of a pair's one clip are the chains of its other."""
    groups = []
    for clip, group in enumerate(written):
        pair, is_b = pairs[clip % len(pairs)], clip >= len(pairs)
        judge = _Judge(
            config=config, function=function, shown=pair.b if is_b else pair.a, preference=_side_of(pair, is_b)
        )
        others = written[(clip + len(pairs)) % len(written)]
        groups.append(tuple(judge.rated(g, chain, others) for g, chain in enumerate(group)))
    return tuple(groups)


def _side_of(pair: TrainingPair, is_b: bool) -> int | None:
    """Whether people prefer this clip of a pair (1), the other (-1) or neither (0); None where nobody said. A written
    score is one number, so it is held against the first dimension alone."""
    preference = int(pair.preference_K[0])
    if preference == MISSING:
        return None
    return -preference if is_b else preference


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Rates the chains of one clip."""

    config: RlConfig
    function: Function | None
    shown: Shown
    preference: int | None

    def rated(self, g: int, written: _Written, others: Sequence[_Written]) -> Chain:
        rewards, generative = self.config.rewards, self.config.paradigm == "generative"
        rule = rate(
            written.text,
            len(written.tokens),
            reference=self.shown.marks,
            weights=_weights(rewards),
            none_below=rewards.length_none_below,
            full_from=rewards.length_full_from,
        )
        parts = {"quality": rule.quality, "format": rule.format, "length": rule.length}
        known = rule.quality is not None
        if generative and self.preference is not None:
            parts["correctness"] = _correct(written, _opponents(others, g, self.config.loss.opponents), self.preference)
            known = parts["correctness"] is not None
        if self.function is not None:
            parts["function"] = self._asked(written)
        there = {name: value for name, value in parts.items() if value is not None}
        return Chain(
            tokens=written.tokens,
            text=written.text,
            truncated=written.truncated,
            verdict=written.verdict,
            reward_K=_overall(written) if generative else written.reward_K,
            parts=there,
            rollout_reward=_total(there, rewards) if known else None,
        )

    def _asked(self, written: _Written) -> float:
        """What the user's function says; ConfigError if that is no finite number."""
        assert self.function is not None
        said = self.function(written.text, self.shown.prompt, self.shown.marks)
        if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
            raise ConfigError(f"rewards.function: {self.config.rewards.function} returned {said!r}; expected a number")
        return float(said)


def _total(parts: Mapping[str, float], rewards: RewardsConfig) -> float:
    weights = {
        "quality": rewards.quality,
        "format": rewards.format,
        "length": rewards.length,
        "correctness": rewards.correctness,
        "function": rewards.function_weight,
    }
    return sum(weights[name] * value for name, value in parts.items())


def _weights(rewards: RewardsConfig) -> RolloutWeights:
    return RolloutWeights(quality=rewards.quality, format=rewards.format, length=rewards.length)


def _opponents(others: Sequence[_Written], g: int, opponents: Opponents) -> list[float]:
    """The overall scores that a chain's own is held against."""
    held = [others[g]] if opponents == "matched" else others
    return [other.verdict.overall for other in held if other.verdict is not None]


def _correct(written: _Written, others: Sequence[float], preference: int) -> float | None:
    """How often, of its opponents, the chain's score is in people's order; 0 without a score, None without an
    opponent that has one."""
    if written.verdict is None:
        return 0.0
    overall = written.verdict.overall
    found = [correctness(overall, other, preference) for other in others]
    return sum(found) / len(found) if found else None


def _overall(written: _Written) -> Tensor:
    return torch.tensor([math.nan if written.verdict is None else written.verdict.overall])
