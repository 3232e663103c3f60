"""What stands for text-to-video models in the drawn world: profiles of typical mistakes and artefacts.

In: the scene that was asked for, a random generator. Out: the scene that is shown, and flaws of its picture and motion.
Knows scenes and the names of degradations; knows nothing of pixels or marks.

A generator is a row of data. Those held out are never trained on, and make flaws of kinds that training never shows.
None makes what here would be no flaw but another truth: the camera may be asked to shake, a style to be coarse, and
colours and directions are part of what is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from descore.synthetic.degradations import DEGRADATIONS, Harms
from descore.synthetic.scene import (
    KINDS,
    MOVES,
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

_MILD, _STRONG = (0.25, 0.42), (0.62, 1.0)  # strengths apart from the border, where nobody could tell which it is
_MOST = {"freeze": 0.7, "stutter": 0.7}  # beyond it too little is left of a motion to see where it goes
_MOST_DRAWN = {"blur": 0.75, "noise": 0.75, "compression": 0.7}  # beyond it small drawn things are lost
_SEEN_IN_ANYTHING = frozenset({"flicker", "wobble"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One degradation of a clip."""

    name: str
    """A key of DEGRADATIONS."""
    strength: float
    """Above 0, at most 1."""

    @property
    def harms(self) -> Harms:
        """What it spoils."""
        return DEGRADATIONS[self.name].harms

    @property
    def words(self) -> str:
        """What is said of the picture or the motion."""
        return DEGRADATIONS[self.name].words(self.strength)

    @property
    def mark(self) -> Mark:
        """The best mark that it leaves to the dimension: style for the picture, dynamics for the motion."""
        return DEGRADATIONS[self.name].mark(self.strength)


Flaws = tuple[Flaw, ...]
"""At most one of the picture and one of the motion, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """How a model goes wrong. Rates are probabilities."""

    name: str
    slip: float
    """That an attribute is not as asked, if `slips` does not say otherwise."""
    slips: Mapping[str, float] = field(default_factory=dict)
    """By attribute."""
    habits: Mapping[str, Enum] = field(default_factory=dict)
    """What it shows in place of what was asked, by attribute; any other value if there is none."""
    ignores: float = 0.0
    """That it shows a scene that has nothing to do with the prompt."""
    picture: tuple[str, ...]
    """Degradations of the picture that it makes."""
    picture_rate: float
    motion: tuple[str, ...]
    """Degradations of the motion that it makes."""
    motion_rate: float
    """As often it makes one of them. Where the scene cannot have it, the clip has none."""
    strong: float = 0.5
    """That a flaw is strong."""


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
"""What training clips come from."""

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
"""What only test clips come from."""


def shoot(
    asked: Scene, generator: Generator, rng: np.random.Generator, *, held_out: bool = False
) -> tuple[Scene, Flaws]:
    """The scene that the generator shows, and its flaws. Without `held_out` it never shows a held-out combination."""
    while True:
        shown = _attempt(asked, generator, rng)
        if held_out or not is_held_out(shown):
            return shown, flaws_of(generator, shown, rng)


def flaws_of(generator: Generator, shown: Scene, rng: np.random.Generator) -> Flaws:
    """Flaws that the generator makes and that this scene can have."""
    wanted = ((generator.picture, generator.picture_rate), (generator.motion, generator.motion_rate))
    made = [likely_flaw(names, rng, strong=generator.strong) for names, rate in wanted if rng.random() < rate]
    return tuple(flaw for flaw in made if is_plain(flaw, shown))


def likely_flaw(names: tuple[str, ...], rng: np.random.Generator, *, strong: float) -> Flaw:
    """A flaw of one of these names, each as likely, that drawn things can bear."""
    name = names[int(rng.integers(len(names)))]
    return random_flaw(name, rng, strong=strong, most=_MOST_DRAWN.get(name, 1.0))


def random_flaw(name: str, rng: np.random.Generator, *, strong: float, most: float = 1.0) -> Flaw:
    """A flaw that is clearly mild or, with the probability `strong`, clearly strong; of a strength up to `most`."""
    low, high = _STRONG if rng.random() < strong else _MILD
    high = min(high, most, _MOST.get(name, 1.0))
    return Flaw(name=name, strength=round(float(rng.uniform(low, high)), 3))


def is_plain(flaw: Flaw, scene: Scene) -> bool:
    """Whether the flaw can be seen in this scene, and all else that is told of the scene can be seen beside it."""
    return _shows(flaw.name, scene) and not _buries(flaw, scene)


def _shows(name: str, scene: Scene) -> bool:
    """Large pixels hide a loss of detail. Only a steady motion shows that it stops or jumps; what happens at one moment
    (say, vanishing) might fall into what is left out."""
    if DEGRADATIONS[name].harms == "picture":
        return scene.style is not Style.PIXELATED or name == "noise"
    steady = scene.action in MOVES or (scene.action is Action.STILL and scene.camera is not Camera.STILL)
    return name in _SEEN_IN_ANYTHING or (steady and scene.camera is not Camera.SHAKE)


def _buries(flaw: Flaw, scene: Scene) -> bool:
    """What is faint drowns in noise and falls to compression; so does a backdrop by which a camera's motion is seen. A
    small shape cannot be told from another in a strong blur."""
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
    for name in KINDS:
        if rng.random() < generator.slips.get(name, generator.slip):
            shown = _slip(shown, name, generator, rng)
    return tidy(shown)


def _slip(shown: Scene, name: str, generator: Generator, rng: np.random.Generator) -> Scene:
    """By habit; where the habit is just what was asked, it does as told."""
    habit = generator.habits.get(name)
    return change(shown, name, rng) if habit is None else with_value(shown, name, habit)


def random_generator(options: tuple[Generator, ...], rng: np.random.Generator) -> Generator:
    """One of them, each as likely."""
    return options[int(rng.integers(len(options)))]
