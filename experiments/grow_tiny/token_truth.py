"""What each visual token of a clip shows: labels and measures for training what makes tokens, and the whole model.

Tokens are in the order of Qwen3-VL's merger: by time, row, column.

Shapes in names: V visual tokens of a clip, T frames, H x W pixels, K drawings (each thing in each frame), N flaws."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from descore.model.efficient_vl import TOKEN
from descore.synthetic.degradations import DEGRADATIONS
from descore.synthetic.generators import Flaws
from descore.synthetic.rendering import DRAWN_FRAMES, filled, patches
from descore.synthetic.scene import ATTRIBUTES, Camera, Scene, Style
from descore.synthetic.splits import Plan
from descore.synthetic.staging import Staging, stage
from experiments.footage.cutouts import CutOutClip
from experiments.footage.examples import sound_or_degraded
from experiments.generated.harms import HARMS, Acts
from experiments.generated.harms import harmed as apply_harm

CELL = 4
"""Pixels along each edge of a cell, the resolution of covered shares."""
CELLS = TOKEN // CELL
STEP = 0.03
"""Unit of motion from frame to frame, as a share of the picture's edge: slow things move this far."""

P_SOUND, P_DEGRADED, P_BOTH = 0.25, 0.25, 0.25
"""Shares of real clips without harm, and with degradations as footage has them; and of the harmed, share with two."""
LEAST_STRENGTH = 0.1
"""Of a harm."""
LEAST_COVER = 0.08
"""Covered share of a token that shows a thing."""
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
KINDS = (*FLAWS, *HARMS)
"""All that a clip may suffer from: degradations of drawn clips and footage, and harms of generated clips."""
ACTS: tuple[Acts, ...] = ("style", "dynamics")
MOST_CHANGE = 40.0
"""Mean change of a token's pixels by a harm that counts as 1, in levels."""
UNSEEN_IN_PAIRS = ("jump", "freeze")
"""Harms that show what is right at another time, so that the change of a token's pixels says nothing."""
UNKNOWN = -100
"""The label of tokens without one: cross-entropy's own default."""

Frames = NDArray[np.uint8]
Numbers = NDArray[np.int64]
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
    """Strength of each of KINDS in the clip; NaN where it is not known, as for a kind that is much like one that the
    clip has."""
    harm_V2: Floats
    """How much harms to style and to dynamics change each token, from 0 to 1; NaN where it is not known."""


def of_drawn(planned: Plan, side: int) -> Truth:
    """The truth of a drawn clip of side x side pixels."""
    scene, staging = planned.shown, staging_of(planned)
    cover_THW = covered(scene, staging, side)
    in_things_V = _by_token(cover_THW).mean(axis=1) > LEAST_COVER
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
    return Truth(
        cover_VC=_by_token(cover_THW),
        labels=labels,
        motion_V5=motion_V5,
        flaws_N=strengths(planned.flaws),
        harm_V2=np.full((tokens, len(ACTS)), np.nan, np.float32),
    )


def strengths(flaws: Flaws, harms: Mapping[str, float] = MappingProxyType({})) -> Floats:
    """(N,): the strength of each of KINDS. Of the list that the clip has something from, the other list's are NaN."""
    of_flaws = [max((f.strength for f in flaws if f.name == name), default=np.nan if harms else 0.0) for name in FLAWS]
    of_harms = [harms.get(name, np.nan if flaws else 0.0) for name in HARMS]
    return np.asarray([*of_flaws, *of_harms], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """Frames after harms, and before each of them."""

    frames_THWC: Frames
    flaws_N: Floats
    """As in `Truth`."""
    moves: bool = False
    """Whether a harm or degradation acts on the motion."""
    before: Mapping[Acts, tuple[Frames, Frames]] = field(default_factory=dict)
    """Frames before and after the harm that acts on style, and on dynamics."""
    known: bool = True
    """Whether all that changed is in `before`."""

    def by_token(self, frames_T: Numbers) -> Floats:
        """`harm_V2` of these frames."""
        frames, height, width = self.frames_THWC[frames_T].shape[:3]
        tokens = frames // 2 * (height // TOKEN) * (width // TOKEN)
        harm_V2 = np.full((tokens, len(ACTS)), 0 if self.known else np.nan, np.float32)
        for act, (before_THWC, after_THWC) in self.before.items():
            change_THWC = np.abs(before_THWC[frames_T].astype(np.float32) - after_THWC[frames_T])
            change_V = _by_token(change_THWC.mean(axis=3)).mean(axis=1)
            harm_V2[:, ACTS.index(act)] = (change_V / MOST_CHANGE).clip(0, 1)
        return harm_V2


def harm_at_random(frames_THWC: Frames, rng: np.random.Generator) -> Harmed:
    """Sound frames, frames with one of the old degradations of footage, or frames with a harm or two."""
    draw = rng.random()
    if draw < P_SOUND:
        return Harmed(frames_THWC=frames_THWC, flaws_N=strengths(()))
    if draw < P_SOUND + P_DEGRADED:
        degraded_THWC, flaws = sound_or_degraded(frames_THWC, "train", rng)
        moves = any(flaw.harms == "motion" for flaw in flaws)
        return Harmed(frames_THWC=degraded_THWC, flaws_N=strengths(flaws), moves=moves, known=not flaws)
    before, names = dict[Acts, tuple[Frames, Frames]](), dict[str, float]()
    acts = [ACTS[1], ACTS[0]] if rng.random() < P_BOTH else [ACTS[int(rng.integers(2))]]
    for act in acts:
        of_act = [name for name, harm in HARMS.items() if harm.acts == act]
        name, strength = of_act[int(rng.integers(len(of_act)))], round(float(rng.uniform(LEAST_STRENGTH, 1)), 3)
        after_THWC = apply_harm(frames_THWC, name, strength=strength, seed=int(rng.integers(2**32)))
        names[name] = strength
        before[act] = frames_THWC, after_THWC
        frames_THWC = after_THWC
    seen = {act: pair for act, pair in before.items() if not (act == "dynamics" and set(names) & set(UNSEEN_IN_PAIRS))}
    return Harmed(
        frames_THWC=frames_THWC,
        flaws_N=strengths((), names),
        moves="dynamics" in before,
        before=seen,
        known=len(seen) == len(before),
    )


def of_real(harmed: Harmed, frames_T: Numbers) -> Truth:
    """The truth of these frames (whole pairs) of a clip that was not drawn: what harms it, and that it is real."""
    harm_V2 = harmed.by_token(frames_T)
    tokens = len(harm_V2)
    labels = {name: np.full(tokens, UNKNOWN) for name in (*OF_THINGS, *OF_ALL)}
    labels["setting"] = np.full(tokens, len(ATTRIBUTES["setting"]))
    return Truth(
        cover_VC=np.full((tokens, 2 * CELLS**2), np.nan, np.float32),
        labels=labels,
        motion_V5=np.full((tokens, 5), np.nan, np.float32),
        flaws_N=harmed.flaws_N,
        harm_V2=harm_V2,
    )


def of_cut_out(laid: CutOutClip, harmed: Harmed, frames_T: Numbers) -> Truth:
    """The truth of these frames (whole pairs) of a cut-out thing over a real clip: besides, where it is, and which way
    it moves before a ground that stands still."""
    truth, cover_VC = of_real(harmed, frames_T), _by_token(laid.cover_THW[frames_T])
    if laid.still and not harmed.moves:
        step_P2 = np.diff(laid.place_T2[frames_T], axis=0)[::2] / STEP
        motion_P5 = np.concatenate([step_P2, np.zeros((len(step_P2), 3))], axis=1).astype(np.float32)
        truth.motion_V5[:] = motion_P5.repeat(len(cover_VC) // len(step_P2), axis=0)
        truth.labels["camera"][:] = list(Camera).index(Camera.STILL)
        in_thing_V = cover_VC.mean(axis=1) > LEAST_COVER
        truth.labels["way"][in_thing_V] = _way(truth.motion_V5)[in_thing_V]
        truth.motion_V5[~in_thing_V, :2] = np.nan
    return replace(truth, cover_VC=cover_VC)


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
