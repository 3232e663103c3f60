"""The records of a run: a line of metrics per log, the videos that could not be read, versions.

    metrics.jsonl      step, epoch, loss, learning_rate by part, samples_per_second, seconds, the stage's metrics;
                       a line for each evaluation, its names with eval_ before them; `resumed_at` where a run resumes
    unreadable.jsonl   table, line, video and reason of each example that was left out
    versions.json      the environment that the run began in

The journals are append-only."""

import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from descore.errors import ConfigError, DataError, DescoreWarning
from descore.io import append_records, atomic_write, read_json_object, read_records
from descore.training.collate import Unreadable


@dataclass(slots=True)
class MetricAccumulator:
    """Sums and counts since the last line of metrics."""

    sums: dict[str, list[float]] = field(default_factory=dict)
    """By name, a sum and its count."""
    counts: dict[str, int] = field(default_factory=dict)

    def add_mean(self, name: str, total: float, count: float = 1.0) -> None:
        """Add `count` items whose sum is `total` to a mean."""
        old_total, old_count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = [old_total + float(total), old_count + float(count)]

    def add_count(self, name: str, number: int) -> None:
        """Add to a count."""
        self.counts[name] = self.counts.get(name, 0) + int(number)

    @property
    def summary(self) -> dict[str, float]:
        """By name, the means and counts. A mean of no items is left out."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        return {**means, **self.counts}

    @classmethod
    def merged(cls, accumulators: Sequence["MetricAccumulator"]) -> "MetricAccumulator":
        """The sum of those of all processes."""
        merged = cls()
        for accumulator in accumulators:
            for name, (total, count) in accumulator.sums.items():
                merged.add_mean(name, total, count)
            for name, number in accumulator.counts.items():
                merged.add_count(name, number)
        return merged


METRICS_FILE, UNREADABLE_FILE, VERSIONS_FILE = "metrics.jsonl", "unreadable.jsonl", "versions.json"
_OLD_CHAIN_SOURCES = {"given": "reference", "written": "generated", "off": "none"}
ProgressCallback = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each update with the number of updates so far, their number in all, and the last line of metrics. Stage
2 also calls it before other long work, such as judging held-out pairs, which the metrics then name as `doing`."""

_MAX_WARNINGS = 5
"""Unreadable videos with a warning of their own; the file names all."""
_PACKAGES = ("descore", "torch", "transformers", "accelerate", "peft", "numpy", "av")


def ignore_progress(step: int, of: int, metrics: Mapping[str, Any]) -> None:
    """A ProgressCallback that does nothing."""


class MetricsCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes metrics.jsonl. A loss that is not finite ends the run with a ConfigError."""

    def __init__(self, out: Path, *, examples: int, on_progress: ProgressCallback) -> None:
        self.file = out / METRICS_FILE
        self.examples = examples
        self.on_progress = on_progress
        self.last: dict[str, Any] = {}
        self._began = self._logged = time.monotonic()
        self._epoch = 0.0

    def on_train_begin(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Write a line where a run resumes."""
        self._began = self._logged = time.monotonic()
        self._epoch = float(state.epoch or 0)
        if state.global_step and state.is_world_process_zero:
            append_records(self.file, [{"resumed_at": state.global_step}], allow_nan=True)

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Write a line for each log of training or evaluation, but not for Trainer's closing summary."""
        if "loss" not in logs and not _is_evaluation(logs):
            return
        record = {"step": state.global_step, **{name: value for name, value in logs.items() if name != "step"}}
        if "loss" in logs:
            record |= self._pace(logs["epoch"]) | {"learning_rate": _rates(logs["learning_rate"], kwargs["optimizer"])}
            self.last = record
        record["seconds"] = round(time.monotonic() - self._began, 3)
        if state.is_world_process_zero:
            append_records(self.file, [record], allow_nan=True)
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ConfigError(
                f"step {state.global_step}: the loss is {logs['loss']}; lower optim.learning_rate, and start anew"
            )

    def on_step_end(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Report progress, and log the last update whatever its number."""
        control.should_log |= state.global_step >= state.max_steps
        self.on_progress(state.global_step, state.max_steps, self.last)

    def _pace(self, epoch: float) -> dict[str, float]:
        now, (before, self._logged) = time.monotonic(), (self._logged, time.monotonic())
        count, self._epoch = (epoch - self._epoch) * self.examples, epoch
        return {"samples_per_second": round(count / max(now - before, 1e-9), 3)}


class UnreadableVideos:
    """Counts and names the examples that cannot be read; more than a table's share of them end the run.

    A run that resumes counts those of before as well."""

    def __init__(self, out: Path, *, share: float, examples: Mapping[str, int]) -> None:
        """`examples`: by table, how many there are."""
        self.file = out / UNREADABLE_FILE
        self.allowed = {table: int(share * count) for table, count in examples.items()}
        self.examples = examples
        self.recorded = {(line["table"], line["video"]) for line in read_records(self.file)}

    def __call__(self, examples: Sequence[Unreadable]) -> None:
        """Record the unreadable examples of a batch. DataError if a table has too many."""
        for example in examples:
            if (example.table, example.video) not in self.recorded:
                self.recorded.add((example.table, example.video))
                append_records(self.file, [asdict(example)])
                self._report(example)

    def _report(self, example: Unreadable) -> None:
        table, where = example.table, f"{example.video}: {example.reason}"
        count, allowed = sum(name == table for name, _ in self.recorded), self.allowed[table]
        if count > allowed:
            share = f"{count:,} of {self.examples[table]:,} examples cannot be read, data.max_unreadable allows"
            raise DataError(table, example.line, f"{where}; {share} {allowed:,}: see {self.file}")
        if count <= _MAX_WARNINGS:
            warnings.warn(f"left out: {table}:{example.line}: {where}", DescoreWarning, stacklevel=2)


def check_journals(out: Path) -> None:
    """Refuse a run one of whose journals was damaged before hours are spent on it. DataError with file and line."""
    metrics, unreadable = out / METRICS_FILE, out / UNREADABLE_FILE
    for number, line in enumerate(read_records(metrics), start=1):
        values = [each for value in line.values() for each in (value.values() if isinstance(value, dict) else [value])]
        if odd := [value for value in values if not isinstance(value, int | float)]:
            raise DataError(str(metrics), number, f"found {str(odd[0])[:40]!r}, expected numbers; delete the line")
    for number, line in enumerate(read_records(unreadable), start=1):
        if not all(isinstance(line.get(name), str) for name in ("table", "video")):
            raise DataError(str(unreadable), number, "has no table and video; delete the line")


def last_metrics(out: Path) -> dict[str, Any]:
    """The last line on training with the figures of the last evaluation; nothing where there is no such line.

    Figures of version 0.1 get the names that chain sources have now."""
    lines = read_records(out / METRICS_FILE)
    trained: dict[str, Any] = next((line for line in reversed(lines) if "loss" in line), {})
    judged: dict[str, Any] = next((line for line in reversed(lines) if _is_evaluation(line)), {})
    evaluated = {name: value for name, value in judged.items() if name.startswith("eval_")}
    for old, new in _OLD_CHAIN_SOURCES.items():
        evaluated = {name.replace(f"eval_{old}_", f"eval_{new}_", 1): value for name, value in evaluated.items()}
    return {**trained, **evaluated}


def unreadable_in(out: Path) -> int:
    """How many examples a run left out."""
    return len(read_records(out / UNREADABLE_FILE))


def write_versions(out: Path) -> None:
    """Write the run's environment. If it began in another, or in one that cannot be read, warn: it may not continue to
    the same bits."""
    file, here = out / VERSIONS_FILE, versions()
    try:
        former = read_json_object(file) if file.is_file() else None
    except DataError as error:
        former = None
        warnings.warn(f"{error}; it is written anew, the run may have begun elsewhere", DescoreWarning, stacklevel=2)
    if former is None:
        atomic_write(file, json.dumps(here, indent=1) + "\n")
        return
    changed = [f"{name} was {former.get(name)}, is {here[name]}" for name in here if former.get(name) != here[name]]
    if changed:
        warnings.warn(f"{file}: {'; '.join(changed)}: the run may take another course", DescoreWarning, stacklevel=2)


def versions() -> dict[str, str]:
    """Versions of Python and of packages, the device and the number of threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "device": device, "threads": str(torch.get_num_threads())}


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in line)


def _rates(first: float, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """By part, the learning rate of the logged update; Trainer logs that of the first group alone."""
    groups = optimizer.param_groups
    share = first / groups[0]["initial_lr"]
    return {group["name"].split()[0]: group["initial_lr"] * share for group in groups}
