"""The first lesson: the vision tower learns to see, before a word is written.

A drawn clip's truth is known for every part of its picture. Here each visual token is asked for what lies under it (what
a thing covers, its shape and colour, how it moves, how the camera moves, the backdrop), each clip for its flaws: some
hundred answers where a description gives ten. The linear maps that answer are thrown away at the end.

The patch embedding starts as the whitened principal components of the patches (Coates and Ng 2012, "Learning feature
representations with k-means", section 2): raw pixels hold a thousand times more brightness than edges.

Shapes in names: V visual tokens of a batch, B clips, P rows of patches, F features of a token, Y x X cells."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from optimizer import MuonAndAdamW, split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from descore.model.descore_model import DescoreModel
from descore.types import Clip
from descore.world import shapes
from descore.world.degrading import DEGRADATIONS
from descore.world.footage import Footage
from descore.world.footage_telling import footage_example
from descore.world.generators import Flaws
from descore.world.script import KINDS, Scene, Style
from descore.world.splits import FRAMES, Plan, Split, draw, plan
from descore.world.staging import Staging, stage

TOKEN = 32
"""Pixels along each edge of what a visual token covers; it spans two frames."""
CELL = 4
"""Pixels along each edge of a cell of the covered share."""
CELLS = TOKEN // CELL
STEP = 0.03
"""The unit of motion from a frame to the next, in shares of the picture's edge: what moves slowly moves so far."""

OF_THINGS = ("shape", "colour", "size", "count")
"""Asked of the tokens that show a thing."""
OF_ALL = ("setting", "light", "style")
"""Asked of all tokens."""
FLAWS = tuple(DEGRADATIONS)
LEARNING_RATE, MATRIX_LEARNING_RATE = 1e-3, 0.01
"""Peaks."""
UNKNOWN = -100
"""A label that is not asked: cross-entropy's own default."""

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What each visual token of a clip of V tokens shows."""

    cover_VC: Floats
    """Of each cell in either frame, the share that things cover; NaN for real footage."""
    labels: dict[str, Labels]
    """(V,) for each name of OF_THINGS and OF_ALL: the value's number, or UNKNOWN."""
    motion_V5: Floats
    """Per frame: the things' own motion to the right and down, then the camera's, then the logarithm of its zoom, in
    units of STEP; NaN where it is not known."""
    flaws_N: Floats
    """Strength of each of FLAWS; the same for all tokens."""


@dataclass(frozen=True, slots=True)
class See(Dataset):  # type: ignore[type-arg]
    """Clips and the truth about their tokens. One in `real_every` is real footage."""

    footage: Footage
    size: int
    side: int
    pace: Callable[[int], float]
    """How much variety, from 0 to 1, example number `index` has."""
    start: int = 0
    real_every: int = 6

    def __len__(self) -> int:
        return self.size - self.start

    def __getitem__(self, index: int) -> tuple[Clip, Truth]:
        number = self.start + index
        if number % self.real_every == 0:
            shown = footage_example(self.footage, "train", number, pixels=self.side**2)
            return shown.clip, of_footage(shown.clip, shown.flaws)
        variety = self.pace(number)
        planned = plan(Split.TRAIN, number, variety=variety, p_differs=1.0 if number % 2 else None)
        if number / self.size < np.random.default_rng(number).random() * 0.3:
            planned = replace(planned, flaws=())  # sound clips are the easier start
        return draw(planned, size=(self.side, self.side)).clip, of_drawn(planned, self.side)


def of_drawn(planned: Plan, side: int) -> Truth:
    """The truth about a drawn clip of side x side pixels."""
    scene, staging = planned.shown, staging_of(planned)
    cover_THW = covered(scene, staging, side)
    in_things_V = _by_token(cover_THW).mean(axis=1) > 0.08
    tokens = len(in_things_V)
    numbers = {name: list(KINDS[name]).index(getattr(scene, name)) for name in (*OF_THINGS, *OF_ALL)}
    labels = {name: np.full(tokens, numbers[name]) for name in OF_ALL}
    labels |= {name: np.where(in_things_V, numbers[name], UNKNOWN) for name in OF_THINGS}
    pair_V = np.repeat(np.arange(FRAMES // 2), tokens // (FRAMES // 2))
    if scene.style is Style.GREY:
        labels["colour"][:] = UNKNOWN
    labels["colour"][staging.changed_T.reshape(-1, 2).any(axis=1)[pair_V]] = UNKNOWN
    motion_V5 = _motion(staging)[pair_V]
    motion_V5[~in_things_V, :2] = np.nan
    if any(flaw.harms == "motion" for flaw in planned.flaws):
        motion_V5[:] = np.nan
    return Truth(cover_VC=_by_token(cover_THW), labels=labels, motion_V5=motion_V5, flaws_N=_strengths(planned.flaws))


def of_footage(clip: Clip, flaws: Flaws) -> Truth:
    """The truth about real footage: nothing but its flaws, and that it is real."""
    _, height, width, _ = clip.frames.shape
    tokens = FRAMES // 2 * round(height / TOKEN) * round(width / TOKEN)
    labels = {name: np.full(tokens, UNKNOWN) for name in (*OF_THINGS, *OF_ALL)}
    labels["setting"] = np.full(tokens, len(KINDS["setting"]))
    return Truth(
        cover_VC=np.full((tokens, 2 * CELLS**2), np.nan, np.float32),
        labels=labels,
        motion_V5=np.full((tokens, 5), np.nan, np.float32),
        flaws_N=_strengths(flaws),
    )


def staging_of(planned: Plan) -> Staging:
    """Where things are in a planned clip: the first that is drawn from its seed."""
    return stage(planned.shown, rng=np.random.default_rng(planned.seed), frames=FRAMES, half_2=(0.5, 0.5))


def covered(scene: Scene, staging: Staging, side: int) -> Floats:
    """(T, H, W): the share of each pixel that things cover."""
    cover_THW = np.zeros((FRAMES, side, side), np.float32)
    seen_T = np.flatnonzero(staging.seen_T)
    if not seen_T.size:
        return cover_THW
    things = staging.place_TN2.shape[1]
    at_K2 = ((staging.seen_at[seen_T] + 0.5) * side).reshape(-1, 2).astype(np.float32)
    radius_K = np.repeat(staging.zoom_T[seen_T] * staging.radius * side, things).astype(np.float32)
    on = shapes.patches(x_K=at_K2[:, 0], y_K=at_K2[:, 1], radius_K=radius_K, height=side, width=side)
    for k, cover_PP in enumerate(shapes.filled(scene.shape, on)):
        top, left = on.top_K[k], on.left_K[k]
        under_PP = cover_THW[seen_T[k // things], top : top + on.side, left : left + on.side]
        np.maximum(under_PP, cover_PP, out=under_PP)
    return cover_THW


def _by_token(cover_THW: Floats) -> Floats:
    """(V, cells of both frames)."""
    frames, height, width = cover_THW.shape
    cells = cover_THW.reshape(frames, height // CELL, CELL, width // CELL, CELL).mean(axis=(2, 4))
    split = cells.reshape(frames // 2, 2, height // TOKEN, CELLS, width // TOKEN, CELLS)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 2 * CELLS**2)


def _motion(staging: Staging) -> Floats:
    """(T / 2, 5): from the first to the second frame of each token, as in `Truth`."""
    own_T2 = np.diff(staging.place_TN2[:, 0], axis=0)[::2]
    camera_T2 = np.diff(staging.camera_T2, axis=0)[::2]
    zoom_T1 = np.diff(np.log(staging.zoom_T))[::2, None]
    return (np.concatenate([own_T2, camera_T2, zoom_T1], axis=1) / STEP).astype(np.float32)


def _strengths(flaws: Flaws) -> Floats:
    return np.asarray([max((f.strength for f in flaws if f.name == name), default=0.0) for name in FLAWS], np.float32)


@dataclass(frozen=True, slots=True)
class Asked:
    """Pairs of clip and truth → the vision tower's input and the truths in one row of tokens."""

    model: DescoreModel

    def __call__(self, items: Sequence[tuple[Clip, Truth]]) -> dict[str, Any]:
        """A batch."""
        laid = self.model.chat.lay_out_prompts([clip for clip, _ in items], [""] * len(items))
        truths = [truth for _, truth in items]
        grid_B3 = laid["video_grid_thw"]
        tokens_B = grid_B3.prod(dim=1) // 4
        assert tokens_B.tolist() == [len(truth.cover_VC) for truth in truths], (grid_B3, [c.frames.shape for c, _ in items])
        return {
            "patches": laid["pixel_values_videos"],
            "grid_B3": grid_B3,
            "clip_V": torch.repeat_interleave(torch.arange(len(items)), tokens_B),
            "cover_VC": torch.from_numpy(np.concatenate([truth.cover_VC for truth in truths])),
            "motion_V5": torch.from_numpy(np.concatenate([truth.motion_V5 for truth in truths])),
            "flaws_BN": torch.from_numpy(np.stack([truth.flaws_N for truth in truths])),
            **{n: torch.from_numpy(np.concatenate([t.labels[n] for t in truths])) for n in (*OF_THINGS, *OF_ALL)},
        }


class Answers(nn.Module):
    """A linear map from a visual token to each answer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.cover = nn.Linear(width, 2 * CELLS**2)
        self.motion = nn.Linear(width, 5)
        self.flaws = nn.Linear(width, len(FLAWS))
        values = {name: len(KINDS[name]) + (name == "setting") for name in (*OF_THINGS, *OF_ALL)}
        self.labels = nn.ModuleDict({name: nn.Linear(width, number) for name, number in values.items()})


def see_loss(visual: nn.Module, answers: Answers, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
    """The sum of all losses, and how well each question is answered: shares of tokens right, or mean errors."""
    out = visual(batch["patches"], grid_thw=batch["grid_B3"])
    # The language model adds these up in its residual stream.
    tokens_VF = answers.norm(out.pooler_output + sum(out.deepstack_features))
    losses, seen = [], {}
    known_V = ~batch["cover_VC"].isnan().any(dim=1)
    cover_VC = answers.cover(tokens_VF[known_V]).float()
    losses.append(4 * F.binary_cross_entropy_with_logits(cover_VC, batch["cover_VC"][known_V]))
    seen["cover"] = losses[-1].item()
    for name, answer in answers.labels.items():
        asked_V = batch[name] != UNKNOWN
        logits = answer(tokens_VF[asked_V]).float()
        losses.append(F.cross_entropy(logits, batch[name][asked_V]))
        seen[name] = (logits.argmax(dim=1) == batch[name][asked_V]).float().mean().item()
    known_V5 = ~batch["motion_V5"].isnan()
    motion_V5 = answers.motion(tokens_VF).float()
    off = F.smooth_l1_loss(motion_V5[known_V5], batch["motion_V5"][known_V5])
    losses.append(2 * off)
    for name, columns in (("own", slice(0, 2)), ("camera", slice(2, 5))):
        known = known_V5[:, columns]
        seen[name] = (motion_V5[:, columns][known] - batch["motion_V5"][:, columns][known]).abs().mean().item()
    clips = len(batch["flaws_BN"])
    sums_BF = torch.zeros(clips, tokens_VF.shape[1]).index_add(0, batch["clip_V"], tokens_VF.float())
    strength_BN = answers.flaws(sums_BF / batch["clip_V"].bincount(minlength=clips)[:, None]).float()
    losses.append(4 * F.binary_cross_entropy_with_logits(strength_BN, batch["flaws_BN"]))
    seen["flaws"] = losses[-1].item()
    return torch.stack(losses).sum(), seen


def whiten(visual: Any, patches_PD: Tensor, *, shrink: float = 1e-3, scale: float = 0.5, place: float = 0.3) -> None:  # noqa: ANN401
    """Start the patch embedding with the patches' whitened principal components, and places with a like weight.

    shrink: added to each variance, so that noise is not blown up. scale: of a component's deviation. place: of a
    position's."""
    weight = visual.patch_embed.proj.weight
    with torch.no_grad():
        variance, basis = torch.linalg.eigh(patches_PD.T @ patches_PD / len(patches_PD))
        most = slice(-len(weight), None)
        rows = basis[:, most] / (variance[most] + shrink).sqrt()
        weight.copy_(scale * rows.T.reshape(weight.shape))
        visual.patch_embed.proj.bias.zero_()
        visual.pos_embed.weight.normal_(0, place)


class Learning:
    """The state of the lesson, so that it goes on where it was killed."""

    def __init__(self, visual: Any, width: int) -> None:  # noqa: ANN401
        self.visual, self.answers = visual, Answers(width)
        matrices, others = split([*visual.named_parameters(), *self.answers.named_parameters()])
        self.optimizer = MuonAndAdamW(
            [{"params": matrices, "lr": MATRIX_LEARNING_RATE}], [{"params": others, "lr": LEARNING_RATE}]
        )
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.curve: list[dict[str, float]] = []

    def update(self, loss: Tensor, rate: float) -> None:
        """One step at this share of the peak rates."""
        loss.backward()
        nn.utils.clip_grad_norm_([*self.visual.parameters(), *self.answers.parameters()], 1.0)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def save(self, path: Path) -> None:
        """Written aside, then renamed."""
        learned = {name: getattr(self, name).state_dict() for name in ("visual", "answers", "optimizer")}
        torch.save({**learned, "step": self.step, "curve": self.curve}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """What `save` wrote."""
        state = torch.load(path, weights_only=True)
        for name in ("visual", "answers", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.curve = state["step"], state["curve"]


def see(model: DescoreModel, footage: Footage, out: Path, *, steps: int, batch: int, side: int) -> list[dict[str, float]]:
    """Teach the vision tower; go on where it was killed. The curve."""
    visual = model.backbone.model.visual
    learning = Learning(visual, model.backbone.config.text_config.hidden_size)
    path = out / "see.pt"
    lesson = See(footage, steps * batch, side, lambda number: min(1.0, 2 * number / (steps * batch)))
    if path.exists():
        learning.load(path)
    else:
        out.mkdir(parents=True, exist_ok=True)
        first = Asked(model)([lesson[number] for number in range(200)])
        whiten(visual, first["patches"].float())
    if learning.step == steps:
        return learning.curve
    began, window = time.monotonic(), list[dict[str, float]]()
    for found in _batches(replace(lesson, start=learning.step * batch), Asked(model), batch):
        with torch.autocast("cpu", torch.bfloat16):
            loss, seen = see_loss(visual, learning.answers, found)
        learning.update(loss, rate=_rate(learning.step, steps))
        window.append({"loss": loss.item(), **seen})
        if learning.step % 50 == 0 or learning.step == steps:
            means = {name: round(float(np.nanmean([each[name] for each in window])), 4) for name in window[0]}
            learning.curve.append({"step": learning.step, **means})
            print(f"see {round(time.monotonic() - began)} s", learning.curve[-1], flush=True)
            window.clear()
        if learning.step % 200 == 0 or learning.step == steps:
            learning.save(path)
    return learning.curve


def _rate(step: int, steps: int, *, warmup: int = 100, decay: float = 0.3) -> float:
    """Share of the peak rate: up, along, and down at the end."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def _batches(lesson: See, collate: Asked, batch: int) -> Iterator[dict[str, Any]]:
    yield from DataLoader(lesson, batch_size=batch, collate_fn=collate, num_workers=1, prefetch_factor=4)  # type: ignore[arg-type]
