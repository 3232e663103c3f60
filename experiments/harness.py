"""What the studies share: benchmarks and domains, judging models, pooling judgements over seeds, records and tables.

A study trains models in several conditions and seeds, judges each on the drawn benchmarks, and reports figures whose
intervals resample prompts. Finished steps are not done again, so a stopped study resumes.

Shapes: N items (pairs, clips or marks)."""

import json
import math
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import transformers
from numpy.typing import NDArray

from descore.data.schema import OVERALL
from descore.errors import ConfigError, DescoreError
from descore.evaluation.benchmarks import Judgements, find_benchmark, load
from descore.evaluation.judges import Judge, ModelJudge
from descore.evaluation.results import Records, key_of, margins_of
from descore.evaluation.runs import RESULTS_FILE, Run, read_run, run_evaluation
from descore.io import atomic_write
from descore.scorer import SamplingParams, Scorer
from descore.stats.bootstrap import Figure
from descore.types import DIMENSIONS, Pair, Paradigm, RatedClip
from experiments.footage import benchmark as footage
from experiments.generated import benchmark as generated

OUT_OF_DOMAIN = ("drawn-combinations", "drawn-wordings", "drawn-generators")
BENCHMARKS = ("drawn", *OUT_OF_DOMAIN)
DOMAINS = {"in-domain": ("drawn",), "out-of-domain": OUT_OF_DOMAIN, **{name: (name,) for name in OUT_OF_DOMAIN}}
"""By domain, the benchmarks that are pooled in it."""
FIRST_PAIR = 10**6
"""Number of a seed's first training pair, times one more than the seed: beyond all that the bundled model has seen."""
UNSEEN = ("I see footage", "I see real footage")
"""How a chain begins that takes a drawn clip for real footage; the second in older models."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a user can correct is one line on standard error, and the exit code 1; Ctrl-C gives 130."""
    try:
        yield
    except DescoreError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise SystemExit(f"error: {where}{error.strerror or error}") from None
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def positive(text: str) -> int:
    """A whole number above 0, as a type of argparse."""
    if (number := int(text)) < 1:
        raise ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def quiet() -> None:
    """Silence transformers' progress bars and warnings."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


# Items: numbers with the prompt of each, by which intervals are resampled.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """Numbers, and the prompt of each."""

    value_N: NDArray[np.float64]
    """nan for an item without a value, which is used nowhere."""
    group_N: NDArray[np.str_]

    @property
    def mean(self) -> float:
        """Over the items that have a value; nan if none has."""
        known_N = self.value_N[~np.isnan(self.value_N)]
        return float(known_N.mean()) if len(known_N) else float("nan")


def pooled(several: Sequence[Items]) -> Items:
    """The items of several in one."""
    return Items(
        value_N=np.concatenate([items.value_N for items in several]),
        group_N=np.concatenate([items.group_N for items in several]),
    )


def difference(first: Items, second: Items) -> Items:
    """First minus second, item by item. ValueError if their prompts are not the same in the same order."""
    if not np.array_equal(first.group_N, second.group_N):
        raise ValueError("these items are not of the same prompts, so they cannot be compared one by one")
    return Items(value_N=first.value_N - second.value_N, group_N=first.group_N)


def decided_pairs(pairs: Sequence[Pair], records: Records, *, label: str = OVERALL) -> Items:
    """For each decided pair, 1 if the rewards order it as its label does, else 0; nan where a clip has no score."""
    margins = margins_of(label, pairs, records)
    decided_B = margins.preference_B != 0
    margin_B = margins.margin_B[decided_B]
    right_B = np.sign(margin_B) == margins.preference_B[decided_B]
    return Items(value_N=np.where(np.isnan(margin_B), np.nan, right_B), group_N=margins.group_B[decided_B])


def right_marks(clips: Sequence[RatedClip], records: Records, *, asked_only: bool) -> Items:
    """For each written mark, 1 if it is right, else 0; nan without a verdict. asked_only: leave out the dimensions that
    the prompt asks nothing of."""
    marks = [
        (np.nan if written is None else float(written[name] == clip.marks[name]), clip.group)
        for clip in clips
        if clip.marks is not None
        for written in [records[key_of(clip)]["marks"]]
        for name in DIMENSIONS
        if clip.marks[name] is not None or not asked_only
    ]
    return Items(value_N=np.array([hit for hit, _ in marks]), group_N=np.array([group for _, group in marks], np.str_))


# Judgements: what a study needs of a run on a benchmark.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """A model's results on a benchmark."""

    right: Mapping[str, Items]
    """By measure, 1 for an item that is right, else 0; nan without a score or verdict. `pairs`: decided pairs by
    reward; `written`: by the written overall; `marks`: written marks; `asked`: those that the prompt asks for."""
    reward: Items
    """Of each clip."""
    unreadable: int
    """Clips without a verdict; 0 if the model did not think."""
    unseen: int
    """Chains that begin with UNSEEN."""
    clips: int


JudgementsByRun: TypeAlias = dict[tuple[Hashable, int, str], Judgement]
"""By condition, seed and benchmark."""


def judgement_of(run: Run) -> Judgement:
    """The judgement of an evaluation run."""
    written = {key: {**record, "reward": record["overall"], "rewards": None} for key, record in run.records.items()}
    thinks = run.config.get("think") != "off"
    rewards = [run.records[key_of(clip)]["reward"] for clip in run.clips]
    return Judgement(
        right={
            "pairs": decided_pairs(run.pairs, run.records),
            "written": decided_pairs(run.pairs, written),
            "marks": right_marks(run.clips, run.records, asked_only=False),
            "asked": right_marks(run.clips, run.records, asked_only=True),
        },
        reward=Items(
            value_N=np.array([np.nan if reward is None else reward for reward in rewards]),
            group_N=np.array([clip.group for clip in run.clips], np.str_),
        ),
        unreadable=sum(record["marks"] is None for record in run.records.values()) if thinks else 0,
        unseen=sum((record["thinking"] or "").startswith(UNSEEN) for record in run.records.values()),
        clips=len(run.clips),
    )


def by_seed(judgements: JudgementsByRun, condition: Hashable, domain: str) -> dict[int, list[Judgement]]:
    """By seed, a condition's judgements on the benchmarks of a domain."""
    seeds = sorted({seed for other, seed, _ in judgements if other == condition})
    return {seed: [judgements[condition, seed, name] for name in DOMAINS[domain]] for seed in seeds}


def right_items(judgements: Sequence[Judgement], measure: str) -> Items:
    """The items of one measure, pooled."""
    return pooled([judgement.right[measure] for judgement in judgements])


def over_seeds(items_by_seed: Mapping[int, Items], statistic: Callable[..., Figure]) -> Figure:
    """A statistic of all seeds' items. Its interval resamples prompts, each with the items of all seeds."""
    items = pooled(list(items_by_seed.values()))
    return statistic(items.value_N, items.group_N)


# Runs: training pairs, judging, and the time they take.


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run and its expected duration."""

    name: str
    kind: str
    """Runs of one kind take equally long."""
    seconds: float


def print_plan(runs: Sequence[PlannedRun], *, out: Path) -> None:
    """Print the expected duration of each run. A finished run of the same kind replaces the estimate."""
    files = {run.name: time_file(run.name, out) for run in runs}
    took = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    left = 0.0
    for run in runs:
        known = [took[other.name] for other in runs if other.kind == run.kind and other.name in took]
        expected = fmean(known) if known else run.seconds
        left += 0.0 if run.name in took else expected
        state = f"done in {took[run.name] / 60:.1f} min" if run.name in took else f"{expected / 60:.1f} min"
        print(f"{run.name:>24}  {state}{'' if known else ', roughly'}")
    print(f"{len(runs) - len(took)} of {len(runs)} runs to do, {left / 3600:.1f} hours", flush=True)


def time_file(name: str, out: Path) -> Path:
    """The file with the seconds that a finished run took."""
    return out / "judged" / name / "took.json"


def note_time(name: str, seconds: float, *, out: Path) -> None:
    """Write and print how long a run took, the first time that it is finished."""
    if not time_file(name, out).is_file():
        time_file(name, out).write_text(json.dumps(seconds), encoding="utf-8")
        print(f"{name}: {seconds / 60:.1f} min", flush=True)


def draw_pairs(folder: Path, *, count: int, seed: int, label_noise: float = 0.0, loose: bool = False) -> Path:
    """The table of a seed's training pairs in this folder, drawn by `descore world sample` if it is not there. A
    smaller set is the beginning of a larger one."""
    if not folder.is_dir():
        command = [sys.executable, "-m", "descore", "world", "sample", "--split", "train", "--count", str(count)]
        command += ["--seed-offset", str(FIRST_PAIR * (1 + seed)), "--label-noise", str(label_noise)]
        command += ["--loose"] if loose else []
        subprocess.run([*command, "--out", str(folder)], check=True)
    return folder / "pairs.csv"


@lru_cache(maxsize=1)
def open_scorer(model: str, paradigm: Paradigm | None = None) -> Scorer:
    """The model of a checkpoint; the last one stays open, since opening takes longer than judging a small split."""
    return Scorer.from_pretrained(model, paradigm=paradigm, batch_size=32)


def judge_benchmark(
    model: str,
    benchmark: str,
    *,
    folder: Path,
    limit: int | None,
    sampling_params: SamplingParams,
    root: Path | None = None,
    paradigm: Paradigm | None = None,
) -> Run:
    """The evaluation run of a model on a benchmark's first pairs; a finished run in the folder is read instead.

    benchmark: a name of `descore benchmarks`, `footage`, or one of `generated.benchmark`. root: the folder of its
    files. Exits if the folder holds a run with another limit."""
    if (folder / RESULTS_FILE).is_file():
        run = read_run(folder)
        if run.config["limit"] != limit:
            raise SystemExit(f"{folder} judges {run.config['limit']} pairs, expected {limit}; choose another --out")
        return run
    judge = ModelJudge(scorer=open_scorer(model, paradigm), sampling_params=sampling_params)
    return evaluate(judge, benchmark, folder=folder, limit=limit, root=root)


def evaluate(judge: Judge, benchmark: str, *, folder: Path, limit: int | None, root: Path | None = None) -> Run:
    """The evaluation run of any judge on a benchmark, as `judge_benchmark` does it."""
    if benchmark == footage.NAME or generated.is_known(benchmark):
        title, judgements = own_judgements(benchmark, root, limit)
        return run_evaluation(judge, judgements, folder=folder, benchmark=benchmark, title=title, limit=limit)
    row = find_benchmark(benchmark)
    return run_evaluation(
        judge,
        load(row, root=root, limit=limit),
        folder=folder,
        benchmark=row.name,
        title=row.title,
        licence=row.licence,
        published=row.published,
        limit=limit,
    )


def own_judgements(benchmark: str, root: Path | None, limit: int | None) -> tuple[str, Judgements]:
    """Title and judgements of a benchmark of the experiments. root: its store. Exits without one, where it needs it."""
    if generated.is_known(benchmark):
        try:
            return generated.title_of(benchmark), generated.judgements_of(benchmark, root, limit=limit)
        except ConfigError as fault:
            raise SystemExit(str(fault)) from None
    if root is None:
        raise SystemExit("footage: no store; make one with `python -m experiments.footage`")
    return footage.TITLE, footage.footage_judgements(root, limit=limit)


# Records and tables.


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON atomically. ValueError for a number that is not finite."""
    atomic_write(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def keep_plan(file: Path, plan: Mapping[str, Any], *, otherwise: str) -> None:
    """Write what a folder's contents are made by. ConfigError, with this message, if something else made them."""
    text = json.dumps(plan, indent=1) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{file.parent}: {otherwise}")
    atomic_write(file, text)


def known_mean(values: Sequence[float]) -> float:
    """Mean of the numbers that are there; nan if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def markdown_table(head: Sequence[str], rows: Mapping[tuple[str, ...], Sequence[str]]) -> str:
    """Markdown. The first cells of a row are its key."""
    lines = [head, ["---"] * len(head), *([*key, *cells] for key, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_figure(figure: Mapping[str, Any], form: str) -> str:
    """`.812 [.780, .844]`; without the interval if there is none, as for a single prompt."""
    if figure["value"] is None or figure["low"] is None:
        return "" if figure["value"] is None else f"{figure['value']:{form}}"
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
