"""The tables of a page: failures, agreement by benchmark and label, correlations, aspects; and the names that its runs
have in them.

In: runs. Out: the same runs with a name and a style each, and rows of plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from descore.evaluation.runs import Run
from descore.report.text import one_line

_KINDS = ("spearman", "kendall", "pearson")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringFailure:
    """A clip without a score, with the runs that have none for it."""

    video: str
    benchmark: str
    error: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRow:
    """One model under one label, measured or published."""

    name: str
    style: int | None
    """None for a published figure."""
    accuracy: Mapping[str, Any] | None
    """A figure as `dataclasses.asdict` gives it."""
    tied: Mapping[str, Any] | None
    """Accuracy with ties, likewise."""
    held_out: Mapping[str, Any] | None = None
    compatible: float | None = None
    by_margin: Mapping[str, Any] | None = None
    """Accuracy with ties by a fixed margin, where it was asked for."""
    source: str = ""
    """Of a published figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementTable:
    """One benchmark: its runs, and the rows of each label."""

    title: str
    runs: tuple[NamedRun, ...]
    rows: Mapping[str, tuple[AgreementRow, ...]]
    same_pairs: bool
    """All runs were judged on the same pairs, so that their figures can be compared."""

    @property
    def has_margins(self) -> bool:
        """Whether any run was counted with a fixed tie margin."""
        return any(row.by_margin is not None for rows in self.rows.values() for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewCell:
    """A figure in the table of all benchmarks."""

    figure: Mapping[str, Any] | None
    first: bool
    """Of its benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewRow:
    """One model on all benchmarks."""

    name: str
    style: int | None
    cells: tuple[OverviewCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationRow:
    """One model's correlations with the ratings of one label."""

    name: str
    style: int | None
    figures: tuple[Mapping[str, Any] | None, ...]
    """Spearman, Kendall, Pearson over all clips, then within a prompt; of a published figure the first three."""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationGroup:
    """All models' correlations with the ratings of one label."""

    title: str
    """The benchmark's."""
    label: str
    rows: tuple[CorrelationRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AspectRow:
    """Accuracy of all runs on one kind of prompts."""

    aspect: str
    label: str
    pairs: int
    figures: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AspectTable:
    """The aspects of one benchmark."""

    title: str
    runs: tuple[NamedRun, ...]
    rows: tuple[AspectRow, ...]


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


def failures(runs: Sequence[NamedRun]) -> list[ScoringFailure]:
    """Every clip that a run could not score, once for each error."""
    names_of: dict[tuple[str, str, str, str], list[str]] = {}
    for named in runs:
        for failure in named.run.results["failures"]:
            key = (named.run.title, failure["video"], failure["prompt"], failure["error"])
            names_of.setdefault(key, []).append(named.name)
    return [
        ScoringFailure(video=video, benchmark=title, error=error, runs=tuple(names))
        for (title, video, _, error), names in names_of.items()
    ]


def agreement_table(runs: Sequence[NamedRun]) -> AgreementTable:
    """The rows of every label: the runs in their order, then published figures."""
    labels = dict.fromkeys(label for named in runs for label in named.run.results["labels"])
    return AgreementTable(
        title=runs[0].run.title,
        runs=tuple(runs),
        rows={
            label: (
                *(_measured(named, label) for named in runs if label in named.run.results["labels"]),
                *_published(_entries(runs, label)),
            )
            for label in labels
        },
        same_pairs=all(named.run.pairs == runs[0].run.pairs for named in runs),
    )


def overview(tables: Sequence[AgreementTable]) -> list[OverviewRow]:
    """Accuracy without ties of every model under every label; published figures below the measured ones."""
    columns = [(rows, k == 0) for table in tables for k, rows in enumerate(table.rows.values())]
    models = dict.fromkeys((row.name, row.style) for rows, _ in columns for row in rows)
    overview_rows = [
        OverviewRow(
            name=name, style=style, cells=tuple(_cell(name, style, rows, first=first) for rows, first in columns)
        )
        for name, style in models
    ]
    return sorted(overview_rows, key=lambda row: row.style is None)


def correlation_groups(table: AgreementTable) -> list[CorrelationGroup]:
    """Correlations with ratings by label, the measured ones before the published."""
    groups = [
        CorrelationGroup(
            title=table.title,
            label=label,
            rows=(*_correlations(table.runs, label), *_published_correlations(table.runs, label)),
        )
        for label in table.rows
    ]
    return [group for group in groups if group.rows]


def aspect_table(runs: Sequence[NamedRun]) -> AspectTable:
    """Accuracy by kind of prompt, label after label."""
    by_run = [named.run.results.get("by_aspect") or {} for named in runs]
    keys = dict.fromkeys((label, aspect) for by_label in by_run for label in by_label for aspect in by_label[label])
    rows = []
    for label, aspect in keys:
        figures = tuple(by_label.get(label, {}).get(aspect) for by_label in by_run)
        pairs = max(figure["n"] + figure["failed"] for figure in figures if figure is not None)
        rows.append(AspectRow(aspect=aspect, label=label, pairs=pairs, figures=figures))
    return AspectTable(title=runs[0].run.title, runs=tuple(runs), rows=tuple(rows))


def _measured(named: NamedRun, label: str) -> AgreementRow:
    figures = named.run.results["labels"][label]
    return AgreementRow(
        name=named.name,
        style=named.style,
        accuracy=figures["accuracy"],
        tied=figures["with_ties"],
        held_out=figures.get("with_ties_held_out"),
        compatible=figures.get("compatible"),
        by_margin=figures.get("with_tie_margin"),
    )


def _entries(runs: Sequence[NamedRun], label: str) -> list[Mapping[str, Any]]:
    """Published figures of a label; several runs of a benchmark carry the same ones, which are listed once."""
    keys = ("model", "label", "figure", "value", "source")
    unique = {tuple(entry[key] for key in keys): entry for named in runs for entry in named.run.published}
    return [entry for entry in unique.values() if entry["label"] == label]


def _published_figure(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": entry["value"], "low": None, "high": None, "n": None}


def _published(entries: Sequence[Mapping[str, Any]]) -> list[AgreementRow]:
    """A row for each model and source."""
    by_model: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in entries:
        if entry["figure"] in ("accuracy", "with_ties"):
            by_model.setdefault((entry["model"], entry["source"]), {})[entry["figure"]] = _published_figure(entry)
    return [
        AgreementRow(
            name=model,
            style=None,
            accuracy=figures.get("accuracy"),
            tied=None if "with_ties" not in figures else {"figure": figures["with_ties"]},
            source=source,
        )
        for (model, source), figures in by_model.items()
    ]


def _correlations(runs: Sequence[NamedRun], label: str) -> list[CorrelationRow]:
    by_run = [(named, named.run.results["labels"].get(label, {}).get("correlation")) for named in runs]
    return [
        CorrelationRow(
            name=named.name,
            style=named.style,
            figures=tuple((correlation[scope] or {}).get(kind) for scope in ("all", "within") for kind in _KINDS),
        )
        for named, correlation in by_run
        if correlation is not None
    ]


def _published_correlations(runs: Sequence[NamedRun], label: str) -> list[CorrelationRow]:
    return [
        CorrelationRow(
            name=entry["model"], style=None, figures=(_published_figure(entry), None, None), source=entry["source"]
        )
        for entry in _entries(runs, label)
        if entry["figure"] == "spearman"
    ]


def _cell(name: str, style: int | None, rows: Sequence[AgreementRow], *, first: bool) -> OverviewCell:
    row = next((row for row in rows if (row.name, row.style) == (name, style)), None)
    return OverviewCell(figure=None if row is None else row.accuracy, first=first)


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
