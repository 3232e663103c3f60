"""Judge a clip by measurements on its pixels: no learned network, and nothing of the reward that is studied.

    judged = judge(frames, scene)       # judged.overall: 0 to 1; judged.parts; judged.seen

In: frames (T, H, W, 3) and the scene that the prompt asks for. Out: what is seen, and a score with its parts. A clip in
which no shape can be told from the backdrop has none: nothing is guessed.

The overall is a fifth each of colour, shape, motion, setting and picture. The first four are 1 where that is seen which
was asked, else 0; a motion in another direction is 0.5, as in the world's true marks, and a shape among others of its
colour is wrong. The picture is the mean of four measures from 0 to 1: outline, edges, steadiness, texture.

`python -m experiments.generator.validate_judge` measures how often it is right on drawn clips."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from descore.synthetic.scene import MOVING_ACTIONS, Action, Colour, Scene, Setting, Shape
from experiments.generator.measures import (
    LEAST_OVERLAP,
    action_of,
    backdrop_change,
    edge_width,
    outline_overlaps,
    setting_of,
    texture_likeness,
)
from experiments.generator.segmentation import around, centres, segment
from experiments.generator.world import Frames

SHARP, SOFT = 2.2, 5.0
"""Width of an edge in pixels, for 64 of picture, that counts 1 and 0."""
STEADY, UNSTEADY = 2.0, 24.0
"""Change of the backdrop from frame to frame, root mean square in levels, that counts 1 and 0."""
CLEAR = 4
"""Pixels around a shape that are not taken for backdrop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenShape:
    """The shape of a clip."""

    shape: Shape
    colour: Colour | None
    """None if it is near none of the palette's."""
    action: Action | None
    """None if its track is near none of the paths."""
    several: bool
    """Whether there are others of its colour."""
    outline: float
    """Overlap with the best template, LEAST_OVERLAP to 1."""
    edges: float
    """1 for edges as sharp as drawn ones, 0 for edges SOFT pixels wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a clip shows."""

    shape: SeenShape | None
    """None: no shape found."""
    setting: Setting | None
    """None if the backdrop is near none of them."""
    steadiness: float
    """1 for a backdrop that stays as it is, 0 for one that changes by UNSTEADY levels a frame."""
    texture: float
    """Detail of the backdrop and of the setting's drawn ones, the smaller by the larger; 0 without a setting."""

    @property
    def picture(self) -> float:
        """Mean of outline, edges, steadiness and texture; the first two are 0 without a shape."""
        of_shape = self.shape.outline + self.shape.edges if self.shape else 0.0
        return (of_shape + self.steadiness + self.texture) / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A clip's score."""

    seen: Seen
    parts: Mapping[str, float]
    """colour, shape, motion, setting and picture, each from 0 to 1."""

    @property
    def overall(self) -> float:
        """Mean of the parts."""
        return sum(self.parts.values()) / len(self.parts)


def judge(frames_THWC: Frames, asked: Scene) -> Judged:
    """The score of a clip for a prompt that asks for this scene."""
    seen = look(frames_THWC)
    shape = seen.shape
    parts = {
        "colour": float(shape is not None and shape.colour is asked.colour),
        "shape": float(shape is not None and shape.shape is asked.shape and not shape.several),
        "motion": 0.0 if shape is None else _motion_mark(shape.action, asked.action),
        "setting": float(seen.setting is asked.setting),
        "picture": seen.picture,
    }
    return Judged(seen=seen, parts=parts)


def look(frames_THWC: Frames) -> Seen:
    """What a clip shows."""
    found = segment(frames_THWC)
    overlaps = outline_overlaps(found) if found is not None else {}
    best = max(overlaps, key=overlaps.__getitem__, default=None)
    seen_shape, backdrop_THW = None, np.ones(frames_THWC.shape[:3], bool)
    if found is not None and best is not None and overlaps[best] >= LEAST_OVERLAP:
        backdrop_THW = ~around(found.inside_THW, CLEAR)
        seen_shape = SeenShape(
            shape=best,
            colour=found.colour,
            action=action_of(centres(found) / frames_THWC.shape[1]),
            several=found.several,
            outline=overlaps[best],
            edges=_between(edge_width(found), good=SHARP, bad=SOFT),
        )
    setting = setting_of(frames_THWC, backdrop_THW)
    return Seen(
        shape=seen_shape,
        setting=setting,
        steadiness=_between(backdrop_change(frames_THWC, backdrop_THW), good=STEADY, bad=UNSTEADY),
        texture=0.0 if setting is None else texture_likeness(frames_THWC, backdrop_THW, setting),
    )


def _motion_mark(seen: Action | None, asked: Action) -> float:
    if seen is asked:
        return 1.0
    return 0.5 if seen in MOVING_ACTIONS and asked in MOVING_ACTIONS else 0.0


def _between(value: float, *, good: float, bad: float) -> float:
    """1 up to `good`, 0 from `bad`, linear between."""
    return float(np.clip((bad - value) / (bad - good), 0, 1))
