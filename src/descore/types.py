"""The frozen records that travel through the package: clips, completions, scores, pairs.

They hold numpy arrays and plain values only."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Think = Literal["on", "off"]

Paradigm = Literal["descore", "discriminative", "generative"]
"""Where a model's reward is read: at the query behind its chain; at the query alone, where it was trained without
chains; or in the `overall_score` that the chain ends with."""

Preference = Literal["a", "b", "tie"]
"""Which clip of a pair people prefer."""

PREFERENCE_SIGN: Mapping[Preference, int] = MappingProxyType({"a": 1, "b": -1, "tie": 0})
"""The sign that people give the reward of a minus the reward of b."""

DIMENSIONS = ("subject", "dynamics", "camera", "environment", "style")
"""What a chain judges. The first two are primary, the others secondary."""

PRIMARY = frozenset(DIMENSIONS[:2])

Mark = Literal[0, 1, 2] | None
"""2 right, 1 partly, 0 wrong; None is N/A: the prompt does not ask for it, or, where the verdict's `unknown` names it,
the judge cannot know it."""

NOT_APPLICABLE = "N/A"
"""How the mark None is written, in answers, tables and reports."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """The sampled frames of one video.

    Equality is identity: comparing pixels by accident would be slow and is never meant."""

    frames: NDArray[np.uint8] = field(repr=False)
    """(T, H, W, 3), RGB, at the size that the model sees."""
    times: tuple[float, ...]
    """Seconds from the start of the video, one for each frame, ascending."""
    source: str
    """The path, or what stands for one: '<array>', '<bytes>', '<images>'."""
    source_fps: float
    """Mean frames per second of the source."""
    source_size: tuple[int, int]
    """Width and height of the source as displayed (rotation applied), in pixels."""
    source_frames: int
    """Frames in the source."""
    duration: float
    """Seconds that the source lasts."""
    frame_numbers: tuple[int, ...] | None = None
    """Numbers of the frames in the source, where the sampling rule states a frame's time as its number over
    `source_fps`; None: as `times`."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames, in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    def without_frames(self) -> "Clip":
        """The same clip with frames of shape (0, H, W, 3), for results that are kept."""
        return replace(self, frames=self.frames[:0].copy())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The parsed answer block of a chain."""

    marks: Mapping[str, Mark]
    """One mark for each of DIMENSIONS."""
    overall: float
    """1.00 to 5.00."""
    unknown: tuple[str, ...] = field(default=(), compare=False)
    """The dimensions without a mark of which the chain says that they cannot be known."""

    @property
    def is_partial(self) -> bool:
        """Whether the overall is without a primary dimension, which cannot be known: 5.00 may then be a wrong clip."""
        return not PRIMARY.isdisjoint(self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One chain that a model wrote, and what is known of it."""

    token_ids: Sequence[int]
    """The chain's tokens, its end of turn included."""
    text: str
    """The chain without its end of turn; empty if the model did not think."""
    truncated: bool
    """The chain reached the token limit and was ended from outside."""
    verdict: Verdict | None
    """None if the chain has no readable answer, or there is no chain; `flaw` says why."""
    flaw: str | None
    """Why there is no verdict although the model thought; None otherwise."""
    rewards: Mapping[str, float]
    """The raw reward of each named dimension, in the checkpoint's order. A generative model's is the overall score that
    the chain ends with; empty if that cannot be read."""
    reward_parts: Mapping[str, float] | None = None
    """The known parts of the rollout reward by name; None outside of reinforcement learning."""
    rollout_reward: float | None = None
    """Weighted sum of `reward_parts`; None where the chain cannot be compared with the others of its group: then only
    its reward is learned from."""

    @property
    def reward(self) -> float:
        """The mean of `rewards`: with a single named dimension, that reward."""
        assert self.rewards, "a completion without rewards has no mean"
        return fmean(self.rewards.values())

    @property
    def num_tokens(self) -> int:
        """Tokens in the chain, its end of turn included."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """An engine's completions for one clip and prompt."""

    prompt_tokens: int
    """Tokens of the clip with its prompt, up to where the chain begins."""
    completions: Sequence[Completion]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A clip's reward, and the completions that it is the mean of."""

    clip: Clip
    prompt: str
    model: str
    reward: float
    """Mean of the completions' rewards. Only differences mean something."""
    score: float | None
    """The reward, standardized by the checkpoint's mean and deviation; None if it stores none."""
    std: float | None
    """Sample standard deviation of the completions' rewards; None for a single one."""
    completions: tuple[Completion, ...]
    """The chains that have a reward."""
    left_out: tuple[str, ...] = ()
    """Why other chains have no reward, one reason for each: a generative model's, where no answer can be read."""
    prompt_tokens: int = field(default=0, compare=False)
    """Tokens of the prompt with the clip's frames; 0 where nobody counted them."""

    @property
    def typical(self) -> Completion:
        """The completion whose reward lies nearest to the mean: the one to read."""
        return min(self.completions, key=lambda completion: abs(completion.reward - self.reward))

    @property
    def thinking(self) -> str:
        """The chain of the typical completion; empty if the model did not think."""
        return self.typical.text

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the typical completion."""
        return self.typical.verdict

    @property
    def rewards(self) -> dict[str, float]:
        """Mean reward for each named dimension."""
        names = self.completions[0].rewards
        return {name: sum(c.rewards[name] for c in self.completions) / len(self.completions) for name in names}

    @property
    def truncated(self) -> bool:
        """Whether any of the chains was cut at the token limit."""
        return any(completion.truncated for completion in self.completions)

    def without_frames(self) -> "Score":
        """The same score, whose clip holds no pixels."""
        return replace(self, clip=self.clip.without_frames())

    def to_dict(self) -> dict[str, Any]:
        """The score as plain values, with the keys of --json; a number that is not finite is None."""
        verdict = self.verdict
        return {
            "video": self.clip.source,
            "prompt": self.prompt,
            "model": self.model,
            "reward": _finite(self.reward),
            "score": _finite(self.score),
            "std": _finite(self.std),
            "thinking": self.thinking or None,
            "marks": None if verdict is None else dict(verdict.marks),
            "unknown": None if verdict is None else list(verdict.unknown),
            "overall": None if verdict is None else _finite(verdict.overall),
            "partial_overall": None if verdict is None else verdict.is_partial,
            "truncated": self.truncated,
            "left_out": len(self.left_out),
            "fps": _finite(self.clip.source_fps),
            "times": list(self.clip.times),
            "error": None,
        }

    def _repr_html_(self) -> str:
        """The score in a notebook: frames, reward, marks and chain. All text is escaped."""
        numbers = {"reward": self.reward, "score": self.score, "std": self.std}
        facts = [f"{name} <b>{value:+.3f}</b>" for name, value in numbers.items() if value is not None]
        marks, unknown = ({}, ()) if self.verdict is None else (self.verdict.marks, self.verdict.unknown)
        words = {name: "unknown" if name in unknown else NOT_APPLICABLE for name in marks}
        facts += [f"{escape(name)} {words[name] if mark is None else mark}" for name, mark in marks.items()]
        return (
            f"<div><p><b><bdi>{escape(self.clip.source)}</bdi></b>: <bdi>{escape(self.prompt)}</bdi></p>"
            f"<p>{_thumbnails(self.clip)}</p><p>{' · '.join(facts)}</p>"
            f"<pre style='white-space:pre-wrap'>{escape(self.thinking)}</pre></div>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SideAnnotations:
    """What is known of one of a pair's videos, beside the preference."""

    chain: str | None = None
    """A chain of thought, to train on."""
    marks: Mapping[str, Mark] | None = None
    """True marks, one for each of DIMENSIONS."""
    ratings: Mapping[str, float] = field(default_factory=dict)
    """By label, higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two videos of one prompt, which one people prefer, and what else is known of them."""

    prompt: str
    video_a: str
    """A path, or a name that the pair's benchmark can open."""
    video_b: str
    preference: Mapping[str, Preference]
    """By label (say "overall", or "VQ" and "MQ"). A label that nobody gave is absent."""
    group: str
    """Pairs of one group are not independent: intervals resample whole groups. Mostly the prompt."""
    source_a: str | None = None
    """What generated a."""
    source_b: str | None = None
    aspect: str | None = None
    """What kind of prompt it is, as the benchmark divides them."""
    a: SideAnnotations = SideAnnotations()
    b: SideAnnotations = SideAnnotations()
    line: int | None = None
    """Where the pair stands in its table; None if it was not read from one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedClip:
    """One video, and what people (or whoever drew it) say of it."""

    prompt: str
    video: str
    """A path, or a name that the clip's benchmark can open."""
    group: str
    """As in `Pair`."""
    ratings: Mapping[str, float] = field(default_factory=dict)
    """By label, higher is better. A label that nobody gave is absent."""
    marks: Mapping[str, Mark] | None = None
    """True marks, one for each of DIMENSIONS, where they are known."""
    source: str | None = None
    aspect: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two clips of one prompt, scored by the same model."""

    a: Score
    b: Score
    probability: float
    """That a is preferred to b: sigmoid of the difference of rewards (Bradley & Terry 1952)."""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _thumbnails(clip: Clip, *, count: int = 4, side: int = 160) -> str:
    """A few frames, from the first to the last, as images of HTML."""
    from PIL import Image

    if not len(clip.frames):
        return ""
    images = []
    for index in dict.fromkeys(np.linspace(0, len(clip.times) - 1, count).round().astype(int).tolist()):
        image, file = Image.fromarray(clip.frames[index]), BytesIO()
        image.thumbnail((side, side))
        image.save(file, "JPEG", quality=85)
        data = b64encode(file.getvalue()).decode()
        images.append(f'<img alt="{clip.times[index]:.2f} s" src="data:image/jpeg;base64,{data}">')
    return " ".join(images)


def preference_probability(reward_a: float, reward_b: float, *, variance: float = 0.0) -> float:
    """That a is preferred to b: sigmoid(reward_a - reward_b) (Bradley & Terry 1952), in a form that never overflows.

    variance: of that difference, where the rewards are uncertain; the mean of the sigmoid over a normal distribution of
    the difference d is nearly sigmoid(d / sqrt(1 + pi variance / 8)) (MacKay 1992, The evidence framework applied to
    classification networks)."""
    return 0.5 + 0.5 * math.tanh((reward_a - reward_b) / math.sqrt(1 + math.pi * variance / 8) / 2)
