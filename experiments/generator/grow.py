"""Grow the generator from random weights on drawn clips, and stop while it is half grown.

    python -m experiments.generator.grow [--out runs/generator] [--steps 6000] [--seed 0] [--dry]
                                         [--start runs/younger/model --rate-share 0.5]

Every clip is drawn anew and seen once. Each step goes to log.jsonl. Every `look_every` steps the averaged weights go to
looks/, so that a generator of any age can be taken, and make clips for prompts of their own, which go to sheets/, and
the judge's mean marks of them to the log. A stopped run goes on with the same command; the drawn clips, the noise and
the marks are those of a run that was not stopped. At the end the averaged weights are in OUT/model."""

import argparse
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from descore.io import append_records, atomic_path, atomic_write, lock_directory, make_directory, read_records
from experiments.generator.flow import (
    flow_errors,
    generate,
    random_sigmas,
    to_values,
    without_some_prompts,
)
from experiments.generator.judge import Judged, judge
from experiments.generator.model import Generator, GeneratorConfig
from experiments.generator.sheets import write_sheet
from experiments.generator.words import read_prompts
from experiments.generator.world import Part, ask, draw
from experiments.grow_tiny.optimizer import MuonAndAdamW
from experiments.harness import keep_plan, one_line_errors, positive

MODEL, LOOKS, STATE, LOG, PLAN = "model", "looks", "state.pt", "log.jsonl", "plan.json"
CLIP_NORM = 1.0
OTHER_PLAN = f"holds a generator of another plan; choose another --out, or the plan in {PLAN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthPlan:
    """Sizes and rates of the growth."""

    network: GeneratorConfig = field(default_factory=GeneratorConfig)
    start: str = ""
    """Generator to go on from; empty: random weights."""
    steps: int = 6000
    batch: int = 16
    seed: int = 0
    matrix_learning_rate: float = 0.01
    """Muon's, for the matrices of the layers."""
    learning_rate: float = 1e-3
    """AdamW's, for all other weights."""
    warmup: int = 100
    """Steps over which both rise."""
    cooldown: float = 0.25
    """Last share of the steps, over which they fall to 0."""
    averaging: float = 0.999
    """Share of the averaged weights that a step keeps, once the average has begun (diffusers' EMAModel)."""
    save_every: int = 100
    look_every: int = 500
    looks: int = 24
    """Clips of a look."""


DRY = GrowthPlan(
    network=GeneratorConfig(heads=1, head_width=24, layers=1, inner=32, patch=(4, 16, 16)),
    steps=4,
    batch=2,
    warmup=2,
    save_every=2,
    look_every=2,
    looks=2,
)
"""A test of everything at sizes that show nothing."""


@one_line_errors()
def main() -> None:
    """Grow, or go on growing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/generator"))
    parser.add_argument("--steps", type=positive, help=f"updates (default {GrowthPlan().steps})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", default="", help="grown generator to go on from; give it a --seed of its own")
    parser.add_argument("--rate-share", type=float, default=1.0, help="of both learning rates")
    parser.add_argument("--dry", action="store_true", help="a few steps of a tiny network")
    options = parser.parse_args()
    base = DRY if options.dry else GrowthPlan()
    plan = replace(
        base,
        start=options.start,
        seed=options.seed,
        steps=options.steps or base.steps,
        matrix_learning_rate=options.rate_share * base.matrix_learning_rate,
        learning_rate=options.rate_share * base.learning_rate,
    )
    grow(plan, out=options.out)


def grow(plan: GrowthPlan, *, out: Path) -> Path:
    """Train, and return the folder of the finished generator. ConfigError if `out` holds a run of another plan, or
    another process grows it."""
    make_directory(out)
    with lock_directory(out):
        keep_plan(out / PLAN, asdict(plan), otherwise=OTHER_PLAN)
        torch.manual_seed(plan.seed)
        run = _Growth(plan, out)
        run.resume()
        while run.step < plan.steps:
            run.advance()
            if run.step % plan.look_every == 0 or run.step == plan.steps:
                run.look()
            if run.step % plan.save_every == 0 or run.step == plan.steps:
                run.save()
        run.averaged().save(out / MODEL)
    return out / MODEL


class _Growth:
    """A run: the network, its average, the optimizer, and how far it is."""

    def __init__(self, plan: GrowthPlan, out: Path) -> None:
        self.plan, self.out, self.step, self.seconds = plan, out, 0, 0.0
        self.model = Generator.load(Path(plan.start)).train() if plan.start else Generator(plan.network)
        self.average = EMAModel(self.model.parameters(), decay=plan.averaging)
        matrices, others = split_matrices(self.model)
        self.optimizer = MuonAndAdamW(
            [{"params": matrices, "lr": plan.matrix_learning_rate}], [{"params": others, "lr": plan.learning_rate}]
        )
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]

    def advance(self) -> None:
        """One update on clips that are drawn for it."""
        began = time.monotonic()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * learning_rate_share(self.step, self.plan)
        errors_B = self._errors()
        loss = errors_B.mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.average.step(self.model.parameters())
        self.step += 1
        self.seconds += time.monotonic() - began
        self._log(loss=float(loss.detach()), grad_norm=float(norm), seconds=round(self.seconds, 2))

    def _errors(self) -> Tensor:
        plan, first = self.plan, self.step * self.plan.batch
        drawn = [draw(Part.TRAIN, plan.seed * 10**8 + first + number) for number in range(plan.batch)]
        rng = torch.Generator().manual_seed(plan.seed * 10**8 + self.step)
        clean_BCTHW = to_values([one.frames for one in drawn])
        words_BL = without_some_prompts(read_prompts([one.prompt for one in drawn]), rng)
        noise_BCTHW = torch.randn(clean_BCTHW.shape, generator=rng)
        sigma_B = random_sigmas(len(drawn), rng)
        return flow_errors(self.model, clean_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW)

    def averaged(self) -> Generator:
        """The network with the averaged weights."""
        model = Generator(self.model.config)
        model.load_state_dict(self.model.state_dict())
        self.average.copy_to(model.parameters())
        return model.eval()

    def look(self) -> None:
        """The averaged weights, their clips as a sheet, and the clips' marks in the log."""
        model = self.averaged()
        model.save(self.out / LOOKS / f"{self.step:06d}")
        asks = [ask(Part.CALIBRATION, number) for number in range(self.plan.looks)]
        clips = generate(model, [one.prompt for one in asks], list(range(len(asks))))
        judged = [judge(frames, one.scene) for frames, one in zip(clips, asks, strict=True)]
        captions = [f"{result.overall:.2f} {one.prompt}" for result, one in zip(judged, asks, strict=True)]
        write_sheet(self.out / "sheets" / f"{self.step:06d}.png", clips, captions)
        marks = mean_marks(judged)
        self._log(marks=marks)
        print(f"step {self.step}: {', '.join(f'{name} {value:.2f}' for name, value in marks.items())}", flush=True)

    def save(self) -> None:
        """Write all that is needed to go on."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.out / STATE) as part:
            torch.save(state, part)

    def resume(self) -> None:
        """Go on from what was written last; what was logged after it is forgotten."""
        if not (self.out / STATE).is_file():
            return
        state = torch.load(self.out / STATE, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        kept = [row for row in read_records(self.out / LOG) if row["step"] <= self.step]
        atomic_write(self.out / LOG, "")
        append_records(self.out / LOG, kept, allow_nan=True)

    def _log(self, **values: Any) -> None:  # noqa: ANN401  # what JSON holds
        append_records(self.out / LOG, [{"step": self.step, **values}], allow_nan=True)


def mean_marks(judged: list[Judged]) -> dict[str, float]:
    """Mean of each part, of the overall, and the share of clips with a shape."""
    parts = {name: float(np.mean([one.parts[name] for one in judged])) for name in judged[0].parts}
    found = float(np.mean([one.seen.shape is not None for one in judged]))
    return {**parts, "overall": float(np.mean([one.overall for one in judged])), "found": found}


def split_matrices(model: Generator) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The matrices of the layers, and all other weights."""
    inside = ("transformer.blocks.", "encoder.")
    matrices, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, weight in model.named_parameters():
        (matrices if weight.ndim == 2 and name.startswith(inside) else others).append(weight)
    return matrices, others


def learning_rate_share(step: int, plan: GrowthPlan) -> float:
    """Share of the peak rates at a step: it rises over the warmup, stays, and falls to 0 over the cooldown."""
    rising = (step + 1) / plan.warmup
    falling = (plan.steps - step) / max(1.0, plan.cooldown * plan.steps)
    return min(1.0, rising, falling)


if __name__ == "__main__":
    main()
