"""What each visual token of a clip shows: labels and measures for training the vision tower.

Tokens are in the order of Qwen3-VL's merger: by time, row, column.

Shapes in names: V visual tokens of a clip, T frames, H x W pixels, K drawings (each thing in each frame), N flaws."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from descore.synthetic.degradations import DEGRADATIONS
from descore.synthetic.generators import Flaws
from descore.synthetic.rendering import DRAWN_FRAMES, filled, patches
from descore.synthetic.scene import ATTRIBUTES, Scene, Style
from descore.synthetic.splits import Plan
from descore.synthetic.staging import Staging, stage
from descore.types import Clip

TOKEN = 32
"""Pixels along each edge of a visual token, which spans two frames."""
CELL = 4
"""Pixels along each edge of a cell, the resolution of covered shares."""
CELLS = TOKEN // CELL
STEP = 0.03
"""Unit of motion from frame to frame, as a share of the picture's edge: slow things move this far."""

LEAST = 0.3
"""Least motion of a moving thing, in STEPs."""

OF_THINGS = ("shape", "colour", "size", "count", "way")
"""Labels of tokens that show a thing. `way`: its direction from the token's first frame to its second."""
OF_ALL = ("setting", "light", "style", "camera")
"""Labels of all tokens."""
CLASSES = {name: len(values) for name, values in ATTRIBUTES.items()} | {
    "way": 5,
    "setting": len(ATTRIBUTES["setting"]) + 1,
}
"""Number of classes. A way is none, left, right, up or down; the last setting is real footage."""
WEIGHTS = {"way": 2.0, "camera": 2.0}
"""Weights of losses that are not 1: motion is harder to learn than looks."""
FLAWS = tuple(DEGRADATIONS)
UNKNOWN = -100
"""The label of tokens without one: cross-entropy's own default."""

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Labels and measures of the V visual tokens of a clip."""

    cover_VC: Floats
    """Covered share of each cell of both frames; NaN for real footage."""
    labels: dict[str, Labels]
    """(V,) for each name of OF_THINGS and OF_ALL: the value's number, or UNKNOWN."""
    motion_V5: Floats
    """Per frame: the things' own motion to the right and down, then the camera's, then the logarithm of its zoom, in
    units of STEP; NaN where it is not known."""
    flaws_N: Floats
    """Strength of each of FLAWS in the clip."""


def of_drawn(planned: Plan, side: int) -> Truth:
    """The truth of a drawn clip of side x side pixels."""
    scene, staging = planned.shown, staging_of(planned)
    cover_THW = covered(scene, staging, side)
    in_things_V = _by_token(cover_THW).mean(axis=1) > 0.08
    tokens = len(in_things_V)
    labels = {name: np.full(tokens, list(values).index(getattr(scene, name))) for name, values in ATTRIBUTES.items()}
    pair_V = np.repeat(np.arange(DRAWN_FRAMES // 2), tokens // (DRAWN_FRAMES // 2))
    motion_V5 = _motion(staging)[pair_V]
    labels["way"] = _way(motion_V5)
    for name in OF_THINGS:
        labels[name][~in_things_V] = UNKNOWN
    if scene.style is Style.GREY:
        labels["colour"][:] = UNKNOWN
    changes_P = np.asarray(staging.changed_T.reshape(-1, 2).any(axis=1))
    labels["colour"][changes_P[pair_V]] = UNKNOWN
    motion_V5[~in_things_V, :2] = np.nan
    if any(flaw.harms == "motion" and flaw.name != "flicker" for flaw in planned.flaws):
        motion_V5[:] = np.nan
        labels["way"][:] = labels["camera"][:] = UNKNOWN
    return Truth(cover_VC=_by_token(cover_THW), labels=labels, motion_V5=motion_V5, flaws_N=_strengths(planned.flaws))


def of_footage(clip: Clip, flaws: Flaws) -> Truth:
    """The truth of real footage: its flaws, and that it is real."""
    _, height, width, _ = clip.frames.shape
    tokens = DRAWN_FRAMES // 2 * round(height / TOKEN) * round(width / TOKEN)
    labels = {name: np.full(tokens, UNKNOWN) for name in (*OF_THINGS, *OF_ALL)}
    labels["setting"] = np.full(tokens, len(ATTRIBUTES["setting"]))
    return Truth(
        cover_VC=np.full((tokens, 2 * CELLS**2), np.nan, np.float32),
        labels=labels,
        motion_V5=np.full((tokens, 5), np.nan, np.float32),
        flaws_N=_strengths(flaws),
    )


def staging_of(planned: Plan) -> Staging:
    """The staging of a planned clip, the first that is drawn from its seed."""
    return stage(planned.shown, rng=np.random.default_rng(planned.seed), frames=DRAWN_FRAMES, half_2=(0.5, 0.5))


def covered(scene: Scene, staging: Staging, side: int) -> Floats:
    """(T, H, W): the covered share of each pixel."""
    cover_THW = np.zeros((DRAWN_FRAMES, side, side), np.float32)
    seen_T = np.flatnonzero(staging.seen_T)
    if not seen_T.size:
        return cover_THW
    things = staging.place_TN2.shape[1]
    at_K2 = ((staging.seen_at[seen_T] + 0.5) * side).reshape(-1, 2).astype(np.float32)
    radius_K = np.repeat(staging.zoom_T[seen_T] * staging.radius * side, things).astype(np.float32)
    on = patches(x_K=at_K2[:, 0], y_K=at_K2[:, 1], radius_K=radius_K, height=side, width=side)
    for k, cover_PP in enumerate(filled(scene.shape, on)):
        top, left = on.top_K[k], on.left_K[k]
        under_PP = cover_THW[seen_T[k // things], top : top + on.side, left : left + on.side]
        np.maximum(under_PP, cover_PP, out=under_PP)
    return cover_THW


def _by_token(cover_THW: Floats) -> Floats:
    """(V, cells of both frames)."""
    frames, height, width = cover_THW.shape
    cells = cover_THW.reshape(frames, height // CELL, CELL, width // CELL, CELL).mean(axis=(2, 4))
    by_token = cells.reshape(frames // 2, 2, height // TOKEN, CELLS, width // TOKEN, CELLS)
    tokens: Floats = by_token.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 2 * CELLS**2)
    return tokens


def _motion(staging: Staging) -> Floats:
    """(T / 2, 5): from the first to the second frame of each token, as in `Truth`."""
    own_T2 = np.diff(staging.place_TN2[:, 0], axis=0)[::2]
    camera_T2 = np.diff(staging.camera_T2, axis=0)[::2]
    zoom_T1 = np.diff(np.log(staging.zoom_T))[::2, None]
    return (np.concatenate([own_T2, camera_T2, zoom_T1], axis=1) / STEP).astype(np.float32)


def _way(motion_V5: Floats) -> Labels:
    """(V,): the direction of the things, below CLASSES["way"]."""
    across_V, down_V = motion_V5[:, 0], motion_V5[:, 1]
    directions = [across_V < -LEAST, across_V > LEAST, down_V < -LEAST, down_V > LEAST]
    return np.select(directions, [1, 2, 3, 4], default=0)


def _strengths(flaws: Flaws) -> Floats:
    return np.asarray([max((f.strength for f in flaws if f.name == name), default=0.0) for name in FLAWS], np.float32)
