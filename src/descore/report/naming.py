"""What each run of a page is called, and which runs belong together.

In: runs. Out: the same runs with a name and a style each. Knows a run's configuration; knows nothing of pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from descore.evaluation.runs import Run
from descore.report.text import one_line

_THINKING = {"on": "thinking", "off": "at once"}
_TELLING = ("samples", "seed", "temperature", "limit", "digest", "started")
"""What two runs of one model and benchmark may differ in, in the order in which it is named."""

_LONGEST = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run as the page speaks of it."""

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
        """What it was run on."""
        return str(self.run.config["benchmark"])


def name_runs(runs: Sequence[Run]) -> list[NamedRun]:
    """Model and way of thinking; where that is not enough, what else tells a run from the others of its benchmark.
    A model has the same style on every benchmark."""
    names = [_name(run, [other for other in runs if _alike(run, other)]) for run in runs]
    styles = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [NamedRun(name=name, style=styles[name], run=run) for name, run in zip(names, runs, strict=True)]


def by_benchmark(runs: Sequence[NamedRun]) -> dict[str, list[NamedRun]]:
    """Runs of one benchmark together, in the order in which they were given."""
    found: dict[str, list[NamedRun]] = {}
    for named in runs:
        found.setdefault(named.benchmark, []).append(named)
    return found


def thinking_and_not(runs: Sequence[NamedRun]) -> list[tuple[NamedRun, NamedRun]]:
    """(with thinking, without) for each run that thought and has a counterpart: same model, weights, clips."""
    off = {_counterpart(named): named for named in reversed(runs) if named.run.config.get("think") == "off"}
    on = [named for named in runs if named.run.config.get("think") == "on"]
    return [(named, off[_counterpart(named)]) for named in on if _counterpart(named) in off]


def _counterpart(named: NamedRun) -> tuple[Any, ...]:
    return tuple(named.run.config.get(key) for key in ("benchmark", "model", "digest", "paradigm", "limit"))


def _alike(run: Run, other: Run) -> bool:
    return _base(run) == _base(other) and run.config["benchmark"] == other.config["benchmark"]


def _model(run: Run) -> str:
    model = one_line(str(run.config["model"])).rstrip("/")
    short = PurePath(model).name or model
    return short if len(short) <= _LONGEST else f"{short[: _LONGEST - 1]}…"


def _base(run: Run) -> str:
    thinking = run.config.get("paradigm") or _THINKING.get(str(run.config.get("think")))
    return _model(run) if thinking is None else f"{_model(run)}, {thinking}"


def _name(run: Run, alike: Sequence[Run]) -> str:
    base = _base(run)
    if len(alike) == 1:
        return base
    for key in _TELLING:
        if len({str(other.config.get(key)) for other in alike}) == len(alike):
            return f"{base}, {key} {_short(run.config.get(key))}"
    place = next(place for place, other in enumerate(alike, start=1) if other is run)
    return f"{base}, {one_line(run.folder_name)}, {place} of {len(alike)}"


def _short(value: object) -> str:
    text = one_line(str(value))
    return text if len(text) <= 19 else text[:10]  # a digest by its beginning, a date and time as it is
