"""The charts of a page: distributions of rewards, accuracy over difference, reliability.

In: named runs. Out: drawings with their titles."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from descore.report import charts
from descore.report.charts import Point, Series
from descore.report.findings import ByDifference, by_difference, rewards
from descore.report.tables import NamedRun
from descore.report.text import decimal, interval_text, number
from descore.stats.bootstrap import Floats

LEAST_PAIRS = 5
"""Of a bin that the line of a reliability chart goes through: the share of fewer is mostly chance."""

_Draw = Callable[[Sequence[NamedRun], str], "list[Chart]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with its title and a note below it."""

    title: str
    drawing: Markup
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartGroup:
    """Charts that share a legend."""

    title: str
    runs: tuple[NamedRun, ...]
    charts: tuple[Chart, ...]


def reward_charts(runs: Sequence[NamedRun]) -> ChartGroup:
    """The distribution of each run's rewards."""
    drawn = []
    for named in runs:
        values = rewards(named)
        known = values[np.isfinite(values)]
        drawing = charts.histogram(values, name=named.name, style=named.style, unit="reward")
        note = _spread(known) if known.size else "no clip has a reward"
        drawn.append(Chart(title=named.name, drawing=drawing, note=note))
    return ChartGroup(title=runs[0].run.title, runs=(), charts=tuple(drawn))


def difference_charts(runs: Sequence[NamedRun]) -> list[ChartGroup]:
    """Accuracy over difference, a chart for each label."""
    return _by_label(runs, _difference_chart)


def reliability_charts(runs: Sequence[NamedRun]) -> list[ChartGroup]:
    """Reliability diagrams, one for each model and label: with thinking and without stand in one."""
    models: dict[str, list[NamedRun]] = {}
    for named in runs:
        models.setdefault(named.model, []).append(named)
    groups = [group for same in models.values() for group in _by_label(same, _reliability_chart)]
    drawn = tuple(chart for group in groups for chart in group.charts)
    return [ChartGroup(title=runs[0].run.title, runs=tuple(runs), charts=drawn)] if drawn else []


def _spread(values: Floats) -> str:
    mean, deviation = number(float(values.mean())), number(float(values.std()))
    return f"mean {mean}, standard deviation {deviation}, {values.size:,} clips"


def spread_charts(runs: Sequence[NamedRun]) -> list[ChartGroup]:
    """Accuracy over the share of pairs that are decided, a chart for each run of several chains and label."""
    drawn = [
        Chart(title=f"{named.name}: {label}", drawing=_spread_drawing(named, label, figures["spread"]))
        for named in runs
        for label, figures in named.run.results["labels"].items()
        if figures.get("spread") is not None
    ]
    return [ChartGroup(title=runs[0].run.title, runs=(), charts=tuple(drawn))] if drawn else []


def _spread_drawing(named: NamedRun, label: str, spread: Mapping[str, Any]) -> Markup:
    shares = [f"{share:.0%}" for share in spread["shares"]]
    series = [
        Series(name=name, style=style, points=tuple(map(_spread_point, range(len(shares)), shares, spread[key])))
        for style, (name, key) in enumerate((("margin over error", "accuracy"), ("margin alone", "accuracy_margin")))
    ]
    title = f"Accuracy on the surest pairs, {named.name}, {label}"
    return charts.category_chart(series, shares, title=title, x_title="share of the pairs, the surest first")


def _spread_point(x: int, share: str, figure: Mapping[str, Any]) -> Point:
    low, high, value = (math.nan if figure[key] is None else figure[key] for key in ("low", "high", "value"))
    note = f"{share}: {decimal(value)} {interval_text(figure)} of {figure['n']:,} pairs"
    return Point(x=x, y=value, low=low, high=high, note=note)


def _by_label(runs: Sequence[NamedRun], draw: _Draw) -> list[ChartGroup]:
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
    by_parts: dict[tuple[str, tuple[str, ...]], list[Series]] = {}
    for named in runs:
        accuracy = by_difference(named, label)
        if accuracy is not None:
            by_parts.setdefault((accuracy.kind, accuracy.names), []).append(_difference_series(named, accuracy))
    titles = {"ratings": "difference of people's ratings", "margin": "quarters by the model's own margin"}
    return [
        Chart(
            title=label,
            drawing=charts.category_chart(
                series, names, title=f"Accuracy over difference, {label}", x_title=titles[kind]
            ),
        )
        for (kind, names), series in by_parts.items()
    ]


def _difference_series(named: NamedRun, accuracy: ByDifference) -> Series:
    points = [
        Point(
            x=k,
            y=figure.value,
            low=figure.low,
            high=figure.high,
            note=f"{name}: {decimal(figure.value)} {interval_text(asdict(figure))} of {figure.n:,} pairs",
        )
        for k, (name, figure) in enumerate(zip(accuracy.names, accuracy.figures, strict=True))
    ]
    return Series(name=named.name, style=named.style, points=tuple(points))


def _reliability_chart(runs: Sequence[NamedRun], label: str) -> list[Chart]:
    series = []
    for named in runs:
        calibration = named.run.results["labels"][label].get("calibration")
        bins = [] if calibration is None else calibration["bins"]
        points = [_bin_point(each, bins) for each in bins if each["n"]]
        if points:
            series.append(Series(name=named.name, style=named.style, points=tuple(points)))
    if not series:
        return []
    title = f"{runs[0].model}: {label}"
    alone = any(not point.joined for each in series for point in each.points)
    note = f"Points of fewer than {LEAST_PAIRS} pairs are not joined." if alone else ""
    return [Chart(title=title, drawing=charts.reliability_chart(series, title=f"Reliability, {title}"), note=note)]


def _bin_point(each: Mapping[str, Any], bins: Sequence[Mapping[str, Any]]) -> Point:
    low, high = each["share_low"], each["share_high"]
    probability, right = decimal(each["mean_probability"]), decimal(each["share"])
    return Point(
        x=each["mean_probability"],
        y=each["share"],
        low=math.nan if low is None else low,
        high=math.nan if high is None else high,
        note=f"says {probability}, is right in {right} of {each['n']:,} pairs",
        joined=each["n"] >= LEAST_PAIRS,
        weight=max(0.3, each["n"] / max(other["n"] for other in bins)) * 1.5,
    )
