"""Harms that video generators have, each at a strength from 0 (untouched) to 1.

A harm acts on style, if a still shows it, or on dynamics, if only time does. With the same seed a greater strength is
the same harm carried further: same places, same times. What a chain may say of a strength is in `mark_of`.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels; K blocks of a picture."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from descore.errors import ConfigError
from descore.types import Mark
from experiments.generated import harms_of_motion as motion
from experiments.generated import harms_of_picture as picture
from experiments.generated.fields import Frames

Acts = Literal["style", "dynamics"]

FAINT, STRONG = 0.15, 0.5
"""Below FAINT nobody can be sure that there is a harm; from STRONG on it is strong."""
VISIBLE: Mapping[Acts, float] = MappingProxyType({"style": 5.0, "dynamics": 14.0})
"""Least `measured` change of a clip whose harm a chain mentions, in levels. Among things that move, more is needed."""

_BLOCK = 8
_WORST = 0.04  # share of the blocks of a frame that count


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """A kind of harm."""

    name: str
    acts: Acts
    """The dimension that it lowers."""
    mild: str
    """Words for strengths below STRONG, to follow "The picture is" or "The motion is"."""
    strong: str
    """Words for strengths from STRONG on."""
    apply: Callable[[Frames, float, np.random.Generator], Frames]
    """Frames (T, H, W, 3), a strength above 0, a generator: new frames."""

    def words(self, strength: float) -> str:
        """Its words at this strength."""
        return self.mild if strength < STRONG else self.strong


def mark_of(strength: float) -> Mark:
    """The highest mark that a harm allows in its dimension: 2 below FAINT, 1 below STRONG, else 0."""
    return 2 if strength < FAINT else 1 if strength < STRONG else 0


def harmed(frames_THWC: Frames, name: str, *, strength: float, seed: int) -> Frames:
    """The frames with one harm, uint8 (T, H, W, 3), T at least 2; the frames themselves at strength 0.

    Bit for bit the same for the same seed and the same versions of the libraries. ConfigError for an unknown harm, a
    strength outside of 0 to 1, or other frames."""
    if name not in HARMS:
        nearest = difflib.get_close_matches(name, HARMS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"harm: found '{name}', expected one of {', '.join(HARMS)}{hint}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"harm: found strength {strength}, expected 0 to 1")
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or len(frames_THWC) < 2:
        raise ConfigError(f"harm: found frames {frames_THWC.dtype} {frames_THWC.shape}, expected uint8 (T, H, W, 3)")
    if strength == 0:
        return frames_THWC
    return np.ascontiguousarray(HARMS[name].apply(frames_THWC, strength, np.random.default_rng(seed)))


def measured(before_THWC: Frames, after_THWC: Frames) -> float:
    """Mean change of the most changed parts of the frame that changed most, in levels, 0 to 255: a harm of a small part
    counts as one of the whole does."""
    height, width = (edge // _BLOCK for edge in before_THWC.shape[1:3])
    whole = np.s_[:, : height * _BLOCK, : width * _BLOCK, 1]  # green
    change_THW = np.abs(before_THWC[whole].astype(np.int16) - after_THWC[whole])
    block_TK = change_THW.reshape(-1, height, _BLOCK, width, _BLOCK).mean(axis=(2, 4)).reshape(len(before_THWC), -1)
    count = max(1, round(_WORST * block_TK.shape[1]))
    return float(np.partition(block_TK, -count, axis=1)[:, -count:].mean(axis=1).max())


def _row(name: str, acts: Acts, words: str, apply: Callable[[Frames, float, np.random.Generator], Frames]) -> Harm:
    return Harm(name=name, acts=acts, mild=f"slightly {words}", strong=f"badly {words}", apply=apply)


_ROWS = (
    _row("melt", "dynamics", "melting", motion.melt),
    _row("morph", "dynamics", "melting", motion.morph),
    _row("boil", "dynamics", "boiling", motion.boil),
    _row("swap", "dynamics", "changing", motion.swap),
    _row("jump", "dynamics", "jumping", motion.jump),
    Harm(name="freeze", acts="dynamics", mild="partly frozen", strong="frozen", apply=motion.freeze),
    _row("flicker", "dynamics", "flickering", motion.flicker),
    _row("patch_flicker", "dynamics", "flickering", motion.patch_flicker),
    _row("shake", "dynamics", "shaky", motion.shake),
    _row("warp", "style", "bent", picture.warp),
    _row("double", "style", "doubled", picture.double),
    _row("ghost", "style", "doubled", picture.ghost),
    _row("smooth", "style", "smeared", picture.smooth),
    _row("smudge", "style", "smeared", picture.smudge),
    _row("sharpen", "style", "oversharp", picture.sharpen),
    _row("cast", "style", "discoloured", picture.cast),
    _row("burn", "style", "discoloured", picture.burn),
    _row("blocks", "style", "blocky", picture.blocks),
    _row("soften", "style", "blurred", picture.soften),
    _row("grid", "style", "coarse", picture.grid),
)

HARMS: Mapping[str, Harm] = MappingProxyType({row.name: row for row in _ROWS})
"""By name."""

STATES: Mapping[Acts, str] = MappingProxyType({"style": "picture", "dynamics": "motion"})
"""What a chain calls the thing that a harm makes worse."""
