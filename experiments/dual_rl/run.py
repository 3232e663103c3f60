"""What dual-objective reinforcement learning makes of a cold-started model, on pairs whose truth is known.

    python experiments/dual_rl/run.py [--start DIR_OR_tiny] [--out runs/dual_rl_experiment] [--only RUN ...] [--dry]

All runs begin with START, a cold-started checkpoint, and learn from as many pairs, each shown once:

    default      the authors' two objectives, on prompts loosely put (`descore world sample --loose`)
    generative   the score is what the chain says, and there is no head
    no-bt        default without the pair loss: does the reward drift?
    stiff        default on prompts as the cold start had them: do new prompts do it, or more of the same?
    imitation    no rollouts: stage 1 with the true chains of default's pairs, which stage 2 is never shown

The first three and the last of a seed have the same pairs in the same order. Each seed has pairs and chains of its own.
Nothing that is trained on holds a wording of the split drawn-wordings. The start and each model judge the drawn splits,
thinking, by their likeliest chain. What the start wrote is judged once, by its head and by its written overall.

Whatever is there is not done again, and what was killed goes on. Runs named by --only, such as default-seed0 or before,
are done alone, so that several processes can share the work. Else the findings after each seed go to record.json and,
as tables, to the screen."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import transformers

sys.path.append(str(Path(__file__).parents[1]))

from curves import curve_of, training, training_tables
from drawn_runs import Expected, announce, draw_pairs, judged, note_time, took_file
from drawn_splits import BENCHMARKS
from findings import CONDITIONS, Cell, Judgement, findings, judgement_of, tables

from descore.evaluation.judges import versions
from descore.scorer import SamplingParams, Scorer
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig
from descore.training.config_model import read_config
from descore.training.metrics import METRICS_FILE
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl

HERE = Path(__file__).parent
BEFORE = "before"
FIRST_SEED = 10
"""Of pairs: below it are those of the cold start."""

SECONDS = {"a chain": 0.19, "an imitated pair": 0.25, "a clip": 0.19}
"""Measured on one quiet core: to write a chain and learn from it, to imitate those of a pair, and to judge a clip with
adapters beside the weights (0.14 without). For the plan, until a run of the same condition has told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 24
    """Updates of each run."""
    pairs: int = 8
    """In an update."""
    chains: int = 8
    """For each clip."""
    bt_weight: float = 5e-3
    """Of the pair loss, where there is one; the authors'."""
    limit: int = 128
    """Pairs of each split that are judged."""

    @property
    def cells(self) -> list[Cell]:
        """All runs of training, seed by seed."""
        return [Cell(condition=condition, seed=seed) for seed in self.seeds for condition in CONDITIONS]


DRY = Plan(seeds=(0,), steps=2, pairs=2, chains=2, limit=3)
"""All that the whole does, and nothing to learn from it."""


def main() -> None:
    """Say what will be done, do it, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="tiny", help="cold-started checkpoint that all runs start from")
    parser.add_argument("--out", type=Path, help="clips, models and judgements; not the record")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="do these runs, and write no record")
    parser.add_argument("--dry", action="store_true", help="a minute or two of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else Plan()
    out = options.out or Path("runs/dual_rl_dry" if options.dry else "runs/dual_rl_experiment")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    announce(expected(plan), out=out)
    if options.only:
        if BEFORE in options.only:
            judged_by(options.start, BEFORE, plan, out=out)
        for cell in plan.cells:
            if cell.name in options.only:
                run(cell, plan, start=options.start, out=out)
        return
    before = judged_by(options.start, BEFORE, plan, out=out)
    done: list[Cell] = []
    after: dict[tuple[Cell, str], Judgement] = {}
    for cell in plan.cells:
        after |= run(cell, plan, start=options.start, out=out)
        done.append(cell)
        if cell.condition == CONDITIONS[-1]:
            found = findings(before, after) | training({c: curve_of(run_folder(c, out) / METRICS_FILE) for c in done})
            path = (out if options.dry else HERE) / "record.json"
            write_record(path, {"start": options.start, **told(plan, done, out), **found})
            print(f"\nAfter seed {cell.seed}, {path}:\n\n{tables(found)}\n\n{training_tables(found)}\n", flush=True)


def expected(plan: Plan) -> list[Expected]:
    """Everything that is to be done, and how long it may take."""
    judging = 2 * plan.limit * len(BENCHMARKS) * SECONDS["a clip"]
    pairs = plan.steps * plan.pairs
    rollouts, imitation = pairs * 2 * plan.chains * SECONDS["a chain"], pairs * SECONDS["an imitated pair"]
    trained = [
        Expected(
            name=cell.name,
            kind=cell.condition,
            seconds=judging + (imitation if cell.condition == "imitation" else rollouts),
        )
        for cell in plan.cells
    ]
    return [Expected(name=BEFORE, kind=BEFORE, seconds=judging), *trained]


def run(cell: Cell, plan: Plan, *, start: str, out: Path) -> dict[tuple[Cell, str], Judgement]:
    """One model, trained and held against every split."""
    began = time.monotonic()
    model = trained(cell, plan, start=start, out=out)
    return {(cell, split): seen for split, seen in judged_by(model, cell.name, plan, out=out, began=began).items()}


def trained(cell: Cell, plan: Plan, *, start: str, out: Path) -> str:
    """The model of a run."""
    shared = {
        "model.checkpoint": start,
        "data.train": table_of(cell, plan, out),
        "optim.steps": plan.steps,
        "optim.batch_size": plan.pairs,
        "optim.seed": cell.seed,
        "run.out": run_folder(cell, out),
    }
    if cell.condition == "imitation":
        found = train_cold_start(read_config(HERE / "imitation.yaml", ColdStartConfig, overrides=_overrides(shared)))
    else:
        of_stage_2 = {
            "paradigm": "generative" if cell.condition == "generative" else "descore",
            "rollout.num_generations": plan.chains,
            "loss.bt_weight": 0.0 if cell.condition == "no-bt" else plan.bt_weight,
        }
        found = train_rl(read_config(HERE / "config.yaml", RlConfig, overrides=_overrides(shared | of_stage_2)))
    assert found.model is not None, "a run of one process writes its model"
    return str(found.model)


def table_of(cell: Cell, plan: Plan, out: Path) -> Path:
    """The training pairs of a run."""
    count, loose = plan.steps * plan.pairs, cell.condition != "stiff"
    folder = out / "pairs" / f"{count}-{'loose' if loose else 'stiff'}-seed{cell.seed}"
    return draw_pairs(folder, count=count, seed=FIRST_SEED + cell.seed, loose=loose)


def _overrides(changed: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in changed.items()]


def run_folder(cell: Cell, out: Path) -> Path:
    """Where a run is trained."""
    return out / "trained" / cell.name


def judged_by(model: str, name: str, plan: Plan, *, out: Path, began: float | None = None) -> dict[str, Judgement]:
    """By split, what a model says. How long it took since `began` is noted when it is done for the first time."""
    began = time.monotonic() if began is None else began
    open_scorer = cache(lambda: Scorer.from_pretrained(model, batch_size=32))
    found = {}
    for split in BENCHMARKS:
        folder = out / "judged" / name / split
        seen = judged(
            folder, benchmark=split, limit=plan.limit, sampling_params=SamplingParams(), open_scorer=open_scorer
        )
        found[split] = judgement_of(seen)
    note_time(name, time.monotonic() - began, out=out)
    return found


def told(plan: Plan, done: Sequence[Cell], out: Path) -> dict[str, Any]:
    """What a record says of how it was made."""
    names = [BEFORE, *(cell.name for cell in done)]
    return {
        "plan": asdict(plan),
        "configs": {name: (HERE / name).read_text(encoding="utf-8") for name in ("config.yaml", "imitation.yaml")},
        "versions": versions("descore", "torch", "transformers"),
        "seconds": {name: round(json.loads(took_file(name, out).read_text(encoding="utf-8")), 1) for name in names},
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """As JSON, the old one until the new one is whole."""
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main()
