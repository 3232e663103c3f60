"""Rollouts: G completions for each clip of some pairs, sampled from the current model, with their rollout rewards.

    rollout = sample_rollout(model, pairs, config=config, step=7)

Each completion is drawn with a seed from (run's seed, step, pair, side, sample), so neither batches nor processes nor a
restart change it. A rollout reward is the weighted sum of rule-based parts and an optional function of the user's.

Shapes: B pairs, C = 2 B clips (all a, then all b), G completions for each, K named dimensions."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from descore.errors import ConfigError, short_repr
from descore.model.chat import Inputs
from descore.model.generation import think_and_score
from descore.model.modeling import DescoreModel
from descore.rubric import correctness, quality
from descore.training.collate import MISSING, TrainingExample, TrainingPair
from descore.training.models import part_of
from descore.training.rl.config import Opponents, RlConfig
from descore.types import Completion, Mark, Verdict

ChainFunction = Callable[[str, str, Mapping[str, Mark] | None], float]
"""A user's own part of the rollout reward: from a chain's text, the prompt and the reference marks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """Pairs, and the completions of their clips."""

    pairs: tuple[TrainingPair, ...]
    prompts: Inputs
    """The laid-out prompts of the C clips, on the model's device; with vision features in place of pixels where vision
    is frozen."""
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
        """Which completions count in their group (C, G): those with a rollout reward and, with `mask_truncated`, that
        ended by themselves."""
        counts = [
            [c.rollout_reward is not None and not (mask_truncated and c.truncated) for c in group]
            for group in self.groups
        ]
        return torch.tensor(counts)


def sample_rollout(
    model: DescoreModel,
    pairs: Sequence[TrainingPair],
    *,
    config: RlConfig,
    step: int,
    function: ChainFunction | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Rollout:
    """Sample and reward `num_generations` completions for each clip of these pairs. The model is left in evaluation
    mode.

    function: the user's own part, of `load_function`. autocast: the precision that the model trains in."""
    both = [p.a for p in pairs] + [p.b for p in pairs]
    laid_out = model.chat.lay_out_prompts([e.clip for e in both], [e.prompt for e in both])
    prompts = {name: value.to(model.device) for name, value in laid_out.items()}
    model.eval()
    with autocast():
        prompts = encode_frozen_vision(model, prompts)
        completions = think_and_score(
            model,
            prompts,
            limit=max_chain_tokens(model, config),
            samples=config.rollout.num_generations,
            temperature=config.rollout.temperature,
            seeds=[_seed(config.optim.seed, step, p.number, side) for side in (0, 1) for p in pairs],
        )
    groups = reward_groups(completions, pairs, config=config, function=function, step=step)
    return Rollout(pairs=tuple(pairs), prompts=prompts, groups=groups)


@torch.no_grad()
def encode_frozen_vision(model: DescoreModel, prompts: Inputs) -> Inputs:
    """The prompts with vision features in place of pixels where no weight of vision tower and merger is trained: what
    writes chains, and all passes of the update, read these. They are kept as long as the rollout, for one step."""
    vision = [weight for name, weight in model.backbone.named_parameters() if part_of(model, name) != "language_model"]
    if any(weight.requires_grad for weight in vision):
        return prompts
    encoded: Inputs = model.family.encode_vision(model.backbone, prompts)
    return encoded


def max_chain_tokens(model: DescoreModel, config: RlConfig) -> int:
    """Tokens that a chain may have before its end of turn is forced."""
    return config.rollout.max_completion_length or model.settings.max_chain_tokens


def _seed(seed: int, step: int, number: int, side: int) -> int:
    return int(np.random.SeedSequence([seed, step, number, side]).generate_state(1, np.uint64)[0])


def length_reward(length: int, *, none_below: int = 500, full_from: int = 2000, steps: int | None = None) -> float:
    """0 up to a length of `none_below`, 1 from `full_from` on, between them a straight line, or `steps` equal steps.
    The defaults are DeScore's."""
    assert none_below < full_from, f"none_below is {none_below}, full_from {full_from}; between them it rises"
    beyond, span = min(max(length - none_below, 0), full_from - none_below), full_from - none_below
    return beyond / span if steps is None else beyond * steps // span / steps


def load_function(name: str | None) -> ChainFunction | None:
    """The function that a config names as module:function, the module an installed one or a file of the working
    directory. ConfigError if there is none."""
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    _import_from_working_directory()
    with _as_config_error(f"{module} cannot be imported"):
        function = getattr(import_module(module), attribute, None)
    if not callable(function):
        raise ConfigError(f"rewards.function: {module} has no function {attribute!r}; expected module:function")
    return cast(ChainFunction, function)


def _import_from_working_directory() -> None:
    """Let modules be found in the working directory, as `python -m` lets them and a console script does not: behind all
    others, so that a file there takes the place of nothing that is installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


@contextmanager
def _as_config_error(what: str) -> Iterator[None]:
    """An error of the user's code is a ConfigError of the key that names it, and its cause.

    The one place that catches every exception: no list knows what code of others raises, a script's `sys.exit` too."""
    try:
        yield
    except (Exception, SystemExit) as fault:
        message = " ".join(str(fault).split())
        reason = f"{type(fault).__name__}: {message}" if message else type(fault).__name__
        raise ConfigError(f"rewards.function: {what}: {reason}") from fault


def reward_groups(
    groups: Sequence[Sequence[Completion]],
    pairs: Sequence[TrainingPair],
    *,
    config: RlConfig,
    function: ChainFunction | None,
    step: int = 0,
) -> tuple[tuple[Completion, ...], ...]:
    """C groups of completions with their reward parts and rollout rewards. The opponents of a pair's one clip are the
    completions of its other.

    function: the user's own part, of `load_function`; ConfigError, which names the step, if it raises anything or
    returns no number."""
    rewarded = []
    for clip, group in enumerate(groups):
        pair, is_b = pairs[clip % len(pairs)], clip >= len(pairs)
        rewarder = _Rewarder(
            config=config,
            function=function,
            step=step,
            example=pair.b if is_b else pair.a,
            preference=_preference_for(pair, is_b),
        )
        others = groups[(clip + len(pairs)) % len(groups)]
        rewarded.append(
            tuple(
                rewarder.rewarded(completion, _opponents(others, g, config.loss.opponents))
                for g, completion in enumerate(group)
            )
        )
    return tuple(rewarded)


def _preference_for(pair: TrainingPair, is_b: bool) -> int | None:
    """Whether people prefer this clip of a pair (1), the other (-1) or neither (0); None without a label. A written
    score is one number, so it is compared by the first dimension alone."""
    preference = int(pair.preference_K[0])
    if preference == MISSING:
        return None
    return -preference if is_b else preference


def _opponents(others: Sequence[Completion], g: int, opponents: Opponents) -> list[float]:
    """The overall scores that those of completion g are compared with."""
    compared = [others[g]] if opponents == "matched" else others
    return [other.verdict.overall for other in compared if other.verdict is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rewarder:
    """Rewards the completions of one clip."""

    config: RlConfig
    function: ChainFunction | None
    step: int
    example: TrainingExample
    preference: int | None

    def rewarded(self, completion: Completion, opponents: Sequence[float]) -> Completion:
        parts = {name: value for name, value in self._parts(completion, opponents).items() if value is not None}
        # Without the part that depends on the video, the reward would be for format and length alone.
        needed = "correctness" if self._compares else "quality"
        weights = self.config.rewards.weights
        total = sum(weights[name] * value for name, value in parts.items()) if needed in parts else None
        return replace(completion, reward_parts=parts, rollout_reward=total)

    @property
    def _compares(self) -> bool:
        return self.config.paradigm == "generative" and self.preference is not None

    def _parts(self, completion: Completion, opponents: Sequence[float]) -> dict[str, float | None]:
        rewards, verdict, marks = self.config.rewards, completion.verdict, self.example.marks
        length = completion.num_tokens if rewards.length_unit == "tokens" else len(completion.text)
        parts: dict[str, float | None] = {
            "quality": None if marks is None else quality(verdict, marks),
            "format": float(verdict is not None),
            "length": length_reward(
                length,
                none_below=rewards.length_none_below,
                full_from=rewards.length_full_from,
                steps=rewards.length_steps,
            ),
        }
        if self._compares:
            assert self.preference is not None
            parts["correctness"] = _mean_correctness(verdict, opponents, self.preference)
        if self.function is not None:
            parts["function"] = self._call_function(completion)
        return parts

    def _call_function(self, completion: Completion) -> float:
        """The number that the user's function returns; ConfigError if it is not finite, or not a number."""
        assert self.function is not None
        name = self.config.rewards.function
        with _as_config_error(f"{name} failed in step {self.step}"):
            value: Any = self.function(completion.text, self.example.prompt, self.example.marks)
        if isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigError(
                f"rewards.function: {name} returned {short_repr(value)} in step {self.step}; expected a number"
            )
        return float(value)


def _mean_correctness(verdict: Verdict | None, opponents: Sequence[float], preference: int) -> float | None:
    """The mean correctness against its opponents' scores; 0 without a score of its own, None without opponents."""
    if verdict is None:
        return 0.0
    values = [correctness(verdict.overall, other, preference) for other in opponents]
    return sum(values) / len(values) if values else None
