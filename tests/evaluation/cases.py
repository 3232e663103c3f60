"""Small judgements, and a judge that gives each video a fixed reward."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import noise_clip

from descore.evaluation.records import plain_record
from descore.types import Pair, RatedClip


@dataclass
class FakeJudgements:
    """Stands in for a benchmark's judgements."""

    clips: tuple[RatedClip, ...]
    pairs: tuple[Pair, ...]
    open: Callable[[str], Any] = lambda name: noise_clip(int(name.removeprefix("v")), width=64, height=32)
    file: Callable[[str], Path | None] = lambda _: None


@dataclass
class FixedJudge:
    """Gives rewards from a table; a video that is not in it has failed. Counts how often each is judged."""

    rewards: Mapping[str, Any]
    batch_size: int = 2
    model: str = "fixed"
    versions: Mapping[str, str] = field(default_factory=dict)
    judged_videos: list[str] = field(default_factory=list)
    after: Callable[[int], None] = lambda _: None
    """Called with the number of clips judged so far, before records are given back."""

    @property
    def config(self):
        return {"model": self.model, "think": None, "versions": dict(self.versions)}

    def judge(self, clips, *, open_video):  # noqa: ARG002
        self.judged_videos += [clip.video for clip in clips]
        self.after(len(self.judged_videos))
        return [self._record(clip) for clip in clips]

    def _record(self, clip):
        shown = self.rewards.get(clip.video)
        if shown is None:
            return plain_record(clip, model=self.model, error="broken", seconds=0.5)
        return plain_record(
            clip, model=self.model, rewards=shown if isinstance(shown, dict) else {"overall": shown}, seconds=0.5
        )


def clip(video, *, prompt="p", group=None, **more):
    return RatedClip(prompt=prompt, video=video, group=group or prompt, **more)


def pair(a, b, preference, *, prompt="p", group=None, **more):
    labels = preference if isinstance(preference, dict) else {"overall": preference}
    return Pair(prompt=prompt, video_a=a, video_b=b, preference=labels, group=group or prompt, **more)


def four_clips():
    """Two prompts of two clips; people prefer v0 to v1, and v3 to v2."""
    clips = (*(clip(v) for v in ("v0", "v1")), *(clip(v, prompt="q") for v in ("v2", "v3")))
    return FakeJudgements(clips=clips, pairs=(pair("v0", "v1", "a"), pair("v2", "v3", "b", prompt="q")))


GOOD = {"v0": 1.0, "v1": 0.0, "v2": 0.0, "v3": 1.0}
