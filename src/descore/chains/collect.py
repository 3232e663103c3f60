"""Collect chains: ask a teacher for all that is missing, and keep its answers where a killed run finds them again.

    summary = collect_chains(config)

In: a `CollectConfig`. Out: a run folder (see `descore.chains.records`), and a summary of what came and what is left."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from descore.chains.asking import ChainOutcome, ask_server
from descore.chains.batches import BatchFiles, read_results, write_requests
from descore.chains.config import CollectConfig
from descore.chains.folder import ChainPlan, RunAnswers, open_ledger, opened_run, refuse_key
from descore.chains.ledger import Ledger, Totals
from descore.chains.output import filter_run
from descore.chains.tasks import ChainTask
from descore.errors import DescoreWarning
from descore.io import make_directory

_SEES = (
    "sees is {sees}: the teacher is shown what people say and argues for it, so that its chains' agreement with people "
    "says nothing of what it sees; each row records this"
)


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
    filtered: Mapping[str, Any] | None
    """What the filters kept, as in summary.json; None before there is an answer."""

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
            "filtered": self.filtered,
        }


def collect_chains(
    config: CollectConfig,
    *,
    on_progress: ProgressReport = lambda progress: None,  # noqa: ARG005
) -> CollectSummary:
    """Ask for all chains that the run's folder lacks. Requests that failed in an earlier session are asked again.

    ConfigError if the folder holds another run, the table, the rubric or the teacher have changed since it began, or
    the teacher refused before it gave any answer."""
    refuse_key(config)
    plan = ChainPlan.of(config)
    if config.sees != "nothing":
        warnings.warn(_SEES.format(sees=config.sees), DescoreWarning, stacklevel=2)
    with opened_run(config, plan) as run:
        answers = RunAnswers(run, config, plan)
        answers.fill_places(config.run.reuse)
        ledger = open_ledger(run, config)
        total = sum(len(task.keys) for task in plan.tasks)

        def keep(task: ChainTask, number: int, outcome: ChainOutcome) -> None:
            answers.keep(task, number, outcome)
            report()

        def report() -> None:
            done = len(answers.answered) + len(answers.failed)
            on_progress(CollectProgress(done=done, total=total, failed=len(answers.failed), cost=ledger.totals.cost))

        report()
        stopped, batch = _ask(answers, config, plan, ledger=ledger, keep=keep)
        filtered = None
        if run.candidates.is_file():
            filtered = filter_run(run, plan.source, config.filters, rubric=plan.asked_with.rubric)
        return _summary(answers, plan, ledger.totals, stopped=stopped, batch=batch, filtered=filtered)


def _ask(
    answers: RunAnswers,
    config: CollectConfig,
    plan: ChainPlan,
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
    answers: RunAnswers,
    plan: ChainPlan,
    totals: Totals,
    *,
    stopped: str | None,
    batch: BatchFiles | None,
    filtered: Mapping[str, Any] | None,
) -> CollectSummary:
    keys = {key for task in plan.tasks for key in task.keys}
    failed = [error for key, error in answers.failed.items() if key in keys]
    answered = len(keys & answers.answered)
    return CollectSummary(
        folder=answers.run.folder,
        requests=len(keys),
        answered=answered,
        asked=answers.asked,
        failed=Counter(error.kind for error in failed),
        first_failure=failed[0].message if failed else None,
        left=len(keys) - answered - len(failed),
        totals=totals,
        stopped=stopped,
        batch=batch,
        filtered=filtered,
    )
