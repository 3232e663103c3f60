"""A reward with a gradient to the pixels, for reward feedback learning (ReFL, Xu et al. 2023; VADER, Prabhudesai et al.
2024).

    reward = DifferentiableReward("tiny", fps=8, range=(0, 1), think="off")
    loss = -reward(videos=frames, prompts=prompts).mean()

Chains are written without a gradient. Then whole sequences with the query are read once more, from frames that are
prepared without rounding, and that pass has the gradient.

Shapes: B videos, T frames, S samples, K named dimensions."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from descore.errors import ConfigError, DescoreError, VideoError
from descore.model.chat import TensorClip, Tokens
from descore.model.modeling import DescoreModel
from descore.rewards.frames import FrameFormat, Range, differentiable_clip, prepare, split_videos
from descore.rewards.function import OnError, check_on_error, check_prompts, each_fps, open_scorer, raise_or_warn
from descore.rewards.terms import REWARD, Normalize, check_normalization, check_weights, known_terms
from descore.rubric import check_prompt
from descore.scorer import Request, SamplingParams, Scorer
from descore.types import Score


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sequence:
    """What one reward is read from."""

    rounded: TensorClip
    """The clip that chains are written about: uint8."""
    exact: TensorClip
    """The same frames as floats, with their gradient."""
    prompt: str
    chains: tuple[Tokens, ...] = ()
    """S, each with its end of turn."""


class DifferentiableReward:
    """A reward model as a loss: keyword-only, from floating point frames in memory. Threads may share it.

    The value is `RewardFunction`'s, except that frames are not rounded to 8 bits: pixels differ by at most half a grey
    level. Weights of the model get no gradient, and the model that was given is not changed: the pass with a gradient
    has modules of its own that share the weights."""

    def __init__(
        self,
        source: Scorer | str | Path = "tiny",
        *,
        fps: float | None = None,
        layout: str | None = None,
        range: Range | None = None,  # the word that a user looks for
        overshoot: float | None = None,
        normalize: Normalize = "checkpoint",
        weights: Mapping[str, float] | None = None,
        on_error: OnError = "nan",
        allow_untrained: bool = False,
        gradient_checkpointing: bool = True,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> None:
        """Open a checkpoint, or take a Scorer that is open.

        fps, layout, range, overshoot, on_error, allow_untrained, batch_size, device: as for `RewardFunction`.
        normalize: "checkpoint" or "none". weights: of `reward`, the mean, and of named dimensions; what is read from
        a chain's text has no gradient. gradient_checkpointing: keep each layer's input alone, and compute the layer
        again in the backward pass. sampling_params: fields of `SamplingParams`; `think="off"` writes no chain. The
        mean over several samples is the mean of as many passes.
        What cannot be used raises ConfigError, and so does a generative model, whose reward is text."""
        check_on_error(on_error)
        self.form = FrameFormat(layout=layout, range=range, **({} if overshoot is None else {"overshoot": overshoot}))
        self.fps, self.on_error, self.normalize = fps, on_error, normalize
        self.scorer = open_scorer(source, batch_size=batch_size, device=device, allow_untrained=allow_untrained)
        settings = self.scorer.settings
        if settings.paradigm == "generative":
            raise ConfigError("a generative model's reward is in the text that it writes, which has no gradient")
        self.sampling_params = SamplingParams(**sampling_params).resolved(settings.paradigm)
        if normalize == "running":
            raise ConfigError("normalize is 'running', which RewardFunction has alone; expected checkpoint or none")
        check_normalization(normalize, settings)
        self.weights = {REWARD: 1.0} if weights is None else dict(weights)
        check_weights(self.weights, known=known_terms(settings, thinks=False))
        self._model = _with_frozen_weights(self.scorer.model, gradient_checkpointing=gradient_checkpointing)

    def __call__(
        self,
        *,
        videos: Any,  # noqa: ANN401
        prompts: Sequence[str],
        fps: float | Sequence[float] | None = None,
        layout: str | None = None,
        range: Range | None = None,
    ) -> Tensor:
        """Rewards (B) on the model's device, float32, or float64 for a model of that, with their graph.

        videos: a floating point tensor of all, or a list of tensors, or of lists of a tensor each frame. fps, layout,
        range: instead of those of the constructor; fps also one for each video.
        A clip without a reward is NaN, which has no gradient, or raises, as `on_error` says. Frames that have no
        gradient (uint8, arrays, images, files), or without their fps or range, raise ConfigError."""
        form = replace(self.form, layout=layout or self.form.layout, range=range or self.form.range)
        items = split_videos(videos, layout=form.layout)
        for index, item in enumerate(items):
            _check_differentiable(item, name=f"videos[{index}]")
        prompts = check_prompts(prompts, count=len(items))
        rates = each_fps(self.fps if fps is None else fps, count=len(items))
        # A trainer calls from within its own autocast; the reward is the same as outside.
        with torch.autocast(self.scorer.model.device.type, enabled=False):
            prepared = [
                self._prepare(item, prompt, name=f"videos[{index}]", fps=rate, form=form)
                for index, (item, prompt, rate) in enumerate(zip(items, prompts, rates, strict=True))
            ]
            rewards = self._read_each(self._with_chains(prepared))
        return self._in_place(rewards)

    def _prepare(
        self,
        frames: Any,  # noqa: ANN401
        prompt: str,
        *,
        name: str,
        fps: float | None,
        form: FrameFormat,
    ) -> _Sequence | DescoreError:
        device, sampling = self.scorer.model.device, self.scorer.settings.sampling
        try:
            with torch.no_grad():
                rounded = prepare(frames, source=name, fps=fps, form=form, sampling=sampling, device=device)
            exact = differentiable_clip(frames, rounded, form=form, sampling=sampling)
        except VideoError as fault:
            return fault
        assert isinstance(rounded.clip, TensorClip)
        return _Sequence(rounded=rounded.clip, exact=exact, prompt=prompt)

    def _with_chains(self, prepared: Sequence[_Sequence | DescoreError]) -> list[_Sequence | DescoreError]:
        """Each with its chains, written by the scorer, or why it has none."""
        if self.sampling_params.think == "off":
            return [_without_thinking(one, self._model.chat.no_thinking) for one in prepared]
        requests = [Request(video=one.rounded, prompt=one.prompt) for one in prepared if isinstance(one, _Sequence)]
        results = self.scorer.score_each(requests, **self.sampling_params.model_dump())
        return [_behind_chains(one, next(results)) if isinstance(one, _Sequence) else one for one in prepared]

    def _read_each(self, sequences: Sequence[_Sequence | DescoreError]) -> list[Tensor | DescoreError]:
        """The rewards (K) of each, in batches."""
        sound = [one for one in sequences if isinstance(one, _Sequence)]
        stream = iter(sound)
        batches = iter(lambda: list(islice(stream, self.scorer.batch_size)), [])
        results = (result for batch in batches for result in self._read(batch))
        return [next(results) if isinstance(one, _Sequence) else one for one in sequences]

    def _read(self, batch: Sequence[_Sequence]) -> list[Tensor | VideoError]:
        """The rewards (K) of one batch. What has none is left out, and the others are read again: its gradients, which
        are not finite, would reach them."""
        clips = [one.exact for one in batch]
        laid_out = self._model.chat.lay_out_prompts(clips, [one.prompt for one in batch])
        limit = self.sampling_params.max_chain_tokens or self._model.settings.max_chain_tokens
        faults = self.scorer.too_long(clips, laid_out, limit)
        if not faults:
            inputs = {key: value.to(self._model.device) for key, value in laid_out.items()}
            by_sample = [
                self._model(self._model.chat.lay_out_chains(inputs, chains))
                for chains in zip(*(one.chains for one in batch), strict=True)
            ]
            rewards_BK = torch.stack(by_sample).mean(dim=0)
            faults = self._not_finite(clips, rewards_BK)
        if not faults:
            return list(rewards_BK)
        fitting = [one for index, one in enumerate(batch) if index not in faults]
        results = iter(self._read(fitting) if fitting else [])
        return [faults.get(index) or next(results) for index in range(len(batch))]

    def _not_finite(self, clips: Sequence[TensorClip], rewards_BK: Tensor) -> dict[int, VideoError]:
        return {
            index: VideoError(clips[index].source, f"{self.scorer.name} gives no finite reward ({rewards[0]})")
            for index, rewards in enumerate(rewards_BK.tolist())
            if not all(map(math.isfinite, rewards))
        }

    def _in_place(self, rewards: Sequence[Tensor | DescoreError]) -> Tensor:
        """The normalized, weighted rewards (B), NaN where there are none."""
        raise_or_warn(rewards, on_error=self.on_error)
        sound = [index for index, reward in enumerate(rewards) if isinstance(reward, Tensor)]
        if not sound:
            return torch.full((len(rewards),), math.nan, device=self._model.device)
        rewards_NK = torch.stack([reward for reward in rewards if isinstance(reward, Tensor)])
        settings = self._model.settings
        names = settings.dimensions
        if self.normalize == "checkpoint":
            assert settings.reward_mean is not None
            assert settings.reward_std is not None
            mean_K, std_K = (
                rewards_NK.new_tensor([moments[name] for name in names])
                for moments in (settings.reward_mean, settings.reward_std)
            )
            rewards_NK = (rewards_NK - mean_K) / std_K
        of_mean = self.weights.get(REWARD, 0.0) / len(names)
        weight_K = [of_mean + (self.weights.get(name, 0.0) if name != REWARD else 0.0) for name in names]
        weighted_N = (rewards_NK * rewards_NK.new_tensor(weight_K)).sum(dim=1)
        index_N = torch.tensor(sound, device=weighted_N.device)
        return weighted_N.new_full((len(rewards),), math.nan).index_copy(0, index_N, weighted_N)


def _check_differentiable(item: Any, *, name: str) -> None:  # noqa: ANN401
    """ConfigError for what has no gradient."""
    frames = item if isinstance(item, list | tuple) and item else [item]
    for frame in frames:
        if not (isinstance(frame, Tensor) and frame.is_floating_point()):
            kind = str(frame.dtype) if isinstance(frame, Tensor) else type(frame).__name__
            raise ConfigError(
                f"{name} is of type {kind}, which has no gradient; expected floating point tensors with their range=, "
                "or take RewardFunction"
            )


def _behind_chains(one: _Sequence, result: Score | DescoreError) -> _Sequence | DescoreError:
    if isinstance(result, DescoreError):
        return result
    return replace(one, chains=tuple(list(chain.token_ids) for chain in result.completions))


def _without_thinking(one: _Sequence | DescoreError, chain: Tokens) -> _Sequence | DescoreError:
    """With the empty chain, if its prompt is one."""
    if isinstance(one, DescoreError):
        return one
    try:
        check_prompt(one.prompt)
    except ConfigError as fault:
        return fault
    return replace(one, chains=(chain,))


def _with_frozen_weights(model: DescoreModel, *, gradient_checkpointing: bool) -> DescoreModel:
    """The model's modules again, around the same weights without their gradient. What is switched here is not switched
    for whoever writes chains or trains meanwhile."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    frozen = copy.deepcopy(model, {**shared, id(model.chat): model.chat}).eval()
    if not gradient_checkpointing:
        frozen.backbone.gradient_checkpointing_disable()
        return frozen
    # No layer draws random numbers: dropout, in the modules inside, stays off.
    frozen.backbone.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    for module in frozen.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # these are checkpointed in training mode only
    return frozen
