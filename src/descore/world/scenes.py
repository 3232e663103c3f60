"""What a drawn clip shows and what a prompt asks of it, as plain values.

In: a random generator. Out: scenes, scenes that differ from an asked one, and requests. Knows nothing of pixels
or of words.

There is no panning camera: a pan over an unbounded texture shifts shape and backdrop alike, so that "the camera
pans left" and "the shape moves right" could look the same. A zoom changes sizes, which no motion here does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, TypeVar

import numpy as np

E = TypeVar("E", bound=Enum)


class Shape(Enum):
    """The thing that is drawn."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"


class Colour(Enum):
    """Its colour: bright and saturated, while every backdrop is dark or muted."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    WHITE = "white"


class Motion(Enum):
    """What it does."""

    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    STILL = "still"


class Camera(Enum):
    """What the viewpoint does."""

    STILL = "still"
    ZOOM_IN = "zoom in"
    ZOOM_OUT = "zoom out"


class Setting(Enum):
    """The textured backdrop."""

    NIGHT_SKY = "night sky"
    MEADOW = "meadow"
    BEACH = "beach"
    SEA = "sea"
    BRICK_WALL = "brick wall"


class Style(Enum):
    """How the shape is drawn."""

    FILLED = "filled"
    OUTLINED = "outlined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows. Size, path, speed, texture and brightness are not part of it: drawing makes them up."""

    shape: Shape
    colour: Colour
    motion: Motion
    camera: Camera
    setting: Setting
    style: Style


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which attributes of a scene the prompt names. Shape or colour is always among them."""

    shape: bool
    colour: bool
    motion: bool
    camera: bool
    setting: bool
    style: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes asked, in the order of ATTRIBUTES."""
        return tuple(name for name in ATTRIBUTES if getattr(self, name))


KINDS: dict[str, type[Enum]] = {
    "shape": Shape,
    "colour": Colour,
    "motion": Motion,
    "camera": Camera,
    "setting": Setting,
    "style": Style,
}
"""Each attribute of a scene and its enumeration."""

ATTRIBUTES = tuple(field.name for field in fields(Scene))

DIFFERS = 0.6
"""Default probability that an attribute shown is not the one asked: too small, and copying the prompt pays."""


def random_scene(rng: np.random.Generator) -> Scene:
    """Each attribute uniform and independent."""
    return Scene(
        shape=pick(rng, list(Shape)),
        colour=pick(rng, list(Colour)),
        motion=pick(rng, list(Motion)),
        camera=pick(rng, list(Camera)),
        setting=pick(rng, list(Setting)),
        style=pick(rng, list(Style)),
    )


def random_request(rng: np.random.Generator) -> Request:
    """Shape and colour 70 %, only one of them 15 % each; motion 85 %; camera, setting and style 50 % each."""
    subject, motion, camera, setting, style = rng.random(5)
    return Request(
        shape=subject < 0.85,
        colour=not 0.7 <= subject < 0.85,
        motion=motion < 0.85,
        camera=camera < 0.5,
        setting=setting < 0.5,
        style=style < 0.5,
    )


def vary(asked: Scene, rng: np.random.Generator, *, p: float = DIFFERS) -> Scene:
    """A scene whose every attribute differs from the asked one with probability p, to any other value alike."""
    shown = asked
    for name in ATTRIBUTES:
        if rng.random() < p:
            shown = change(shown, name, rng)
    return shown


def change(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The same scene with another value of one attribute."""
    now = getattr(scene, name)
    return _with(scene, name, pick(rng, [other for other in KINDS[name] if other is not now]))


def nudge(shown: Scene, *, asked: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The shown scene with one attribute set right if it was not as asked, and set wrong if it was."""
    if getattr(shown, name) is getattr(asked, name):
        return change(shown, name, rng)
    return _with(shown, name, getattr(asked, name))


def pick(rng: np.random.Generator, options: Sequence[E]) -> E:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def _with(scene: Scene, name: str, value: Enum) -> Scene:
    changes: dict[str, Any] = {name: value}  # the checker cannot know that KINDS gives each name its own type
    return replace(scene, **changes)
