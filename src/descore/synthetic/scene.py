"""What a drawn clip shows and what a prompt asks of it, as plain values.

In: a random generator. Out: scenes, scenes that differ from an asked one, and requests. Knows nothing of pixels or of
words.

Two sets of combinations are held out: a training scene never holds one of them, so that a test can ask whether the
parts were learned or the wholes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, TypeVar

import numpy as np

E = TypeVar("E", bound=Enum)


class Shape(Enum):
    """The kind of thing that is drawn."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"


class Colour(Enum):
    """Its colour: bright and saturated, while every backdrop is dark or muted."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    WHITE = "white"


class Size(Enum):
    """How large it is."""

    SMALL = "small"
    LARGE = "large"


class Count(Enum):
    """How many of it there are; all alike, and all do the same."""

    ONE = "one"
    TWO = "two"
    THREE = "three"


class Action(Enum):
    """What it does, in the world: a camera that moves does not count."""

    STILL = "still"
    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    BOUNCE = "bounce"
    """Falls, hits the ground and rises again."""
    APPEAR = "appear"
    """Is not there at first, then it is."""
    VANISH = "vanish"
    CHANGE = "change"
    """Takes another colour halfway. Its colour is the first one."""


class Speed(Enum):
    """How far a moving thing gets. What does not move has none, and holds SLOW."""

    SLOW = "slow"
    FAST = "fast"


class Camera(Enum):
    """What the viewpoint does."""

    STILL = "still"
    PAN_LEFT = "pan left"
    PAN_RIGHT = "pan right"
    ZOOM_IN = "zoom in"
    ZOOM_OUT = "zoom out"
    SHAKE = "shake"


class Setting(Enum):
    """The textured backdrop."""

    NIGHT_SKY = "night sky"
    MEADOW = "meadow"
    BEACH = "beach"
    SEA = "sea"
    BRICK_WALL = "brick wall"


class Light(Enum):
    """How the whole is lit."""

    DAY = "day"
    DUSK = "dusk"
    """Dim and warm."""


class Style(Enum):
    """How the whole is drawn."""

    FLAT = "flat"
    OUTLINED = "outlined"
    SKETCHED = "sketched"
    PIXELATED = "pixelated"
    GREY = "grey"
    """Without colour: what colour a thing has cannot be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows. Path, texture and exact sizes are not part of it: painting makes them up."""

    shape: Shape
    colour: Colour
    size: Size = Size.LARGE
    count: Count = Count.ONE
    action: Action = Action.STILL
    speed: Speed = Speed.SLOW
    camera: Camera = Camera.STILL
    setting: Setting
    light: Light = Light.DAY
    style: Style = Style.FLAT


KINDS: dict[str, type[Enum]] = {field.name: field.type for field in fields(Scene)}  # type: ignore[misc]
"""Each attribute of a scene and its enumeration, in the order of the fields."""

MOVES = frozenset({Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN})
"""The actions that have a speed."""

Request = frozenset[str]
"""The attributes of a scene that a prompt names."""

HELD_OUT_LOOKS = frozenset(
    {
        (Shape.CIRCLE, Colour.BLUE),
        (Shape.SQUARE, Colour.ORANGE),
        (Shape.TRIANGLE, Colour.GREEN),
        (Shape.STAR, Colour.RED),
        (Shape.CROSS, Colour.YELLOW),
    }
)
"""Shapes and colours that no training scene combines."""

HELD_OUT_TAKES = frozenset(
    {
        (Action.LEFT, Camera.ZOOM_IN),
        (Action.RIGHT, Camera.PAN_LEFT),
        (Action.UP, Camera.ZOOM_OUT),
        (Action.STILL, Camera.PAN_RIGHT),
        (Action.BOUNCE, Camera.SHAKE),
    }
)
"""Actions and cameras that no training scene combines."""

_USUAL: dict[str, tuple[Enum, float]] = {
    "size": (Size.LARGE, 0.6),
    "count": (Count.ONE, 0.6),
    "action": (Action.STILL, 0.2),
    "speed": (Speed.SLOW, 0.5),
    "camera": (Camera.STILL, 0.4),
    "light": (Light.DAY, 0.7),
    "style": (Style.FLAT, 0.5),
}
"""The usual value of an attribute and how often a full scene has it; all others share the rest alike."""

_ASKED = {
    "shape": 0.9,
    "colour": 0.8,
    "size": 0.25,
    "count": 0.4,
    "action": 0.8,
    "speed": 0.4,
    "camera": 0.4,
    "setting": 0.5,
    "light": 0.25,
    "style": 0.35,
}


def random_scene(rng: np.random.Generator, *, variety: float = 1.0) -> Scene:
    """A scene for training: no held-out combination. variety: 0 leaves all but shape, colour, action and setting at
    the usual, 1 draws everything."""
    while True:
        scene = any_scene(rng, variety=variety)
        if not is_held_out(scene):
            return scene


def held_out_scene(rng: np.random.Generator) -> Scene:
    """A scene that holds at least one held-out combination."""
    scene = any_scene(rng)
    if rng.random() < 0.5:
        shape, colour = _choose(rng, HELD_OUT_LOOKS)
        return tidy(replace(scene, shape=shape, colour=colour))
    action, camera = _choose(rng, HELD_OUT_TAKES)
    return tidy(replace(scene, action=action, camera=camera))


def any_scene(rng: np.random.Generator, *, variety: float = 1.0) -> Scene:
    """A scene of any combination."""
    values: dict[str, Any] = {name: _draw(rng, name, variety) for name in KINDS}
    return tidy(Scene(**values))


def is_held_out(scene: Scene) -> bool:
    """Whether the scene holds a combination that training must not see."""
    return (scene.shape, scene.colour) in HELD_OUT_LOOKS or (scene.action, scene.camera) in HELD_OUT_TAKES


def tidy(scene: Scene) -> Scene:
    """The scene with the speed of what does not move set to SLOW, so that equal pictures are equal scenes."""
    return scene if scene.action in MOVES else replace(scene, speed=Speed.SLOW)


def random_request(scene: Scene, rng: np.random.Generator) -> Request:
    """Some of what the scene holds. Shape or colour is always among it, a speed only beside its motion, and no colour
    in grey."""
    asked = {name for name in KINDS if rng.random() < _ASKED[name]}
    if "action" not in asked or scene.action not in MOVES:
        asked.discard("speed")
    if scene.style is Style.GREY and "style" in asked:
        asked.discard("colour")
    if not asked & {"shape", "colour"}:
        asked.add("shape")
    return frozenset(asked)


def vary(asked: Scene, rng: np.random.Generator, *, p: float, held_out: bool = False) -> Scene:
    """A scene whose every attribute differs from the asked one with probability p. Without `held_out` it never holds
    a held-out combination."""
    while True:
        shown = asked
        for name in KINDS:
            if rng.random() < p:
                shown = change(shown, name, rng)
        shown = tidy(shown)
        if held_out or not is_held_out(shown):
            return shown


def change(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The same scene with another value of one attribute, each other value alike."""
    now = getattr(scene, name)
    return with_value(scene, name, pick(rng, [other for other in KINDS[name] if other is not now]))


def with_value(scene: Scene, name: str, value: Enum) -> Scene:
    """The same scene with this value of one attribute."""
    changes: dict[str, Any] = {name: value}  # the checker cannot know that KINDS gives each name its own type
    return replace(scene, **changes)


def pick(rng: np.random.Generator, options: Sequence[E]) -> E:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def _draw(rng: np.random.Generator, name: str, variety: float) -> Enum:
    options = list(KINDS[name])
    if name not in _USUAL:
        return pick(rng, options)
    usual, share = _USUAL[name]
    if name != "action" and rng.random() >= variety:
        return usual
    return usual if rng.random() < share else pick(rng, [other for other in options if other is not usual])


def _choose(rng: np.random.Generator, combinations: Collection[tuple[Any, Any]]) -> tuple[Any, Any]:
    ordered = sorted(combinations, key=lambda both: (both[0].value, both[1].value))
    return ordered[int(rng.integers(len(ordered)))]
