"""What eyes know, before a word is written: linear probes of frozen features on clips of generators and films that no
lesson shows.

    python -m experiments.grow_tiny.probe --footage runs/footage --generated runs/generated --eyes teacher
        [--eyes model:tiny ...] [--out runs/probes.json]

Eyes are the teacher's, or those of a model. Of each:

- `harm`, the share of pairs of one clip, sound and with a harm, that a logistic probe orders right;
- `top5`, the share of pairs of frames whose first label by the teacher is among the probe's first five;
- `own`, how often a clip's labels by the probe are nearer to the teacher's of this clip than to those of another.

Probes learn on training clips. Generated clips are of the split that is for choosing, films are the test clips of the
footage.

Shapes in names: N clips, T frames, P pairs of frames, F features, L labels."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from descore.io import atomic_write
from descore.model.modeling import DescoreModel
from descore.types import Clip
from experiments.footage.clips import Footage
from experiments.generated.clips import Generated, Sources, shot_window
from experiments.generated.harms import HARMS, harmed, measured
from experiments.grow_tiny.teacher import Teacher

LEARNED, TESTED = 200, 120
"""Pairs of clips that probes learn on, and that they are tested on, half of them generated and half films."""
LEAST_CHANGE = 10.0
"""Least change of a clip by its harm, in levels, as `measured`."""
_WORLD, _TRAIN, _TEST = 4207, 1, 2
_DECAYS = 1e-1, 1e0, 1e1
_FOLDS = 4

Eyes = Callable[[Clip], Tensor]
"""A clip's features (P, F), a row for each pair of frames."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A clip, sound and with a harm."""

    sound: Clip
    harmed: Clip
    harm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What eyes and teacher see of an item."""

    sound_PF: Tensor
    harmed_PF: Tensor
    label_PL: Tensor
    """The teacher's, of the sound clip."""


def learned_items(sources: Sources, pixels: int) -> Iterator[Item]:
    """Clips of the training split."""
    for number in range(LEARNED):
        yield make_item(lambda rng: sources.window("train", rng=rng, pixels=pixels), [_TRAIN, number])


def tested_items(sources: Sources, pixels: int) -> Iterator[Item]:
    """Clips of generators for choosing, and of films for testing."""
    footage = sources.footage
    assert footage is not None
    shots = footage.shots["test"]
    for number in range(TESTED):
        if number % 2:
            yield make_item(lambda rng: sources.window("choose", rng=rng, pixels=pixels), [_TEST, number])
        else:
            shot = shots[number // 2 * 7 % len(shots)]
            yield make_item(
                lambda rng, shot=shot: shot_window(footage, shot, rng=rng, pixels=pixels, frames=16),  # type: ignore[misc]
                [_TEST, number],
            )


def make_item(window: Callable[[np.random.Generator], Any], numbers: list[int]) -> Item:
    """A window with a random harm that is seen."""
    rng = np.random.default_rng([_WORLD, *numbers])
    shown = window(rng)
    while True:
        name = list(HARMS)[int(rng.integers(len(HARMS)))]
        frames_THWC = harmed(shown.clip.frames, name, strength=rng.uniform(0.3, 1), seed=int(rng.integers(2**32)))
        if measured(shown.clip.frames, frames_THWC) >= LEAST_CHANGE:
            return Item(sound=shown.finished(), harmed=shown.finished(frames_THWC), harm=name)


def whole_pairs(clip: Clip) -> Floats:
    """The frames of a clip, without the last if their number is odd."""
    frames_THWC: Any = clip.frames[: len(clip.times) // 2 * 2]
    return np.asarray(frames_THWC)


@torch.inference_mode()
def see_with_tower(model: DescoreModel, clip: Clip) -> Tensor:
    """Mean and deviation over the picture of what the language model gets."""
    inputs = model.chat.lay_out_prompts([clip], [""])
    features = model.backbone.model.visual(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"])
    tokens_VF = features.pooler_output + sum(features.deepstack_features)
    token_PVF = tokens_VF.unflatten(0, (int(inputs["video_grid_thw"][0, 0]), -1))[: len(clip.times) // 2]
    return torch.cat([token_PVF.mean(dim=1), token_PVF.std(dim=1)], dim=1)


def see_with_teacher(teacher: Teacher, clip: Clip) -> Tensor:
    """Statistics of all stages: mean of each pair of frames, and size of the change."""
    seen = teacher.features(whole_pairs(clip).astype(np.uint8))
    mean_PS, change_PS = mean_and_change(seen.statistics_NS)
    return torch.cat([mean_PS, change_PS.abs()], dim=1)


def described(features_PF: Tensor) -> Tensor:
    """A clip in one row: features' mean and deviation, and the mean size of their first and second differences."""
    first, second = features_PF.diff(dim=0).abs(), features_PF.diff(n=2, dim=0).abs()
    changes = [each.mean(dim=0) if len(each) else torch.zeros_like(features_PF[0]) for each in (first, second)]
    return torch.cat([features_PF.mean(dim=0), features_PF.std(dim=0, correction=0), *changes])


def harm_probe(learned: list[Seen], tested: list[Seen]) -> float:
    """Share of tested pairs that a logistic probe orders right."""
    before, after = rows_of(learned)
    test_before, test_after = rows_of(tested)
    mean, spread = torch.cat([before, after]).mean(dim=0), torch.cat([before, after]).std(dim=0).clamp(min=1e-4)
    scale = [((rows - mean) / spread).clamp(-8, 8) for rows in (before, after, test_before, test_after)]
    decay = max(_DECAYS, key=lambda decay: _folded(scale[0], scale[1], decay))
    weight_F = logistic(scale[0], scale[1], decay)
    return ((scale[2] - scale[3]) @ weight_F > 0).float().mean().item()


def rows_of(seen: list[Seen]) -> tuple[Tensor, Tensor]:
    """Descriptions of the sound and of the harmed clips."""
    before, after = [described(each.sound_PF) for each in seen], [described(each.harmed_PF) for each in seen]
    return torch.stack(before), torch.stack(after)


def _folded(before_NF: Tensor, after_NF: Tensor, decay: float) -> float:
    """Accuracy on training pairs that were left out."""
    fold_N = torch.arange(len(before_NF)) % _FOLDS
    hits = 0.0
    for fold in range(_FOLDS):
        weight_F = logistic(before_NF[fold_N != fold], after_NF[fold_N != fold], decay)
        hits += ((before_NF - after_NF)[fold_N == fold] @ weight_F > 0).float().sum().item()
    return hits


def logistic(sound_NF: Tensor, harmed_NF: Tensor, decay: float) -> Tensor:
    """Weights of a logistic regression of sound against harmed, with this decay for each standardised feature."""
    rows = torch.cat([sound_NF, harmed_NF])
    sign = torch.cat([torch.ones(len(sound_NF)), -torch.ones(len(harmed_NF))])
    # In the space of the rows, which are fewer than features: weight = rows.T @ alpha.
    kernel = rows @ rows.T / rows.shape[1]
    alpha, bias = nn.Parameter(torch.zeros(len(rows))), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.LBFGS([alpha, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value_N = kernel @ alpha + bias
        value = functional.softplus(-sign * value_N).mean() + decay / len(rows) * (alpha @ kernel @ alpha)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (rows.T @ alpha).detach()


def label_probe(learned: list[Seen], tested: list[Seen]) -> tuple[float, float]:
    """`top5` and `own` of the teacher's labels, by ridge regression on their logarithms."""
    rows, targets = torch.cat([each.sound_PF for each in learned]), torch.cat([each.label_PL for each in learned])
    mean, spread = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-4)
    rows, centre = ((rows - mean) / spread).clamp(-8, 8), targets.clamp(min=1e-5).log().mean(dim=0)
    kernel = rows @ rows.T / rows.shape[1]
    alpha = torch.linalg.solve(kernel + 0.1 * torch.eye(len(rows)), targets.clamp(min=1e-5).log() - centre)
    probed = [
        (((each.sound_PF - mean) / spread).clamp(-8, 8) @ rows.T / rows.shape[1]) @ alpha + centre for each in tested
    ]
    hits = [
        (logit_PL.topk(5).indices == each.label_PL.argmax(dim=1, keepdim=True)).any(dim=1).float()
        for logit_PL, each in zip(probed, tested, strict=True)
    ]
    own = torch.stack([(logit_PL - centre).mean(dim=0) for logit_PL in probed])
    taught = torch.stack([(each.label_PL.clamp(min=1e-5).log() - centre).mean(dim=0) for each in tested])
    alike_NN = functional.normalize(own, dim=1) @ functional.normalize(taught, dim=1).T
    other_NN = alike_NN.diagonal()[:, None] > alike_NN
    count = len(tested)
    return torch.cat(hits).mean().item(), other_NN.float().sum().item() / (count * (count - 1))


def probe(eyes: Eyes, learned: list[Item], tested: list[Item], labels: dict[int, Tensor]) -> dict[str, Any]:
    """All figures of some eyes, for generated clips and for films."""
    torch.manual_seed(0)
    seen = [
        Seen(sound_PF=eyes(item.sound), harmed_PF=eyes(item.harmed), label_PL=labels[id(item)])
        for item in (*learned, *tested)
    ]
    learned_seen, tested_seen = seen[: len(learned)], seen[len(learned) :]
    figures: dict[str, Any] = {}
    for name, part in (("films", tested_seen[0::2]), ("generated", tested_seen[1::2])):
        top5, own = label_probe(learned_seen, part)
        measures = {"harm": harm_probe(learned_seen, part), "top5": top5, "own": own}
        figures[name] = {key: round(value, 3) for key, value in measures.items()}
    return figures


def open_eyes(name: str, footage: Footage) -> Eyes:
    """The eyes that a name stands for. ValueError if it stands for none."""
    kind, _, rest = name.partition(":")
    if kind == "teacher":
        return partial(see_with_teacher, Teacher.open(footage.folder / "archives"))
    if kind == "model":
        return partial(see_with_tower, DescoreModel.from_pretrained(rest, device="cpu"))
    raise ValueError(f"eyes: found {name!r}, expected teacher or model:NAME")


def main() -> None:
    """Probe the eyes, and print and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, default=Path("runs/footage"))
    parser.add_argument("--generated", type=Path, default=Path("runs/generated"))
    parser.add_argument("--eyes", action="append", required=True)
    parser.add_argument("--side", type=int, default=128, help="root of the most pixels in a frame")
    parser.add_argument("--out", type=Path, default=Path("runs/probes.json"))
    options = parser.parse_args()
    footage = Footage.open(options.footage)
    sources = Sources(Generated.open(options.generated), footage)
    pixels = options.side**2
    learned, tested = list(learned_items(sources, pixels)), list(tested_items(sources, pixels))
    teacher = Teacher.open(footage.folder / "archives")
    labels = {id(item): label_of(teacher, item.sound) for item in (*learned, *tested)}
    figures = {name: probe(open_eyes(name, footage), learned, tested, labels) for name in options.eyes}
    print(json.dumps(figures, indent=1), file=sys.stdout)
    atomic_write(options.out, json.dumps(figures, indent=1) + "\n")


def label_of(teacher: Teacher, clip: Clip) -> Tensor:
    """The teacher's probabilities (P, L) of each pair of frames."""
    seen = teacher.features(whole_pairs(clip).astype(np.uint8))
    return mean_and_change(seen.probability_NL)[0]


def mean_and_change(features_T: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pair of frames, the mean of features and their change from the first to the second frame."""
    first_P, second_P = features_T[0::2], features_T[1::2]
    return (first_P + second_P) / 2, second_P - first_P


if __name__ == "__main__":
    main()
