"""The first two lessons: what is to be seen under each visual token is predicted.

In the first, by the eyes alone, before a word is written: their network knows photographs and is left as it is, what
makes tokens of its features is trained. In the second by the whole model, whose states at visual tokens know what was
before, while it learns to describe clips.

The truth of a drawn clip is known for every part of its picture: each token has some hundred labels, where a
description has ten words. Harms are predicted for whole clips and, by how much they change it, for each token. Of real
and generated clips, the second lesson predicts a teacher's labels and what these mean, and how its features change over
time: their first and second differences from frame to frame, in units of their own deviation, so that small changes
weigh as much as large ones. Behind the prompt it predicts how near that is to what the labels mean, and how jerky the
clip is: what is asked is compared with what is seen before a word is written. The linear heads are discarded at the
end.

Shapes in names: V visual tokens of a batch, B clips, P pairs of frames, F features of a token, N flaws; of the teacher,
S features of a pair of frames, L labels."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from descore.io import atomic_path
from descore.model.efficient_vl import LABELS
from descore.model.modeling import DescoreModel
from descore.training.losses import chain_loss
from experiments.grow_tiny.meanings import MEANING
from experiments.grow_tiny.optimizer import MuonAndAdamW
from experiments.grow_tiny.teacher import STATISTICS
from experiments.grow_tiny.token_truth import ACTS, CELLS, CLASSES, KINDS, OF_ALL, OF_THINGS, UNKNOWN, WEIGHTS
from experiments.grow_tiny.views import DescribedViews, ViewCollator, Views

WARMUP, DECAY = 100, 0.3
"""Updates over which the rates rise, and the last share of the lesson, over which they fall."""
LOG_EVERY, SAVE_EVERY = 50, 100
FIRST_VIEWS = 200
"""Views whose features' deviations are the units of those that are gathered, and of the teacher's."""
TAUGHT_WEIGHTS = {"known": 1.0, "change": 4.0, "jerk": 4.0, "meaning": 2.0, "match": 4.0, "smooth": 4.0}
"""Weights of the losses on a teacher's labels, on how its features change, and on what labels and prompts mean."""

Curve = list[dict[str, float]]


class Standard(nn.Module):
    """Puts features into units of their deviation. It is measured once and saved with the heads."""

    mean_K: Tensor
    deviation_K: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_K", torch.zeros(width))
        self.register_buffer("deviation_K", torch.ones(width))

    def measure(self, features_VK: Tensor) -> None:
        """Set mean and deviation to those of these rows. What never changes there weighs nothing."""
        deviation_K, self.mean_K = torch.std_mean(features_VK, dim=0)
        self.deviation_K = torch.where(deviation_K > 1e-6, deviation_K, torch.inf)

    def forward(self, features_VK: Tensor) -> Tensor:
        """The features in these units."""
        in_units_VK: Tensor = (features_VK - self.mean_K) / self.deviation_K
        return in_units_VK


class Heads(nn.Module):
    """Linear heads from a visual token to each label and measure."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.cover = nn.Linear(width, 2 * CELLS**2)
        self.motion = nn.Linear(width, 5)
        self.flaws = nn.Linear(width, len(KINDS))
        self.harm = nn.Linear(width, len(ACTS))
        self.labels = nn.ModuleDict({name: nn.Linear(width, CLASSES[name]) for name in (*OF_THINGS, *OF_ALL)})

    def forward(self, tokens_VF: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of all losses; and by name, the accuracy of labels and the loss of the rest."""
        tokens_VF = self.norm(tokens_VF)
        cover, motion = (
            known_bce(self.cover(tokens_VF), batch["cover_VC"]),
            known_smooth_l1(self.motion(tokens_VF), batch["motion_V5"]),
        )
        flaws_BN = self.flaws(mean_by(batch["clip_V"], tokens_VF))
        flaws, harm = known_bce(flaws_BN, batch["flaws_BN"]), known_bce(self.harm(tokens_VF), batch["harm_V2"])
        labels = {name: self._label(name, tokens_VF, batch[name]) for name in self.labels}
        loss = 4 * cover + 2 * motion + 4 * flaws + 2 * harm + sum(loss for loss, _ in labels.values())
        measured = {"loss": loss, "cover": cover, "motion": motion, "flaws": flaws, "harm": harm}
        errors = {name: value.item() for name, value in measured.items()}
        return loss, errors | {name: right for name, (_, right) in labels.items()}

    def _label(self, name: str, tokens_VF: Tensor, label_V: Tensor) -> tuple[Tensor, float]:
        asked_V = label_V != UNKNOWN
        logits = self.labels[name](tokens_VF[asked_V]).float()
        total = functional.cross_entropy(logits, label_V[asked_V], reduction="sum")
        loss = WEIGHTS.get(name, 1.0) * total / asked_V.sum().clamp(min=1)
        return loss, (logits.argmax(dim=1) == label_V[asked_V]).float().mean().item()


def mean_by(number_V: Tensor, tokens_VF: Tensor) -> Tensor:
    """The mean of the tokens of each number (of a clip, or of a pair of frames), from 0 to the last."""
    count = int(number_V[-1]) + 1
    sum_BF = torch.zeros(count, tokens_VF.shape[1]).index_add(0, number_V, tokens_VF.float())
    return sum_BF / number_V.bincount(minlength=count)[:, None]


def known_bce(logits: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy with shares, over those that are not NaN."""
    known = ~share.isnan()
    total = functional.binary_cross_entropy_with_logits(logits[known].float(), share[known], reduction="sum")
    return total / known.sum().clamp(min=1)


def smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Each element's loss: quadratic below 1, so that a sudden jump does not outweigh all else."""
    return functional.smooth_l1_loss(predicted.float(), target, reduction="none")


def known_smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of `smooth_l1` over targets that are not NaN."""
    known = ~target.isnan()
    return smooth_l1(predicted[known], target[known]).sum() / known.sum().clamp(min=1)


class LookHeads(Heads):
    """Heads on the language model's states. At visual tokens these know what was before, and predict besides a
    teacher's labels, the labels' meaning as a sentence's vector, and first and second differences of the teacher's
    features from frame to frame; behind the prompt, how near it is to that meaning, and how great the second
    differences are beside the first."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.known, self.meaning = nn.Linear(width, LABELS), nn.Linear(width, MEANING)
        self.change, self.change_standard = nn.Linear(width, 2 * STATISTICS), Standard(2 * STATISTICS)
        self.behind, self.behind_standard = nn.Linear(width, 2), Standard(2)

    def measure(self, batch: dict[str, Any]) -> None:
        """Set the units of how the teacher's features change, and of what is said behind the prompt."""
        self.change_standard.measure(all_known(batch["change_P2S"]))
        self.behind_standard.measure(all_known(behind_of(batch)))

    def forward(self, states: tuple[Tensor, Tensor], batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
        """As of Heads, with what is taught. states: at visual tokens (V, F), and behind each prompt (B, F)."""
        tokens_VF, behind_BF = states
        loss, measured = super().forward(tokens_VF, batch)
        taught = self._taught(self.norm(tokens_VF), behind_BF, batch) if len(batch["label_PL"]) else {}
        loss = loss + sum(TAUGHT_WEIGHTS[name] * value for name, value in taught.items())
        return loss, measured | {name: value.item() for name, value in taught.items()} | {"loss": loss.item()}

    def _taught(self, tokens_VF: Tensor, behind_BF: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        pairs_PF = mean_by(batch["pair_V"], tokens_VF)[batch["taught_P"]]
        log_label_PL = self.known(pairs_PF).float().log_softmax(dim=1)
        known = functional.kl_div(log_label_PL, batch["label_PL"], reduction="batchmean")
        change_P2S, given_P2S = self.change_standard(batch["change_P2S"]), self.change(pairs_PF)
        meaning_BD = self.meaning(mean_by(batch["clip_V"], tokens_VF)[batch["taught_B"]]).float()
        meaning = 1 - functional.cosine_similarity(meaning_BD, batch["meaning_BD"]).mean()
        behind_B2, said_B2 = self.behind_standard(behind_of(batch)), self.behind(behind_BF[batch["taught_B"]])
        parts = (("change", "jerk", given_P2S, change_P2S), ("match", "smooth", said_B2, behind_B2))
        errors = {
            name: known_smooth_l1(given, true)
            for *names, given_N, true_N in parts
            for name, given, true in zip(names, given_N.chunk(2, dim=1), true_N.chunk(2, dim=1), strict=True)
        }
        return {"known": known, "meaning": meaning, **errors}


def all_known(rows: Tensor) -> Tensor:
    """Those without NaN."""
    return rows[~rows.isnan().any(dim=1)]


def behind_of(batch: dict[str, Any]) -> Tensor:
    """(B, 2): what states behind the prompt are to say of taught clips."""
    return torch.cat([batch["match_B1"], batch["jerk_B1"]], dim=1)


Perceive = Callable[[dict[str, Any]], tuple[Any, dict[str, Tensor]]]
"""From a batch to what heads read, and other losses by name."""


def eyes_tokens(visual: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401
    """What the language model gets."""
    return visual(batch["patches_RP"], grid_thw=batch["grid_B3"]).pooler_output, {}


def language_states(model: DescoreModel, batch: dict[str, Any]) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """The language model's last states at visual tokens and behind each prompt, and the next-token loss of
    descriptions."""
    inputs = batch["inputs"]
    hidden_BTD = model.hidden(inputs)
    is_visual_BT = inputs["input_ids"] == model.backbone.config.video_token_id
    behind_B = inputs["chain_mask"].int().argmax(dim=1) - 1
    behind_BD = hidden_BTD[torch.arange(len(behind_B)), behind_B]
    return (hidden_BTD[is_visual_BT], behind_BD), {"next_token": chain_loss(model, inputs, hidden_BTD)}


class Learning:
    """The state of a lesson with heads, which can be saved and loaded."""

    def __init__(
        self, part: nn.Module, heads: nn.Module, optimizer: MuonAndAdamW, perceive: Perceive, *, name: str
    ) -> None:
        self.modules: dict[str, Any] = {name: part, "answers": heads, "optimizer": optimizer}
        self.heads, self.optimizer, self.perceive = heads, optimizer, perceive
        self.weights = [*part.parameters(), *heads.parameters()]
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.step = 0
        self.curve: Curve = []

    def update(self, batch: dict[str, Any], *, rate: float) -> dict[str, float]:
        """One step at this share of the peak rates. Returns losses and accuracies."""
        with torch.autocast("cpu", torch.bfloat16):
            states, losses = self.perceive(batch)
            loss, measured = self.heads(states, batch)
        torch.stack([loss, *losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return dict(measured) | {name: value.item() for name, value in losses.items()}

    def save(self, path: Path) -> None:
        """Write what was learned, atomically."""
        learned = {name: module.state_dict() for name, module in self.modules.items()}
        with atomic_path(path) as partial:
            torch.save({**learned, "step": self.step, "curve": self.curve}, partial)

    def load(self, path: Path) -> None:
        """Load a state that `save` wrote."""
        state = torch.load(path, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.step, self.curve = state["step"], state["curve"]


def see(model: DescoreModel, views: Views, out: Path, *, batch: int, optimizer: Callable[..., MuonAndAdamW]) -> Curve:
    """Train what makes tokens of the eyes' features on the views, `batch` in an update; a stopped lesson resumes.
    Returns the curve. optimizer: makes the one of the eyes' weights and of these heads'."""
    visual, heads = model.backbone.model.visual, Heads(model.query.shape[0])
    learning = Learning(visual, heads, optimizer(heads), partial(eyes_tokens, visual), name="visual")

    def begin(first: dict[str, Any]) -> None:
        with torch.no_grad():
            visual.merger.fit(visual.gather(first["patches_RP"], first["grid_B3"]))

    return learn(learning, views, ViewCollator(model), out / "see.pt", batch=batch, begin=begin, decay=DECAY)


def look(
    model: DescoreModel, views: DescribedViews, out: Path, *, batch: int, optimizer: Callable[[Heads], MuonAndAdamW]
) -> Curve:
    """Train the whole model on descriptions, and its states at visual tokens on what is to be predicted of them.
    optimizer: makes the one of the model's weights and of these heads'."""
    heads = LookHeads(model.query.shape[0])
    learning = Learning(model.backbone, heads, optimizer(heads), partial(language_states, model), name="backbone")
    return learn(learning, views, ViewCollator(model), out / "look.pt", batch=batch, begin=heads.measure)


def learn(
    learning: Learning,
    items: Any,  # noqa: ANN401  # a dataclass of a data set, with `start`
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    path: Path,
    *,
    batch: int,
    begin: Callable[[dict[str, Any]], None] | None = None,
    decay: float = 0.0,
) -> Curve:
    """A lesson from its start, or from its last saved state, to its end. begin: is called with the first items.
    decay: last share of the lesson, over which the rates fall to 0. Returns the curve."""
    steps = len(items) // batch
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        learning.load(path)
    elif begin:
        begin(collate([items[number] for number in range(FIRST_VIEWS)]))
    began, window = time.monotonic(), Curve()
    left = replace(items, start=learning.step * batch)
    for inputs in DataLoader(left, batch_size=batch, collate_fn=collate, num_workers=1, prefetch_factor=4):
        window.append(learning.update(inputs, rate=_rate(learning.step, steps, decay)))
        if learning.step % LOG_EVERY == 0 or learning.step == steps:
            learning.curve.append({"step": learning.step, **_means(window)})
            print(f"{path.stem}: {round(time.monotonic() - began)} s", learning.curve[-1], flush=True)
            window.clear()
        if learning.step % SAVE_EVERY == 0 or learning.step == steps:
            learning.save(path)
    return learning.curve


def _means(window: Curve) -> dict[str, float]:
    names = dict.fromkeys(name for each in window for name in each)
    return {name: round(float(np.nanmean([each.get(name, np.nan) for each in window])), 4) for name in names}


def _rate(step: int, steps: int, decay: float) -> float:
    """Share of the peak rates."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (decay * steps) if decay else 1.0)
