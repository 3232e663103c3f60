"""Charts as inline SVG.

In: numbers and untrusted names. Out: markup for a page, legible at a width of 340 pixels, a phone's. Colours, fonts and
dashes are in the style sheet; series differ by their markers as well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from descore.report.text import plain

STYLES = 6
"""Markers and colours that are easy to tell apart; a chart has at most this many series."""

WIDTH = 340
"""Pixels, of every chart but those inside a line of a table."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 8, 40
_LINE_WIDTH, _LINE_HEIGHT = 124, 16  # of an interval in a table
_RADIUS = 3.4
_DODGE = 9.0  # pixels between the series of one category


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a chart."""

    x: float
    """In a chart of categories, the index of the category."""
    y: float
    low: float = math.nan
    """Lower end of the interval; nan for none."""
    high: float = math.nan
    note: str = ""
    """The tooltip."""
    weight: float = 1.0
    """Share of the marker's full area."""
    joined: bool = True
    """The line of the series goes through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together."""

    name: str
    style: int
    """Marker and colour, the same for a run on the whole page."""
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A chart's area and the ranges of its axes."""

    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - _TOP)

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM


def element(name: str, *content: str, **attributes: object) -> Markup:
    """One element. `class_` becomes class and `stroke_width` stroke-width; text and values are escaped."""
    given = [(key.rstrip("_").replace("_", "-"), _value(value)) for key, value in attributes.items()]
    inside = Markup("").join(Markup(' {}="{}"').format(key, plain(value)) for key, value in given)
    texts = (plain(text) if type(text) is str else text for text in content)  # what is markup is made here
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), inside, Markup("").join(texts))


def legend_key(style: int) -> Markup:
    """A series' marker on a piece of its line, to go before its name."""
    line = element("line", x1=1, x2=25, y1=7, y2=7, class_="curve")
    inside = element("g", line, _marker(style, 13, 7), class_=_class(style))
    return element("svg", inside, viewBox="0 0 26 14", width=26, height=14, class_="key", aria_hidden="true")


def interval_chart(
    value: float, low: float | None, high: float | None, *, style: int | None = None, chance: float | None = 0.5
) -> Markup:
    """A figure from 0 to 1 with its interval, for a row of a table beside the numbers. Without a style it is a
    published figure, which has no interval; of a value that is not finite, only the axis is drawn."""

    def x(share: float) -> float:
        return 4 + min(max(share, 0), 1) * (_LINE_WIDTH - 8)

    middle = _LINE_HEIGHT / 2
    drawn = [element("line", x1=x(0), x2=x(1), y1=middle, y2=middle, class_="rule")]
    if chance is not None:
        drawn.append(element("line", x1=x(chance), x2=x(chance), y1=1, y2=_LINE_HEIGHT - 1, class_="chance"))
    if math.isfinite(value):
        whisker = []
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            whisker.append(element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="whisker"))
        drawn.append(element("g", *whisker, _marker(style, x(value), middle), class_=_class(style)))
    size = {"viewBox": f"0 0 {_LINE_WIDTH} {_LINE_HEIGHT}", "width": _LINE_WIDTH, "height": _LINE_HEIGHT}
    return element("svg", *drawn, **size, class_="inline", aria_hidden="true")


def histogram(
    values: NDArray[np.floating], *, name: str, style: int, unit: str, over: NDArray[np.floating] | None = None
) -> Markup:
    """A histogram with the mean as a line. Values that are not finite are left out. over: the values whose range the
    axis has, so that several histograms share one."""
    kept = values[np.isfinite(values)]
    if kept.size == 0:
        return Markup("")
    counts, edges = np.histogram(kept, bins=_edges(kept if over is None else over[np.isfinite(over)]))
    frame = _Frame(height=170, x_range=(float(edges[0]), float(edges[-1])), y_range=(0, float(counts.max())))
    bars = [_bar(frame, a, b, n) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True) if n]
    mean, deviation = float(kept.mean()), float(kept.std())
    line = element("line", x1=frame.x(mean), x2=frame.x(mean), y1=_TOP, y2=frame.bottom, class_="mean")
    ticks = [(tick, f"{tick:g}".replace("-", "−")) for tick in _round_numbers(float(edges[0]), float(edges[-1]))]
    axes = _axes(frame, ticks, [(0.0, "0"), (float(counts.max()), f"{counts.max():,}")], unit, "clips")
    description = (
        f"{name}: distribution of {unit} over {kept.size:,} clips, mean {mean:.3g}, standard deviation {deviation:.3g}"
    )
    return _chart(frame, description, axes, element("g", *bars, class_=_class(style)), line)


def category_chart(series: Sequence[Series], categories: Sequence[str], *, title: str, x_title: str) -> Markup:
    """Accuracies with intervals, one column for each category; `x` of a point is the index of its category."""
    frame = _Frame(height=220, x_range=(-0.5, len(categories) - 0.5))
    lines = [_series(frame, each, shift=_DODGE * (k - (len(series) - 1) / 2)) for k, each in enumerate(series)]
    ticks = [(float(k), category) for k, category in enumerate(categories)]
    chance = element("line", x1=frame.x(-0.5), x2=WIDTH - _RIGHT, y1=frame.y(0.5), y2=frame.y(0.5), class_="chance")
    return _chart(frame, _describe(title, series), _axes(frame, ticks, _SHARES, x_title, "accuracy"), chance, *lines)


def reliability_chart(series: Sequence[Series], *, title: str) -> Markup:
    """How often people prefer the side that a model prefers, over the model's probability, from .5 to 1; a calibrated
    model's points lie on the diagonal."""
    frame = _Frame(height=250, x_range=(0.5, 1.0))
    diagonal = element("line", x1=frame.x(0.5), y1=frame.y(0.5), x2=frame.x(1), y2=frame.y(1), class_="chance")
    lines = [_series(frame, each, shift=0) for each in series]
    axes = _axes(frame, _PROBABILITIES, _SHARES, "probability that the model says", "share in which it is right")
    return _chart(frame, _describe(title, series), axes, diagonal, *lines)


def _round_numbers(low: float, high: float) -> list[float]:
    """Two to six multiples of 1, 2 or 5 times a power of ten, within the bounds."""
    power = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(step for step in (5 * power, 2 * power, power) if math.floor(high / step) - math.ceil(low / step) >= 1)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _edges(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of the bars: more of them for more values. Values that hardly differ share the one in the middle."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):
        half = max(0.5, 1e-6 * abs(low))
        return np.linspace(low - half, high + half, 10)
    return np.linspace(low, high, int(min(36, max(8, math.sqrt(values.size)))) + 1)


_PROBABILITIES = [(0.5, ".5"), (0.6, ".6"), (0.7, ".7"), (0.8, ".8"), (0.9, ".9"), (1.0, "1")]
_SHARES = [(0.0, "0"), (0.25, ".25"), (0.5, ".5"), (0.75, ".75"), (1.0, "1")]


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _class(style: int | None) -> str:
    return "published" if style is None else f"s{style % STYLES}"


_CORNERS: dict[int | None, tuple[tuple[float, float], ...]] = {
    None: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    2: ((0, -1.3), (1.3, 1), (-1.3, 1)),
    3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    5: ((0, 1.3), (1.3, -1), (-1.3, -1)),
}
"""Of the marker of each style, in radii; the styles that are not here have a disc and a ring."""


def _marker(style: int | None, x: float, y: float, weight: float = 1.0) -> Markup:
    """A shape of its own for each style; published figures have a hollow diamond."""
    r = _RADIUS * math.sqrt(weight)
    kind = None if style is None else style % STYLES
    if kind in _CORNERS:
        points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in _CORNERS[kind])
        return element("polygon", points=points, class_="dot")
    return element("circle", cx=x, cy=y, r=r, class_="dot" if kind == 0 else "dot hollow")


def _bar(frame: _Frame, left: float, right: float, count: float) -> Markup:
    x, y = frame.x(left), frame.y(count)
    return element("rect", x=x, y=y, width=frame.x(right) - x, height=frame.bottom - y, class_="bar")


def _series(frame: _Frame, series: Series, *, shift: float) -> Markup:
    """A line through the joined points, all points' intervals, and the points on top."""
    known = [point for point in series.points if math.isfinite(point.y)]
    places = [(frame.x(point.x) + shift, frame.y(point.y)) for point in known]
    joined = [f"{x:.1f},{y:.1f}" for point, (x, y) in zip(known, places, strict=True) if point.joined]
    curve = element("polyline", points=" ".join(joined), class_="curve")
    marks = [_point(frame, point, series.style, x) for point, (x, _) in zip(known, places, strict=True)]
    return element("g", curve, *marks, class_=_class(series.style))


def _point(frame: _Frame, point: Point, style: int, x: float) -> Markup:
    drawn = [_marker(style, x, frame.y(point.y), point.weight)]
    if math.isfinite(point.low) and math.isfinite(point.high):
        low, high = frame.y(point.low), frame.y(point.high)
        drawn.insert(0, element("line", x1=x, x2=x, y1=low, y2=high, class_="whisker"))
    return element("g", element("title", point.note), *drawn)


def _axes(
    frame: _Frame,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_title: str,
    y_title: str,
) -> Markup:
    right, bottom = WIDTH - _RIGHT, frame.bottom
    grid = [
        element("line", x1=_LEFT, x2=right, y1=frame.y(at), y2=frame.y(at), class_="axis" if k == 0 else "grid")
        for k, (at, _) in enumerate(y_ticks)
    ]
    below = [_label(word, frame.x(at), bottom + 14, anchor=_anchor(frame.x(at), word)) for at, word in x_ticks]
    beside = [_label(word, _LEFT - 5, frame.y(at) + 4, anchor="end") for at, word in y_ticks]
    middle = (_TOP + bottom) / 2
    titles = [
        _label(x_title, (_LEFT + right) / 2, frame.height - 5, class_="axis-title"),
        _label(y_title, 10, middle, transform=f"rotate(-90 10 {middle:.1f})", class_="axis-title"),
    ]
    return element("g", *grid, *below, *beside, *titles, class_="axes")


def _anchor(x: float, word: str) -> str:
    """A label at the right edge ends there, so that nothing is cut off."""
    return "end" if x + 3.2 * len(word) > WIDTH else "middle"


def _label(text: str, x: float, y: float, *, anchor: str = "middle", **more: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, **more)


def _describe(title: str, series: Sequence[Series]) -> str:
    """The chart in words, for screen readers."""
    lines = [f"{each.name}: {'; '.join(point.note for point in each.points) or 'nothing to show'}" for each in series]
    return f"{title}. {'. '.join(lines)}."


def _chart(frame: _Frame, description: str, *content: str) -> Markup:
    size = f"0 0 {WIDTH} {frame.height:.0f}"
    return element("svg", *content, viewBox=size, width=WIDTH, role="img", aria_label=description, class_="chart")
