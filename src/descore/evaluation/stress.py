"""Stress tests: does the reward look at what it should?

In: a judge, clips with their prompts, and how clips are read. Out: for each perturbation how often the reward moved as
it should, and how far, each changed clip held against itself unchanged. Clips are read, changed and judged a batch at a
time. Knows perturbations, judges and statistics; knows nothing of models, files or screens.

Shapes: N clips that a perturbation was asked of."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from descore.errors import ConfigError, DescoreError, VideoError
from descore.evaluation.perturbations import PERTURBATIONS, Case, Expected, Perturbation, perturb, read
from descore.evaluation.runs import Judge
from descore.stats.agreement import share
from descore.stats.bootstrap import Figure
from descore.types import RatedClip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements

TOLERANCE = 0.25
"""Deviations of the rewards by which a reward may shift and still be called the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one perturbation did."""

    perturbation: str
    expected: Expected
    why: str
    figure: Figure
    """How often the reward moved as expected. "lower": it fell; "same": it shifted by no more than TOLERANCE. `failed`
    are the clips that have no score, changed or unchanged."""
    shift: float
    """Mean shift, in deviations of the unchanged clips' rewards; nan where these do not differ."""
    n: int
    """Clips compared: those of the figure."""
    left_out: int
    """Clips that the perturbation has nothing to say of: see `perturb`."""
    failures: tuple[Mapping[str, str], ...]
    """Clips without a score once they are changed: video, prompt, error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a stress test found."""

    clips: int
    scored: int
    """Clips with a score as they are."""
    deviation: float
    """Sample standard deviation of their rewards; nan below two clips."""
    tolerance: float
    failures: tuple[Mapping[str, str], ...]
    """Clips without a score as they are: video, prompt, error."""
    rows: tuple[Row, ...]


class _Key(NamedTuple):
    clip: int
    change: str = ""  # none


@dataclass(frozen=True, slots=True)
class _Told:
    """What the judge said. A change that is in neither was not asked of the clip."""

    rewards: dict[_Key, float] = field(default_factory=dict)
    errors: dict[_Key, str] = field(default_factory=dict)


def stress(
    judge: Judge,
    judgements: "Judgements",
    *,
    sampling: VideoSampling,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Findings:
    """Judge every clip as it is and with each perturbation. `sampling`: how the judge reads clips. `progress` hears how
    many clips of how many are done. A clip that cannot be read or judged is counted and named, and the others go on;
    ConfigError for fewer than two clips, since shifts are told in deviations of their rewards."""
    clips = judgements.clips
    if len(clips) < 2:
        raise ConfigError(f"stress: found {len(clips)} clip, expected 2 or more: shifts are told in deviations")
    told = _Told()
    trials = _trials(judgements, sampling=sampling, seed=seed)
    progress(0, len(clips))
    while batch := list(islice(trials, judge.batch_size)):
        _judge(judge, batch, told)
        progress(batch[-1][0].clip, len(clips))
    progress(len(clips), len(clips))
    return _findings(clips, told)


def _trials(
    judgements: "Judgements", *, sampling: VideoSampling, seed: int
) -> Iterator[tuple[_Key, Case | DescoreError]]:
    """Each clip as it is, then with each change that has something to say of it."""
    prompts = dict.fromkeys(clip.prompt for clip in judgements.clips)
    for index, rated in enumerate(judgements.clips):
        try:
            case = _open(judgements, rated, prompts=prompts, sampling=sampling, seed=(seed, index))
        except DescoreError as fault:
            yield _Key(index), fault
            continue
        yield _Key(index), case
        for name, row in PERTURBATIONS.items():
            try:
                changed: Case | DescoreError | None = perturb(case, row)
            except DescoreError as fault:
                changed = fault
            if changed is not None:
                yield _Key(index, name), changed


def _open(
    judgements: "Judgements",
    rated: RatedClip,
    *,
    prompts: Mapping[str, None],
    sampling: VideoSampling,
    seed: tuple[int, ...],
) -> Case:
    video = judgements.open(rated.video)
    return Case(
        clip=read(video, sampling=sampling),
        prompt=rated.prompt,
        video=video,
        sampling=sampling,
        others=tuple(prompt for prompt in prompts if prompt != rated.prompt),
        marks=rated.marks,
        seed=seed,
    )


def _judge(judge: Judge, batch: Sequence[tuple[_Key, Case | DescoreError]], told: _Told) -> None:
    cases = {key: case for key, case in batch if isinstance(case, Case)}
    told.errors.update({key: _reason(fault) for key, fault in batch if isinstance(fault, DescoreError)})
    if not cases:
        return
    by_name = {f"{key.clip} {key.change}": case for key, case in cases.items()}
    asked = [RatedClip(prompt=case.prompt, video=name, group="") for name, case in by_name.items()]
    records = judge.judge(asked, open_video=lambda name: by_name[name].clip)
    for key, record in zip(cases, records, strict=True):
        if record["reward"] is None:
            told.errors[key] = record["error"]
        else:
            told.rewards[key] = record["reward"]


def _findings(clips: Sequence[RatedClip], told: _Told) -> Findings:
    rewards = [told.rewards[_Key(index)] for index in range(len(clips)) if _Key(index) in told.rewards]
    deviation = stdev(rewards) if len(rewards) > 1 else math.nan
    return Findings(
        clips=len(clips),
        scored=len(rewards),
        deviation=deviation,
        tolerance=TOLERANCE,
        failures=_failures(clips, told, change=""),
        rows=tuple(_row(row, clips, told, deviation=deviation) for row in PERTURBATIONS.values()),
    )


def _row(row: Perturbation, clips: Sequence[RatedClip], told: _Told, *, deviation: float) -> Row:
    asked = [index for index in range(len(clips)) if _was_asked(index, row.name, told)]
    shift_N = np.asarray([_shift(index, row.name, told) for index in asked], np.float64)
    figure = share(
        _as_expected(shift_N, row.expected, deviation=deviation),
        np.asarray([clips[index].group for index in asked], np.str_),
    )
    known = shift_N[~np.isnan(shift_N)]
    return Row(
        perturbation=row.name,
        expected=row.expected,
        why=row.why,
        figure=figure,
        shift=fmean(known) / deviation if len(known) and deviation > 0 else math.nan,
        n=figure.n,
        left_out=len(clips) - len(asked),
        failures=_failures(clips, told, change=row.name),
    )


def _was_asked(index: int, change: str, told: _Told) -> bool:
    """A clip that could not even be read counts too: nobody knows that it would have been left out."""
    key = _Key(index, change)
    return key in told.rewards or key in told.errors or _Key(index) in told.errors


def _shift(index: int, change: str, told: _Told) -> float:
    nothing = math.nan
    return told.rewards.get(_Key(index, change), nothing) - told.rewards.get(_Key(index), nothing)


def _as_expected(shift_N: np.ndarray, expected: Expected, *, deviation: float) -> np.ndarray:
    """1 where the reward moved as it should, 0 where not, nan where it is not known."""
    hit_N = shift_N < 0 if expected == "lower" else np.abs(shift_N) <= TOLERANCE * deviation
    unknown_N = np.isnan(shift_N) | (expected == "same" and math.isnan(deviation))
    return np.where(unknown_N, np.nan, hit_N)


def _failures(clips: Sequence[RatedClip], told: _Told, *, change: str) -> tuple[dict[str, str], ...]:
    """Of a clip that has no score as it is, the changes are not told apart."""
    found = []
    for index, clip in enumerate(clips):
        key = _Key(index, change)
        if key in told.errors and (not change or _Key(index) in told.rewards):
            found.append({"video": clip.video, "prompt": clip.prompt, "error": told.errors[key]})
    return tuple(found)


def _reason(fault: DescoreError) -> str:
    return fault.reason if isinstance(fault, VideoError) else str(fault)
