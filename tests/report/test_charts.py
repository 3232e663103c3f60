"""Charts are well-formed, say in words what they show, stay inside their frame, and take any name and number."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.report.charts import (
    STYLES,
    WIDTH,
    Point,
    Series,
    category_chart,
    element,
    histogram,
    interval_chart,
    legend_key,
    reliability_chart,
)

HOSTILE = """<script>alert(1)</script>"' onload='x' & ]]> \u202e"""
SERIES = [
    Series(
        name=f"run {style}",
        style=style,
        points=tuple(Point(x=x, y=0.2 * x + 0.1, low=0.1, high=0.2 * x + 0.3, note=f"part {x}") for x in range(3)),
    )
    for style in range(STYLES)
]


def numbers(svg, *names):
    return [float(value) for name in names for value in re.findall(rf'\b{name}="([-\d.e]+)"', svg)]


def has_class(svg, name):
    return len(re.findall(rf'class="(?:\S+ )*{name}(?: \S+)*"', svg))


def test_element_escapes_and_renames_attributes():
    made = element("text", "<b>", class_='x"y', text_anchor="end", x=1.26)
    assert made == '<text class="x&#34;y" text-anchor="end" x="1.3">&lt;b&gt;</text>'
    assert element("g", element("line", x1=2.0)) == '<g><line x1="2"></line></g>'


def test_an_interval_lies_where_its_numbers_say():
    # the axis goes from 4 to 120 of 124 pixels
    tree = ET.fromstring(interval_chart(0.5, 0.25, 1.0, style=0))
    [whisker] = [line for line in tree.iter("line") if line.get("class") == "whisker"]
    assert (float(whisker.get("x1")), float(whisker.get("x2"))) == (33, 120)
    assert float(next(tree.iter("circle")).get("cx")) == 62


def test_a_published_figure_is_a_hollow_diamond():
    drawn = interval_chart(0.7, None, None)
    assert has_class(drawn, "published") == 1
    assert has_class(drawn, "whisker") == 0
    assert "<polygon" in drawn


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_unknown_values_are_not_drawn(value):
    assert has_class(interval_chart(value, value, value, style=0), "dot") == 0


def test_every_style_has_a_marker_of_its_own():
    shapes = {re.sub(r' class="s\d"', "", legend_key(style)) for style in range(STYLES)}
    assert len(shapes) == STYLES


def test_a_histogram_holds_every_finite_value_once():
    values = np.array([0.0, 0.0, 1.0, 2.0, np.nan, np.inf])
    drawn = histogram(values, name="run", style=1, unit="reward")
    # 8 bins over 0 to 2: three of them are not empty, and the fullest, with two values, is the whole height
    heights = [float(bar.get("height")) for bar in ET.fromstring(drawn).iter("rect")]
    assert heights == [122, 61, 61]
    assert "over 4 clips, mean 0.75" in drawn


def test_one_value_gives_one_bar_and_nan_no_histogram():
    assert histogram(np.array([np.nan]), name="r", style=0, unit="reward") == ""
    for value in (2.5, 1e12, 1e17):
        assert histogram(np.array([value, value + 1e-9]), name="r", style=0, unit="reward").count("<rect") == 1


def test_series_keep_apart_and_stay_inside():
    drawn = category_chart(SERIES, ["a", "b", "c"], title="t", x_title="x")
    circles = {circle.get("cx") for circle in ET.fromstring(drawn).iter("circle")}
    assert len(circles) == 6  # two of the six styles are circles, in three columns each
    assert all(0 <= x <= WIDTH for x in numbers(drawn, "cx", "x1", "x2", "x"))


def test_a_chart_describes_itself_in_words():
    tree = ET.fromstring(reliability_chart(SERIES[:1], title="Reliability, overall"))
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == "Reliability, overall. run 0: part 0; part 1; part 2."


def test_a_point_without_a_value_is_left_out():
    gap = Series(name="r", style=0, points=(Point(x=0, y=math.nan), Point(x=1, y=0.5)))
    drawn = category_chart([gap], ["a", "b"], title="t", x_title="x")
    assert "nan" not in drawn
    assert drawn.count("<circle") == 1


@pytest.mark.parametrize("draw", ["category", "reliability", "histogram"])
def test_hostile_names_are_text(draw):
    point = Point(x=0, y=0.5, note=HOSTILE)
    series = [Series(name=HOSTILE, style=0, points=(point,))]
    drawn = {
        "category": lambda: category_chart(series, [HOSTILE], title=HOSTILE, x_title=HOSTILE),
        "reliability": lambda: reliability_chart(series, title=HOSTILE),
        "histogram": lambda: histogram(np.arange(3.0), name=HOSTILE, style=0, unit=HOSTILE),
    }[draw]()
    tags = {node.tag for node in ET.fromstring(drawn).iter()}
    assert "script" not in tags
    assert not any(name.startswith("on") for node in ET.fromstring(drawn).iter() for name in node.attrib)
    assert HOSTILE.replace("\u202e", "\ufffd") in ET.fromstring(drawn).get("aria-label")


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50))
def test_any_rewards_make_a_histogram_inside_its_frame(values):
    drawn = histogram(np.array(values), name="r", style=0, unit="reward")
    ET.fromstring(drawn)
    assert "nan" not in drawn
    assert all(-0.1 <= x <= WIDTH + 0.1 for x in numbers(drawn, "x1", "x2", "x"))
