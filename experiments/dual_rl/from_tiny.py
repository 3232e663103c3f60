"""What stage 2 makes of the former tiny, which learned from 123,200 clips with true chains.

    python -m experiments.dual_rl.from_tiny --footage runs/footage --data FOLDER [--out runs/from_tiny]

Trains on 320 drawn pairs with loose prompts, in 40 rollouts, with the settings of run.py but smaller steps for query
and head, which have learned already. Then both models judge, thinking, the drawn benchmarks, unseen real footage (a
store of `experiments.footage`) and FETV (FOLDER/fetv), and are compared pair by pair and mark by mark. A stopped study
resumes. The findings go to from_tiny.json and, as a table, to the screen."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import FORMER_TINY, portable

from descore.data.schema import OVERALL
from descore.evaluation.judges import package_versions
from descore.evaluation.records import to_plain
from descore.evaluation.runs import Run
from descore.scorer import SamplingParams
from descore.stats.agreement import share
from descore.stats.bootstrap import bootstrap_mean
from descore.training.config_file import read_config
from descore.training.metrics import METRICS_FILE
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl
from experiments.dual_rl.curves import curve_of, training
from experiments.dual_rl.findings import Cell
from experiments.dual_rl.run import HERE
from experiments.harness import (
    BENCHMARKS,
    DOMAINS,
    Items,
    decided_pairs,
    difference,
    draw_pairs,
    format_figure,
    judge_benchmark,
    markdown_table,
    pooled,
    quiet,
    right_marks,
    write_record,
)

STEPS, PAIRS = 40, 8
"""Rollouts, and pairs in each."""
SEED_OF_PAIRS = 39
"""Not one of run.py's or the cold start's."""
LIMIT = 128
"""Pairs of each benchmark that are judged; all of FETV, which has fewer."""
FETV = ("spatial_quality", "temporal_quality", "alignment")


def main() -> None:
    """Train, judge, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, required=True, help="store of real footage")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fetv/")
    parser.add_argument("--out", type=Path, default=Path("runs/from_tiny"))
    options = parser.parse_args()
    quiet()
    roots: dict[str, Path | None] = {
        **dict.fromkeys(BENCHMARKS),
        "footage": options.footage,
        "fetv": options.data / "fetv",
    }
    changed = changes(options.out)
    model = train_rl(read_config(HERE / "config.yaml", RlConfig, overrides=changed)).model
    assert model is not None, "a run of one process writes its model"
    before = judge_all(str(FORMER_TINY), roots, options.out / "judged" / "before")
    after = judge_all(str(model), roots, options.out / "judged" / "after")
    rows = [row(what, *both) for what, *both in compared(before, after)]
    curve = training({Cell(condition="default", seed=0): curve_of(options.out / "trained" / METRICS_FILE)})
    record = {
        "start": portable(str(FORMER_TINY)),
        "changed": [portable(change) for change in changed if str(options.out) not in change],
        "config": (HERE / "config.yaml").read_text(encoding="utf-8"),
        "versions": package_versions("descore", "torch", "transformers"),
        "compared": rows,
        "course": curve["course"],
        "curve": curve["curves"]["default-seed0"],
    }
    write_record(HERE / "from_tiny.json", record)
    print(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Shares before and after, and the gain, as Markdown."""
    forms = {"before": ".3f", "after": ".3f", "gain": "+.3f"}
    cells: dict[tuple[str, ...], list[str]] = {
        (row["what"],): [format_figure(row[name], form) for name, form in forms.items()] for row in rows
    }
    return markdown_table(("", *forms), cells)


def changes(out: Path) -> list[str]:
    """Overrides of config.yaml."""
    changed = {
        "model.checkpoint": FORMER_TINY,
        "data.train": draw_pairs(out / "pairs", count=STEPS * PAIRS, seed=SEED_OF_PAIRS, loose=True),
        "optim.max_steps": STEPS,
        "optim.per_device_train_batch_size": PAIRS,
        "optim.seed": 0,
        "trainable.query.learning_rate": 3e-4,
        "trainable.head.learning_rate": 3e-4,
        "run.merge": "true",
        "run.out": out / "trained",
    }
    return [f"{key}={value}" for key, value in changed.items()]


def judge_all(model: str, roots: Mapping[str, Path | None], folder: Path) -> dict[str, Run]:
    """A model's run on each benchmark."""
    return {
        name: judge_benchmark(
            model,
            name,
            folder=folder / name,
            limit=None if name == "fetv" else LIMIT,
            sampling_params=SamplingParams(),
            root=root,
        )
        for name, root in roots.items()
    }


def compared(before: Mapping[str, Run], after: Mapping[str, Run]) -> list[tuple[str, Items, Items]]:
    """The comparisons: a name, and the items before and after."""
    domains = {"in-domain": DOMAINS["in-domain"], "out-of-domain": DOMAINS["out-of-domain"], "footage": ("footage",)}
    comparisons: list[tuple[str, Items, Items]] = []
    for domain, names in domains.items():
        for what, items_of in (("pairs", _pairs), ("marks", _marks)):
            first, second = (pooled([items_of(runs[name]) for name in names]) for runs in (before, after))
            comparisons.append((f"{domain}, {what}", first, second))
    for label in FETV:
        first, second = (_pairs(runs["fetv"], label=label) for runs in (before, after))
        comparisons.append((f"FETV, {label}", first, second))
    return comparisons


def _pairs(run: Run, *, label: str = OVERALL) -> Items:
    return decided_pairs(run.pairs, run.records, label=label)


def _marks(run: Run) -> Items:
    return right_marks(run.clips, run.records, asked_only=False)


def row(what: str, before: Items, after: Items) -> dict[str, Any]:
    """Shares before and after, and the gain."""
    gain = difference(after, before)
    return to_plain(  # type: ignore[no-any-return]
        {
            "what": what,
            "before": share(before.value_N, before.group_N),
            "after": share(after.value_N, after.group_N),
            "gain": bootstrap_mean(gain.value_N, gain.group_N),
        }
    )


if __name__ == "__main__":
    main()
