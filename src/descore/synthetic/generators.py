"""Simulated text-to-video models: each turns the asked scene into a shown scene with typical mistakes and flaws.

A generator is a row of data. Held-out generators are never trained on, and have kinds of flaws that training never
shows. No generator has a flaw that a prompt could ask for: the camera may be asked to shake, a style to be coarse, and
colours and directions are attributes of the scene."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from descore.synthetic.degradations import DEGRADATIONS, Harms
from descore.synthetic.scene import (
    ATTRIBUTES,
    MOVING_ACTIONS,
    Action,
    Camera,
    Light,
    Scene,
    Size,
    Style,
    any_scene,
    change,
    is_held_out,
    tidy,
    with_value,
)
from descore.types import Mark

_MILD, _STRONG = (0.25, 0.42), (0.62, 1.0)  # ranges of strength, away from the border between them
_MOST = {"freeze": 0.7, "stutter": 0.7}  # beyond it a motion's direction cannot be seen
_MOST_DRAWN = {"blur": 0.75, "noise": 0.75, "compression": 0.7}  # beyond it small drawn things cannot be seen
_VISIBLE_IN_ANY_SCENE = frozenset({"flicker", "wobble"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One degradation of a clip."""

    name: str
    """A key of DEGRADATIONS."""
    strength: float
    """Above 0, at most 1."""

    @property
    def harms(self) -> Harms:
        """What it degrades."""
        return DEGRADATIONS[self.name].harms

    @property
    def words(self) -> str:
        """How a chain describes it."""
        return DEGRADATIONS[self.name].words(self.strength)

    @property
    def mark(self) -> Mark:
        """The highest mark that it allows: of style for the picture, of dynamics for the motion."""
        return DEGRADATIONS[self.name].mark(self.strength)


Flaws = tuple[Flaw, ...]
"""At most one flaw of the picture and one of the motion, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A model's mistakes and flaws. Rates are probabilities."""

    name: str
    slip: float
    """Probability that an attribute is not as asked, for attributes that are not in `slips`."""
    slips: Mapping[str, float] = field(default_factory=dict)
    """The same, by attribute."""
    habits: Mapping[str, Enum] = field(default_factory=dict)
    """By attribute, the value that it shows instead of the asked one; without an entry, a random other value."""
    ignores: float = 0.0
    """Probability that it shows a random scene."""
    picture: tuple[str, ...]
    """Its degradations of the picture."""
    picture_rate: float
    motion: tuple[str, ...]
    """Its degradations of the motion."""
    motion_rate: float
    """Probability of one of them. A clip whose scene cannot show it has none."""
    strong: float = 0.5
    """Probability that a flaw is strong."""


TRAINING_GENERATORS = (
    Generator(
        name="careful",
        slip=0.1,
        picture=("blur", "noise"),
        picture_rate=0.25,
        motion=("flicker", "freeze"),
        motion_rate=0.25,
        strong=0.2,
    ),
    Generator(
        name="miscounting",
        slip=0.2,
        slips={"count": 0.6, "size": 0.5, "colour": 0.4, "shape": 0.4},
        picture=("blur",),
        picture_rate=0.45,
        motion=("flicker", "wobble"),
        motion_rate=0.3,
    ),
    Generator(
        name="static",
        slip=0.2,
        slips={"action": 0.5, "camera": 0.5, "speed": 0.5},
        habits={"action": Action.STILL, "camera": Camera.STILL},
        picture=("noise",),
        picture_rate=0.35,
        motion=("freeze",),
        motion_rate=0.7,
        strong=0.7,
    ),
    Generator(
        name="dreaming",
        slip=0.3,
        slips={"setting": 0.5, "light": 0.5, "style": 0.5},
        ignores=0.3,
        picture=("noise", "blur"),
        picture_rate=0.5,
        motion=("flicker", "wobble"),
        motion_rate=0.5,
        strong=0.6,
    ),
)
"""Generators of training clips."""

HELD_OUT_GENERATORS = (
    Generator(
        name="overcompressed",
        slip=0.2,
        slips={"colour": 0.4, "shape": 0.4},
        picture=("compression",),
        picture_rate=0.9,
        motion=("flicker",),
        motion_rate=0.2,
    ),
    Generator(
        name="stuttering",
        slip=0.2,
        slips={"action": 0.4, "speed": 0.5},
        picture=("noise",),
        picture_rate=0.25,
        motion=("stutter", "jerk"),
        motion_rate=0.8,
        strong=0.6,
    ),
    Generator(
        name="wandering",
        slip=0.2,
        slips={"camera": 0.6, "setting": 0.5, "count": 0.4},
        habits={"camera": Camera.SHAKE},
        picture=("compression", "blur"),
        picture_rate=0.45,
        motion=("drops",),
        motion_rate=0.5,
    ),
)
"""Generators of test clips only."""


def generate(
    asked: Scene, generator: Generator, rng: np.random.Generator, *, held_out: bool = False
) -> tuple[Scene, Flaws]:
    """The scene that the generator shows, and its flaws. Without `held_out` no held-out combination is shown."""
    while True:
        shown = _attempt(asked, generator, rng)
        if held_out or not is_held_out(shown):
            return shown, flaws_of(generator, shown, rng)


def flaws_of(generator: Generator, shown: Scene, rng: np.random.Generator) -> Flaws:
    """Random flaws of the generator that are visible in this scene."""
    kinds = ((generator.picture, generator.picture_rate), (generator.motion, generator.motion_rate))
    flaws = [likely_flaw(names, rng, strong=generator.strong) for names, rate in kinds if rng.random() < rate]
    return tuple(flaw for flaw in flaws if is_plain(flaw, shown))


def likely_flaw(names: tuple[str, ...], rng: np.random.Generator, *, strong: float) -> Flaw:
    """A random flaw of one of these names, at a strength that leaves drawn things visible."""
    name = names[int(rng.integers(len(names)))]
    return random_flaw(name, rng, strong=strong, most=_MOST_DRAWN.get(name, 1.0))


def random_flaw(name: str, rng: np.random.Generator, *, strong: float, most: float = 1.0) -> Flaw:
    """A flaw that is clearly mild or, with probability `strong`, clearly strong; of a strength up to `most`."""
    low, high = _STRONG if rng.random() < strong else _MILD
    high = min(high, most, _MOST.get(name, 1.0))
    return Flaw(name=name, strength=round(float(rng.uniform(low, high)), 3))


def is_plain(flaw: Flaw, scene: Scene) -> bool:
    """Whether the flaw is visible in this scene and leaves all attributes of the scene visible."""
    return _shows(flaw.name, scene) and not _buries(flaw, scene)


def _shows(name: str, scene: Scene) -> bool:
    """Large pixels hide a loss of detail. Only a steady motion shows that it stops or jumps; an event (say, vanishing)
    might fall into the missing frames."""
    if DEGRADATIONS[name].harms == "picture":
        return scene.style is not Style.PIXELATED or name == "noise"
    steady = scene.action in MOVING_ACTIONS or (scene.action is Action.STILL and scene.camera is not Camera.STILL)
    return name in _VISIBLE_IN_ANY_SCENE or (steady and scene.camera is not Camera.SHAKE)


def _buries(flaw: Flaw, scene: Scene) -> bool:
    """Faint things, and backdrops that show a camera's motion, are lost in noise and compression. Small shapes cannot
    be told apart under a strong blur."""
    strong, dim, grey = flaw.mark == 0, scene.light is Light.DUSK, scene.style is Style.GREY
    if flaw.name == "noise":
        return (dim and grey) or (strong and (dim or grey))
    if flaw.name == "compression":
        moves = scene.camera is not Camera.STILL
        return dim or (strong and (grey or moves or scene.size is Size.SMALL))
    return flaw.name == "blur" and strong and scene.size is Size.SMALL


def _attempt(asked: Scene, generator: Generator, rng: np.random.Generator) -> Scene:
    if rng.random() < generator.ignores:
        return any_scene(rng)
    shown = asked
    for name in ATTRIBUTES:
        if rng.random() < generator.slips.get(name, generator.slip):
            shown = _slip(shown, name, generator, rng)
    return tidy(shown)


def _slip(shown: Scene, name: str, generator: Generator, rng: np.random.Generator) -> Scene:
    """Replace an attribute by the generator's habit, or by a random other value."""
    habit = generator.habits.get(name)
    return change(shown, name, rng) if habit is None else with_value(shown, name, habit)


def random_generator(options: tuple[Generator, ...], rng: np.random.Generator) -> Generator:
    """One of them, uniformly."""
    return options[int(rng.integers(len(options)))]
