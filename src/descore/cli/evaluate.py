"""`descore evaluate`, `descore benchmarks` and `descore report`: measure agreement with people, list what it can be
measured on, and make a page of runs."""

import json as json_lines
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from descore.evaluation.judges import Judge
    from descore.evaluation.layouts import Benchmark

STRESS_FILE = "stress.json"
"""Where `descore stress` writes its results, inside its folder."""

JudgeName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint: folder, hub id, or the bundled 'tiny' (default); or a hand-made feature to read figures "
        "against: 'sharpness', 'jerk'. With --scores, the name to show.",
    ),
]
BenchmarkName = Annotated[
    str, typer.Option("--benchmark", "-b", help="A benchmark's name, or a table of your own; see descore benchmarks.")
]
ScoreTable = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        help="Evaluate a table of scores in place of a model: columns video, reward, and optionally prompt and named "
        "dimensions. The lines of descore score --json will do.",
    ),
]
TieMargin = Annotated[
    float | None,
    typer.Option(
        "--tie-margin",
        help="Count ties by VideoScore's rule too: a tie is right where rewards differ by less than this (there 0.5, "
        "on scores from 1 to 4), a decided pair where their order is. It changes no score: the same run can be counted "
        "again with another one.",
    ),
]
RunFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="The run's folder. Default: runs/ and a name made of the options.")
]
BenchmarkArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="One benchmark, or a table of your own: .csv, .tsv, .jsonl, .json, .parquet."),
]
RunFolders = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR...|TABLE",
        help="Folders that descore evaluate or descore stress has written; or one scored table, as descore score "
        "TABLE writes it.",
    ),
]
MAX_REPORTED = 12
"""Prompts of a scored table whose best and worst clips a page shows."""
ReportColumn = Annotated[
    str | None,
    typer.Option("--column", help="Of a scored table: the column to divide the rewards by. Default: source."),
]
ReportFile = Annotated[
    Path, typer.Option("--out", "-o", help="Where the page is written; a page that is there is replaced.")
]


def evaluate_judge(
    *,
    benchmark: BenchmarkName,
    model: JudgeName = None,
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    scores: ScoreTable = None,
    root: opt.BenchmarkRoot = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    engine: opt.Engine = "native",
    limit: opt.Limit = None,
    tie_margin: TieMargin = None,
    out: RunFolder = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Measure how well a reward model agrees with people.

    Each clip is scored once and recorded at once: the same command resumes an interrupted run, and tries clips without
    a score again. A folder holds one run; other options are refused."""
    with reported_errors(debug=debug):
        from descore.cli.evaluation_output import print_run
        from descore.cli.scoring import open_judge, progress_bar
        from descore.evaluation.benchmarks import find_benchmark, load
        from descore.evaluation.judges import read_scores
        from descore.evaluation.results import labels_of
        from descore.evaluation.runs import run_evaluation

        if tie_margin is not None and not 0 < tie_margin < math.inf:
            raise ConfigError(f"--tie-margin is {tie_margin:g}; expected a positive number, such as VideoScore's 0.5")
        row = find_benchmark(benchmark)
        with progress_bar(time_remaining=True) as bar:
            task = bar.add_task(f"reading {row.name}", total=None)
            judgements = load(row, root=root, limit=limit)
            bar.update(task, description=f"opening {scores or model or 'tiny'}")
            judge: Judge
            if scores is not None:
                labels = labels_of(judgements.clips, judgements.pairs)
                judge = read_scores(scores, clips=judgements.clips, labels=labels, model=model)
            else:
                judge = open_judge(
                    model or "tiny",
                    paradigm=paradigm,
                    rubric=rubric,
                    device=device,
                    batch_size=batch_size,
                    engine=engine,
                    sampling_params={
                        "think": think,
                        "samples": samples,
                        "seed": seed,
                        "temperature": temperature,
                        "max_chain_tokens": max_chain_tokens,
                    },
                )
            folder = out or _default_folder(judge.config, row, limit, rubric)
            bar.update(task, description="scoring", total=len(judgements.clips))
            run = run_evaluation(
                judge,
                judgements,
                folder=folder,
                benchmark=row.name,
                title=row.title,
                licence=row.licence,
                published=row.published,
                limit=limit,
                tie_margin=tie_margin,
                on_progress=lambda done, total: bar.update(
                    task, completed=done, description="scoring" if done < total else "counting"
                ),
            )
        print_run(run, folder=folder, json=json)


def benchmarks(*, name: BenchmarkArgument = None, json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the benchmarks, or show one in full: labels, files, where to get them, published figures."""
    with reported_errors(debug=debug):
        from descore.cli.evaluation_output import show_benchmark, show_benchmarks
        from descore.evaluation.benchmarks import BENCHMARKS, find_benchmark

        rows = list(BENCHMARKS.values()) if name is None else [find_benchmark(name)]
        if json:
            for row in rows:
                echo(json_lines.dumps(_benchmark_record(row)))
        elif name is None:
            show_benchmarks(rows)
        else:
            show_benchmark(rows[0])


def report(
    *,
    folders: RunFolders,
    out: ReportFile = Path("report.html"),
    column: ReportColumn = None,
    debug: opt.Debug = False,
) -> None:
    """Make one self-contained page of HTML out of evaluation runs: agreement with people, beside published figures;
    reliability; what thinking changes; the worst mistakes with frames and chains. Of a scored table: failures, the best
    and worst clip of each prompt, and the rewards of each source. The page needs no network."""
    with reported_errors(debug=debug):
        from descore.cli.output import with_count
        from descore.data.tables import is_sharded, is_table
        from descore.evaluation.runs import RUN_FILE, read_run
        from descore.io import atomic_write, check_place
        from descore.report.page import render

        # By its suffix, so that a page never takes the place of a table.
        if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
            raise ConfigError(f"--out: found {out}, expected a page, such as report.html")
        check_place(out)
        tables = [folder for folder in folders if is_table(folder) and (not folder.is_dir() or is_sharded(folder))]
        if column is not None and not tables:
            raise ConfigError("--column: for a scored table; leave it out")
        if tables:
            _report_table(folders, out=out, column=column)
            return
        unique = list({folder.resolve(): folder for folder in folders}.values())
        stress = [_read_stress(folder / STRESS_FILE) for folder in unique if (folder / STRESS_FILE).is_file()]
        # A folder with stress results alone is no run.
        runs = [read_run(f) for f in unique if (f / RUN_FILE).is_file() or not (f / STRESS_FILE).is_file()]
        page = render(runs, stress=stress).encode()
        atomic_write(out, page)
        counts = {"run": len(runs), "stress test": len(stress)}
        contents = " and ".join(with_count(count, name) for name, count in counts.items() if count)
        echo(f"{out}: {contents}, {len(page) / 1e6:.1f} MB; open it in a browser")


def _report_table(tables: Sequence[Path], *, out: Path, column: str | None) -> None:
    """Write the page of a scored table."""
    from descore.cli.output import with_count
    from descore.cli.pairs import name_left_out
    from descore.io import atomic_write
    from descore.report.cards import render_scored
    from descore.rewards.overview import read_overview

    if len(tables) > 1:
        raise ConfigError(f"found {', '.join(map(str, tables))}; a page shows one scored table, or folders of runs")
    overview = read_overview(tables[0], prompts=MAX_REPORTED, column=column)
    page = render_scored(overview).encode()
    atomic_write(out, page)
    name_left_out(overview.left_out)
    shown = f"{len(overview.prompts):,} of {with_count(overview.of_prompts, 'prompt')} with frames"
    echo(f"{out}: {with_count(overview.rows, 'clip')}, {shown}, {len(page) / 1e6:.1f} MB; open it in a browser")


def _default_folder(config: Mapping[str, Any], benchmark: "Benchmark", limit: int | None, rubric: str | None) -> Path:
    """A folder under runs/ named by the options that people vary; a run of other options refuses the folder."""
    think = config["think"] and f"think-{config['think']}"
    name = Path(config["model"]).name
    parts = [
        name,
        Path(benchmark.name).stem,
        config.get("paradigm"),
        rubric and Path(rubric).stem,
        think,
        limit and f"first-{limit}",
    ]
    return Path("runs") / "-".join(re.sub(r"[^\w.]+", "-", str(part)) for part in parts if part)


def _benchmark_record(row: "Benchmark") -> dict[str, object]:
    from dataclasses import asdict

    keys = ("name", "title", "kind", "size", "labels", "files", "how_to_get", "licence", "notes")
    return {**{key: getattr(row, key) for key in keys}, "published": [asdict(figure) for figure in row.published]}


def _read_stress(path: Path) -> dict[str, Any]:
    from descore.evaluation.records import StressFields, check_fields
    from descore.io import read_json_object

    record = read_json_object(path)
    check_fields(record, StressFields, file=path, advice="expected what descore stress has written")
    return record
