"""What chains are worth by who wrote them, which filter pays, and how bad a teacher may be, where the truth is known.

    python -m experiments.chains.run [--start MODEL] [--out runs/chains_study] [--only RUN ...] [--dry]

All runs of a seed have the same pairs with the same labels, and equally many updates of stage 0 and stage 1:

    true              the true chains
    teacher80, 60     a teacher with 80 % or 60 % of its marks right, one chain a clip; a tenth of its chains are no use
    ...-form          the same, four chains a clip, filtered by form, length, marks and grounding
    ...-filtered      and by agreement with the label
    self-1, 2, 3      three rounds of self-collection, from the start itself
    pairs-only        no chain: the discriminative path

The start sees, describes and compares, and does not know what marks mean: the former tiny, after stage 0 on true
chains of other pairs whose marks are drawn at random. A general model under a rubric that is new to it is like that,
and so its chains can be read. It also learned the true marks once, and may recall them sooner than another would learn
them. --start names another model, one that writes chains: from one that never wrote any, such as `grow_tiny` has
behind its lesson `look`, no update of this study could teach it, since that took the former tiny some 6,000 chains.

Each model, the start among them, judges the drawn benchmarks. Each run has a process of its own, so that memory does
not grow, and a stopped study resumes. Runs named by --only, such as true-seed0, are done alone, and no record is
written, so that several processes can share the work. Otherwise the findings after each seed go to record.json and, as
tables, to the screen. If a round's filters keep nothing, that is a finding: the round and those behind it are noted as
empty."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import FORMER_TINY

from descore.chains.filtering import FilterConfig
from descore.chains.output import filter_run
from descore.chains.rounds import RoundsConfig, run_rounds
from descore.chains.source import read_chain_source
from descore.errors import ConfigError
from descore.evaluation.judges import package_versions
from descore.io import atomic_write, read_json_object
from descore.model.checkpoint import read_as
from descore.scorer import SamplingParams
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig, SftConfig
from descore.training.config_file import config_yaml, read_config
from descore.training.sft import train_sft
from experiments.chains.findings import (
    CONDITIONS,
    PAIRS_ONLY,
    ROUNDS,
    START,
    TEACHERS,
    TRUE,
    chain_findings,
    chain_tables,
)
from experiments.chains.teachers import write_teacher_run
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
    time_file,
    write_record,
)

HERE = Path(__file__).parent
FIRST_SEED = 50
"""Of pairs; those below are of other studies."""
START_SEED, START_RIGHT = 90, 1 / 3
"""Of the start: seed of its pairs, and the share of its marks that chance gets right."""
SECONDS = {"a chain": 0.14, "a pair": 0.25, "a clip": 0.16, "a collected chain": 0.07}
"""Measured with the former tiny on a core of its own: to train on a chain in stage 0 and on a pair in stage 1, to
judge a clip and to write a chain. Used by the plan until a run of the same kind is finished; a machine with other work
takes several times as long."""
SELF = "self"
FORM_ALONE = FilterConfig(agreement=False, grounding=False, min_words=0)
"""Filters that ask for an answer alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """Sizes of the study."""

    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int = 192
    """Training pairs of a seed."""
    write_steps: int = 48
    """Updates of stage 0: each chain is seen once where both chains of all pairs are there."""
    score_steps: int = 32
    """Updates of stage 1."""
    batch: int = 8
    """Examples or pairs in an update."""
    chains: int = 4
    """Chains for each clip where they are filtered."""
    limit: int = 32
    """Pairs of each benchmark that are judged."""
    max_chain_tokens: int | None = None
    """Longest chain while writing and judging; None: as the start says."""

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Condition and seed of each run; the rounds of self-collection are one."""
        names = dict.fromkeys(SELF if name.startswith(SELF) else name for name in CONDITIONS)
        return [(name, seed) for seed in self.seeds for name in names]


DRY = ChainPlan(seeds=(0,), pairs=4, write_steps=1, score_steps=1, batch=2, chains=2, limit=2, max_chain_tokens=128)
"""A test of the whole study at sizes that show nothing."""


def main() -> None:
    """Print the plan, run it, and write the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", help="checkpoint that all runs start from; default: one that is made for this")
    parser.add_argument("--out", type=Path, help="clips, chains, models and judgements; not the record")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="do these runs, and write no record")
    parser.add_argument("--dry", action="store_true", help="a few minutes of everything; its record stays in --out")
    options = parser.parse_args()
    plan = DRY if options.dry else ChainPlan()
    out = options.out or Path("runs/chains_dry" if options.dry else "runs/chains_study")
    quiet()
    if options.only is None:
        print_plan(planned_runs(plan), out=out)
    study(plan, start=options.start, out=out, only=options.only, record_folder=out if options.dry else HERE)


def study(plan: ChainPlan, *, start: str | None, out: Path, only: Sequence[str] | None, record_folder: Path) -> None:
    """Do the runs that are not done; after each seed write and print the findings, unless only some are wanted."""
    judgements: JudgementsByRun = {}
    kept: dict[str, Any] = {}
    for condition, seed in plan.runs:
        name = run_name(condition, seed)
        if only is not None and name not in only:
            continue
        if only is None and not time_file(name, out).is_file():
            run_apart(name, plan, start=start, out=out)
        judged, of_filters = do_run(condition, seed, plan, start=start, out=out)
        judgements |= judged
        kept[name] = of_filters
        if only is None and (condition, seed) == [run for run in plan.runs if run[1] == seed][-1]:
            findings = chain_findings(judgements, kept)
            record = {"start": start or "marks at random", **provenance(plan), **findings}
            write_record(record_folder / "record.json", record)
            print(f"\nAfter seed {seed}, {record_folder / 'record.json'}:\n\n{chain_tables(findings)}\n", flush=True)


def run_apart(name: str, plan: ChainPlan, *, start: str | None, out: Path) -> None:
    """Do a run in a process of its own."""
    command = [sys.executable, "-m", "experiments.chains.run", "--only", name, "--out", str(out)]
    command += [] if start is None else ["--start", start]
    subprocess.run([*command, *(["--dry"] if plan is DRY else [])], check=True)


def run_name(condition: str, seed: int) -> str:
    """Of a run's folders, and for --only. The start has no seed."""
    return condition if condition == START else f"{condition}-seed{seed}"


def planned_runs(plan: ChainPlan) -> list[PlannedRun]:
    """All runs with their expected durations."""
    train = plan.batch * (plan.write_steps * SECONDS["a chain"] + plan.score_steps * SECONDS["a pair"])
    judge = 2 * plan.limit * len(BENCHMARKS) * SECONDS["a clip"]
    collect = 2 * plan.pairs * plan.chains * SECONDS["a collected chain"]
    seconds = {START: judge, SELF: ROUNDS * (train + judge + collect)}
    kinds = {run_name(name, seed): name for name, seed in plan.runs}
    return [
        PlannedRun(
            name=name,
            kind=kind if kind in (START, SELF, PAIRS_ONLY) else "chains",
            seconds=seconds.get(kind, train + judge),
        )
        for name, kind in kinds.items()
    ]


def do_run(condition: str, seed: int, plan: ChainPlan, *, start: str | None, out: Path) -> tuple[JudgementsByRun, Any]:
    """Train the models of a condition and judge them; what its filters kept is given beside the judgements."""
    began, name = time.monotonic(), run_name(condition, seed)
    file = out / "judged" / name / "trained.json"
    if not file.is_file():
        models, kept = train_run(condition, seed, plan, start=start or made_start(plan, out=out), out=out)
        atomic_write(file, json.dumps({"models": models, "kept": kept}, default=str) + "\n")
    done = read_json_object(file)
    judged: JudgementsByRun = {}
    for model_name, model in done["models"].items():
        for benchmark in BENCHMARKS:
            run = judge_benchmark(
                model,
                benchmark,
                folder=out / "judged" / name / f"{model_name}-{benchmark}",
                limit=plan.limit,
                sampling_params=_sampling_params(model_name, plan),
                paradigm="generative" if condition == START else None,  # it has not learned to score
            )
            judged[model_name, seed, benchmark] = judgement_of(run)
    note_time(name, time.monotonic() - began, out=out)
    return judged, done["kept"]


def train_run(condition: str, seed: int, plan: ChainPlan, *, start: str, out: Path) -> tuple[dict[str, Any], Any]:
    """The models of a run by name, and what its filters kept."""
    if condition == START:
        return {START: start}, {}
    pairs = draw_pairs(out / "pairs" / f"{plan.pairs}-seed{seed}", count=plan.pairs, seed=FIRST_SEED + seed)
    if condition == SELF:
        rounds = self_collected(seed, plan, pairs, start=start, out=out)
        return {f"self-{one['round']}": one["model"] for one in rounds if "model" in one}, rounds
    table, kept = chain_table(condition, seed, plan, pairs, out=out)
    return {condition: trained(condition, seed, plan, table, start=start, out=out)}, kept


def _sampling_params(condition: str, plan: ChainPlan) -> SamplingParams:
    if condition == PAIRS_ONLY:
        return SamplingParams(think="off")
    return SamplingParams(think="on", max_chain_tokens=plan.max_chain_tokens)


def chain_table(condition: str, seed: int, plan: ChainPlan, pairs: Path, *, out: Path) -> tuple[Path, dict[str, Any]]:
    """The training table of a condition, and what its filters kept."""
    if condition == TRUE:
        return pairs, {}
    folder = out / "chains" / f"{condition}-seed{seed}"
    if condition == PAIRS_ONLY:
        return _without_chains(pairs, folder), {}
    name, _, filters = condition.removeprefix("teacher").partition("-")
    settings = {"": FORM_ALONE, "form": FilterConfig(agreement=False), "filtered": FilterConfig()}[filters]
    chains = plan.chains if filters else 1
    return _teacher_table(pairs, folder, settings, right=TEACHERS[name], chains=chains, seed=seed)


def _teacher_table(
    pairs: Path, folder: Path, settings: FilterConfig, *, right: float, chains: int, seed: int
) -> tuple[Path, dict[str, Any]]:
    """Chains of a teacher that errs, filtered, and what was kept."""
    run = write_teacher_run(pairs, folder, right=right, chains=chains, seed=seed)
    _, rubric = read_as(FORMER_TINY, None)
    return run.table, filter_run(run, read_chain_source(pairs), settings, rubric=rubric)


def made_start(plan: ChainPlan, *, out: Path) -> str:
    """The former tiny behind stage 0 on chains with marks at random; made once."""
    folder = out / "trained" / START
    if not (folder / "model").is_dir():
        pairs = draw_pairs(out / "pairs" / START, count=plan.pairs, seed=START_SEED)
        table, _ = _teacher_table(
            pairs,
            out / "chains" / START,
            FilterConfig(agreement=False),
            right=START_RIGHT,
            chains=1,
            seed=START_SEED,
        )
        train_sft(_stage("sft", SftConfig, plan, START_SEED, str(FORMER_TINY), table, folder))
    return str(folder / "model")


def _without_chains(pairs: Path, folder: Path) -> Path:
    """The pairs, beside a link to their clips, without chains and marks."""
    rows = [dict(row.cells) for row in read_chain_source(pairs).rows]
    columns = ("prompt", "video_a", "video_b", "preference", "group")
    lines = [{name: row[name] for name in columns} for row in rows]
    for line in lines:
        line |= {name: str(pairs.parent.resolve() / line[name]) for name in ("video_a", "video_b")}
    atomic_write(folder / "pairs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"


def trained(condition: str, seed: int, plan: ChainPlan, table: Path, *, start: str, out: Path) -> Path:
    """The model of a condition: stage 0 on its chains, if it has any, then stage 1."""
    folder, checkpoint = out / "trained" / f"{condition}-seed{seed}", start
    if condition != PAIRS_ONLY:
        sft = train_sft(_stage("sft", SftConfig, plan, seed, checkpoint, table, folder / "sft"))
        checkpoint = str(sft.model)
    cold = _stage("cold_start", ColdStartConfig, plan, seed, checkpoint, table, folder / "cold-start")
    if condition == PAIRS_ONLY:
        cold = cold.model_copy(update={"loss": cold.loss.model_copy(update={"chain_weight": 0.0})})
    model = train_cold_start(cold).model
    assert model is not None, "a run of one process writes its model"
    return model


def _stage(stage: str, settings: Any, plan: ChainPlan, seed: int, start: str, table: Path, out: Path) -> Any:  # noqa: ANN401
    steps = plan.write_steps if stage == "sft" else plan.score_steps
    changed = {
        "model.checkpoint": start,
        "data.train": table,
        "optim.max_steps": steps,
        "optim.per_device_train_batch_size": plan.batch,
        "optim.seed": seed,
        "run.out": out,
    }
    if plan.max_chain_tokens is not None:
        changed["model.max_chain_tokens"] = plan.max_chain_tokens
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in changed.items()]
    return read_config(HERE / f"{stage}.yaml", settings, overrides=overrides)


def self_collected(seed: int, plan: ChainPlan, pairs: Path, *, start: str, out: Path) -> list[dict[str, Any]]:
    """The rounds of self-collection. One whose filters keep nothing ends them, and is named with the reason."""
    folder = out / "trained" / f"self-seed{seed}"
    placeholder = Path("set-by-each-round")
    configs = {
        "sft": config_yaml(_stage("sft", SftConfig, plan, seed, start, pairs, placeholder)),
        "cold_start": config_yaml(_stage("cold_start", ColdStartConfig, plan, seed, start, pairs, placeholder)),
        "collect": _collect_yaml(plan, pairs, seed),
    }
    for name, text in configs.items():
        atomic_write(folder / f"{name}.yaml", text)
    config = RoundsConfig(
        start=start,
        rounds=1,
        collect=folder / "collect.yaml",
        sft=folder / "sft.yaml",
        cold_start=folder / "cold_start.yaml",
        out=folder / "rounds",
    )
    done: list[dict[str, Any]] = []
    for number in range(1, ROUNDS + 1):
        try:
            done = run_rounds(config.model_copy(update={"rounds": number}))
        except ConfigError as error:
            return [*done, {"round": number, "stopped": str(error)}]
    return done


def _collect_yaml(plan: ChainPlan, pairs: Path, seed: int) -> str:
    values: dict[str, Any] = {
        "data": {"table": str(pairs)},
        "teacher": {"kind": "native", "model": "set-by-each-round", "seed": 10**6 * seed, "batch_size": 16},
        "num_chains": plan.chains,
        "run": {"out": "set-by-each-round"},
    }
    if plan.max_chain_tokens is not None:
        values["teacher"]["max_completion_tokens"] = plan.max_chain_tokens
    return json.dumps(values, indent=1) + "\n"  # JSON is YAML


def provenance(plan: ChainPlan) -> dict[str, Any]:
    """How the record was made: sizes, configs, versions."""
    return {
        "plan": asdict(plan),
        "configs": {name: (HERE / name).read_text(encoding="utf-8") for name in ("sft.yaml", "cold_start.yaml")},
        "versions": package_versions("descore", "torch", "transformers"),
    }


if __name__ == "__main__":
    main()
