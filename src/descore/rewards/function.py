"""A checkpoint as a function that a trainer calls: videos in memory and their prompts, and a reward for each.

    reward = RewardFunction("tiny", fps=8, range=(0, 1))
    result = reward(videos=frames, prompts=prompts)     # result.rewards: float32 (B)

Shapes: B videos."""

import math
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias, cast, get_args

import numpy as np
import torch
from torch import Tensor

from descore.errors import ConfigError, DescoreError, DescoreWarning, VideoError, short_repr
from descore.rewards.frames import FrameFormat, PreparedClip, Range, checked_fps, prepare, split_videos
from descore.rewards.groups import each_number
from descore.rewards.terms import (
    REWARD,
    Normalize,
    RunningMoments,
    check_normalization,
    check_terms,
    check_weights,
    known_terms,
    terms_of,
    weighted,
)
from descore.scorer import Request, SamplingParams, Scorer
from descore.types import Clip, Score

if TYPE_CHECKING:
    from descore.rewards.monitor import RewardMonitor

OnError: TypeAlias = Literal["nan", "raise"]
"""What a clip without a score gives: NaN in its place, or its error."""


class RemoteModel(Protocol):
    """A model elsewhere, such as `descore.Client`."""

    def open_scorer(self) -> Any:  # noqa: ANN401  # as much of a Scorer's face as is needed here
        """What has `name`, `settings`, `device` and `score_each` as a Scorer has them."""


Term: TypeAlias = Callable[..., Any]
"""A scorer of one's own: called with `videos=`, `prompts=` and `fps=` as they were given, it returns B numbers or
`Rewards`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewards:
    """The rewards of B videos, and what they are made of."""

    rewards: Tensor
    """(B), float32, on the CPU. NaN for a clip that has none."""
    scores: tuple[Score | DescoreError, ...] = field(repr=False)
    """Each clip's score, with its chains, or why it has none."""
    terms: Mapping[str, Tensor]
    """(B) each, by name, before they are weighted."""
    clamped: Tensor
    """(B), how many values of a clip's frames lay beyond their range and were clamped."""

    def __len__(self) -> int:
        """B."""
        return len(self.scores)

    @property
    def errors(self) -> dict[int, DescoreError]:
        """Why clips have no score, by their place."""
        return {index: fault for index, fault in enumerate(self.scores) if isinstance(fault, DescoreError)}

    @property
    def raw(self) -> Tensor:
        """(B), the head's own rewards, neither normalized nor weighted, as `win_rates` takes them."""
        return _column([s.reward if isinstance(s, Score) else math.nan for s in self.scores])

    @property
    def standard_errors(self) -> Tensor:
        """(B), of the raw rewards, as means over several chains; NaN for a single chain."""
        return _column(
            [
                s.std / math.sqrt(len(s.completions)) if isinstance(s, Score) and s.std is not None else math.nan
                for s in self.scores
            ]
        )


class RewardFunction:
    """A reward model as a trainer calls it: keyword-only, in batches, from any thread, the same reward each time."""

    def __init__(
        self,
        source: "Scorer | RemoteModel | str | Path" = "tiny",
        *,
        fps: float | None = None,
        layout: str | None = None,
        range: Range | None = None,  # the word that a user looks for
        overshoot: float | None = None,
        normalize: Normalize = "checkpoint",
        weights: Mapping[str, float] | None = None,
        terms: Mapping[str, Term] | None = None,
        monitor: "RewardMonitor | None" = None,
        on_error: OnError = "nan",
        allow_untrained: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> None:
        """Open a checkpoint, or take a Scorer that is open, or a `Client` of a server.

        fps, layout, range, overshoot: of frames in memory, see `FrameFormat`; no trainer's tensors state them.
        normalize: of the head's rewards, by dimension. weights: of terms by name, `{"reward": 1}` by default; see
        docs/rewards.md. terms: further terms, each a callable; each needs a weight, 0 to be reported only.
        monitor: counts the rewards of every call, for `report`.
        allow_untrained: accept a head that was never trained, whose rewards are noise.
        batch_size, device: of the checkpoint to open. sampling_params: fields of `SamplingParams`.
        What cannot be used raises ConfigError."""
        check_on_error(on_error)
        self.form = FrameFormat(layout=layout, range=range, **({} if overshoot is None else {"overshoot": overshoot}))
        self.fps, self.on_error, self.normalize = fps, on_error, normalize
        if fps is not None:
            [rate] = each_fps(fps, count=1)
            checked_fps(rate)
        self.scorer = open_scorer(source, batch_size=batch_size, device=device, allow_untrained=allow_untrained)
        settings = self.scorer.settings
        self.sampling_params = SamplingParams(**sampling_params).resolved(settings.paradigm)
        check_normalization(normalize, settings)
        self.moments = RunningMoments(settings.dimensions)
        check_terms(terms or {})
        if monitor is not None:
            from descore.rewards.monitor import RewardMonitor  # which imports this module

            if not isinstance(monitor, RewardMonitor):
                raise ConfigError(f"monitor is {monitor!r}, expected a RewardMonitor")
        self.terms, self.monitor = dict(terms or {}), monitor
        self._known = known_terms(settings, thinks=self.sampling_params.think != "off")
        self.weights = self._check_weights(weights)
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        """ConfigError: it does not pickle."""
        raise ConfigError(
            "a RewardFunction holds an open model and does not pickle; make one in each process, or share a server's: "
            "RewardFunction(Client(url))"
        )

    def __call__(
        self,
        *,
        videos: Any,  # noqa: ANN401
        prompts: Sequence[str],
        fps: float | Sequence[float] | None = None,
        layout: str | None = None,
        range: Range | None = None,
    ) -> Rewards:
        """Score videos, one for each prompt.

        videos: a tensor or array of all, or a list of tensors, arrays, lists of frames or of PIL images, paths, bytes
        or Clips. fps, layout, range: instead of those of the constructor; fps also one for each video.
        Frames without their fps, or whose axes or range are not certain, raise ConfigError."""
        form = replace(
            self.form,
            layout=self.form.layout if layout is None else layout,
            range=self.form.range if range is None else range,
        )
        items = split_videos(videos, layout=form.layout)
        prompts = check_prompts(prompts, count=len(items))
        fps = self.fps if fps is None else fps
        rates = each_fps(fps, count=len(items))
        ready = [
            self._prepare(item, index=index, fps=rate, form=form)
            for index, (item, rate) in enumerate(zip(items, rates, strict=True))
        ]
        scores = self._score(ready, prompts)
        own = {
            name: _own_term(name, term(videos=videos, prompts=prompts, fps=fps), len(items))
            for name, term in self.terms.items()
        }
        rewards = self._rewards(scores, own, [one.clamped if isinstance(one, PreparedClip) else 0 for one in ready])
        if self.monitor is not None:
            self.monitor.add(rewards, groups=prompts)
        return rewards

    def report(self) -> dict[str, float]:
        """What the calls since the last report gave, as flat figures for a logger: see `RewardMonitor.report`."""
        if self.monitor is None:
            raise ConfigError("no monitor; write RewardFunction(..., monitor=RewardMonitor())")
        return self.monitor.report()

    def state_dict(self) -> dict[str, object]:
        """What a trainer saves to go on with: the running mean and deviation, and the monitor's earlier steps."""
        with self._lock:
            state = self.moments.state_dict()
        return state if self.monitor is None else {**state, "monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. One that was saved without a monitor leaves the monitor as it is."""
        with self._lock:
            self.moments.load_state_dict(state)
        if self.monitor is not None and "monitor" in state:
            self.monitor.load_state_dict(state["monitor"])

    def _check_weights(self, weights: Mapping[str, float] | None) -> dict[str, float]:
        taken = sorted(set(self.terms) & set(self._known))
        if taken:
            raise ConfigError(f"terms has {taken[0]!r}, which is a term of the model; give it another name")
        chosen = {REWARD: 1.0} if weights is None else weights
        check_weights(chosen, known=(*self._known, *self.terms))
        unweighted = [name for name in self.terms if name not in chosen]
        if unweighted:
            raise ConfigError(f"terms has {unweighted[0]!r}, but weights does not; give it one, 0 to report it only")
        return dict(chosen)

    def _prepare(
        self,
        item: Any,  # noqa: ANN401
        *,
        index: int,
        fps: float | None,
        form: FrameFormat,
    ) -> PreparedClip | VideoError:
        source, device = f"videos[{index}]", self.scorer.device
        sampling = self.scorer.settings.sampling
        try:
            return prepare(item, source=source, fps=fps, form=form, sampling=sampling, device=device)
        except VideoError as fault:
            if self.on_error == "raise":
                raise
            return fault

    def _score(self, ready: Sequence[PreparedClip | VideoError], prompts: Sequence[str]) -> list[Score | DescoreError]:
        requests = [
            Request(video=one.clip, prompt=prompt)
            for one, prompt in zip(ready, prompts, strict=True)
            if isinstance(one, PreparedClip)
        ]
        # A trainer calls from within its own autocast; the reward is the same as outside.
        with torch.autocast(self.scorer.device.type, enabled=False):
            results = self.scorer.score_each(requests, **self.sampling_params.model_dump())
            scores = [next(results) if isinstance(one, PreparedClip) else one for one in ready]
        raise_or_warn(scores, on_error=self.on_error)
        return [replace(score, clip=_on_host(score.clip)) if isinstance(score, Score) else score for score in scores]

    def _rewards(
        self, scores: Sequence[Score | DescoreError], own: Mapping[str, Sequence[float]], clamped: Sequence[int]
    ) -> Rewards:
        moments = self._moments([score.rewards for score in scores if isinstance(score, Score)])
        limit = self.sampling_params.max_chain_tokens or self.scorer.settings.max_chain_tokens
        rows = []
        for index, score in enumerate(scores):
            of_model = dict.fromkeys(self._known, math.nan)
            if isinstance(score, Score):
                found = terms_of(score, moments=moments, limit=limit)
                of_model = {name: found[name] for name in self._known}
            rows.append({**of_model, **{name: values[index] for name, values in own.items()}})
        rewards = [
            weighted(row, self.weights, has_answer=any(c.verdict is not None for c in score.completions))
            if isinstance(score, Score)
            else math.nan
            for row, score in zip(rows, scores, strict=True)
        ]
        terms = {name: _column([row[name] for row in rows]) for name in (*self._known, *own)}
        return Rewards(
            rewards=_column(rewards),
            scores=tuple(scores),
            terms=terms,
            clamped=torch.tensor(clamped, dtype=torch.int64),
        )

    def _moments(self, rewards: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
        """Mean and deviation of each dimension; the running ones count these rewards first."""
        settings = self.scorer.settings
        if self.normalize == "running":
            with self._lock:
                for one in rewards:
                    self.moments.add(one)
                return {name: (self.moments.mean[name], self.moments.std(name)) for name in settings.dimensions}
        if self.normalize == "checkpoint":
            assert settings.reward_mean is not None
            assert settings.reward_std is not None
            return {name: (settings.reward_mean[name], settings.reward_std[name]) for name in settings.dimensions}
        return dict.fromkeys(settings.dimensions, (0.0, 1.0))


def open_scorer(
    source: Scorer | RemoteModel | str | Path,
    *,
    batch_size: int | None,
    device: str | torch.device | None,
    allow_untrained: bool,
) -> Scorer:
    """The Scorer of a checkpoint or of a server, or one that is open. ConfigError for a head that was never trained,
    unless that is allowed, and for a batch size or a device beside a Scorer, which has its own."""
    if not isinstance(source, str | Path) and (batch_size is not None or device is not None):
        raise ConfigError("batch_size and device are those of the Scorer that is given; leave them out here")
    if not isinstance(source, Scorer | str | Path):
        source = cast("Scorer", source.open_scorer())
    if isinstance(source, str | Path):
        source = Scorer.from_pretrained(source, device=device, batch_size=8 if batch_size is None else batch_size)
    settings = source.settings
    if settings.trained_on is None and settings.paradigm != "generative" and not allow_untrained:
        raise ConfigError(
            f"{source.name}: query and head were never trained, and its rewards are noise; train it, or write "
            "allow_untrained=True"
        )
    return source


def check_on_error(on_error: str) -> None:
    """ConfigError for what is no OnError."""
    if on_error not in get_args(OnError):
        raise ConfigError(f"on_error is {on_error!r}, expected nan or raise")


def raise_or_warn(outcomes: Sequence[object], *, on_error: OnError) -> None:
    """What becomes of the errors among the clips' outcomes: the first is raised, or a warning counts them."""
    faults = [outcome for outcome in outcomes if isinstance(outcome, DescoreError)]
    if faults and on_error == "raise":
        raise faults[0]
    if faults:
        message = f"{len(faults)} of {len(outcomes)} clips have no reward, first {faults[0]}"
        warnings.warn(message, DescoreWarning, stacklevel=4)


def check_prompts(prompts: Sequence[str], *, count: int) -> list[str]:
    """The prompts as a list. ConfigError unless there are `count` texts."""
    listed = list(prompts) if isinstance(prompts, Iterable) and not isinstance(prompts, str) else [None]
    if not all(isinstance(prompt, str) for prompt in listed):
        raise ConfigError(f"prompts is {short_repr(prompts)}; expected a list of {count} texts, one for each video")
    if len(listed) != count:
        raise ConfigError(f"{count} videos, but {len(listed)} prompts; expected one for each")
    return [str(prompt) for prompt in listed]


def each_fps(fps: float | Sequence[float] | None, *, count: int) -> list[float | None]:
    """The frames per second of each of `count` videos. ConfigError unless there is one for all, or one for each."""
    try:
        rates = [None] * count if fps is None else [float(rate) for rate in np.broadcast_to(fps, count)]
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"fps is {short_repr(fps)}; expected a number, or one for each of {count} videos") from fault
    return list(rates)


def _own_term(name: str, values: Any, count: int) -> list[float]:  # noqa: ANN401
    listed = each_number(values.rewards if isinstance(values, Rewards) else values, name=f"the term {name}")
    if len(listed) != count:
        raise ConfigError(f"the term {name} gives {len(listed)} values for {count} videos; expected one for each")
    return listed


def _on_host(clip: Clip) -> Clip:
    """The clip without its pixels on the device."""
    return Clip(**{one.name: getattr(clip, one.name) for one in fields(Clip)})


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
