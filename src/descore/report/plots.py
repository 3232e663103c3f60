"""The charts of a page: how rewards are spread, accuracy over difference, reliability.

In: named runs. Out: drawings with their titles. Knows records, findings and charts; knows nothing of the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from descore.report import charts
from descore.report.charts import Point, Series
from descore.report.figures import decimal, number, span
from descore.report.findings import ByDifference, by_difference, rewards
from descore.report.naming import NamedRun

Draw = Callable[[Sequence[NamedRun], str], "list[Chart]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with what stands above and below it."""

    title: str
    drawing: Markup
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartGroup:
    """Charts that share a legend."""

    title: str
    runs: tuple[NamedRun, ...]
    charts: tuple[Chart, ...]


def distributions(runs: Sequence[NamedRun]) -> ChartGroup:
    """The rewards of each run's clips."""
    found = []
    for named in runs:
        values = rewards(named)
        known = values[np.isfinite(values)]
        drawing = charts.histogram(values, name=named.name, style=named.style, unit="reward")
        note = _spread(known) if known.size else "no clip has a reward"
        found.append(Chart(title=named.name, drawing=drawing, note=note))
    return ChartGroup(title=runs[0].run.title, runs=(), charts=tuple(found))


def differences(runs: Sequence[NamedRun]) -> list[ChartGroup]:
    """Accuracy over difference, a chart for each label."""
    return _by_label(runs, _difference_chart)


def reliabilities(runs: Sequence[NamedRun]) -> list[ChartGroup]:
    """Reliability diagrams, one for each model and label: with thinking and without stand in one."""
    models: dict[str, list[NamedRun]] = {}
    for named in runs:
        models.setdefault(named.model, []).append(named)
    groups = [group for same in models.values() for group in _by_label(same, _reliability_chart)]
    drawn = tuple(chart for group in groups for chart in group.charts)
    return [ChartGroup(title=runs[0].run.title, runs=tuple(runs), charts=drawn)] if drawn else []


def _spread(values: NDArray[np.float64]) -> str:
    mean, deviation = number(float(values.mean())), number(float(values.std()))
    return f"mean {mean}, standard deviation {deviation}, {values.size:,} clips"


def _by_label(runs: Sequence[NamedRun], draw: Draw) -> list[ChartGroup]:
    groups = []
    for start in range(0, len(runs), charts.STYLES):
        some = runs[start : start + charts.STYLES]
        labels = dict.fromkeys(label for named in some for label in named.run.results["labels"])
        drawn = [
            chart for label in labels for chart in draw([n for n in some if label in n.run.results["labels"]], label)
        ]
        if drawn:
            groups.append(ChartGroup(title=runs[0].run.title, runs=tuple(some), charts=tuple(drawn)))
    return groups


def _difference_chart(runs: Sequence[NamedRun], label: str) -> list[Chart]:
    """Runs whose pairs are divided alike share a chart."""
    alike: dict[tuple[str, tuple[str, ...]], list[Series]] = {}
    for named in runs:
        seen = by_difference(named, label)
        if seen is not None:
            alike.setdefault((seen.kind, seen.names), []).append(_difference_series(named, seen))
    titles = {"ratings": "difference of people's ratings", "margin": "quarters by the model's own margin"}
    return [
        Chart(
            title=label,
            drawing=charts.by_category(series, names, title=f"Accuracy over difference, {label}", x_title=titles[kind]),
        )
        for (kind, names), series in alike.items()
    ]


def _difference_series(named: NamedRun, seen: ByDifference) -> Series:
    points = [
        Point(
            x=k,
            y=figure.value,
            low=figure.low,
            high=figure.high,
            note=f"{name}: {decimal(figure.value)} {span(asdict(figure))} of {figure.n:,} pairs",
        )
        for k, (name, figure) in enumerate(zip(seen.names, seen.figures, strict=True))
    ]
    return Series(name=named.name, style=named.style, points=tuple(points))


def _reliability_chart(runs: Sequence[NamedRun], label: str) -> list[Chart]:
    series = []
    for named in runs:
        found = named.run.results["labels"][label].get("calibration")
        points = [] if found is None else [_bin_point(one, found["bins"]) for one in found["bins"] if one["n"]]
        if points:
            series.append(Series(name=named.name, style=named.style, points=tuple(points)))
    if not series:
        return []
    title = f"{runs[0].model}: {label}"
    return [Chart(title=title, drawing=charts.reliability(series, title=f"Reliability, {title}"))]


def _bin_point(one: Mapping[str, Any], bins: Sequence[Mapping[str, Any]]) -> Point:
    low, high = one["share_low"], one["share_high"]
    said, right = decimal(one["mean_probability"]), decimal(one["share"])
    return Point(
        x=one["mean_probability"],
        y=one["share"],
        low=math.nan if low is None else low,
        high=math.nan if high is None else high,
        note=f"says {said}, is right in {right} of {one['n']:,} pairs",
        weight=max(0.3, one["n"] / max(other["n"] for other in bins)) * 1.5,
    )
