"""The first lesson: train the vision tower to predict what is under each visual token, before a word is written.

The truth of a drawn clip is known for every part of its picture: each token has some hundred labels, where a
description has ten words. Flaws are predicted for whole clips. The linear heads are discarded at the end.

The patch embedding starts as the whitened principal components of the patches (Coates and Ng 2012, "Learning feature
representations with k-means", section 2): raw pixels hold a thousand times more brightness than edges.

Shapes in names: V visual tokens of a batch, B clips, P patches, D pixels of a patch, F features of a token, N flaws."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from descore.io import atomic_path
from descore.model.modeling import DescoreModel
from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.types import Clip
from experiments.footage.clips import Footage
from experiments.footage.examples import footage_example
from experiments.grow_tiny.optimizer import MuonAndAdamW, split_weights
from experiments.grow_tiny.token_truth import (
    CELLS,
    CLASSES,
    FLAWS,
    OF_ALL,
    OF_THINGS,
    UNKNOWN,
    WEIGHTS,
    Truth,
    of_drawn,
    of_footage,
)

REAL_EVERY = 6
"""One clip in so many is real footage."""
SOUND_FIRST = 0.3
"""Share of the lesson over which flaws are introduced: sound clips are the easier start."""
LEARNING_RATE, MATRIX_LEARNING_RATE = 1e-3, 0.01
"""Peak rates."""
WARMUP, DECAY = 100, 0.3
"""Updates over which the rates rise, and the last share of the lesson, over which they fall."""
LOG_EVERY, SAVE_EVERY = 50, 200

Curve = list[dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class See(Dataset):  # type: ignore[type-arg]
    """Clips `start` to `size` - 1, of increasing variety, with the truth of their tokens."""

    footage: Footage
    size: int
    side: int
    """Pixels along each edge of a drawn frame; a frame of real footage has at most as many pixels."""
    start: int = 0

    def __len__(self) -> int:
        return self.size - self.start

    def __getitem__(self, index: int) -> tuple[Clip, Truth]:
        number = self.start + index
        if number % REAL_EVERY == 0:
            shown = footage_example(self.footage, "train", number, pixels=self.side**2)
            return shown.clip, of_footage(shown.clip, shown.flaws)
        progress = number / self.size
        planned = plan_example(
            Split.TRAIN, number, variety=min(1.0, 2 * progress), p_differs=1.0 if number % 2 else None
        )
        if progress < np.random.default_rng(number).random() * SOUND_FIRST:
            planned = replace(planned, flaws=())
        return draw_plan(planned, size=(self.side, self.side)).clip, of_drawn(planned, self.side)


@dataclass(frozen=True, slots=True)
class SeeCollator:
    """Batches clips and truths: the vision tower's input, and the truths with the tokens of all clips in one row."""

    model: DescoreModel

    def __call__(self, items: Sequence[tuple[Clip, Truth]]) -> dict[str, Any]:
        """A batch."""
        laid = self.model.chat.lay_out_prompts([clip for clip, _ in items], [""] * len(items))
        truths = [truth for _, truth in items]
        tokens_B = torch.tensor([len(truth.cover_VC) for truth in truths])
        return {
            "patches_PD": laid["pixel_values_videos"],
            "grid_B3": laid["video_grid_thw"],
            "clip_V": torch.repeat_interleave(torch.arange(len(items)), tokens_B),
            "cover_VC": torch.from_numpy(np.concatenate([truth.cover_VC for truth in truths])),
            "motion_V5": torch.from_numpy(np.concatenate([truth.motion_V5 for truth in truths])),
            "flaws_BN": torch.from_numpy(np.stack([truth.flaws_N for truth in truths])),
            **{n: torch.from_numpy(np.concatenate([t.labels[n] for t in truths])) for n in (*OF_THINGS, *OF_ALL)},
        }


class Heads(nn.Module):
    """Linear heads from a visual token to each label and measure."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.cover = nn.Linear(width, 2 * CELLS**2)
        self.motion = nn.Linear(width, 5)
        self.flaws = nn.Linear(width, len(FLAWS))
        self.labels = nn.ModuleDict({name: nn.Linear(width, CLASSES[name]) for name in (*OF_THINGS, *OF_ALL)})

    def forward(self, tokens_VF: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of all losses; and by name, the accuracy of labels and the loss of the rest."""
        tokens_VF = self.norm(tokens_VF)
        cover, motion, flaws = (
            self._cover(tokens_VF, batch),
            self._motion(tokens_VF, batch),
            self._flaws(tokens_VF, batch),
        )
        labels = {name: self._label(name, tokens_VF, batch[name]) for name in self.labels}
        loss = 4 * cover + 2 * motion + 4 * flaws + sum(loss for loss, _ in labels.values())
        measured = {"loss": loss, "cover": cover, "motion": motion, "flaws": flaws}
        errors = {name: value.item() for name, value in measured.items()}
        return loss, errors | {name: right for name, (_, right) in labels.items()}

    def _cover(self, tokens_VF: Tensor, batch: dict[str, Any]) -> Tensor:
        known_V = ~batch["cover_VC"].isnan().any(dim=1)
        logits_VC = self.cover(tokens_VF[known_V]).float()
        return functional.binary_cross_entropy_with_logits(logits_VC, batch["cover_VC"][known_V])

    def _motion(self, tokens_VF: Tensor, batch: dict[str, Any]) -> Tensor:
        known_V5 = ~batch["motion_V5"].isnan()
        return functional.smooth_l1_loss(self.motion(tokens_VF).float()[known_V5], batch["motion_V5"][known_V5])

    def _flaws(self, tokens_VF: Tensor, batch: dict[str, Any]) -> Tensor:
        """Predicted from the mean of a clip's tokens."""
        clips = len(batch["flaws_BN"])
        sum_BF = torch.zeros(clips, tokens_VF.shape[1]).index_add(0, batch["clip_V"], tokens_VF.float())
        logits_BN = self.flaws(sum_BF / batch["clip_V"].bincount(minlength=clips)[:, None]).float()
        return functional.binary_cross_entropy_with_logits(logits_BN, batch["flaws_BN"])

    def _label(self, name: str, tokens_VF: Tensor, label_V: Tensor) -> tuple[Tensor, float]:
        asked_V = label_V != UNKNOWN
        logits = self.labels[name](tokens_VF[asked_V]).float()
        loss = WEIGHTS.get(name, 1.0) * functional.cross_entropy(logits, label_V[asked_V])
        return loss, (logits.argmax(dim=1) == label_V[asked_V]).float().mean().item()


class Learning:
    """The state of the lesson, which can be saved and loaded."""

    def __init__(self, model: DescoreModel) -> None:
        self.visual, self.answers = model.backbone.model.visual, Heads(model.query.shape[0])
        matrices, others = split_weights([*self.visual.named_parameters(), *self.answers.named_parameters()])
        self.optimizer = MuonAndAdamW(
            [{"params": matrices, "lr": MATRIX_LEARNING_RATE}], [{"params": others, "lr": LEARNING_RATE}]
        )
        self.step = 0
        self.curve: Curve = []

    def update(self, batch: dict[str, Any], *, rate: float) -> dict[str, float]:
        """One step at this share of the peak rates. Returns losses and accuracies."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.visual(batch["patches_PD"], grid_thw=batch["grid_B3"])
            # The language model adds these up in its residual stream.
            loss, measured = self.answers(features.pooler_output + sum(features.deepstack_features), batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.visual.parameters(), *self.answers.parameters()], 1.0)
        for group, peak in zip(self.optimizer.param_groups, (MATRIX_LEARNING_RATE, LEARNING_RATE), strict=True):
            group["lr"] = peak * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return dict(measured)

    def save(self, path: Path) -> None:
        """Write what was learned, atomically."""
        learned = {name: getattr(self, name).state_dict() for name in ("visual", "answers", "optimizer")}
        with atomic_path(path) as partial:
            torch.save({**learned, "step": self.step, "curve": self.curve}, partial)

    def load(self, path: Path) -> None:
        """Load a state that `save` wrote."""
        state = torch.load(path, weights_only=True)
        for name in ("visual", "answers", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.curve = state["step"], state["curve"]


def see(model: DescoreModel, footage: Footage, out: Path, *, steps: int, batch: int, side: int) -> Curve:
    """Train the vision tower; a stopped lesson resumes. Returns the curve."""
    learning, path, collate = Learning(model), out / "see.pt", SeeCollator(model)
    lesson = See(footage=footage, size=steps * batch, side=side)
    if path.exists():
        learning.load(path)
    else:
        out.mkdir(parents=True, exist_ok=True)
        whiten(learning.visual, collate([lesson[number] for number in range(200)])["patches_PD"].float())
    began, window = time.monotonic(), Curve()
    left = replace(lesson, start=learning.step * batch)
    for inputs in DataLoader(left, batch_size=batch, collate_fn=collate, num_workers=1, prefetch_factor=4):
        window.append(learning.update(inputs, rate=_rate(learning.step, steps)))
        if learning.step % LOG_EVERY == 0 or learning.step == steps:
            means = {name: round(float(np.nanmean([each[name] for each in window])), 4) for name in window[0]}
            learning.curve.append({"step": learning.step, **means})
            print(f"see: {round(time.monotonic() - began)} s", learning.curve[-1], flush=True)
            window.clear()
        if learning.step % SAVE_EVERY == 0 or learning.step == steps:
            learning.save(path)
    return learning.curve


def whiten(visual: Any, patches_PD: Tensor, *, shrink: float = 1e-3, scale: float = 0.5, place: float = 0.3) -> None:  # noqa: ANN401
    """Initialise the patch embedding with the patches' whitened principal components, and positions of a like size.

    shrink: added to each variance, so that noise is not blown up. scale: deviation of a component. place: deviation of
    a position's features."""
    weight = visual.patch_embed.proj.weight
    with torch.no_grad():
        variance, basis = torch.linalg.eigh(patches_PD.T @ patches_PD / len(patches_PD))
        most = slice(-len(weight), None)
        weight.copy_((scale * basis[:, most] / (variance[most] + shrink).sqrt()).T.reshape(weight.shape))
        visual.patch_embed.proj.bias.zero_()
        visual.pos_embed.weight.normal_(0, place)


def _rate(step: int, steps: int) -> float:
    """Share of the peak rates."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (DECAY * steps))
