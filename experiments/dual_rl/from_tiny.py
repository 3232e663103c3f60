"""What stage 2 makes of the bundled model, which learned from 123,200 clips with true chains.

    python experiments/dual_rl/from_tiny.py --footage runs/footage --data FOLDER [--out runs/from_tiny]

320 drawn pairs with loosely put prompts, in 40 rollouts, with the settings of run.py but smaller steps for query and
head, which have learned. Then both models judge, thinking, the drawn splits, unseen real footage (`descore world
footage`) and FETV (FOLDER/fetv), and are compared pair by pair and mark by mark. Whatever is there is not done again,
and what was killed goes on. The findings go to from_tiny.json and, as a table, to the screen."""

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

import transformers

sys.path.append(str(Path(__file__).parents[1]))

from curves import curve_of, training
from drawn_runs import draw_pairs, judged
from drawn_splits import BENCHMARKS, DOMAINS, Items, decided_pairs, difference, pooled, shown, table
from findings import Cell, right_marks
from run import HERE, write_record

from descore.data.schema import OVERALL
from descore.evaluation.judges import versions
from descore.evaluation.records import to_plain
from descore.evaluation.runs import Run
from descore.scorer import SamplingParams, Scorer
from descore.stats.agreement import share
from descore.stats.bootstrap import mean
from descore.training.config_model import read_config
from descore.training.metrics import METRICS_FILE
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl

START = "tiny"
STEPS, PAIRS = 40, 8
"""Rollouts, and pairs in each."""
SEED_OF_PAIRS = 39
"""Other pairs than run.py's and those of the cold start."""
LIMIT = 128
"""Pairs of each split that are judged; FETV has fewer."""
FETV = ("spatial_quality", "temporal_quality", "alignment")


def main() -> None:
    """Train, judge, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, required=True, help="store of real footage")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fetv/")
    parser.add_argument("--out", type=Path, default=Path("runs/from_tiny"))
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    roots = {**dict.fromkeys(BENCHMARKS), "footage": options.footage, "fetv": options.data / "fetv"}
    changed = changes(options.out)
    model = train_rl(read_config(HERE / "config.yaml", RlConfig, overrides=changed)).model
    assert model is not None, "a run of one process writes its model"
    before = judged_by(START, roots, options.out / "judged" / "before")
    after = judged_by(str(model), roots, options.out / "judged" / "after")
    rows = [row(words, *both) for words, *both in compared(before, after)]
    curve = training({Cell(condition="default", seed=0): curve_of(options.out / "trained" / METRICS_FILE)})
    record = {
        "start": START,
        "changed": [told for told in changed if str(options.out) not in told],
        "config": (HERE / "config.yaml").read_text(encoding="utf-8"),
        "versions": versions("descore", "torch", "transformers"),
        "compared": rows,
        "course": curve["course"],
        "curve": curve["curves"]["default-seed0"],
    }
    write_record(HERE / "from_tiny.json", record)
    cells = {
        (one["what"],): [shown(one["before"], ".3f"), shown(one["after"], ".3f"), shown(one["gain"], "+.3f")]
        for one in rows
    }
    print(table(("", "before", "after", "gain"), cells))


def changes(out: Path) -> list[str]:
    """What differs from config.yaml."""
    changed = {
        "model.checkpoint": START,
        "data.train": draw_pairs(out / "pairs", count=STEPS * PAIRS, seed=SEED_OF_PAIRS, loose=True),
        "optim.steps": STEPS,
        "optim.batch_size": PAIRS,
        "optim.seed": 0,
        "trainable.query.learning_rate": 3e-4,
        "trainable.head.learning_rate": 3e-4,
        "run.merge": "true",
        "run.out": out / "trained",
    }
    return [f"{key}={value}" for key, value in changed.items()]


def judged_by(model: str, roots: dict[str, Path | None], folder: Path) -> dict[str, Run]:
    """By split, what a model says."""
    open_scorer = cache(lambda: Scorer.from_pretrained(model, batch_size=32))
    return {
        name: judged(
            folder / name,
            benchmark=name,
            root=root,
            limit=None if name == "fetv" else LIMIT,
            sampling_params=SamplingParams(),
            open_scorer=open_scorer,
        )
        for name, root in roots.items()
    }


def compared(before: dict[str, Run], after: dict[str, Run]) -> list[tuple[str, Items, Items]]:
    """What is compared, in words, and both sides of it."""
    domains = {"in-domain": DOMAINS["in-domain"], "out-of-domain": DOMAINS["out-of-domain"], "footage": ("footage",)}
    found = []
    for name, splits in domains.items():
        for what, read in (("pairs", _pairs), ("marks", _marks)):
            sides = [pooled([read(runs[split]) for split in splits]) for runs in (before, after)]
            found.append((f"{name}, {what}", *sides))
    found += [(f"FETV, {label}", *(_pairs(runs["fetv"], label=label) for runs in (before, after))) for label in FETV]
    return found


def _pairs(run: Run, *, label: str = OVERALL) -> Items:
    return decided_pairs(run.pairs, run.records, label=label)


def _marks(run: Run) -> Items:
    return right_marks(run.clips, run.records, of_all=True)


def row(what: str, before: Items, after: Items) -> dict[str, Any]:
    """Shares before and after, and the gain."""
    gain = difference(after, before)
    return to_plain(  # type: ignore[no-any-return]
        {
            "what": what,
            "before": share(before.value_N, before.group_N),
            "after": share(after.value_N, after.group_N),
            "gain": mean(gain.value_N, gain.group_N),
        }
    )


if __name__ == "__main__":
    main()
