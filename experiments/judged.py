"""What the bundled model gets right, on splits that it was never trained on.

    python experiments/judged.py [--model tiny] [--footage runs/footage] [--data FOLDER] [--out runs/judged]

Each row of the table is a run of `descore evaluate`, with thinking and without; run again, it goes on where it was
stopped. FOLDER holds fetv/ (see `descore benchmarks fetv`). The figures go to judged.json in --out, and as a table to
the screen."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from descore.evaluation.results import results_of
from descore.evaluation.runs import Run, read_run

OUT_OF_DOMAIN = ("drawn-combinations", "drawn-wordings", "drawn-generators")
DRAWN = ("drawn", *OUT_OF_DOMAIN)
THINKING = ("on", "off")


def main() -> None:
    """Run, or go on running; then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--footage", type=Path, help="store of real footage, made by descore world footage")
    parser.add_argument("--data", type=Path, help="folder that holds fetv/")
    parser.add_argument("--limit", type=int, help="pairs of each drawn split and of footage; all 500 without it")
    parser.add_argument("--out", type=Path, default=Path("runs/judged"))
    options = parser.parse_args()
    roots: dict[str, Path | None] = dict.fromkeys(DRAWN)
    roots |= {"footage": options.footage} if options.footage else {}
    roots |= {"fetv": options.data / "fetv"} if options.data else {}
    found: dict[str, dict[str, Any]] = {}
    for think in THINKING:
        runs = {name: evaluated(name, root, think=think, options=options) for name, root in roots.items()}
        found[think] = {name: figures(run.results) for name, run in runs.items()}
        found[think]["out-of-domain"] = figures(pooled([runs[name] for name in OUT_OF_DOMAIN]))
    (options.out / "judged.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def evaluated(name: str, root: Path | None, *, think: str, options: argparse.Namespace) -> Run:
    """One run, finished."""
    folder = options.out / f"{name}-{think}"
    command = [sys.executable, "-m", "descore", "evaluate", "--model", options.model, "--benchmark", name]
    command += ["--think", think, "--batch-size", "32", "--out", str(folder)]
    command += ["--root", str(root)] if root else []
    command += ["--limit", str(options.limit)] if options.limit and name != "fetv" else []
    subprocess.run(command, check=True)
    return read_run(folder)


def pooled(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The statistics of several runs as one."""
    clips, pairs = [clip for run in runs for clip in run.clips], [pair for run in runs for pair in run.pairs]
    return results_of(clips, pairs, {key: record for run in runs for key, record in run.records.items()})


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """Decided pairs right by label, marks right by dimension, chains that could not be read."""
    return {
        "pairs": {label: agreement["accuracy"] for label, agreement in results["labels"].items()},
        "marks": results["marks"],
        "unreadable": results["unreadable"],
        "clips": results["scored"],
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each split and label."""
    rows = ["| split | pairs, thinking | pairs, without | marks |", "|---|---|---|---|"]
    for name, thinking in found["on"].items():
        for label, figure in thinking["pairs"].items():
            without = found["off"][name]["pairs"][label]
            marks = (thinking["marks"] or {}).get("all")
            rows.append(
                f"| {name}{'' if label == 'overall' else f', {label}'} | {shown(figure)} | {shown(without)} "
                f"| {shown(marks) if marks else ''} |"
            )
    return "\n".join(rows)


def shown(figure: Mapping[str, Any]) -> str:
    """`.812 [.780, .844], n = 445`."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}], n = {figure['n']}"


if __name__ == "__main__":
    main()
