"""What the bundled model gets right, on benchmarks that it was never trained on.

    python -m experiments.judged [--model tiny] [--footage runs/footage] [--data FOLDER] [--out runs/judged]

Each row of the table is an evaluation run, with thinking and without; a stopped script resumes. FOLDER holds fetv/ (see
`descore benchmarks fetv`). The figures go to judged.json in --out, and as a table to the screen."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from descore.evaluation.results import results_of
from descore.evaluation.runs import Run
from descore.scorer import SamplingParams
from descore.types import Think
from experiments.harness import BENCHMARKS, OUT_OF_DOMAIN, format_figure, judge_benchmark, quiet

THINK: tuple[Think, ...] = ("on", "off")


def main() -> None:
    """Judge every benchmark, write judged.json, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--footage", type=Path, help="store of real footage, made by experiments.footage")
    parser.add_argument("--data", type=Path, help="folder that holds fetv/")
    parser.add_argument("--limit", type=int, help="pairs of each drawn benchmark and of footage; default: all 500")
    parser.add_argument("--out", type=Path, default=Path("runs/judged"))
    options = parser.parse_args()
    quiet()
    roots: dict[str, Path | None] = dict.fromkeys(BENCHMARKS)
    roots |= {"footage": options.footage} if options.footage else {}
    roots |= {"fetv": options.data / "fetv"} if options.data else {}
    by_think: dict[str, dict[str, Any]] = {}
    for think in THINK:
        runs = {name: judged(name, root, think=think, options=options) for name, root in roots.items()}
        by_think[think] = {name: figures(run.results) for name, run in runs.items()}
        by_think[think]["out-of-domain"] = figures(pooled_results([runs[name] for name in OUT_OF_DOMAIN]))
    (options.out / "judged.json").write_text(json.dumps(by_think, indent=1) + "\n", encoding="utf-8")
    print(table(by_think))


def judged(name: str, root: Path | None, *, think: Think, options: argparse.Namespace) -> Run:
    """The run of a benchmark. Exits if the folder holds a run of another model."""
    folder = options.out / f"{name}-{think}"
    limit = None if name == "fetv" else options.limit
    sampling_params = SamplingParams(think=think)
    run = judge_benchmark(options.model, name, folder=folder, limit=limit, sampling_params=sampling_params, root=root)
    if run.config["model"] != options.model:
        raise SystemExit(f"{folder} judges {run.config['model']}, expected {options.model}; choose another --out")
    return run


def pooled_results(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The statistics of several runs as one."""
    clips, pairs = [clip for run in runs for clip in run.clips], [pair for run in runs for pair in run.pairs]
    return results_of(clips, pairs, {key: record for run in runs for key, record in run.records.items()})


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy on decided pairs by label, right marks by dimension, unreadable chains, and clips."""
    return {
        "pairs": {label: agreement["accuracy"] for label, agreement in results["labels"].items()},
        "marks": results["marks"],
        "unreadable": results["unreadable"],
        "clips": results["scored"],
    }


def table(by_think: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a row for each benchmark and label."""
    rows = ["| split | pairs, thinking | pairs, without | marks |", "|---|---|---|---|"]
    for name, thinking in by_think["on"].items():
        for label, figure in thinking["pairs"].items():
            without = by_think["off"][name]["pairs"][label]
            marks = (thinking["marks"] or {}).get("all")
            row = f"{name}{'' if label == 'overall' else f', {label}'}"
            cells = [with_count(each) if each else "" for each in (figure, without, marks)]
            rows.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_count(figure: Mapping[str, Any]) -> str:
    """`.812 [.780, .844], n = 445`."""
    return f"{format_figure(figure, '.3f')}, n = {figure['n']}"


if __name__ == "__main__":
    main()
