"""Collect chains: ask a teacher for all that is missing, and keep its answers where a killed run finds them again.

    estimate = estimate_collection(config)      # nothing is asked
    summary = collect_chains(config)

In: a `CollectConfig`. Out: a run folder (see `descore.chains.records`), and a summary of what came and what is left."""

import hashlib
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from descore.chains.asking import ChainOutcome, MissingChains, ask_server, show_clip
from descore.chains.batches import BatchFiles, read_results, write_requests
from descore.chains.config import MAY_CHANGE, CollectConfig
from descore.chains.ledger import Ledger, Prices, Totals
from descore.chains.records import Candidate, ChainRun, PairSide, append_candidates, read_candidates
from descore.chains.server import read_key
from descore.chains.source import ChainSourceTable, read_chain_source
from descore.chains.tasks import AskedWith, ChainTask, plan_tasks, read_asked_with
from descore.config_model import SettingsError
from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.io import append_records, atomic_write, lock_directory, make_directory, read_json_object
from descore.training.config_file import config_yaml, differences, read_config, write_config

_PROBED = 12
"""Clips that are read for an estimate, spread over the table."""
_TOKENS_PER_SECOND = 50
"""At which a server is assumed to write one answer, for an estimate before the first."""
_SEES = (
    "sees is {sees}: the teacher is shown what people say and argues for it, so that its chains' agreement with people "
    "says nothing of what it sees; each row records this"
)
_LEFT_BY_KILL = (".lock", "config.yaml.partial", "asked.json", "asked.json.partial")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectProgress:
    """How far a run is."""

    done: int
    """Requests that have an end, those of earlier sessions included."""
    total: int
    failed: int
    """Of this session."""
    cost: float
    """Of all sessions."""


ProgressReport = Callable[[CollectProgress], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionEstimate:
    """What is to be asked, and what that will take. Nothing was asked for it but what earlier sessions have."""

    clips: int
    """Unlike clips of the table, by prompt and contents."""
    requests: int
    """For these, K each."""
    missing: int
    """Requests that have no answer yet."""
    tokens_in: int
    """Of the missing requests, likely."""
    tokens_out: int
    """Of their answers: as long as those that came, or at first as long as they may be."""
    cost: float | None
    """Of both; None: the prices are not known."""
    most: float | None
    """The most that they may cost."""
    hours: float | None
    """At the limits' rates; None for a native teacher and batch files."""
    unreadable: int
    """Of the clips that were read for this."""
    read: int
    """Clips that were read for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSummary:
    """What a run has collected so far."""

    folder: Path
    requests: int
    """K for each unlike clip."""
    answered: int
    asked: int
    """Requests that came to an end in this session."""
    failed: Counter[str]
    """By kind, the requests that have no answer since they failed."""
    first_failure: str | None
    left: int
    """Requests that were not asked, or are waited for."""
    totals: Totals
    """Of all sessions."""
    stopped: str | None
    """Why not all was asked."""
    batch: BatchFiles | None
    candidates: Sequence[Candidate] = field(repr=False)
    source: ChainSourceTable = field(repr=False)

    @property
    def left_cost(self) -> float:
        """What the requests that are left will cost, at the mean of those that were answered."""
        return self.left * self.totals.cost / max(1, self.answered)

    @property
    def record(self) -> dict[str, Any]:
        """The counts as plain values."""
        return {
            "folder": str(self.folder),
            "requests": self.requests,
            "answered": self.answered,
            "asked": self.asked,
            "failed": dict(self.failed),
            "left": self.left,
            "left_cost": self.left_cost,
            "totals": asdict(self.totals),
            "stopped": self.stopped,
            "batch_files": [] if self.batch is None else [str(path) for path in self.batch.written],
            "waiting": 0 if self.batch is None else self.batch.waiting,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    source: ChainSourceTable
    asked_with: AskedWith
    tasks: list[ChainTask]

    @classmethod
    def of(cls, config: CollectConfig) -> "_Plan":
        source = read_chain_source(config.data.table, limit=config.data.limit)
        asked_with = read_asked_with(config)
        return cls(source=source, asked_with=asked_with, tasks=plan_tasks(source, config, asked_with))


class _Answers:
    """The answers of a run by key, and the places in the table that have one."""

    def __init__(self, run: ChainRun, config: CollectConfig, plan: _Plan) -> None:
        self.run, self.config, self.plan = run, config, plan
        self.by_key: dict[str, Candidate] = {}
        self.failed: dict[str, Candidate] = {}
        self._placed: set[tuple[int, PairSide | None, int]] = set()
        self.asked = 0
        for candidate in read_candidates(run.folder):
            self._add(candidate)

    def _add(self, candidate: Candidate) -> None:
        if candidate.error is None:
            self.by_key[candidate.key] = candidate
            self._placed.add(candidate.place)
            self.failed.pop(candidate.key, None)
        elif candidate.key not in self.by_key:
            self.failed[candidate.key] = candidate

    def take_over(self, folders: Sequence[Path]) -> None:
        """Answers of other runs to the same requests, at no cost."""
        for folder in folders:
            if not (path := ChainRun(folder).candidates).is_file():
                raise ConfigError(f"run.reuse: {folder} has no {path.name}; expected the folder of another run")
            for candidate in read_candidates(folder):
                if candidate.error is None:
                    self.by_key.setdefault(candidate.key, replace(candidate, cost=0.0))

    def fill_places(self) -> None:
        """Write the answer of a clip for each of its places that has none."""
        for task in self.plan.tasks:
            for number, key in enumerate(task.keys):
                if (known := self.by_key.get(key)) is not None:
                    self._append([replace(each, cost=0.0) for each in self._at_places(task, number, known)])

    def _at_places(self, task: ChainTask, number: int, answer: Candidate) -> Iterator[Candidate]:
        for clip in task.places:
            if (clip.row, clip.side, number) not in self._placed:
                yield replace(answer, row=clip.row, side=clip.side, number=number, video=clip.video)

    def _append(self, candidates: Sequence[Candidate]) -> None:
        if candidates:
            append_candidates(self.run, candidates)
            for candidate in candidates:
                self._add(candidate)

    def keep(self, task: ChainTask, number: int, outcome: ChainOutcome) -> None:
        """Write what became of a request, for each place of its clip. The first one bears the cost."""
        candidate = self._candidate(task, number, outcome)
        places = list(self._at_places(task, number, candidate))
        self._append([each if index == 0 else replace(each, cost=0.0) for index, each in enumerate(places)])
        self.asked += 1

    def _candidate(self, task: ChainTask, number: int, outcome: ChainOutcome) -> Candidate:
        answer, teacher = outcome.answer, self.config.teacher
        return Candidate(
            key=task.keys[number],
            row=task.places[0].row,
            side=task.places[0].side,
            number=number,
            prompt=task.prompt,
            video=task.places[0].video,
            text=None if answer is None else answer.text,
            thinking=None if answer is None else answer.thinking,
            finish=None if answer is None else answer.finish,
            teacher=teacher.model if answer is None else answer.teacher,
            settings=self.plan.asked_with.digest,
            seed=teacher.seed if teacher.kind == "native" else teacher.seed + number,
            tokens_in=outcome.tokens_in,
            tokens_out=outcome.tokens_out,
            cost=outcome.cost,
            seconds=round(outcome.seconds, 3),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            sees=self.config.sees if task.note else "nothing",
            error=outcome.fault,
        )

    def missing(self) -> list[MissingChains]:
        """What has no answer, in the order of the table."""
        each = ((task, [n for n, key in enumerate(task.keys) if key not in self.by_key]) for task in self.plan.tasks)
        return [(task, numbers) for task, numbers in each if numbers]


def collect_chains(
    config: CollectConfig,
    *,
    on_progress: ProgressReport = lambda progress: None,  # noqa: ARG005
) -> CollectSummary:
    """Ask for all chains that the run's folder lacks. Requests that failed in an earlier session are asked again.

    ConfigError if the folder holds another run, the table, the rubric or the teacher have changed since it began, or
    the teacher refused before it gave any answer."""
    _refuse_key(config)
    plan = _Plan.of(config)
    if config.sees != "nothing":
        warnings.warn(_SEES.format(sees=config.sees), DescoreWarning, stacklevel=2)
    with _opened_run(config, plan) as run:
        answers = _Answers(run, config, plan)
        answers.take_over(config.run.reuse)
        answers.fill_places()
        ledger = _open_ledger(run, config)
        total = sum(len(task.keys) for task in plan.tasks)

        def keep(task: ChainTask, number: int, outcome: ChainOutcome) -> None:
            answers.keep(task, number, outcome)
            report()

        def report() -> None:
            done = sum(len(each) for each in (answers.by_key, answers.failed))
            on_progress(CollectProgress(done=done, total=total, failed=len(answers.failed), cost=ledger.totals.cost))

        report()
        stopped, batch = _ask(answers, config, plan, ledger=ledger, keep=keep)
        return _summary(answers, plan, ledger.totals, stopped=stopped, batch=batch)


def _ask(
    answers: _Answers,
    config: CollectConfig,
    plan: _Plan,
    *,
    ledger: Ledger,
    keep: Any,  # noqa: ANN401
) -> tuple[str | None, BatchFiles | None]:
    missing = answers.missing()
    if config.teacher.kind == "openai-batch":
        folder = answers.run.batches
        make_directory(folder)
        read_results(folder, missing, teacher=config.teacher.model, ledger=ledger, keep=keep)
        batch = write_requests(folder, answers.missing(), config, plan.asked_with, ledger=ledger, keep=keep)
        return batch.stopped, batch
    if not missing:
        return None, None
    if config.teacher.kind == "openai":
        ledger.abandon()
        return ask_server(missing, config, plan.asked_with, ledger=ledger, keep=keep), None
    from descore.chains.native import ask_native  # loads torch

    return ask_native(missing, config, plan.asked_with, keep=keep), None


def _summary(
    answers: _Answers, plan: _Plan, totals: Totals, *, stopped: str | None, batch: BatchFiles | None
) -> CollectSummary:
    keys = {key for task in plan.tasks for key in task.keys}
    failed = {key: each.error for key, each in answers.failed.items() if key in keys and each.error is not None}
    answered = len(keys & answers.by_key.keys())
    return CollectSummary(
        folder=answers.run.folder,
        requests=len(keys),
        answered=answered,
        asked=answers.asked,
        failed=Counter(error.kind for error in failed.values()),
        first_failure=next((error.message for error in failed.values()), None),
        left=len(keys) - answered - len(failed),
        totals=totals,
        stopped=stopped,
        batch=batch,
        candidates=read_candidates(answers.run.folder),
        source=plan.source,
    )


def estimate_collection(config: CollectConfig) -> CollectionEstimate:
    """What is still to be asked, and what that will take, by a few clips that are read for it. Nothing is asked or
    written. ConfigError as by `collect_chains`."""
    _refuse_key(config)
    plan, run = _Plan.of(config), ChainRun(config.run.out)
    if _holds_run(run, config):
        _check_same(run, plan)
    answers = _Answers(run, config, plan)
    missing = answers.missing()
    count = sum(len(numbers) for _, numbers in missing)
    likely, most, unreadable, read = _probe(missing, config, plan)
    written = [each.tokens_out for each in answers.by_key.values() if each.tokens_out]
    longest = plan.asked_with.max_tokens
    answer = round(sum(written) / len(written)) if written else longest
    prices = _prices(config) if config.teacher.has_prices else None
    return CollectionEstimate(
        clips=len(plan.tasks),
        requests=sum(len(task.keys) for task in plan.tasks),
        missing=count,
        tokens_in=round(likely * count),
        tokens_out=answer * count,
        cost=None if prices is None else prices.cost(round(likely * count), answer * count),
        most=None if prices is None else prices.cost(math.ceil(most * count), longest * count),
        hours=_hours(
            config, count, tokens=(likely + answer) * count, answer=answer, known=list(answers.by_key.values())
        ),
        unreadable=unreadable,
        read=read,
    )


def _probe(missing: Sequence[MissingChains], config: CollectConfig, plan: _Plan) -> tuple[float, float, int, int]:
    """Likely and most tokens of a request, by clips spread over the table; how many of these cannot be read."""
    spread = [missing[len(missing) * place // _PROBED][0] for place in range(_PROBED)] if missing else []
    tasks = list({task.keys: task for task in spread}.values())
    likely, most, unreadable = 0, 0, 0
    for task in tasks:
        try:
            estimate = show_clip(task, config, plan.asked_with).estimate
        except VideoError:
            unreadable += 1
            continue
        likely, most = likely + estimate.likely, most + estimate.most
    readable = max(1, len(tasks) - unreadable)
    return likely / readable, most / readable, unreadable, len(tasks)


def _hours(
    config: CollectConfig, count: int, *, tokens: float, answer: int, known: Sequence[Candidate]
) -> float | None:
    """By the slowest of the rates: requests and tokens a minute, and as many requests at a time as are allowed."""
    if config.teacher.kind != "openai":
        return None
    limits, timed = config.limits, [each.seconds for each in known if each.seconds]
    each = sum(timed) / len(timed) if timed else answer / _TOKENS_PER_SECOND
    minutes = [count * each / limits.concurrency / 60]
    minutes += [count / limits.requests_per_minute] if limits.requests_per_minute else []
    minutes += [tokens / limits.tokens_per_minute] if limits.tokens_per_minute else []
    return max(minutes) / 60


def _prices(config: CollectConfig) -> Prices:
    teacher = config.teacher
    share = 1 - teacher.batch_discount if teacher.kind == "openai-batch" else 1.0
    return Prices(tokens_in=(teacher.price_in or 0.0) * share, tokens_out=(teacher.price_out or 0.0) * share)


def _open_ledger(run: ChainRun, config: CollectConfig) -> Ledger:
    append_records(run.ledger, [])  # cuts off a line that a kill left unfinished
    return Ledger(run.ledger, prices=_prices(config), budget=config.limits.budget)


def _refuse_key(config: CollectConfig) -> None:
    """ConfigError if the key stands in the settings, which are written to the folder."""
    key = read_key(config.teacher) if config.teacher.kind == "openai" else None
    if key is not None and key in config_yaml(config):
        raise ConfigError("the settings hold the key itself; remove it, since they are written to run.out")


@contextmanager
def _opened_run(config: CollectConfig, plan: _Plan) -> Iterator[ChainRun]:
    """The run's folder, begun if it is new, and locked until the block ends. ConfigError if it holds another run."""
    run = ChainRun(config.run.out)
    known = _holds_run(run, config)
    make_directory(run.folder)
    with lock_directory(run.folder):
        if known:
            _check_same(run, plan)
        else:
            atomic_write(run.asked, json.dumps(_asked_record(plan), indent=1) + "\n")
        write_config(config, run.config)  # what may change is as it was last
        yield run


def _holds_run(run: ChainRun, config: CollectConfig) -> bool:
    """Whether the folder holds a part of this run. ConfigError if it holds anything else."""
    if not run.config.is_file():
        names = sorted(path.name for path in run.folder.iterdir()) if run.folder.is_dir() else []
        others = [name for name in names if name not in _LEFT_BY_KILL]
        if others:
            raise ConfigError(f"run.out: {run.folder} is no run's folder, it holds {others[0]}; choose another")
        return False
    try:
        former = read_config(run.config, CollectConfig, warn=False)
    except SettingsError as fault:
        raise ConfigError(f"run.out: {run.folder} holds a run of another kind; choose another") from fault
    unlike = [d for d in differences(config, former) if not d.key.startswith(MAY_CHANGE)]
    if unlike:
        named = "; ".join(f"{d.key} is {d.there} there, {d.here} here" for d in unlike)
        raise ConfigError(f"run.out: {run.folder} holds another run: {named}; choose another, or set these back")
    return True


def _asked_record(plan: _Plan) -> dict[str, Any]:
    with plan.source.path.open("rb") as file:
        table = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {"table": table, **plan.asked_with.record}


def _check_same(run: ChainRun, plan: _Plan) -> None:
    """ConfigError if what the settings name has changed since the run began."""
    there, here = read_json_object(run.asked), _asked_record(plan)
    unlike = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if unlike:
        advice = "bring it back, or choose another run.out, with this one as run.reuse"
        named = "; ".join(f"{name} was {there.get(name)}, is {here.get(name)}" for name in unlike)
        raise ConfigError(f"run.out: {run.folder} asks otherwise: {named}; {advice}")
