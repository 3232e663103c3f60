"""Judges: a reward model, a hand-made feature, or a table of scores that another system wrote.

In: clips of a benchmark, and a function that opens them. Out: a record for each clip (RUN_KEYS), and the config that a
run of the judge has. torch is imported only where a model is judged.

A table of scores has `video` and `reward` (or `score`), and optionally `prompt`, `error` and named dimensions, either
as `reward.NAME` or as a column of a label's name; the lines of `descore score --json` are such a table. A clip that is
not in the table has failed. No video is opened."""

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from descore.data.tables import Cells, read_rows, value_at
from descore.errors import ConfigError, DataError, DescoreError, DescoreWarning, VideoError
from descore.evaluation.features import FEATURE_SAMPLING, Feature
from descore.evaluation.records import Record, error_text, plain_record, to_run_record
from descore.evaluation.results import ClipKey, key_of
from descore.io import folder_digest
from descore.rubric import unknown_of
from descore.types import PRIMARY, Clip, RatedClip, Score
from descore.video.reader import read_clip

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


_SAME_REWARDS = {"cefa5a405fee2d4b": "d8c6db08eda697f6"}
"""The former bundled model's digest → the one from before its config said what engines need: runs begun then go on."""


def checkpoint_digest(source: str) -> str:
    """The digest of a checkpoint's settings, rubric, tokenizer, head and weights, with their file names.

    Files up to WHOLE_FILE are hashed whole; the head, which every training of ours moves, is one of them. Of larger
    files their size and 16 MiB spread over them are hashed: training moves every tensor that it trains, so few places
    are enough, and reading 16 GB twice to start a run would be slow."""
    from descore.model.checkpoint import find_checkpoint

    found = folder_digest(find_checkpoint(source))
    return _SAME_REWARDS.get(found, found)


def file_digest(path: Path) -> str:
    """The digest of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJudge:
    """A reward model."""

    scorer: "Scorer"
    sampling_params: "SamplingParams"

    def __post_init__(self) -> None:
        assert self.resolved.think is not None
        answer = self.scorer.settings.answer
        if answer is not None and answer.is_pairwise:
            raise ConfigError(
                f"{self.scorer.name}: compares two clips, and gives no clip a reward; use descore compare"
            )

    @property
    def resolved(self) -> "SamplingParams":
        """The parameters with `think` decided for this model; ConfigError if it cannot sample so."""
        return self.sampling_params.resolved(self.scorer.settings.paradigm)

    @property
    def batch_size(self) -> int:
        """Clips that are scored at a time. Not part of the config: it changes no reward."""
        return self.scorer.batch_size

    @property
    def config(self) -> Record:
        """What the rewards depend on. The precision is the backbone's: a GPU's rewards are not mixed with a CPU's. A
        paradigm of None is descore, as in runs from before there were others, so that these can be resumed."""
        params, paradigm = self.resolved, self.scorer.settings.paradigm
        return {
            "model": self.scorer.name,
            "paradigm": None if paradigm == "descore" else paradigm,
            "think": params.think,
            "samples": params.samples,
            "seed": params.seed,
            "temperature": params.effective_temperature,
            "max_chain_tokens": params.max_chain_tokens or self.scorer.settings.max_chain_tokens,
            "precision": self._precision,
            "digest": checkpoint_digest(self.scorer.name),
            # Runs from before there were released rubrics, or other engines, have no such keys.
            **({} if self.scorer.settings.answer is None else {"rubric": self._rubric_digest}),
            **({} if self.scorer.engine.name == "native" else {"engine": self.scorer.engine.name}),
            "versions": package_versions("descore", "torch", "transformers", "av"),
        }

    @property
    def _precision(self) -> str:
        precision = str(self.scorer.engine.dtype).removeprefix("torch.")
        if self.scorer.engine.name != "native":
            return precision
        from descore.model import bits_of  # torch is there by now

        bits = bits_of(self.scorer.model.backbone)
        return precision if bits is None else f"{precision}, {bits} bits"

    @property
    def _rubric_digest(self) -> str:
        """Of a released judge's text, and of how its answers are read."""
        text = f"{self.scorer.chat.rubric}\n{self.scorer.settings.answer!r}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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


_REWARDS = ("reward", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableJudge:
    """Looks up each clip's reward in a table."""

    file: Path
    model: str
    """The system that wrote the scores."""
    values: Mapping[ClipKey, Record]
    """The known values of a record, by clip."""
    batch_size: int = 4096

    @property
    def config(self) -> Record:
        """What the scores depend on: the table's contents, not its path."""
        return config_without_chains(
            model=self.model, digest=file_digest(self.file), versions=package_versions("descore")
        )

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:  # noqa: ARG002
        """A record for each clip."""
        absent = {"error": f"{self.file.name} has no score of it"}
        return [plain_record(clip, model=self.model, **self.values.get(key_of(clip), absent)) for clip in clips]


def read_scores(
    file: Path, *, clips: Sequence[RatedClip], labels: Sequence[str] = (), model: str | None = None
) -> TableJudge:
    """A table of scores of a benchmark's clips.

    A row's video is matched by its path as the benchmark's table has it, or where one path is the end of the other. A
    file name without a folder is matched, with a warning, where it is unique; a row of another folder never is. A row
    without a prompt holds for every prompt of the video. `model` names the system; by default the name in the rows, or
    the file's name. Two rows for one clip, or no row for any, raise DataError; rows of other clips are left out with a
    warning."""
    index = _ClipIndex.of(clips)
    values: dict[ClipKey, Record] = {}
    line_of: dict[ClipKey, int] = {}
    unmatched: list[int] = []
    by_name: list[str] = []
    names: set[str | None] = set()
    for line, row in read_rows(file, columns=("video",)):
        cells = Cells(file=str(file), line=line, row=row)
        _check_columns(cells, labels)
        names.add(cells.text("model"))
        keys = index.find(cells.video("video"), cells.text("prompt"))
        if twice := next((key for key in keys if key in values), None):
            raise cells.error(f"a second score of {twice[0]!r}; the first is in line {line_of[twice]}: keep one")
        values |= dict.fromkeys(keys, _values_of(cells, labels))
        line_of |= dict.fromkeys(keys, line)
        unmatched += [] if keys else [line]
        by_name += [f"line {line}: {keys[0][0]}"] if keys and index.only_by_name(cells.video("video")) else []
    _check_matches(unmatched, matched=len(values), file=file, example=clips[0].video if clips else "")
    _warn_of_names(by_name, file=file)
    own_name = next(iter(names)) if len(names) == 1 else None
    return TableJudge(file=file, model=model or own_name or file.stem, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClipIndex:
    """Clips by the names that a table may have for them."""

    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By video: the prompts that it was made from, by the same prompt with single spaces."""
    videos: dict[str, list[str]] = field(default_factory=dict)
    """By file name."""

    @classmethod
    def of(cls, clips: Sequence[RatedClip]) -> "_ClipIndex":
        index = cls()
        for clip in clips:
            if clip.video not in index.prompts:
                index.videos.setdefault(PurePosixPath(clip.video).name, []).append(clip.video)
            index.prompts.setdefault(clip.video, {})[_single_spaced(clip.prompt)] = clip.prompt
        return index

    def find(self, video: str, prompt: str | None) -> list[ClipKey]:
        matched = video if video in self.prompts else self._by_name(video)
        if matched is None:
            return []
        prompts = self.prompts[matched]
        if prompt is None:
            return [(matched, each) for each in prompts.values()]
        return [(matched, prompts[_single_spaced(prompt)])] if _single_spaced(prompt) in prompts else []

    def only_by_name(self, video: str) -> bool:
        """Whether a row's video that is matched has no more in common with its clip's than the file name."""
        matched = video if video in self.prompts else self._by_name(video)
        return matched != video and (matched is None or "/" not in video or "/" not in matched)

    def _by_name(self, video: str) -> str | None:
        same_name = self.videos.get(PurePosixPath(video).name, [])
        same_end = [own for own in same_name if f"/{own}".endswith(f"/{video}") or f"/{video}".endswith(f"/{own}")]
        return same_end[0] if len(same_end) == 1 else None


def _warn_of_names(matches: Sequence[str], *, file: Path) -> None:
    if matches:
        message = f"{len(matches):,} of its rows are matched by file name alone, the first in {matches[0]}"
        warnings.warn(f"{file}: {message}; write the clips' folders if this is wrong", DescoreWarning, stacklevel=3)


def _single_spaced(prompt: str) -> str:
    return " ".join(prompt.split())


def _check_columns(cells: Cells, labels: Sequence[str]) -> None:
    row = cells.row
    if not any(name in row for name in (*_REWARDS, "error", "rewards", *labels)) and not _dimension_columns(row):
        raise cells.error(f"no column reward or score; found {', '.join(row)}")


def _dimension_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """By named dimension: its column."""
    return {column.removeprefix("reward."): column for column in row if column.startswith("reward.")}


def _values_of(cells: Cells, labels: Sequence[str]) -> Record:
    """The values of a record that a row has; an `error` if it has one, whatever its reward, or no reward."""
    if error := cells.text("error"):
        return {"error": error}
    rewards = _rewards(cells, labels)
    reward = next((number for name in _REWARDS if (number := cells.number(name)) is not None), None)
    if reward is None and not rewards:
        return {"error": "its row has no reward"}
    truncated, thinking, marks = cells.row.get("truncated"), cells.text("thinking"), cells.marks("marks")
    unknown = None if marks is None else list(unknown_of(thinking or "", marks))
    return {
        "rewards": rewards or {"reward": reward},
        "reward": fmean(rewards.values()) if reward is None else reward,
        "std": cells.number("std"),
        "thinking": thinking,
        "marks": marks,
        "unknown": unknown,
        "overall": cells.number("overall"),
        "partial_overall": None if unknown is None else not PRIMARY.isdisjoint(unknown),
        "truncated": truncated if isinstance(truncated, bool) else None,
    }


def _rewards(cells: Cells, labels: Sequence[str]) -> dict[str, float]:
    inner = cells.row.get("rewards")
    columns = {label: label for label in labels} | _dimension_columns(cells.row)
    if isinstance(inner, Mapping):
        columns |= {name: f"rewards.{name}" for name in inner}
    numbers = {
        name: cells.number(column) for name, column in columns.items() if value_at(cells.row, column) is not None
    }
    return {name: number for name, number in numbers.items() if number is not None}


def _check_matches(unmatched: Sequence[int], *, matched: int, file: Path, example: str) -> None:
    if not matched:
        line = unmatched[0] if unmatched else 1
        raise DataError(str(file), line, f"no row is of a clip in the benchmark; its videos are like {example!r}")
    if unmatched:
        message = f"{len(unmatched):,} of its rows, from line {unmatched[0]}, are of no clip in the benchmark; left out"
        warnings.warn(f"{file}: {message}", DescoreWarning, stacklevel=3)
