"""Scenes: what a drawn clip shows, as plain values, and which of its attributes a prompt asks for.

Two sets of combinations are held out: no training scene has one of them, so that a test can tell whether a model
learned the parts or the combinations."""

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
    """How many of it there are; all are alike and do the same."""

    ONE = "one"
    TWO = "two"
    THREE = "three"


class Action(Enum):
    """What it does in the world, whatever the camera does."""

    STILL = "still"
    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    BOUNCE = "bounce"
    """Falls, hits the ground and rises again."""
    APPEAR = "appear"
    """Is absent at first, then present."""
    VANISH = "vanish"
    CHANGE = "change"
    """Takes another colour halfway. Its colour is the first one."""


class Speed(Enum):
    """How far a moving thing gets. A scene without motion has SLOW."""

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
    """How the scene is lit."""

    DAY = "day"
    DUSK = "dusk"
    """Dim and warm."""


class Style(Enum):
    """How the scene is drawn."""

    FLAT = "flat"
    OUTLINED = "outlined"
    SKETCHED = "sketched"
    PIXELATED = "pixelated"
    GREY = "grey"
    """Without colour, so that a thing's colour is not visible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a clip shows. Paths, textures and exact sizes are not part of it; they are random."""

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


ATTRIBUTES: dict[str, type[Enum]] = {field.name: field.type for field in fields(Scene)}  # type: ignore[misc]
"""Each attribute of a scene with its enumeration, in the order of the fields."""

MOVING_ACTIONS = frozenset({Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN})
"""The actions that have a speed."""

RequestedAttributes = frozenset[str]
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
"""The usual value of an attribute and its probability; the other values share the rest equally."""

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
    """A random scene without held-out combinations. variety: 0 leaves all attributes but shape, colour, action and
    setting at the usual value, 1 draws all of them."""
    while True:
        scene = any_scene(rng, variety=variety)
        if not is_held_out(scene):
            return scene


def held_out_scene(rng: np.random.Generator) -> Scene:
    """A random scene with at least one held-out combination."""
    scene = any_scene(rng)
    if rng.random() < 0.5:
        shape, colour = _choose(rng, HELD_OUT_LOOKS)
        return tidy(replace(scene, shape=shape, colour=colour))
    action, camera = _choose(rng, HELD_OUT_TAKES)
    return tidy(replace(scene, action=action, camera=camera))


def any_scene(rng: np.random.Generator, *, variety: float = 1.0) -> Scene:
    """A random scene of any combination."""
    values: dict[str, Any] = {name: _draw(rng, name, variety) for name in ATTRIBUTES}
    return tidy(Scene(**values))


def is_held_out(scene: Scene) -> bool:
    """Whether the scene has a held-out combination."""
    return (scene.shape, scene.colour) in HELD_OUT_LOOKS or (scene.action, scene.camera) in HELD_OUT_TAKES


def tidy(scene: Scene) -> Scene:
    """The scene with the speed set to SLOW if nothing moves, so that equal pictures are equal scenes."""
    return scene if scene.action in MOVING_ACTIONS else replace(scene, speed=Speed.SLOW)


def random_request(scene: Scene, rng: np.random.Generator) -> RequestedAttributes:
    """Random attributes to ask for: always shape or colour, a speed only with its motion, no colour in grey."""
    asked = {name for name in ATTRIBUTES if rng.random() < _ASKED[name]}
    if "action" not in asked or scene.action not in MOVING_ACTIONS:
        asked.discard("speed")
    if scene.style is Style.GREY and "style" in asked:
        asked.discard("colour")
    if not asked & {"shape", "colour"}:
        asked.add("shape")
    return frozenset(asked)


def vary(asked: Scene, rng: np.random.Generator, *, p: float, held_out: bool = False) -> Scene:
    """A scene whose attributes each differ from the asked ones with probability p; with a held-out combination only if
    `held_out`."""
    while True:
        shown = asked
        for name in ATTRIBUTES:
            if rng.random() < p:
                shown = change(shown, name, rng)
        shown = tidy(shown)
        if held_out or not is_held_out(shown):
            return shown


def change(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The scene with a random other value of one attribute."""
    now = getattr(scene, name)
    return with_value(scene, name, pick(rng, [other for other in ATTRIBUTES[name] if other is not now]))


def with_value(scene: Scene, name: str, value: Enum) -> Scene:
    """The scene with this value of one attribute."""
    changes: dict[str, Any] = {name: value}  # the checker cannot know that ATTRIBUTES gives each name its own type
    return replace(scene, **changes)


def pick(rng: np.random.Generator, options: Sequence[E]) -> E:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def _draw(rng: np.random.Generator, name: str, variety: float) -> Enum:
    options = list(ATTRIBUTES[name])
    if name not in _USUAL:
        return pick(rng, options)
    usual, share = _USUAL[name]
    if name != "action" and rng.random() >= variety:
        return usual
    return usual if rng.random() < share else pick(rng, [other for other in options if other is not usual])


def _choose(rng: np.random.Generator, combinations: Collection[tuple[Any, Any]]) -> tuple[Any, Any]:
    ordered = sorted(combinations, key=lambda both: (both[0].value, both[1].value))
    return ordered[int(rng.integers(len(ordered)))]
