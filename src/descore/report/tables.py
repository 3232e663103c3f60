"""The tables of a page: what failed, agreement by benchmark and label, correlations, aspects.

In: named runs. Out: frozen lines of plain values. Knows results and published figures; knows nothing of markup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from descore.report.naming import NamedRun

_KINDS = ("spearman", "kendall", "pearson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A clip without a score, with the runs that have none for it."""

    video: str
    benchmark: str
    error: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
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
    source: str = ""
    """Of a published figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One benchmark: its runs, and its lines by label."""

    title: str
    runs: tuple[NamedRun, ...]
    lines: Mapping[str, tuple[Row, ...]]
    same_pairs: bool
    """All runs were judged on the same pairs, so that their figures can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure in the table of all benchmarks."""

    figure: Mapping[str, Any] | None
    first: bool
    """Of its benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One model on all benchmarks."""

    name: str
    style: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationLine:
    """One model's correlations with the ratings of one label."""

    name: str
    style: int | None
    figures: tuple[Mapping[str, Any] | None, ...]
    """Spearman, Kendall, Pearson over all clips, and the same within a prompt; of a published line the first three."""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationBand:
    """All models' correlations with the ratings of one label."""

    title: str
    """The benchmark's."""
    label: str
    lines: tuple[CorrelationLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AspectLine:
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
    lines: tuple[AspectLine, ...]


def failures(runs: Sequence[NamedRun]) -> list[Failure]:
    """Every clip that some run could not score, once for each reason."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for named in runs:
        for one in named.run.results["failures"]:
            found.setdefault((named.run.title, one["video"], one["prompt"], one["error"]), []).append(named.name)
    return [
        Failure(video=video, benchmark=title, error=error, runs=tuple(names))
        for (title, video, _, error), names in found.items()
    ]


def board(runs: Sequence[NamedRun]) -> Board:
    """Every label's lines: the runs as given, then what others published."""
    labels = dict.fromkeys(label for named in runs for label in named.run.results["labels"])
    return Board(
        title=runs[0].run.title,
        runs=tuple(runs),
        lines={
            label: (
                *(_measured(named, label) for named in runs if label in named.run.results["labels"]),
                *_published(_entries(runs, label)),
            )
            for label in labels
        },
        same_pairs=all(named.run.pairs == runs[0].run.pairs for named in runs),
    )


def overview(boards: Sequence[Board]) -> list[Line]:
    """Accuracy without ties of every model under every label; published figures below the measured ones."""
    columns = [(lines, k == 0) for board in boards for k, lines in enumerate(board.lines.values())]
    rows = dict.fromkeys((row.name, row.style) for lines, _ in columns for row in lines)
    found = [
        Line(name=name, style=style, cells=tuple(_cell(name, style, lines, first) for lines, first in columns))
        for name, style in rows
    ]
    return sorted(found, key=lambda line: line.style is None)


def correlated(board: Board) -> list[CorrelationBand]:
    """Correlations with ratings by label, the measured ones before the published."""
    bands = [
        CorrelationBand(
            title=board.title,
            label=label,
            lines=(*_correlations(board.runs, label), *_published_ones(board.runs, label)),
        )
        for label in board.lines
    ]
    return [band for band in bands if band.lines]


def aspects(runs: Sequence[NamedRun]) -> AspectTable:
    """Accuracy by kind of prompt, label after label."""
    found = [named.run.results.get("by_aspect") or {} for named in runs]
    keys = dict.fromkeys((label, aspect) for one in found for label in one for aspect in one[label])
    lines = []
    for label, aspect in keys:
        figures = tuple(one.get(label, {}).get(aspect) for one in found)
        pairs = max(figure["n"] + figure["failed"] for figure in figures if figure is not None)
        lines.append(AspectLine(aspect=aspect, label=label, pairs=pairs, figures=figures))
    return AspectTable(title=runs[0].run.title, runs=tuple(runs), lines=tuple(lines))


def _measured(named: NamedRun, label: str) -> Row:
    found = named.run.results["labels"][label]
    return Row(
        name=named.name,
        style=named.style,
        accuracy=found["accuracy"],
        tied=found["with_ties"],
        held_out=found.get("with_ties_held_out"),
        compatible=found.get("compatible"),
    )


def _entries(runs: Sequence[NamedRun], label: str) -> list[Mapping[str, Any]]:
    """Published figures under a label; what several runs of a benchmark carry counts once."""
    keys = ("model", "label", "figure", "value", "source")
    found = {tuple(entry[key] for key in keys): entry for named in runs for entry in named.run.published}
    return [entry for entry in found.values() if entry["label"] == label]


def _published_figure(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": entry["value"], "low": None, "high": None, "n": None}


def _published(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A line for each model and source, with the figures that it gives."""
    lines: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in entries:
        if entry["figure"] in ("accuracy", "with_ties"):
            lines.setdefault((entry["model"], entry["source"]), {})[entry["figure"]] = _published_figure(entry)
    return [
        Row(
            name=model,
            style=None,
            accuracy=found.get("accuracy"),
            tied=None if "with_ties" not in found else {"figure": found["with_ties"]},
            source=source,
        )
        for (model, source), found in lines.items()
    ]


def _correlations(runs: Sequence[NamedRun], label: str) -> list[CorrelationLine]:
    found = [(named, named.run.results["labels"].get(label, {}).get("correlation")) for named in runs]
    return [
        CorrelationLine(
            name=named.name,
            style=named.style,
            figures=tuple((one[scope] or {}).get(kind) for scope in ("all", "within") for kind in _KINDS),
        )
        for named, one in found
        if one is not None
    ]


def _published_ones(runs: Sequence[NamedRun], label: str) -> list[CorrelationLine]:
    return [
        CorrelationLine(
            name=entry["model"], style=None, figures=(_published_figure(entry), None, None), source=entry["source"]
        )
        for entry in _entries(runs, label)
        if entry["figure"] == "spearman"
    ]


def _cell(name: str, style: int | None, rows: Sequence[Row], first: bool) -> Cell:
    row = next((row for row in rows if (row.name, row.style) == (name, style)), None)
    return Cell(figure=None if row is None else row.accuracy, first=first)
