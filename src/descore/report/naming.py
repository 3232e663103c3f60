"""Names for the runs of a page, and which runs belong together.

In: runs. Out: the same runs with a name and a style each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from descore.evaluation.runs import Run
from descore.report.text import one_line

_THINKING = {"on": "thinking", "off": "at once"}
_DISTINGUISHING = ("samples", "seed", "temperature", "limit", "digest", "started")
"""The settings that two runs of one model and benchmark may differ in, in the order in which they are tried."""

_LONGEST = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run with its name on the page."""

    name: str
    """One line; no two runs of a benchmark share it."""
    style: int
    """Marker and colour in every chart."""
    run: Run

    @property
    def model(self) -> str:
        """The model's short name."""
        return _model(self.run)

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.run.config["benchmark"])


def name_runs(runs: Sequence[Run]) -> list[NamedRun]:
    """Named by model and thinking mode, and where two runs of a benchmark share these, by the setting that differs. A
    model has the same style on every benchmark."""
    names = [_name(run, [other for other in runs if _same_base(run, other)]) for run in runs]
    styles = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return [NamedRun(name=name, style=styles[name], run=run) for name, run in zip(names, runs, strict=True)]


def by_benchmark(runs: Sequence[NamedRun]) -> dict[str, list[NamedRun]]:
    """Runs of one benchmark together, in the order in which they were given."""
    groups: dict[str, list[NamedRun]] = {}
    for named in runs:
        groups.setdefault(named.benchmark, []).append(named)
    return groups


def thinking_pairs(runs: Sequence[NamedRun]) -> list[tuple[NamedRun, NamedRun]]:
    """(with thinking, without) for each thinking run that has a counterpart: same model, weights and clips."""
    off = {_counterpart(named): named for named in reversed(runs) if named.run.config.get("think") == "off"}
    on = [named for named in runs if named.run.config.get("think") == "on"]
    return [(named, off[_counterpart(named)]) for named in on if _counterpart(named) in off]


def _counterpart(named: NamedRun) -> tuple[Any, ...]:
    return tuple(named.run.config.get(key) for key in ("benchmark", "model", "digest", "paradigm", "limit"))


def _same_base(run: Run, other: Run) -> bool:
    return _base(run) == _base(other) and run.config["benchmark"] == other.config["benchmark"]


def _model(run: Run) -> str:
    model = one_line(str(run.config["model"])).rstrip("/")
    short = PurePath(model).name or model
    return short if len(short) <= _LONGEST else f"{short[: _LONGEST - 1]}…"


def _base(run: Run) -> str:
    thinking = run.config.get("paradigm") or _THINKING.get(str(run.config.get("think")))
    return _model(run) if thinking is None else f"{_model(run)}, {thinking}"


def _name(run: Run, same_base: Sequence[Run]) -> str:
    base = _base(run)
    if len(same_base) == 1:
        return base
    for key in _DISTINGUISHING:
        if len({str(other.config.get(key)) for other in same_base}) == len(same_base):
            return f"{base}, {key} {_short(run.config.get(key))}"
    number = next(number for number, other in enumerate(same_base, start=1) if other is run)
    return f"{base}, {one_line(run.folder_name)}, {number} of {len(same_base)}"


def _short(value: object) -> str:
    text = one_line(str(value))
    return text if len(text) <= 19 else text[:10]  # a digest by its beginning, a date and time as it is
