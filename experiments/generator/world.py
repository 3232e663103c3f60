"""The study's world: one shape with a colour, a motion and a setting, before a camera that stands still.

    example = draw(Part.TRAIN, 17)      # example.prompt, example.scene, example.frames: uint8 (T, H, W, 3)

An example is a function of its part and number alone. Prompts ask for all that varies, in the wordings that the reward
model was trained on, and no prompt has a combination that the reward model never saw."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from descore.synthetic.prompts import write_prompt
from descore.synthetic.rendering import DRAWN_FPS, DRAWN_FRAMES, DRAWN_SIDE, render_scene
from descore.synthetic.scene import Action, Colour, Scene, Setting, Shape, is_held_out, pick
from descore.synthetic.staging import CELLS, backdrop_texture, camera_view

Frames = NDArray[np.uint8]

FPS, FRAMES, SIDE = DRAWN_FPS, DRAWN_FRAMES, DRAWN_SIDE
"""Of the study's clips: 8 frames of 64x64 pixels, 2 seconds."""

ACTIONS = (Action.STILL, Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN, Action.BOUNCE)
"""What the shape may do. It is there in every frame, and keeps its colour."""

ASKED = frozenset({"shape", "colour", "count", "action", "setting"})
"""What a prompt asks for. The number is always one."""


class Part(Enum):
    """What an example is for. The parts share no example."""

    TRAIN = 1
    """To train the generator on."""
    CALIBRATION = 2
    """To choose the judge's limits on."""
    VALIDATION = 3
    """To validate the judge on."""
    UPDATES = 4
    """Prompts of the training methods."""
    TEST = 5
    """Prompts on which generators are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A prompt, and the scene that it asks for."""

    prompt: str
    scene: Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn(Ask):
    """A prompt with a clip that shows what it asks for."""

    frames: Frames
    """(T, H, W, 3)."""


def ask(part: Part, index: int) -> Ask:
    """Prompt number `index` of a part."""
    return _ask(_rng(part, index))


def draw(part: Part, index: int, *, side: int = SIDE) -> Drawn:
    """Example number `index` of a part, its frames `side` pixels wide and high."""
    rng = _rng(part, index)
    wanted = _ask(rng)
    frames = render_scene(wanted.scene, rng=rng, frames=FRAMES, height=side, width=side)
    return Drawn(prompt=wanted.prompt, scene=wanted.scene, frames=frames)


def draw_backdrop(part: Part, index: int, *, side: int = SIDE) -> Frames:
    """(T, H, W, 3): a backdrop without a shape."""
    rng = _rng(part, index)
    setting = pick(rng, list(Setting))
    texture = np.floor(backdrop_texture(setting, rng=rng, rows=CELLS + 4, columns=CELLS + 4) + 0.5).astype(np.uint8)
    return np.repeat(camera_view(texture, zoom=1, look=(0, 0), size=(side, side))[None], FRAMES, axis=0)


def _rng(part: Part, index: int) -> np.random.Generator:
    return np.random.default_rng((2020, part.value, index))


def _ask(rng: np.random.Generator) -> Ask:
    scene = _scene(rng)
    while is_held_out(scene):
        scene = _scene(rng)
    return Ask(prompt=write_prompt(scene, ASKED, rng), scene=scene)


def _scene(rng: np.random.Generator) -> Scene:
    return Scene(
        shape=pick(rng, list(Shape)),
        colour=pick(rng, list(Colour)),
        action=pick(rng, ACTIONS),
        setting=pick(rng, list(Setting)),
    )
