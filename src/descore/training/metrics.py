"""What a run writes beside its weights: a line of metrics per log, the videos that could not be read, versions.

    metrics.jsonl      step, epoch, loss, learning_rate by part, samples_per_second, seconds, what the stage measures;
                       an evaluation's line has what it found, each name with eval_ before it; where a run goes on, one
                       line `resumed_at`
    unreadable.jsonl   table, line, video and reason of each example that was left out
    versions.json      what the run began with

Append-only, but for the versions. Knows what a Trainer reports; knows nothing of models."""

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

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from descore.errors import ConfigError, DataError, DescoreWarning
from descore.io import append_records, atomic_write, read_records
from descore.training.collate import Unreadable


@dataclass(slots=True)
class MetricAccumulator:
    """Sums since the last line."""

    sums: dict[str, list[float]] = field(default_factory=dict)
    """By name, a sum and its count."""
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, total: float, count: float = 1.0) -> None:
        """Put `count` items that come to `total` into a mean."""
        old_total, old_count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = [old_total + float(total), old_count + float(count)]

    def count(self, name: str, number: int) -> None:
        """Put some more to a number."""
        self.counts[name] = self.counts.get(name, 0) + int(number)

    @property
    def line(self) -> dict[str, float]:
        """By name, the means and numbers. A mean of nothing is not 0: it is not there."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        return {**means, **self.counts}

    @classmethod
    def together(cls, tallies: Sequence["MetricAccumulator"]) -> "MetricAccumulator":
        """That of all processes."""
        whole = cls()
        for tally in tallies:
            for name, (total, count) in tally.sums.items():
                whole.mean(name, total, count)
            for name, number in tally.counts.items():
                whole.count(name, number)
        return whole


def as_record(tally: MetricAccumulator) -> dict[str, object]:
    """As JSON keeps it; `MetricAccumulator(**record)` is the same again."""
    return asdict(tally)


METRICS_FILE, UNREADABLE_FILE, VERSIONS_FILE = "metrics.jsonl", "unreadable.jsonl", "versions.json"
_OLD_CHAIN_SOURCES = {"given": "reference", "written": "generated", "off": "none"}
ProgressCallback = Callable[[int, int, Mapping[str, Any]], None]
"""Told after each update: how many there were, how many there will be, the last line of metrics. Before anything
else that takes long, such as judging held-out pairs, stage 2 says what, under the name `doing`."""

_NAMED = 5  # unreadable videos that are warned of one by one; the file names all
_PACKAGES = ("descore", "torch", "transformers", "accelerate", "peft", "numpy", "av")


class Metrics(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes metrics.jsonl. A loss that is not finite ends the run with a ConfigError."""

    def __init__(self, out: Path, *, examples: int, watch: ProgressCallback) -> None:
        self.file = out / METRICS_FILE
        self.examples = examples
        self.watch = watch
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
        """Note where a run goes on."""
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
        """A line for each log of training or evaluation; Trainer's closing summary is not one."""
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
        """Let whoever watches know, and log the last update whatever its number."""
        control.should_log |= state.global_step >= state.max_steps
        self.watch(state.global_step, state.max_steps, self.last)

    def _pace(self, epoch: float) -> dict[str, float]:
        now, (before, self._logged) = time.monotonic(), (self._logged, time.monotonic())
        shown, self._epoch = (epoch - self._epoch) * self.examples, epoch
        return {"samples_per_second": round(shown / max(now - before, 1e-9), 3)}


class UnreadableVideos:
    """Counts and names the examples that cannot be read; more than a table's share of them end the run.

    A run that goes on remembers those that it met before."""

    def __init__(self, out: Path, *, share: float, examples: Mapping[str, int]) -> None:
        """`examples`: by table, how many there are."""
        self.file = out / UNREADABLE_FILE
        self.allowed = {table: int(share * count) for table, count in examples.items()}
        self.examples = examples
        self.met: set[tuple[str, str]] = set()
        self.met |= {(line["table"], line["video"]) for line in read_records(self.file)}

    def __call__(self, on_unreadable: Sequence[Unreadable]) -> None:
        """Take note of what a batch lacks. DataError where a table has too many."""
        for one in on_unreadable:
            if (one.table, one.video) not in self.met:
                self.met.add((one.table, one.video))
                append_records(self.file, [asdict(one)])
                self._say(one)

    def _say(self, one: Unreadable) -> None:
        found, allowed = sum(table == one.table for table, _ in self.met), self.allowed[one.table]
        if found > allowed:
            count = f"{found:,} of {self.examples[one.table]:,} examples cannot be read, data.max_unreadable allows"
            reason = f"{one.video}: {one.reason}; {count} {allowed:,}: see {self.file}"
            raise DataError(one.table, one.line, reason)
        if found <= _NAMED:
            warnings.warn(f"left out: {one.table}:{one.line}: {one.video}: {one.reason}", DescoreWarning, stacklevel=2)


def last_metrics(out: Path) -> dict[str, Any]:
    """The last line on training, and the last evaluation's figures put to it; nothing where there is no such line.

    Figures of version 0.1 are given under the names that chain sources have now."""
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
    """Write what the run depends on; where it began with something else, warn: it may not go on to the last bit."""
    file, here = out / VERSIONS_FILE, versions()
    if not file.is_file():
        atomic_write(file, json.dumps(here, indent=1) + "\n")
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    unlike = [f"{name} was {there.get(name)}, is {here[name]}" for name in here if there.get(name) != here[name]]
    if unlike:
        warnings.warn(f"{file}: {'; '.join(unlike)}: the run may take another course", DescoreWarning, stacklevel=2)


def versions() -> dict[str, str]:
    """Packages, Python, and where the run computes."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "device": device, "threads": str(torch.get_num_threads())}


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in line)


def _rates(first: float, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """By part, the learning rate of the update that is logged, where Trainer tells the first group's."""
    groups = optimizer.param_groups
    share = first / groups[0]["initial_lr"]
    return {group["name"].split()[0]: group["initial_lr"] * share for group in groups}
