"""Judges: a reward model, or a hand-made feature. A table of scores is in `score_tables`.

In: clips of a benchmark, and a function that opens them. Out: a record for each clip (RUN_KEYS), and the config that a
run of the judge has. torch is imported only where a model is judged."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from descore.errors import DescoreError, VideoError
from descore.evaluation.records import Record, error_text, plain_record, to_run_record
from descore.types import Clip, RatedClip, Score
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.scorer import Request, SamplingParams, Scorer

OpenVideo = Callable[[str], Any]
"""From a clip's `video` to what a scorer reads: a path, the bytes of a film, or a Clip."""


class Judge(Protocol):
    """Gives every clip of a benchmark a reward."""

    @property
    def batch_size(self) -> int:
        """Clips that are judged at a time; their records are written before the next ones are judged."""

    @property
    def config(self) -> Record:
        """What the rewards depend on."""

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:
        """A record for each clip."""


FEATURE_SAMPLING = VideoSampling(
    fps=240.0, min_frames=1, max_frames=64, min_pixels=1, max_pixels=1280 * 720, size_multiple=1, timeout=60.0
)
"""Every frame of a short clip at its own size: scaling blurs, and a missing frame is no jerk. Of a longer film 64
frames are taken, evenly spaced; a picture above 720p is scaled down."""

LUMA = (0.299, 0.587, 0.114)
"""Grey from red, green and blue (ITU-R BT.601)."""

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number that is read off the pixels."""

    name: str
    measure: Callable[[Clip], float]
    """Raises VideoError where the number is not defined."""
    formula: str
    """What is measured, for people; part of a run's config, so that a changed feature starts a run of its own."""


def sharpness(clip: Clip) -> float:
    """Mean of |Laplacian| over frames and inner pixels, in grey levels: of the five-point Laplacian
    4 g[y, x] - g[y - 1, x] - g[y + 1, x] - g[y, x - 1] - g[y, x + 1]. 0 for a flat picture."""
    if min(clip.size) < 3:
        raise VideoError(clip.source, f"pictures of {clip.size[0]}x{clip.size[1]} pixels; sharpness needs 3x3 or more")
    sums = [float(np.abs(_laplacian(_grey(frame_HWC))).mean()) for frame_HWC in clip.frames]
    return sum(sums) / len(sums)


def jerk(clip: Clip) -> float:
    """Minus the mean |second temporal difference| over the mean |first one|, both over all pixels: 0 for a motion that
    changes every pixel at an even pace, about -2 for flicker between two pictures."""
    grey_THW = np.stack([_grey(frame_HWC) for frame_HWC in clip.frames])
    if len(grey_THW) < 3:
        raise VideoError(clip.source, f"{len(grey_THW)} frames; jerk needs 3 or more")
    change_THW = np.diff(grey_THW, axis=0)
    first, second = float(np.abs(change_THW).mean()), float(np.abs(np.diff(change_THW, axis=0)).mean())
    if first == 0:
        raise VideoError(clip.source, "nothing changes from frame to frame; jerk is not defined")
    return -second / first


def _grey(frame_HWC: NDArray[np.uint8]) -> Grey:
    return frame_HWC.astype(np.float32) @ np.asarray(LUMA, np.float32)


def _laplacian(grey_HW: Grey) -> Grey:
    inner = 4 * grey_HW[1:-1, 1:-1]
    return inner - grey_HW[:-2, 1:-1] - grey_HW[2:, 1:-1] - grey_HW[1:-1, :-2] - grey_HW[1:-1, 2:]


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(name="sharpness", measure=sharpness, formula="mean |Laplacian| of the grey frames"),
        Feature(
            name="jerk", measure=jerk, formula="- mean |second temporal difference| / mean |first| of the grey frames"
        ),
    )
}
"""By the name that `descore evaluate --model` takes."""


WHOLE_FILE = 64 << 20
"""Bytes up to which a file is hashed whole."""
BLOCK, BLOCKS = 1 << 16, 256
"""Of a larger file, so many bytes at so many places are hashed, evenly spaced from its first byte to its last."""

_CHECKPOINT_FILES = {".json", ".txt", ".jinja", ".model", ".safetensors"}
_SAME_REWARDS = {"cefa5a405fee2d4b": "d8c6db08eda697f6"}
"""The bundled model's digest → the one that it had before its config said what engines need: runs begun then go on."""


def checkpoint_digest(source: str) -> str:
    """The digest of a checkpoint's settings, rubric, tokenizer, head and weights, with their file names.

    Files up to WHOLE_FILE are hashed whole; the head, which every training of ours moves, is one of them. Of larger
    files their size and 16 MiB spread over them are hashed: training moves every tensor that it trains, so few places
    are enough, and reading 16 GB twice to start a run would be slow."""
    from descore.model.checkpoint import find_checkpoint

    folder = find_checkpoint(source)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _CHECKPOINT_FILES and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
        _hash_file(digest, path)
    found = digest.hexdigest()[:16]
    return _SAME_REWARDS.get(found, found)


def file_digest(path: Path) -> str:
    """The digest of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _hash_file(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    if size <= WHOLE_FILE:
        digest.update(path.read_bytes())
        return
    with path.open("rb") as file:
        for place in range(BLOCKS):
            file.seek((size - BLOCK) * place // (BLOCKS - 1))
            digest.update(file.read(BLOCK))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJudge:
    """A reward model."""

    scorer: "Scorer"
    sampling_params: "SamplingParams"

    def __post_init__(self) -> None:
        assert self.resolved.think is not None

    @property
    def resolved(self) -> "SamplingParams":
        """The parameters with `think` decided for this model; ConfigError if it cannot sample so."""
        return self.sampling_params.resolved(self.scorer.model.settings.paradigm)

    @property
    def batch_size(self) -> int:
        """Clips that are scored at a time. Not part of the config: it changes no reward."""
        return self.scorer.batch_size

    @property
    def config(self) -> Record:
        """What the rewards depend on. The precision is the backbone's: a GPU's rewards are not mixed with a CPU's. A
        paradigm of None is descore, as in runs from before there were others, so that these can be resumed."""
        params, paradigm = self.resolved, self.scorer.model.settings.paradigm
        return {
            "model": self.scorer.name,
            "paradigm": None if paradigm == "descore" else paradigm,
            "think": params.think,
            "samples": params.samples,
            "seed": params.seed,
            "temperature": params.effective_temperature,
            "max_chain_tokens": params.max_chain_tokens or self.scorer.model.settings.max_chain_tokens,
            "precision": str(self.scorer.model.backbone.dtype).removeprefix("torch."),
            "digest": checkpoint_digest(self.scorer.name),
            "versions": package_versions("descore", "torch", "transformers", "av"),
        }

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:
        """A record for each clip; one that cannot be opened or scored has an `error`, and the others go on."""
        start = time.perf_counter()
        results = self._score(clips, open_video)
        seconds = (time.perf_counter() - start) / len(clips)
        return [
            to_run_record(result, clip=clip, model=self.scorer.name, seconds=seconds)
            for clip, result in zip(clips, results, strict=True)
        ]

    def _score(self, clips: Sequence[RatedClip], open_video: OpenVideo) -> list[Score | DescoreError]:
        params = self.resolved
        try:
            requests = (request_of(open_video(clip.video), clip.prompt) for clip in clips)
            return list(
                self.scorer.score_each(
                    requests,
                    think=params.think,
                    samples=params.samples,
                    temperature=params.temperature,
                    seed=params.seed,
                    max_chain_tokens=params.max_chain_tokens,
                )
            )
        except DescoreError as error:
            if len(clips) == 1:
                return [VideoError(clips[0].video, error_text(error))]
            # One of them cannot be opened. The others are scored all the same.
            return [result for clip in clips for result in self._score([clip], open_video)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureJudge:
    """A hand-made feature."""

    feature: Feature
    batch_size: int = 8

    @property
    def config(self) -> Record:
        """What the numbers depend on."""
        return config_without_chains(
            model=self.feature.name, digest=self.feature.formula, versions=package_versions("descore", "numpy", "av")
        )

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:
        """A record for each clip; where the feature cannot be measured it has an `error`."""
        return [self._measure(clip, open_video) for clip in clips]

    def _measure(self, rated: RatedClip, open_video: OpenVideo) -> Record:
        name, start = self.feature.name, time.perf_counter()
        try:
            clip = read_clip(open_video(rated.video), sampling=FEATURE_SAMPLING)
            rewards = {name: self.feature.measure(clip)}
        except DescoreError as error:
            seconds = time.perf_counter() - start
            return plain_record(rated, model=name, error=error_text(error), seconds=seconds)
        seconds = time.perf_counter() - start
        return plain_record(
            rated, model=name, rewards=rewards, fps=clip.source_fps, times=list(clip.times), seconds=seconds
        )


def request_of(video: Any, prompt: str) -> "Request":  # noqa: ANN401  # whatever a benchmark opens
    """A request to the scorer. A drawn clip is sampled and scaled as a file of the same frames would be, since models
    differ in how they sample."""
    from descore.scorer import Request

    if isinstance(video, Clip):
        return Request(video=video.frames, prompt=prompt, fps=video.source_fps)
    return Request(video=video, prompt=prompt)


def package_versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, by name."""
    return {package: version(package) for package in packages}


def config_without_chains(*, model: str, digest: str, versions: Mapping[str, str]) -> Record:
    """The config of a judge that writes no chains: the same keys as a model's."""
    unset = dict.fromkeys(("paradigm", "think", "samples", "seed", "temperature", "max_chain_tokens", "precision"))
    return {"model": model, **unset, "digest": digest, "versions": dict(versions)}
