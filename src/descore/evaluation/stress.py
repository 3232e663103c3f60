"""Stress tests: does the reward look at what it should?

In: a judge, clips with their prompts, and how clips are sampled. Out: for each perturbation how often the reward moved
as it should, and how far, each changed clip compared with itself unchanged. Clips are read, changed and judged a batch
at a time. A journal keeps the rewards so far, so that an interrupted test goes on where it was.

`compare_generators` compares the clips of two generators by reward and by hand-made measures.

Shapes: N clips that a perturbation applies to."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from descore.errors import ConfigError, DataError, DescoreError, VideoError
from descore.evaluation.features import FEATURE_SAMPLING, HACK_MEASURES, GeneratorChange, Measured, change_of
from descore.evaluation.judges import Judge
from descore.evaluation.perturbations import PERTURBATIONS, Case, Expected, Perturbation, perturb, read
from descore.evaluation.records import error_text, file_stamp, is_unchanged
from descore.evaluation.results import LEAST_CLIPS
from descore.io import append_records, read_records
from descore.stats.agreement import share
from descore.stats.bootstrap import Figure
from descore.types import Clip, RatedClip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements

TOLERANCE = 0.25
"""Deviations of the rewards by which a reward may shift and still be called the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StressRow:
    """The effect of one perturbation."""

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
    as_expected: bool | None
    """Whether the reward moved as expected for half of the clips or more; None below LEAST_CLIPS clips."""
    left_out: int
    """Clips that the perturbation does not apply to: see `perturb`."""
    failures: tuple[Mapping[str, str], ...]
    """Clips without a score once they are changed: video, prompt, error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StressResults:
    """The outcome of a stress test."""

    clips: int
    scored: int
    """Clips with a score as they are."""
    deviation: float
    """Sample standard deviation of their rewards; nan below two clips."""
    tolerance: float
    failures: tuple[Mapping[str, str], ...]
    """Clips without a score as they are: video, prompt, error."""
    rows: tuple[StressRow, ...]


class _Trial(NamedTuple):
    clip: int
    perturbation: str = ""  # unchanged


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Rewards and errors by trial. A perturbation that is in neither does not apply to the clip."""

    rewards: dict[_Trial, float] = field(default_factory=dict)
    errors: dict[_Trial, str] = field(default_factory=dict)


def run_stress(
    judge: Judge,
    judgements: "Judgements",
    *,
    sampling: VideoSampling,
    seed: int = 0,
    journal: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> StressResults:
    """Judge every clip unchanged and with each perturbation. `sampling`: how the judge samples clips. `journal`: a file
    of the rewards so far, which are not asked for again unless their clip's file has changed. `on_progress` is called
    with the number of clips done and of all. A clip that cannot be read or judged is counted and named, and the others
    go on; ConfigError for fewer than two clips, since shifts are in standard deviations of their rewards."""
    clips = judgements.clips
    if len(clips) < 2:
        raise ConfigError(f"stress: found {len(clips)} clip, expected 2 or more: shifts are in deviations")
    outcomes = _Outcomes() if journal is None else _read_journal(journal, judgements)
    done = max((trial.clip for trial in outcomes.rewards), default=0)
    trials = _trials(judgements, known=frozenset(outcomes.rewards), sampling=sampling, seed=seed)
    on_progress(done, len(clips))
    while batch := list(islice(trials, judge.batch_size)):
        _judge(judge, batch, outcomes)
        if journal is not None:
            append_records(journal, _journal_records(batch, outcomes, judgements))
        on_progress(batch[-1][0].clip, len(clips))
    on_progress(len(clips), len(clips))
    return _results(clips, outcomes)


def _journal_records(
    batch: Sequence[tuple[_Trial, Case | DescoreError]], outcomes: _Outcomes, judgements: "Judgements"
) -> list[dict[str, Any]]:
    """A record for each trial of a batch that has a reward; the others are tried again when the test is resumed."""
    stamps = {clip: _stamp(judgements, clip) for clip in {trial.clip for trial, _ in batch}}
    return [
        {**trial._asdict(), "reward": outcomes.rewards[trial], "file": stamps[trial.clip]}
        for trial, _ in batch
        if trial in outcomes.rewards
    ]


def _stamp(judgements: "Judgements", clip: int) -> dict[str, Any] | None:
    file = judgements.file(judgements.clips[clip].video)
    return None if file is None else file_stamp(file)


def _read_journal(journal: Path, judgements: "Judgements") -> _Outcomes:
    """The rewards so far, without those of clips whose file has changed."""
    outcomes, unchanged = _Outcomes(), dict[int, bool]()
    for number, record in enumerate(read_records(journal), start=1):
        if "reward" not in record:  # the config
            continue
        clip, name, reward = (record.get(key) for key in ("clip", "perturbation", "reward"))
        if not isinstance(clip, int) or clip >= len(judgements.clips) or not isinstance(reward, int | float):
            raise DataError(str(journal), number, "holds no clip and reward; delete the line to judge it again")
        file, stamp = judgements.file(judgements.clips[clip].video), record.get("file")
        if clip not in unchanged:
            unchanged[clip] = file is None or (isinstance(stamp, dict) and is_unchanged(file, stamp))
        if unchanged[clip]:
            outcomes.rewards[_Trial(clip, str(name))] = reward
    return outcomes


def _trials(
    judgements: "Judgements", *, known: Collection[_Trial], sampling: VideoSampling, seed: int
) -> Iterator[tuple[_Trial, Case | DescoreError]]:
    """Each clip unchanged, then with each perturbation that applies to it, but for the trials that are known."""
    prompts = dict.fromkeys(clip.prompt for clip in judgements.clips)
    for index, rated in enumerate(judgements.clips):
        try:
            case = _open(judgements, rated, prompts=prompts, sampling=sampling, seed=(seed, index))
        except DescoreError as error:
            yield _Trial(index), error
            continue
        if _Trial(index) not in known:
            yield _Trial(index), case
        for name, row in PERTURBATIONS.items():
            if _Trial(index, name) in known:
                continue
            try:
                changed: Case | DescoreError | None = perturb(case, row)
            except DescoreError as error:
                changed = error
            if changed is not None:
                yield _Trial(index, name), changed


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


def _judge(judge: Judge, batch: Sequence[tuple[_Trial, Case | DescoreError]], outcomes: _Outcomes) -> None:
    cases = {trial: case for trial, case in batch if isinstance(case, Case)}
    outcomes.errors.update({trial: error_text(error) for trial, error in batch if isinstance(error, DescoreError)})
    if not cases:
        return
    by_name = {f"{trial.clip} {trial.perturbation}": case for trial, case in cases.items()}
    clips = [RatedClip(prompt=case.prompt, video=name, group="") for name, case in by_name.items()]
    records = judge.judge(clips, open_video=lambda name: by_name[name].clip)
    for trial, record in zip(cases, records, strict=True):
        if record["reward"] is None:
            outcomes.errors[trial] = record["error"]
        else:
            outcomes.rewards[trial] = record["reward"]


def _results(clips: Sequence[RatedClip], outcomes: _Outcomes) -> StressResults:
    rewards = [outcomes.rewards[_Trial(index)] for index in range(len(clips)) if _Trial(index) in outcomes.rewards]
    deviation = stdev(rewards) if len(rewards) > 1 else math.nan
    return StressResults(
        clips=len(clips),
        scored=len(rewards),
        deviation=deviation,
        tolerance=TOLERANCE,
        failures=_failures(clips, outcomes, perturbation=""),
        rows=tuple(_row(row, clips, outcomes, deviation=deviation) for row in PERTURBATIONS.values()),
    )


def _row(row: Perturbation, clips: Sequence[RatedClip], outcomes: _Outcomes, *, deviation: float) -> StressRow:
    tried = [index for index in range(len(clips)) if _was_tried(index, row.name, outcomes)]
    shift_N = np.asarray([_shift(index, row.name, outcomes) for index in tried], np.float64)
    figure = share(
        _as_expected(shift_N, row.expected, deviation=deviation),
        np.asarray([clips[index].group for index in tried], np.str_),
    )
    known = shift_N[~np.isnan(shift_N)]
    return StressRow(
        perturbation=row.name,
        expected=row.expected,
        why=row.why,
        figure=figure,
        shift=fmean(known) / deviation if len(known) and deviation > 0 else math.nan,
        n=figure.n,
        as_expected=figure.value >= 0.5 if figure.n >= LEAST_CLIPS else None,
        left_out=len(clips) - len(tried),
        failures=_failures(clips, outcomes, perturbation=row.name),
    )


def _was_tried(index: int, perturbation: str, outcomes: _Outcomes) -> bool:
    """A clip that could not be read counts as tried: whether the perturbation applies to it is unknown."""
    trial = _Trial(index, perturbation)
    return trial in outcomes.rewards or trial in outcomes.errors or _Trial(index) in outcomes.errors


def _shift(index: int, perturbation: str, outcomes: _Outcomes) -> float:
    return outcomes.rewards.get(_Trial(index, perturbation), math.nan) - outcomes.rewards.get(_Trial(index), math.nan)


def _as_expected(shift_N: np.ndarray, expected: Expected, *, deviation: float) -> np.ndarray:
    """1 where the reward moved as it should, 0 where not, nan where a reward is missing."""
    hit_N = shift_N < 0 if expected == "lower" else np.abs(shift_N) <= TOLERANCE * deviation
    unknown_N = np.isnan(shift_N) | (expected == "same" and math.isnan(deviation))
    return np.where(unknown_N, np.nan, hit_N)


def _failures(clips: Sequence[RatedClip], outcomes: _Outcomes, *, perturbation: str) -> tuple[dict[str, str], ...]:
    """A clip that has no score unchanged is a failure of that alone."""
    failures = []
    for index, clip in enumerate(clips):
        trial = _Trial(index, perturbation)
        if trial in outcomes.errors and (not perturbation or _Trial(index) in outcomes.rewards):
            failures.append({"video": clip.video, "prompt": clip.prompt, "error": outcomes.errors[trial]})
    return tuple(failures)


Side = Literal["before", "after"]
_SIDES: tuple[Side, Side] = ("before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorComparison:
    """The clips of two generators, by reward and by measures."""

    clips: Mapping[Side, int]
    scored: Mapping[Side, int]
    """Clips with a reward, whose pixels could be measured."""
    failures: tuple[Mapping[str, str], ...]
    """The others: side, video, prompt, error."""
    matched: bool
    """Whether clips are compared by prompt: where the sides share more than one, and half of those of one side."""
    prompts: int
    """Prompts that both sides have."""
    left_out: int
    """Scored clips whose prompt the other side lacks, where clips are compared by prompt."""
    changes: tuple[GeneratorChange, ...]
    """The reward, then the measures."""
    hacks: tuple[str, ...]
    """Hacks whose measure is worse while the reward is better."""


def compare_generators(
    judge: Judge,
    sides: Mapping[Side, "Judgements"],
    *,
    journal: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> GeneratorComparison:
    """Judge and measure the clips of two generators. `journal` and `on_progress`: as in `run_stress`. A clip that
    cannot be read or judged is counted and named, and the others go on."""
    known = {} if journal is None else _read_sides(journal, sides)
    every = [(side, index) for side in _SIDES for index in range(len(sides[side].clips))]
    on_progress(len(known), len(every))
    for side in _SIDES:
        left = iter([index for one, index in every if one == side and (one, index) not in known])
        while batch := list(islice(left, judge.batch_size)):
            records = _measure(judge, sides[side], batch, side=side)
            if journal is not None:
                append_records(journal, [record for record in records if record["error"] is None])
            known |= {(side, record["clip"]): record for record in records}
            on_progress(len(known), len(every))
    return _comparison(sides, known)


def _measure(judge: Judge, judgements: "Judgements", batch: Sequence[int], *, side: Side) -> list[dict[str, Any]]:
    """A record for each clip: its reward and measures, or its error."""
    clips = [judgements.clips[index] for index in batch]
    records = []
    for index, rated, judged in zip(batch, clips, judge.judge(clips, open_video=judgements.open), strict=True):
        values, error = {"reward": judged["reward"]}, judged["error"]
        if judged["reward"] is not None:
            try:
                values |= _measures(read(judgements.open(rated.video), sampling=FEATURE_SAMPLING))
            except DescoreError as fault:
                error = error_text(fault)
        stamp = _stamp(judgements, index)
        records.append({"side": side, "clip": index, "values": values, "error": error, "file": stamp})
    return records


def _measures(clip: Clip) -> dict[str, float]:
    """The measures that are defined for a clip."""
    values = {}
    for name, row in HACK_MEASURES.items():
        with suppress(VideoError):
            values[name] = row.measure(clip)
    return values


def _read_sides(journal: Path, sides: Mapping[Side, "Judgements"]) -> dict[tuple[Side, int], dict[str, Any]]:
    """The records so far, without those of clips whose file has changed."""
    known: dict[tuple[Side, int], dict[str, Any]] = {}
    for number, record in enumerate(read_records(journal), start=1):
        side, clip = record.get("side"), record.get("clip")
        if "values" not in record:  # the config
            continue
        if side not in _SIDES or not isinstance(clip, int) or not 0 <= clip < len(sides[side].clips):
            raise DataError(str(journal), number, "holds no side and clip; delete the line to judge it again")
        file, stamp = sides[side].file(sides[side].clips[clip].video), record.get("file")
        if file is None or (isinstance(stamp, dict) and is_unchanged(file, stamp)):
            known[side, clip] = record
    return known


def _comparison(
    sides: Mapping[Side, "Judgements"], records: Mapping[tuple[Side, int], Mapping[str, Any]]
) -> GeneratorComparison:
    measured: dict[Side, list[Measured]] = {side: [] for side in _SIDES}
    failures = []
    for (side, index), record in sorted(records.items(), key=lambda item: (_SIDES.index(item[0][0]), item[0][1])):
        rated = sides[side].clips[index]
        if record["error"] is None:
            measured[side].append(Measured(rated.prompt, record["values"]))
        else:
            failures.append({"side": side, "video": rated.video, "prompt": rated.prompt, "error": record["error"]})
    scored = {side: len(measured[side]) for side in _SIDES}
    prompts = {side: {clip.prompt for clip in measured[side]} for side in _SIDES}
    shared = prompts["before"] & prompts["after"]
    matched = len(shared) > 1 and 2 * len(shared) >= min(map(len, prompts.values()))
    if matched:
        measured = {side: [clip for clip in measured[side] if clip.prompt in shared] for side in _SIDES}
    changes = tuple(change_of(name, **measured, matched=matched) for name in ("reward", *HACK_MEASURES))
    return GeneratorComparison(
        clips={side: len(sides[side].clips) for side in _SIDES},
        scored=scored,
        failures=tuple(failures),
        matched=matched,
        prompts=len(shared),
        left_out=sum(scored.values()) - sum(map(len, measured.values())),
        changes=changes,
        hacks=tuple(str(one.hack) for one in changes[1:] if one.worse and changes[0].better),
    )
