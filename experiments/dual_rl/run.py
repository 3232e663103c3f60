"""What dual-objective reinforcement learning makes of a cold-started model, on pairs whose truth is known.

    python -m experiments.dual_rl.run [--start DIR] [--out runs/dual_rl_experiment] [--only RUN ...] [--dry]

All runs begin with START, a cold-started checkpoint (the former tiny, unless another is given), and learn from equally
many pairs, each shown once:

    default      both objectives, as the paper has them, on loose prompts (`descore world sample --loose`)
    generative   the score is the written overall, and there is no head
    no-bt        default without the pair loss: does the reward drift?
    stiff        default on prompts like the cold start's: do new prompts help, or more of the same?
    imitation    no rollouts: stage 1 on the true chains of default's pairs, which stage 2 never sees

The first three and the last of a seed have the same pairs in the same order. Each seed has pairs and chains of its own.
No training prompt holds a wording of the benchmark drawn-wordings. The start and each model judge the drawn benchmarks,
thinking, by their likeliest chain. The start is judged by its head and by its written overall.

A stopped study resumes. Runs named by --only, such as default-seed0 or before, are done alone, so that several
processes can share the work. Otherwise the findings after each seed go to record.json and, as tables, to the screen."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import FORMER_TINY, portable

from descore.evaluation.judges import package_versions
from descore.scorer import SamplingParams
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig
from descore.training.config_file import read_config
from descore.training.metrics import METRICS_FILE
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl
from experiments.dual_rl.curves import curve_of, training, training_tables
from experiments.dual_rl.findings import CONDITIONS, Cell, findings, tables
from experiments.harness import (
    BENCHMARKS,
    Judgement,
    JudgementsByRun,
    PlannedRun,
    draw_pairs,
    judge_benchmark,
    judgement_of,
    note_time,
    print_plan,
    quiet,
    time_file,
    write_record,
)

HERE = Path(__file__).parent
BEFORE = "before"
FIRST_SEED = 10
"""Of pairs; those below are the cold start's."""

SECONDS = {"a chain": 0.19, "an imitated pair": 0.25, "a clip": 0.19}
"""Measured on one quiet core: to write a chain and learn from it, to imitate those of a pair, and to judge a clip with
adapters beside the weights (0.14 without). Used by the plan until a run of the same condition is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the study."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 24
    """Updates of each run."""
    pairs: int = 8
    """Pairs in an update."""
    chains: int = 8
    """Chains for each clip."""
    bt_weight: float = 5e-3
    """Weight of the pair loss, where there is one; the authors'."""
    limit: int = 128
    """Pairs of each benchmark that are judged."""

    @property
    def cells(self) -> list[Cell]:
        """All runs of training, seed by seed."""
        return [Cell(condition=condition, seed=seed) for seed in self.seeds for condition in CONDITIONS]


DRY = Plan(seeds=(0,), steps=2, pairs=2, chains=2, limit=3)
"""A test of the whole study at sizes that show nothing."""


def main() -> None:
    """Print the plan, run it, and write the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default=str(FORMER_TINY), help="cold-started checkpoint; default: the former tiny")
    parser.add_argument("--out", type=Path, help="clips, models and judgements; not the record")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="do these runs, and write no record")
    parser.add_argument("--dry", action="store_true", help="a minute or two of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else Plan()
    out = options.out or Path("runs/dual_rl_dry" if options.dry else "runs/dual_rl_experiment")
    quiet()
    print_plan(planned_runs(plan), out=out)
    if options.only:
        run_only(options.only, plan, start=options.start, out=out)
    else:
        run_all(plan, start=options.start, out=out, record_folder=out if options.dry else HERE)


def run_only(names: Sequence[str], plan: Plan, *, start: str, out: Path) -> None:
    """Do the named runs."""
    if BEFORE in names:
        judge_model(start, BEFORE, plan, out=out)
    for cell in plan.cells:
        if cell.name in names:
            run(cell, plan, start=start, out=out)


def run_all(plan: Plan, *, start: str, out: Path, record_folder: Path) -> None:
    """Do all runs; write and print the findings after each seed."""
    before = judge_model(start, BEFORE, plan, out=out)
    done: list[Cell] = []
    after: JudgementsByRun = {}
    for cell in plan.cells:
        after |= run(cell, plan, start=start, out=out)
        done.append(cell)
        if cell.condition == CONDITIONS[-1]:
            curves = {cell: curve_of(run_folder(cell, out) / METRICS_FILE) for cell in done}
            results = findings(before, after) | training(curves)
            path = record_folder / "record.json"
            write_record(path, {"start": portable(start), **provenance(plan, done, out), **results})
            print(f"\nAfter seed {cell.seed}, {path}:\n\n{tables(results)}\n\n{training_tables(results)}\n", flush=True)


def planned_runs(plan: Plan) -> list[PlannedRun]:
    """All runs with their expected durations."""
    judging = 2 * plan.limit * len(BENCHMARKS) * SECONDS["a clip"]
    pairs = plan.steps * plan.pairs
    rollouts, imitation = pairs * 2 * plan.chains * SECONDS["a chain"], pairs * SECONDS["an imitated pair"]
    training_runs = [
        PlannedRun(
            name=cell.name,
            kind=cell.condition,
            seconds=judging + (imitation if cell.condition == "imitation" else rollouts),
        )
        for cell in plan.cells
    ]
    return [PlannedRun(name=BEFORE, kind=BEFORE, seconds=judging), *training_runs]


def run(cell: Cell, plan: Plan, *, start: str, out: Path) -> JudgementsByRun:
    """Train a model and judge it on every benchmark."""
    began = time.monotonic()
    model = trained(cell, plan, start=start, out=out)
    judgements = judge_model(model, cell.name, plan, out=out, began=began)
    return {(cell.condition, cell.seed, benchmark): judgement for benchmark, judgement in judgements.items()}


def trained(cell: Cell, plan: Plan, *, start: str, out: Path) -> str:
    """The model of a run."""
    shared = {
        "model.checkpoint": start,
        "data.train": pairs_table(cell, plan, out),
        "optim.max_steps": plan.steps,
        "optim.per_device_train_batch_size": plan.pairs,
        "optim.seed": cell.seed,
        "run.out": run_folder(cell, out),
    }
    if cell.condition == "imitation":
        model = train_cold_start(
            read_config(HERE / "imitation.yaml", ColdStartConfig, overrides=_overrides(shared))
        ).model
    else:
        of_stage_2 = {
            "paradigm": "generative" if cell.condition == "generative" else "descore",
            "rollout.num_generations": plan.chains,
            "loss.bt_weight": 0.0 if cell.condition == "no-bt" else plan.bt_weight,
        }
        model = train_rl(read_config(HERE / "config.yaml", RlConfig, overrides=_overrides(shared | of_stage_2))).model
    assert model is not None, "a run of one process writes its model"
    return str(model)


def pairs_table(cell: Cell, plan: Plan, out: Path) -> Path:
    """The training pairs of a run."""
    count, loose = plan.steps * plan.pairs, cell.condition != "stiff"
    folder = out / "pairs" / f"{count}-{'loose' if loose else 'stiff'}-seed{cell.seed}"
    return draw_pairs(folder, count=count, seed=FIRST_SEED + cell.seed, loose=loose)


def _overrides(changed: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in changed.items()]


def run_folder(cell: Cell, out: Path) -> Path:
    """Where a run is trained."""
    return out / "trained" / cell.name


def judge_model(model: str, name: str, plan: Plan, *, out: Path, began: float | None = None) -> dict[str, Judgement]:
    """A model's judgement of each benchmark. Its time, since `began` or the call, is noted when it is first
    finished."""
    began = time.monotonic() if began is None else began
    judgements = {
        benchmark: judgement_of(
            judge_benchmark(
                model,
                benchmark,
                folder=out / "judged" / name / benchmark,
                limit=plan.limit,
                sampling_params=SamplingParams(),
            )
        )
        for benchmark in BENCHMARKS
    }
    note_time(name, time.monotonic() - began, out=out)
    return judgements


def provenance(plan: Plan, done: Sequence[Cell], out: Path) -> dict[str, Any]:
    """How the record was made: sizes, configs, versions, seconds of each run."""
    names = [BEFORE, *(cell.name for cell in done)]
    return {
        "plan": asdict(plan),
        "configs": {name: (HERE / name).read_text(encoding="utf-8") for name in ("config.yaml", "imitation.yaml")},
        "versions": package_versions("descore", "torch", "transformers"),
        "seconds": {name: round(json.loads(time_file(name, out).read_text(encoding="utf-8")), 1) for name in names},
    }


if __name__ == "__main__":
    main()
