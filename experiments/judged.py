"""What the bundled model gets right, on benchmarks that it was never trained on.

    python -m experiments.judged [--model tiny] [--footage runs/footage] [--generated runs/generated] [--data FOLDER]
        [--choose] [--baselines] [--out runs/judged]

Each row of the table is an evaluation run, with thinking and without; a stopped script resumes. FOLDER holds fetv/ (see
`descore benchmarks fetv`). `--generated` adds clips of held-out generators: harmed against sound, their own prompts
against others, and late generators against early; with `--choose` those clips that are for decisions. `--baselines`
judges these by measures without training, too. Figures go to judged.json in --out, and as a table to the screen."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from descore.evaluation.judges import Judge
from descore.evaluation.records import to_plain
from descore.evaluation.results import key_of, results_of, reward_of
from descore.evaluation.runs import Run
from descore.scorer import SamplingParams
from descore.stats.agreement import share
from descore.stats.bootstrap import Figure
from descore.types import Pair, Think
from experiments.generated.benchmark import ALIGNMENT, CHOOSE, NAMES
from experiments.generated.harms import HARMS
from experiments.harness import (
    BENCHMARKS,
    OUT_OF_DOMAIN,
    decided_pairs,
    evaluate,
    format_figure,
    judge_benchmark,
    quiet,
)

THINK: tuple[Think, ...] = ("on", "off")
HARMED, OWN_PROMPT, ERAS, REVERSED = NAMES

Roots = Mapping[str, Path | None]


def main() -> None:
    """Judge every benchmark, write judged.json, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--footage", type=Path, help="store of real footage, made by experiments.footage")
    parser.add_argument("--generated", type=Path, help="store of generated clips, made by experiments.generated")
    parser.add_argument("--choose", action="store_true", help="of generated clips, those for decisions")
    parser.add_argument("--data", type=Path, help="folder that holds fetv/")
    parser.add_argument("--baselines", action="store_true", help="measures without training on the generated clips")
    parser.add_argument("--only", nargs="+", help="names of the benchmarks to judge; default: all that can be")
    parser.add_argument("--limit", type=int, help="pairs of each benchmark but fetv; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/judged"))
    options = parser.parse_args()
    quiet()
    roots = roots_of(options)
    by_think: dict[str, dict[str, Any]] = {}
    for think in THINK:
        runs = {name: judged(name, root, think=think, options=options) for name, root in roots.items()}
        by_think[think] = {name: figures(run) for name, run in runs.items()}
        if set(OUT_OF_DOMAIN) <= set(runs):
            by_think[think]["out-of-domain"] = figures_of(pooled_results([runs[name] for name in OUT_OF_DOMAIN]))
    if options.baselines:
        by_think |= baselines(roots, options)
    (options.out / "judged.json").write_text(json.dumps(by_think, indent=1) + "\n", encoding="utf-8")
    print(table(by_think))
    for name, model in by_think.items():
        for benchmark, own in model.items():
            if "parts" in own:
                print(f"\n{benchmark}, {name}:\n{table_of_parts(own['parts'])}")


def roots_of(options: argparse.Namespace) -> Roots:
    """The benchmarks that can be judged, with the folder of each."""
    roots: dict[str, Path | None] = dict.fromkeys((*BENCHMARKS, REVERSED))
    roots |= {"footage": options.footage} if options.footage else {}
    part = CHOOSE if options.choose else ""
    roots |= {f"{name}{part}": options.generated for name in (HARMED, OWN_PROMPT, ERAS)} if options.generated else {}
    roots |= {"fetv": options.data / "fetv"} if options.data else {}
    if unknown := set(options.only or ()) - set(roots):
        raise SystemExit(f"--only: found {', '.join(sorted(unknown))}, expected some of {', '.join(roots)}")
    return {name: root for name, root in roots.items() if not options.only or name in options.only}


def judged(name: str, root: Path | None, *, think: Think, options: argparse.Namespace) -> Run:
    """The run of a benchmark. Exits if the folder holds a run of another model."""
    folder = options.out / f"{name}-{think}"
    limit = None if name == "fetv" else options.limit
    sampling_params = SamplingParams(think=think)
    run = judge_benchmark(options.model, name, folder=folder, limit=limit, sampling_params=sampling_params, root=root)
    if run.config["model"] != options.model:
        raise SystemExit(f"{folder} judges {run.config['model']}, expected {options.model}; choose another --out")
    return run


def baselines(roots: Roots, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The figures of each measure: those of motion and pixels on pairs, ConSE on prompts."""
    from experiments.generated.baselines import ConseJudge, MiniLm, feature_judges
    from experiments.grow_tiny.teacher import Teacher

    archives = (options.generated or options.out) / "archives"
    teacher = Teacher.open(archives)
    judges: dict[str, tuple[Judge, tuple[str, ...]]] = {
        judge.feature.name: (judge, (HARMED, ERAS, REVERSED)) for judge in feature_judges(teacher)
    }
    judges |= {"conse": (ConseJudge(teacher=teacher, minilm=MiniLm(archives)), (OWN_PROMPT,))}
    return {
        measure: {
            name: figures(
                evaluate(judge, name, folder=options.out / f"{name}-{measure}", limit=options.limit, root=roots[name])
            )
            for name in roots
            if name.removesuffix(CHOOSE) in names
        }
        for measure, (judge, names) in judges.items()
    }


def pooled_results(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The statistics of several runs as one."""
    clips, pairs = [clip for run in runs for clip in run.clips], [pair for run in runs for pair in run.pairs]
    return results_of(clips, pairs, {key: record for run in runs for key, record in run.records.items()})


def figures(run: Run) -> dict[str, Any]:
    """The figures of a run; of harmed clips by harm and strength, too, and of prompts the share that is preferred to
    another."""
    result = figures_of(run.results)
    benchmark = run.config["benchmark"].removesuffix(CHOOSE)
    if benchmark == HARMED:
        result["parts"] = parts(run)
    if benchmark == OWN_PROMPT:
        result["pairs"] = {ALIGNMENT: to_plain(own_prompt_accuracy(run))}
    return result


def figures_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy on decided pairs by label, right marks by dimension, unreadable chains, and clips."""
    return {
        "pairs": {label: agreement["accuracy"] for label, agreement in results["labels"].items()},
        "marks": results["marks"],
        "unreadable": results["unreadable"],
        "clips": results["scored"],
    }


def own_prompt_accuracy(run: Run) -> Figure:
    """How often a clip has a higher reward under its own prompt than under another. Intervals resample prompts."""
    hits, groups = list[float](), list[str]()
    own = {clip.video: clip for clip in run.clips if clip.ratings[ALIGNMENT] == 1}
    for clip in run.clips:
        if clip.ratings[ALIGNMENT] == 0:
            margin = reward_of(run.records[key_of(own[clip.video])], ALIGNMENT) - reward_of(
                run.records[key_of(clip)], ALIGNMENT
            )
            hits.append(float("nan") if np.isnan(margin) else float(margin > 0))
            groups.append(clip.group)
    return share(np.array(hits), np.array(groups))


def parts(run: Run) -> dict[str, dict[str, Any]]:
    """The accuracy by strength, by dimension and by harm."""
    return {
        kind: {name: to_plain(_accuracy([pair for pair in run.pairs if part(pair) == name], run)) for name in names}
        for kind, (part, names) in {
            key: (part, sorted({part(pair) for pair in run.pairs})) for key, part in _PARTS.items()
        }.items()
    }


def _harmed_state(pair: Pair) -> str:
    """'mild melt': of the side that is not sound."""
    return next(source for source in (pair.source_a, pair.source_b) if source and source != "sound")


_PARTS: Mapping[str, Callable[[Pair], str]] = {
    "strength": lambda pair: _harmed_state(pair).partition(" ")[0],
    "dimension": lambda pair: HARMS[_harmed_state(pair).partition(" ")[2]].acts,
    "harm": lambda pair: _harmed_state(pair).partition(" ")[2],
}


def _accuracy(pairs: Sequence[Pair], run: Run) -> Figure:
    items = decided_pairs(pairs, run.records)
    return share(items.value_N, items.group_N)


def table(by_think: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a row for each benchmark and label, and for each measure."""
    rows = ["| split | pairs, thinking | pairs, without | marks |", "|---|---|---|---|"]
    for name, thinking in by_think["on"].items():
        for label, figure in thinking["pairs"].items():
            without = by_think["off"][name]["pairs"][label]
            marks = (thinking["marks"] or {}).get("all")
            row = f"{name}{'' if label == 'overall' else f', {label}'}"
            cells = [with_count(each) if each else "" for each in (figure, without, marks)]
            rows.append(f"| {row} | {' | '.join(cells)} |")
    for measure, by_name in by_think.items():
        if measure not in THINK:
            rows += [
                f"| {name}, by {measure} | | {with_count(*own['pairs'].values())} | |" for name, own in by_name.items()
            ]
    return "\n".join(rows)


def table_of_parts(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a row for each part of a benchmark."""
    rows = ["| part | pairs |", "|---|---|"]
    rows += [f"| {name} | {with_count(figure)} |" for by_name in parts.values() for name, figure in by_name.items()]
    return "\n".join(rows)


def with_count(figure: Mapping[str, Any]) -> str:
    """`.812 [.780, .844], n = 445`."""
    return f"{format_figure(figure, '.3f')}, n = {figure['n']}"


if __name__ == "__main__":
    main()
