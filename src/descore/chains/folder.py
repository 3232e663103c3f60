"""The folder of a run: what it asks, whether it is the same as before, and what it has of each request.

In: the settings. Out: the plan of a run, its folder, locked, and its answers."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from descore.chains.asking import ChainOutcome, MissingChains
from descore.chains.config import MAY_CHANGE, CollectConfig
from descore.chains.filtering import label_of
from descore.chains.ledger import Ledger, Prices
from descore.chains.records import Candidate, ChainRun, PairSide, RequestFault, append_candidates, iterate_candidates
from descore.chains.server import read_key
from descore.chains.source import ChainSourceTable, read_chain_source
from descore.chains.tasks import AskedWith, ChainTask, plan_tasks, read_asked_with
from descore.config_model import SettingsError
from descore.errors import ConfigError
from descore.io import append_records, atomic_write, lock_directory, make_directory, read_json_object
from descore.training.config_file import config_yaml, differences, read_config, write_config

_LEFT_BY_KILL = (".lock", "config.yaml.partial", "asked.json", "asked.json.partial")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """What a run asks, read from all that its settings name."""

    source: ChainSourceTable
    asked_with: AskedWith
    tasks: list[ChainTask]

    @classmethod
    def of(cls, config: CollectConfig) -> "ChainPlan":
        """Read it. ConfigError, DataError or CheckpointError for what cannot be used, by the filters too."""
        source = read_chain_source(config.data.table, limit=config.data.limit)
        for row in source.rows:
            label_of(row, config.filters)  # what the filters lack is not missed after all was paid for
        asked_with = read_asked_with(config)
        return cls(source=source, asked_with=asked_with, tasks=plan_tasks(source, config, asked_with))


class RunAnswers:
    """What a run has of each request, and the places in the table that have an answer. Texts stay on the disk."""

    def __init__(self, run: ChainRun, config: CollectConfig, plan: ChainPlan) -> None:
        self.run, self.config, self.plan = run, config, plan
        self.answered: set[str] = set()
        self.failed: dict[str, RequestFault] = {}
        self.tokens_out = self.seconds = 0.0
        """Of the answers, in all."""
        self.asked = 0
        self._placed: set[tuple[int, PairSide | None, int]] = set()
        self._tasks = {key: (task, number) for task in plan.tasks for number, key in enumerate(task.keys)}
        for candidate in iterate_candidates(run.folder):
            self._add(candidate)

    def _add(self, candidate: Candidate) -> None:
        key = candidate.key
        if candidate.error is None:
            self._placed.add(candidate.place)
            self.failed.pop(key, None)
            if key not in self.answered:
                self.answered.add(key)
                self.tokens_out, self.seconds = self.tokens_out + candidate.tokens_out, self.seconds + candidate.seconds
        elif key not in self.answered:
            self.failed[key] = candidate.error

    def fill_places(self, others: Sequence[Path]) -> None:
        """Write the answer of a clip for each of its places that has none: this run's own, or at no cost another
        run's to the same request."""
        for folder in others:
            if not (path := ChainRun(folder).candidates).is_file():
                raise ConfigError(f"run.reuse: {folder} has no {path.name}; expected the folder of another run")
        for folder in (self.run.folder, *others):
            for candidate in list(self._worth_copying(folder)):
                places = self._at_places(*self._tasks[candidate.key], candidate)
                self._append([replace(each, cost=0.0) for each in places])

    def _worth_copying(self, folder: Path) -> Iterator[Candidate]:
        for candidate in iterate_candidates(folder):
            if candidate.error is None and candidate.key in self._tasks:
                task, number = self._tasks[candidate.key]
                if any((clip.row, clip.side, number) not in self._placed for clip in task.places):
                    yield candidate

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
        each = ((task, [n for n, key in enumerate(task.keys) if key not in self.answered]) for task in self.plan.tasks)
        return [(task, numbers) for task, numbers in each if numbers]


def prices_of(config: CollectConfig) -> Prices:
    """What a million tokens cost by the settings; 0 where they do not say."""
    teacher = config.teacher
    share = 1 - teacher.batch_discount if teacher.kind == "openai-batch" else 1.0
    return Prices(tokens_in=(teacher.price_in or 0.0) * share, tokens_out=(teacher.price_out or 0.0) * share)


def open_ledger(run: ChainRun, config: CollectConfig) -> Ledger:
    """The ledger of a run, as earlier sessions left it."""
    append_records(run.ledger, [])  # cuts off a line that a kill left unfinished
    return Ledger(run.ledger, prices=prices_of(config), budget=config.limits.budget)


def refuse_key(config: CollectConfig) -> None:
    """ConfigError if the key stands in the settings, which are written to the folder."""
    key = read_key(config.teacher) if config.teacher.kind == "openai" else None
    if key is not None and key in config_yaml(config):
        raise ConfigError("the settings hold the key itself; remove it, since they are written to run.out")


@contextmanager
def opened_run(config: CollectConfig, plan: ChainPlan) -> Iterator[ChainRun]:
    """The run's folder, begun if it is new, and locked until the block ends. ConfigError if it holds another run."""
    run = ChainRun(config.run.out)
    known = holds_run(run, config)
    make_directory(run.folder)
    with lock_directory(run.folder):
        if known:
            check_same(run, plan)
        else:
            atomic_write(run.asked, json.dumps(_asked_record(plan), indent=1) + "\n")
        write_config(config, run.config)  # what may change is as it was last
        yield run


def holds_run(run: ChainRun, config: CollectConfig) -> bool:
    """Whether the folder holds a part of this run. ConfigError if it holds anything else."""
    if not run.config.is_file():
        names = sorted(path.name for path in run.folder.iterdir()) if run.folder.is_dir() else []
        others = [name for name in names if name not in _LEFT_BY_KILL]
        if others:
            raise ConfigError(f"run.out: {run.folder} is no run's folder, it holds {others[0]}; choose another")
        return False
    if not run.candidates.is_file() and not any(run.batches.glob("*.jsonl")):
        return False  # it ended before anything came, such as by a wrong name of the model
    try:
        former = read_config(run.config, CollectConfig, warn=False)
    except SettingsError as fault:
        raise ConfigError(f"run.out: {run.folder} holds a run of another kind; choose another") from fault
    unlike = [d for d in differences(config, former) if not d.key.startswith(MAY_CHANGE)]
    if unlike:
        named = "; ".join(f"{d.key} is {d.there} there, {d.here} here" for d in unlike)
        raise ConfigError(f"run.out: {run.folder} holds another run: {named}; choose another, or set these back")
    return True


def _asked_record(plan: ChainPlan) -> dict[str, Any]:
    with plan.source.path.open("rb") as file:
        table = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {"table": table, **plan.asked_with.record}


def check_same(run: ChainRun, plan: ChainPlan) -> None:
    """ConfigError if what the settings name has changed since the run began."""
    there, here = read_json_object(run.asked), _asked_record(plan)
    unlike = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if unlike:
        advice = "bring it back, or choose another run.out, with this one as run.reuse"
        named = "; ".join(f"{name} was {there.get(name)}, is {here.get(name)}" for name in unlike)
        raise ConfigError(f"run.out: {run.folder} asks otherwise: {named}; {advice}")
