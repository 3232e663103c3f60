"""What the random mask of the cold start buys, and what it costs, on pairs whose truth is known.

    python experiments/cold_start/run.py [--start runs/tiny/chains] [--out runs/cold_start_experiment] [--dry]

Trains on pairs of the drawn world with true chains, under each probability p that both chains of a pair drop out, and
under p = 0.5 and 1 on smaller and larger training sets. Each seed has pairs, an order and a mask of its own; a smaller
set is the beginning of a larger one. All runs make equally many updates, so a small set is shown more often: what
differs is what there is to learn from, not for how long. Each model judges the drawn splits that nothing is trained
on, thinking and not; one that learned without chains (p = 1) only as it learned.

START should write chains and should not have scored: one whose head was fitted before, as tiny's was, brings that
along under every p. `make grow` keeps such a model in runs/tiny/chains. Clips are drawn at 128x128, the size at which
the splits are judged, and lie on the disk as `descore world sample` writes them: H.264 with far less loss than the
flaws that are to be seen, some 30 kB a clip, a third of what FFV1 takes without any loss; 150 MB in all.

Whatever is there is not done again, and what was killed goes on. After each seed the findings so far go to
record.json and, as tables, to the screen."""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import transformers

sys.path.append(str(Path(__file__).parents[1]))

from drawn_runs import Expected, announce, draw_pairs, judged, note_time
from drawn_splits import BENCHMARKS
from findings import Cell, Judged, findings, judged_of, tables

from descore.evaluation.judges import versions
from descore.scorer import SamplingParams, Scorer
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig
from descore.training.config_model import read_config
from descore.types import Think

HERE = Path(__file__).parent

SECONDS = {"a pair without chains": 0.13, "chains": 0.19, "on": 0.25, "off": 0.05}
"""Measured with the bundled model on one quiet core: to train on a pair, on its chains on top, and to judge a clip,
thinking and not. For the plan, until a run of the same p has told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    seeds: tuple[int, ...] = (0, 1, 2)
    drops: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Values of p that are compared, on `pairs` pairs."""
    pairs: int = 768
    sizes: tuple[int, ...] = (192, 768)
    """Training sets, for p = 0.5 and 1."""
    steps: int = 48
    """Updates of each run."""
    batch: int = 16
    """Pairs in an update."""
    limit: int = 64
    """Pairs of each split that are judged."""
    max_chain_tokens: int | None = None
    """Of a chain that is judged by; None: as the start's checkpoint says."""
    label_noise: float = 0.0
    """How often a training label is turned round."""

    def cells(self, seed: int) -> list[Cell]:
        """The runs of a seed, each once; the comparison of all p comes first."""
        compared = [Cell(pairs=self.pairs, drop=drop, seed=seed) for drop in self.drops]
        grown = [Cell(pairs=size, drop=drop, seed=seed) for size in self.sizes for drop in (0.5, 1.0)]
        return list(dict.fromkeys([*compared, *grown]))


DRY = Plan(seeds=(0,), pairs=8, sizes=(4, 8), steps=2, batch=4, limit=4, max_chain_tokens=16)
"""All that the whole does, and nothing to learn from it."""


def main() -> None:
    """Say what will be done, do it, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/tiny/chains", help="checkpoint that all runs start from")
    parser.add_argument("--out", type=Path, help="clips, models and judgements; not the record")
    parser.add_argument("--label-noise", type=float, default=0.0)
    parser.add_argument("--dry", action="store_true", help="a few minutes of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else Plan(label_noise=options.label_noise)
    out = options.out or Path("runs/cold_start_dry" if options.dry else "runs/cold_start_experiment")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    announce([expected(cell, plan) for seed in plan.seeds for cell in plan.cells(seed)], out=out)
    found_by_run: Judged = {}
    for seed in plan.seeds:
        for cell in plan.cells(seed):
            found_by_run |= run(cell, plan, start=options.start, out=out)
        found = findings(found_by_run)
        told = {"start": options.start, "plan": asdict(plan), "config": (HERE / "config.yaml").read_text("utf-8")}
        record = {**told, "versions": versions("descore", "torch", "transformers"), **found}
        path = (out if options.dry else HERE) / "record.json"
        path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"\nAfter seed {seed}, {path}:\n\n{tables(found)}\n", flush=True)


def expected(cell: Cell, plan: Plan) -> Expected:
    """A run, and how long it may take; those of one p take equally long."""
    return Expected(name=cell.name, kind=f"p{cell.drop:g}", seconds=roughly(cell, plan))


def roughly(cell: Cell, plan: Plan) -> float:
    """Seconds that a run may take. The size of its table does not matter."""
    a_pair = SECONDS["a pair without chains"] + (1 - cell.drop) * SECONDS["chains"]
    clips = 2 * plan.limit * len(BENCHMARKS)
    return plan.steps * plan.batch * a_pair + clips * sum(SECONDS[think] for think in ways(cell))


def ways(cell: Cell) -> tuple[Think, ...]:
    """How a run's model is judged."""
    return ("off",) if cell.drop == 1 else ("on", "off")


def run(cell: Cell, plan: Plan, *, start: str, out: Path) -> Judged:
    """One model, trained and held against every split. How long that took is noted when it is done."""
    began = time.monotonic()
    model = trained(cell, plan, start=start, out=out)
    open_scorer = cache(lambda: Scorer.from_pretrained(str(model), batch_size=32))
    found: Judged = {}
    for think in ways(cell):
        sampling_params = SamplingParams(think=think, max_chain_tokens=plan.max_chain_tokens)
        for benchmark in BENCHMARKS:
            folder = out / "judged" / cell.name / f"{benchmark}-{think}"
            seen = judged(
                folder, benchmark=benchmark, limit=plan.limit, sampling_params=sampling_params, open_scorer=open_scorer
            )
            found[cell, benchmark, think] = judged_of(seen)
    note_time(cell.name, time.monotonic() - began, out=out)
    return found


def trained(cell: Cell, plan: Plan, *, start: str, out: Path) -> Path:
    """The model of a run."""
    changed = {
        "model.checkpoint": start,
        "data.train": drawn(cell, plan, out),
        "data.chain_drop": cell.drop,
        "optim.steps": plan.steps,
        "optim.batch_size": plan.batch,
        "optim.seed": cell.seed,
        "run.out": out / "trained" / cell.name,
    }
    overrides = [f"{key}={value}" for key, value in changed.items()]
    found = train_cold_start(read_config(HERE / "config.yaml", ColdStartConfig, overrides=overrides))
    assert found.model is not None, "a run of one process writes its model"
    return found.model


def drawn(cell: Cell, plan: Plan, out: Path) -> Path:
    """The table of a run's pairs; runs that differ in p share it."""
    noise = f"-noise-{plan.label_noise:g}" if plan.label_noise else ""
    folder = out / "pairs" / f"{cell.pairs}-seed-{cell.seed}{noise}"
    return draw_pairs(folder, count=cell.pairs, seed=cell.seed, label_noise=plan.label_noise)


if __name__ == "__main__":
    main()
