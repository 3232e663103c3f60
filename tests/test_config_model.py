"""Settings check themselves when they are made and when they are copied, and put types and bounds into words."""

import pickle
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest
from pydantic import Field, NonNegativeFloat, PositiveInt

from descore.config_model import (
    AboveOne,
    BelowOne,
    ConfigModel,
    Names,
    PathText,
    SettingsError,
    UnitInterval,
    describe_bounds,
    describe_type,
)


class Colour(StrEnum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Brush(ConfigModel):
    """A group."""

    width: PositiveInt = 3
    """In pixels."""
    tip: Literal["round", "flat"] = "round"
    """Its form."""

    def conflicts(self):
        if self.tip == "flat" and self.width == 1:
            yield "tip", "must be round where width is 1"


class Painting(ConfigModel):
    """All kinds of fields."""

    name: str
    file: PathText = Path("painting.png")
    brush: Brush = Brush()
    other: Brush | None = None
    colour: Annotated[Colour, Field(strict=False)] = Colour.RED
    colours: Names | None = None
    weight: NonNegativeFloat | None = None
    share: UnitInterval = 0.5
    decay: Annotated[tuple[BelowOne, BelowOne], Field(strict=False)] = (0.9, 0.99)
    ratio: AboveOne = 2.0
    layers: Annotated[int, Field(ge=2)] = 2
    kinds: dict[str, str] = Field(default_factory=dict)

    def conflicts(self):
        if self.share == 0 and self.weight:
            yield "weight", "needs a share"
        if self.share == 0 and self.colours:
            yield "brush.tip", "has no share to paint with"


def faults(**values):
    with pytest.raises(SettingsError) as error:
        Painting(**values)
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name missing; expected text"),
        ({"name": 3}, "name expected text, found 3"),
        ({"name": "a", "nam": "b"}, "nam unknown key; did you mean name?"),
        ({"name": "a", "file": 3}, "file expected a path, found 3"),
        ({"name": "a", "brush": 3}, "brush expected keys and values, found 3"),
        ({"name": "a", "other": {"tip": "thin"}}, "other.tip expected one of round, flat, found 'thin'"),
        ({"name": "a", "other": {"brush": 1}}, "other.brush unknown key; expected one of width, tip"),
        ({"name": "a", "colour": "green"}, "colour expected one of 'red', 'dark blue', found 'green'"),
        ({"name": "a", "colours": []}, "colours must not be empty, got []"),
        ({"name": "a", "colours": "red"}, "colours expected a list, each text or null, found 'red'"),
        ({"name": "a", "kinds": {"x": 1}}, "kinds expected keys and values, each value text, found {'x': 1}"),
        ({"name": "a", "weight": -1}, "weight must not be negative, got -1"),
        ({"name": "a", "weight": float("nan")}, "weight expected a number or null, found nan"),
        ({"name": "a", "share": 2}, "share must be from 0 to 1, got 2"),
        ({"name": "a", "share": True}, "share expected a number, found True"),
        ({"name": "a", "decay": [0.5, 1]}, "decay must be at least 0 and below 1, got [0.5, 1]"),
        ({"name": "a", "decay": [0.5]}, "decay expected a list of 2, each number, found [0.5]"),
        ({"name": "a", "ratio": 1}, "ratio must be above 1, got 1"),
        ({"name": "a", "layers": 1}, "layers must be at least 2, got 1"),
        ({"name": "a", "layers": 2.0}, "layers expected a whole number, found 2.0"),
        ({"name": "a", "brush": {"tip": "flat", "width": 1}}, "brush.tip must be round where width is 1"),
    ],
)
def test_each_fault_is_put_into_words(values, message):
    assert faults(**values) == f"Painting: {message}"


def test_all_faults_are_reported_at_once():
    assert faults(name=3, share=2, brush={"width": 0, "tip": "thin"}) == (
        "Painting: name expected text, found 3; brush.width must be positive, got 0; "
        "brush.tip expected one of round, flat, found 'thin'; share must be from 0 to 1, got 2"
    )


def test_all_conflicts_are_reported_at_once():
    assert faults(name="a", share=0, weight=1, colours=["red"]) == (
        "Painting: weight needs a share; brush.tip has no share to paint with"
    )


def test_lists_and_text_become_tuples_and_paths():
    painting = Painting(name="a", colours=["red"], file="b.png", colour="dark blue")
    assert (painting.colours, painting.file, painting.colour) == (("red",), Path("b.png"), Colour.DARK_BLUE)


def test_a_copy_is_checked_again():
    painting = Painting(name="a", other=Brush(width=5))
    assert painting.model_copy(update={"share": 1}) == Painting(name="a", other=Brush(width=5), share=1.0)
    assert painting.model_copy().other is painting.other
    with pytest.raises(SettingsError, match="Painting: share must be from 0 to 1, got 2"):
        painting.model_copy(update={"share": 2})
    with pytest.raises(SettingsError, match="Brush: tip must be round"):
        Brush(width=1).model_copy(update={"tip": "flat"})


def test_settings_are_frozen_and_travel_to_workers():
    painting = Painting(name="a")
    with pytest.raises(pydantic.ValidationError):
        painting.name = "b"
    assert pickle.loads(pickle.dumps(painting)) == painting


def test_types_and_bounds_have_words():
    fields = Painting.model_fields
    assert describe_type(fields["decay"].annotation) == "a list of 2, each number"
    assert [describe_bounds(fields[name]) for name in ("name", "weight", "share", "decay", "ratio", "layers")] == [
        "",
        "not be negative",
        "be from 0 to 1",
        "be at least 0 and below 1",
        "be above 1",
        "be at least 2",
    ]
