"""Whatever gives clips their rewards, behind one face: a reward model, a hand-made feature, a table of scores.

In: clips of a benchmark, and how to open them. Out: a record for each (RUN_KEYS), and the config that a run of it
has. Knows models, features and tables; knows nothing of run directories or statistics."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from descore.data.video import read_clip
from descore.errors import DescoreError, VideoError
from descore.evaluation.digests import checkpoint_digest
from descore.evaluation.handmade import SAMPLING, Feature
from descore.evaluation.records import plain_record, to_run_record
from descore.evaluation.runs import Open
from descore.scorer import Request, Scorer, Thinking
from descore.types import Clip, RatedClip, Score

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJudge:
    """A reward model."""

    scorer: Scorer
    thinking: Thinking

    def __post_init__(self) -> None:
        assert self.how.think, "settled"

    @property
    def how(self) -> Thinking:
        """How this model thinks; ConfigError if it cannot so."""
        return self.thinking.settled(self.scorer.model.settings.paradigm)

    @property
    def batch_size(self) -> int:
        """Clips that are scored at a time. Not part of the config: it changes no reward."""
        return self.scorer.batch_size

    @property
    def config(self) -> Record:
        """What the rewards depend on. The precision is the backbone's: a GPU's rewards are not mixed with a CPU's. A
        paradigm of None is descore's, as in runs from before there were others, which can go on so."""
        how, paradigm = self.how, self.scorer.model.settings.paradigm
        return {
            "model": self.scorer.name,
            "paradigm": None if paradigm == "descore" else paradigm,
            "think": how.think,
            "samples": how.samples,
            "seed": how.seed,
            "temperature": how.warmth,
            "max_chain_tokens": how.max_chain_tokens or self.scorer.model.settings.max_chain_tokens,
            "precision": str(self.scorer.model.backbone.dtype).removeprefix("torch."),
            "digest": checkpoint_digest(self.scorer.name),
            "versions": versions("descore", "torch", "transformers", "av"),
        }

    def judge(self, clips: Sequence[RatedClip], *, open_video: Open) -> list[Record]:
        """A record for each clip; one that cannot be opened or scored has an `error`, and the others go on."""
        start = time.perf_counter()
        results = self._score(clips, open_video)
        seconds = (time.perf_counter() - start) / len(clips)
        return [
            to_run_record(result, clip=clip, model=self.scorer.name, seconds=seconds)
            for clip, result in zip(clips, results, strict=True)
        ]

    def _score(self, clips: Sequence[RatedClip], open_video: Open) -> list[Score | VideoError]:
        how = self.how
        try:
            requests = (request_of(open_video(clip.video), clip.prompt) for clip in clips)
            return list(
                self.scorer.score_each(
                    requests,
                    think=how.think,
                    samples=how.samples,
                    temperature=how.temperature,
                    seed=how.seed,
                    max_chain_tokens=how.max_chain_tokens,
                )
            )
        except DescoreError as fault:
            if len(clips) == 1:
                return [VideoError(clips[0].video, _reason(fault))]
            # One of them has a prompt that is empty or too long, or cannot be opened: find it, and score the others.
            return [result for clip in clips for result in self._score([clip], open_video)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureJudge:
    """A hand-made feature."""

    feature: Feature
    batch_size: int = 8

    @property
    def config(self) -> Record:
        """What the numbers depend on."""
        return unthinking_config(
            model=self.feature.name, digest=self.feature.formula, versions=versions("descore", "numpy", "av")
        )

    def judge(self, clips: Sequence[RatedClip], *, open_video: Open) -> list[Record]:
        """A record for each clip; where the feature cannot be measured it has an `error`."""
        return [self._measure(clip, open_video) for clip in clips]

    def _measure(self, rated: RatedClip, open_video: Open) -> Record:
        name, start = self.feature.name, time.perf_counter()
        try:
            clip = read_clip(open_video(rated.video), sampling=SAMPLING)
            found = {name: self.feature.measure(clip)}
        except DescoreError as fault:
            seconds = time.perf_counter() - start
            return plain_record(rated, model=name, error=_reason(fault), seconds=seconds)
        seconds = time.perf_counter() - start
        return plain_record(
            rated, model=name, rewards=found, fps=clip.source_fps, times=list(clip.times), seconds=seconds
        )


def request_of(video: Any, prompt: str) -> Request:  # noqa: ANN401  # whatever a benchmark opens
    """A drawn clip is sampled and scaled as a file of the same frames would be: models differ in what they read."""
    if isinstance(video, Clip):
        return Request(video=video.frames, prompt=prompt, fps=video.source_fps)
    return Request(video=video, prompt=prompt)


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, by name."""
    return {package: version(package) for package in packages}


def unthinking_config(*, model: str, digest: str, versions: Mapping[str, str]) -> Record:
    """The config of what writes no chains: the same keys as a model's."""
    no = dict.fromkeys(("paradigm", "think", "samples", "seed", "temperature", "max_chain_tokens", "precision"))
    return {"model": model, **no, "digest": digest, "versions": dict(versions)}


def _reason(fault: DescoreError) -> str:
    return fault.reason if isinstance(fault, VideoError) else str(fault)
