"""What the random mask of the cold start buys, and what it costs, on pairs whose truth is known.

    python -m experiments.cold_start.run [--start runs/tiny/chains] [--out runs/cold_start_experiment] [--dry]

Trains on drawn pairs with true chains, under each probability p that both chains of a pair drop out, and under p = 0.5
and 1 on smaller and larger training sets. Each seed has pairs, an order and a mask of its own; a smaller set is the
beginning of a larger one. All runs make equally many updates, so that they differ in what there is to learn from, not
in how long they learn. Each model judges the drawn benchmarks, thinking and not; one that learned without chains (p =
1) only as it learned.

START should write chains and should not have scored: a head that was fitted before, as tiny's was, would favour every p
alike. `make grow` keeps such a model in runs/tiny/chains. Clips are drawn at 128x128, the size at which the benchmarks
are judged, and stored by `descore world sample` as H.264 with far less loss than the flaws that are to be seen: some
30 kB a clip, 150 MB in all.

A stopped study resumes. After each seed the findings so far go to record.json and, as tables, to the screen."""

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from descore.evaluation.judges import package_versions
from descore.scorer import SamplingParams
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig
from descore.training.config_file import read_config
from descore.types import Think
from experiments.cold_start.findings import Cell, findings, tables
from experiments.harness import (
    BENCHMARKS,
    JudgementsByRun,
    PlannedRun,
    draw_pairs,
    judge_benchmark,
    judgement_of,
    note_time,
    print_plan,
    quiet,
    write_record,
)

HERE = Path(__file__).parent

SECONDS = {"a pair without chains": 0.13, "chains": 0.19, "on": 0.25, "off": 0.05}
"""Measured with the former tiny on one quiet core: to train on a pair, on its chains on top, and to judge a clip,
thinking and not. Used by the plan until a run of the same p is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the study."""

    seeds: tuple[int, ...] = (0, 1, 2)
    drops: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Values of p that are compared, on `pairs` pairs."""
    pairs: int = 768
    sizes: tuple[int, ...] = (192, 768)
    """Sizes of training sets, for p = 0.5 and 1."""
    steps: int = 48
    """Updates of each run."""
    batch: int = 16
    """Pairs in an update."""
    limit: int = 64
    """Pairs of each benchmark that are judged."""
    max_chain_tokens: int | None = None
    """Longest chain while judging; None: as the start's checkpoint says."""
    label_noise: float = 0.0
    """Probability that a training label is flipped."""

    def cells(self, seed: int) -> list[Cell]:
        """The runs of a seed, without repeats; the comparison of all p comes first."""
        compared = [Cell(pairs=self.pairs, drop=drop, seed=seed) for drop in self.drops]
        grown = [Cell(pairs=size, drop=drop, seed=seed) for size in self.sizes for drop in (0.5, 1.0)]
        return list(dict.fromkeys([*compared, *grown]))


DRY = Plan(seeds=(0,), pairs=8, sizes=(4, 8), steps=2, batch=4, limit=4, max_chain_tokens=16)
"""A test of the whole study at sizes that show nothing."""


def main() -> None:
    """Print the plan, run it, and write the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/tiny/chains", help="checkpoint that all runs start from")
    parser.add_argument("--out", type=Path, help="clips, models and judgements; not the record")
    parser.add_argument("--label-noise", type=float, default=0.0)
    parser.add_argument("--dry", action="store_true", help="a few minutes of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else Plan(label_noise=options.label_noise)
    out = options.out or Path("runs/cold_start_dry" if options.dry else "runs/cold_start_experiment")
    quiet()
    print_plan([planned_run(cell, plan) for seed in plan.seeds for cell in plan.cells(seed)], out=out)
    judgements: JudgementsByRun = {}
    for seed in plan.seeds:
        for cell in plan.cells(seed):
            judgements |= run(cell, plan, start=options.start, out=out)
        results = findings(judgements)
        record = {
            "start": options.start,
            "plan": asdict(plan),
            "config": (HERE / "config.yaml").read_text("utf-8"),
            "versions": package_versions("descore", "torch", "transformers"),
            **results,
        }
        path = (out if options.dry else HERE) / "record.json"
        write_record(path, record)
        print(f"\nAfter seed {seed}, {path}:\n\n{tables(results)}\n", flush=True)


def planned_run(cell: Cell, plan: Plan) -> PlannedRun:
    """A run with its expected duration; runs of one p take equally long, whatever the size of their training set."""
    a_pair = SECONDS["a pair without chains"] + (1 - cell.drop) * SECONDS["chains"]
    clips = 2 * plan.limit * len(BENCHMARKS)
    seconds = plan.steps * plan.batch * a_pair + clips * sum(SECONDS[think] for think in think_modes(cell))
    return PlannedRun(name=cell.name, kind=f"p{cell.drop:g}", seconds=seconds)


def think_modes(cell: Cell) -> tuple[Think, ...]:
    """How a run's model is judged: with chains and without, or without alone."""
    return ("off",) if cell.drop == 1 else ("on", "off")


def run(cell: Cell, plan: Plan, *, start: str, out: Path) -> JudgementsByRun:
    """Train a model and judge it on every benchmark."""
    began = time.monotonic()
    model = trained(cell, plan, start=start, out=out)
    judgements: JudgementsByRun = {
        (cell.condition(think), cell.seed, benchmark): judgement_of(
            judge_benchmark(
                str(model),
                benchmark,
                folder=out / "judged" / cell.name / f"{benchmark}-{think}",
                limit=plan.limit,
                sampling_params=SamplingParams(think=think, max_chain_tokens=plan.max_chain_tokens),
            )
        )
        for think in think_modes(cell)
        for benchmark in BENCHMARKS
    }
    note_time(cell.name, time.monotonic() - began, out=out)
    return judgements


def trained(cell: Cell, plan: Plan, *, start: str, out: Path) -> Path:
    """The model of a run."""
    changed = {
        "model.checkpoint": start,
        "data.train": pairs_table(cell, plan, out),
        "data.chain_drop": cell.drop,
        "optim.max_steps": plan.steps,
        "optim.per_device_train_batch_size": plan.batch,
        "optim.seed": cell.seed,
        "run.out": out / "trained" / cell.name,
    }
    overrides = [f"{key}={value}" for key, value in changed.items()]
    model = train_cold_start(read_config(HERE / "config.yaml", ColdStartConfig, overrides=overrides)).model
    assert model is not None, "a run of one process writes its model"
    return model


def pairs_table(cell: Cell, plan: Plan, out: Path) -> Path:
    """The training pairs of a run; runs that differ in p alone share them."""
    noise = f"-noise-{plan.label_noise:g}" if plan.label_noise else ""
    folder = out / "pairs" / f"{cell.pairs}-seed-{cell.seed}{noise}"
    return draw_pairs(folder, count=cell.pairs, seed=cell.seed, label_noise=plan.label_noise)


if __name__ == "__main__":
    main()
