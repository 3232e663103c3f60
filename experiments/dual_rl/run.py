"""What dual-objective reinforcement learning makes of a cold-started model, on pairs whose truth is known.

    python experiments/dual_rl/run.py [--start DIR_OR_tiny] [--out runs/dual_rl_experiment] [--dry]

Three conditions learn from the same pairs, in the same order, with as many chains: `default`, the authors' two
objectives; `no-bt`, the same without the pair loss, to see whether the reward drifts; and `generative`, where the score
is what the chain says and there is no head. All start from START, a cold-started checkpoint; the generative one from
what that says, without its head. Each seed has pairs and chains of its own, and each pair is shown once.

The start and each model judge the drawn splits that nothing is trained on, thinking, by their likeliest chain. What the
start wrote is judged once, by its head and by its written overall.

Whatever is there is not done again, and what was killed goes on. After each seed the findings so far go to record.json
and, as tables, to the screen."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
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

from descore.evaluation.scorers import versions
from descore.scorer import Scorer, Thinking
from descore.training.config_file import read_config
from descore.training.dual_rl import train_rl
from descore.training.records import METRICS_FILE
from descore.training.rl_config import RlConfig

HERE = Path(__file__).parent
BEFORE = "before"

SECONDS = {"a chain": 0.17, "a clip": 0.19}
"""Measured with the bundled model on one quiet core: to write a chain and learn from it, and to judge a clip with
adapters beside the weights (0.14 without). For the plan, until a run of the same condition has told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 16
    """Updates of each run."""
    pairs: int = 8
    """In an update."""
    chains: int = 8
    """For each clip."""
    bt_weight: float = 5e-3
    """Of the pair loss, where there is one; the authors'."""
    limit: int = 64
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
    parser.add_argument("--dry", action="store_true", help="a minute or two of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else Plan()
    out = options.out or Path("runs/dual_rl_dry" if options.dry else "runs/dual_rl_experiment")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    announce(expected(plan), out=out)
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
    learning = plan.steps * plan.pairs * 2 * plan.chains * SECONDS["a chain"]
    trained = [Expected(name=cell.name, kind=cell.condition, seconds=learning + judging) for cell in plan.cells]
    return [Expected(name=BEFORE, kind=BEFORE, seconds=judging), *trained]


def run(cell: Cell, plan: Plan, *, start: str, out: Path) -> dict[tuple[Cell, str], Judgement]:
    """One model, trained and held against every split."""
    began = time.monotonic()
    model = trained(cell, plan, start=start, out=out)
    return {(cell, split): seen for split, seen in judged_by(model, cell.name, plan, out=out, began=began).items()}


def trained(cell: Cell, plan: Plan, *, start: str, out: Path) -> str:
    """The model of a run."""
    pairs = plan.steps * plan.pairs
    changed = {
        "paradigm": "generative" if cell.condition == "generative" else "descore",
        "model.checkpoint": start,
        "data.train": draw_pairs(out / "pairs" / f"{pairs}-seed-{cell.seed}", count=pairs, seed=cell.seed),
        "rollout.num_generations": plan.chains,
        "loss.bt_weight": 0.0 if cell.condition == "no-bt" else plan.bt_weight,
        "optim.steps": plan.steps,
        "optim.batch_size": plan.pairs,
        "optim.seed": cell.seed,
        "run.out": run_folder(cell, out),
    }
    overrides = [f"{key}={value}" for key, value in changed.items()]
    found = train_rl(read_config(HERE / "config.yaml", RlConfig, overrides=overrides))
    assert found.model is not None, "a run of one process writes its model"
    return str(found.model)


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
        seen = judged(folder, benchmark=split, limit=plan.limit, thinking=Thinking(), open_scorer=open_scorer)
        found[split] = judgement_of(seen)
    note_time(name, time.monotonic() - began, out=out)
    return found


def told(plan: Plan, done: Sequence[Cell], out: Path) -> dict[str, Any]:
    """What a record says of how it was made."""
    names = [BEFORE, *(cell.name for cell in done)]
    return {
        "plan": asdict(plan),
        "config": (HERE / "config.yaml").read_text(encoding="utf-8"),
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
