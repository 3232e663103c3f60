"""What experiments on the drawn world do alike: draw pairs, judge splits, say how long it will take and took.

Whatever is there is not done again. Knows folders, and the package's own verbs; knows nothing of what is compared."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.judges import ModelJudge
from descore.evaluation.runs import RESULTS_FILE, Run, evaluate, read_run
from descore.scorer import SamplingParams, Scorer

FIRST_PAIR = 10**6
"""Number of a seed's first pair, times one more than the seed: beyond all that the bundled model was grown on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A run, and how long it may take."""

    name: str
    kind: str
    """Runs of a kind take equally long."""
    seconds: float


def announce(runs: Sequence[Expected], *, out: Path) -> None:
    """The plan of wall-clock, run by run. Where one of a kind was done, it tells how long the others take."""
    files = {run.name: took_file(run.name, out) for run in runs}
    took = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    left = 0.0
    for run in runs:
        known = [took[other.name] for other in runs if other.kind == run.kind and other.name in took]
        expected = fmean(known) if known else run.seconds
        left += 0.0 if run.name in took else expected
        said = f"done in {took[run.name] / 60:.1f} min" if run.name in took else f"{expected / 60:.1f} min"
        print(f"{run.name:>24}  {said}{'' if known else ', roughly'}")
    print(f"{len(runs) - len(took)} of {len(runs)} runs to do, {left / 3600:.1f} hours", flush=True)


def took_file(name: str, out: Path) -> Path:
    """Holds the seconds of the sitting in which a run was finished."""
    return out / "judged" / name / "took.json"


def note_time(name: str, seconds: float, *, out: Path) -> None:
    """When a run is done for the first time, how long that took."""
    if not took_file(name, out).is_file():
        took_file(name, out).write_text(json.dumps(seconds), encoding="utf-8")
        print(f"{name}: {seconds / 60:.1f} min", flush=True)


def draw_pairs(folder: Path, *, count: int, seed: int, label_noise: float = 0.0, loose: bool = False) -> Path:
    """The table of a seed's training pairs, in this folder. A smaller set is the beginning of a larger one. loose: as
    `descore world sample` has it."""
    if not folder.is_dir():
        command = [sys.executable, "-m", "descore", "world", "sample", "--split", "train", "--count", str(count)]
        command += ["--seed-offset", str(FIRST_PAIR * (1 + seed)), "--label-noise", str(label_noise)]
        command += ["--loose"] if loose else []
        subprocess.run([*command, "--out", str(folder)], check=True)
    return folder / "pairs.csv"


def judged(
    folder: Path,
    *,
    benchmark: str,
    limit: int | None,
    sampling_params: SamplingParams,
    open_scorer: Callable[[], Scorer],
    root: Path | None = None,
) -> Run:
    """What `descore evaluate` finds on a benchmark's first pairs, in this process: opening a model again takes longer
    than some splits. root: where its files lie, if it has any. A folder that holds a judgement of other pairs ends the
    script."""
    if not (folder / RESULTS_FILE).is_file():
        row, judge = find_benchmark(benchmark), ModelJudge(scorer=open_scorer(), sampling_params=sampling_params)
        judgements = load(row, root=root, limit=limit)
        return evaluate(judge, judgements, folder=folder, benchmark=row.name, title=row.title, limit=limit)
    run = read_run(folder)
    if run.config["limit"] != limit:
        raise SystemExit(f"{folder} judges {run.config['limit']} pairs, expected {limit}; choose another --out")
    return run
