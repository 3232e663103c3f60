"""`descore evaluate`, `descore benchmarks` and `descore report`: measure agreement with people, list what it can be
measured on, and make a page of runs."""

import json as json_lines
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import check_page, echo, print_error, reported_errors
from descore.errors import ConfigError, DescoreError, VideoError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from descore.evaluation.benchmarks import Judgements
    from descore.evaluation.judges import Judge
    from descore.evaluation.layouts import Benchmark
    from descore.evaluation.runs import Run
    from descore.report.findings import ModelDifference
    from descore.report.tables import NamedRun

REPORT_FILE = "report.html"
"""The page of several models, in their folder."""
STRESS_FILE = "stress.json"
"""Where `descore stress` writes its results, inside its folder."""

_RUNS_LEGEND = (
    "Values with the number of pairs, and below them 95 % intervals drawn by prompt. Difference: accuracy minus that "
    "of {first} on the pairs that both scored; where its interval leaves out 0, the two differ."
)

JudgeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint: folder, hub id, or the bundled 'tiny' (default); or a hand-made feature to read figures "
        "against: 'sharpness', 'jerk'. Give it again for others: all are judged, and compared with the first. With "
        "--scores, the name to show.",
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
    models: JudgeNames = None,
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    quantize: opt.Quantize = None,
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
    """Measure how well a reward model agrees with people; or several, one after another, side by side.

    Each clip is scored once and recorded at once: the same command resumes an interrupted run, and tries clips without
    a score again. A folder holds one run; other options are refused. Of several models the folder holds a run of each,
    and report.html; one that cannot be opened or run is named, and the others go on."""
    with reported_errors(debug=debug):
        from descore.cli.evaluation_output import print_run
        from descore.cli.scoring import open_judge, progress_bar
        from descore.evaluation.benchmarks import find_benchmark, load
        from descore.evaluation.judges import read_scores
        from descore.evaluation.results import labels_of

        if tie_margin is not None and not 0 < tie_margin < math.inf:
            raise ConfigError(f"--tie-margin is {tie_margin:g}; expected a positive number, such as VideoScore's 0.5")
        named, row = _named_models(models or [], scores=scores), find_benchmark(benchmark)
        model = next(iter(named.values()), None)
        options: dict[str, Any] = {
            "paradigm": paradigm,
            "rubric": rubric,
            "quantize": quantize,
            "device": device,
            "batch_size": batch_size,
            "engine": engine,
            "sampling_params": {
                "think": think,
                "samples": samples,
                "seed": seed,
                "temperature": temperature,
                "max_chain_tokens": max_chain_tokens,
            },
        }
        with progress_bar(time_remaining=True) as bar:
            task = bar.add_task(f"reading {row.name}", total=None)
            judgements = load(row, root=root, limit=limit)
            work = _Evaluation(row, judgements, limit=limit, tie_margin=tie_margin, bar=bar, task=task)
            if len(named) > 1:
                config = {"model": "compare", "think": think, "paradigm": paradigm}
                folder = out or _default_folder(config, row, limit, rubric)
                runs, errors = _evaluate_each(named, work, folder=folder, **options)
            else:
                bar.update(task, description=f"opening {scores or model or 'tiny'}")
                judge: Judge
                if scores is not None:
                    labels = labels_of(judgements.clips, judgements.pairs)
                    judge = read_scores(scores, clips=judgements.clips, labels=labels, model=model)
                else:
                    judge = open_judge(model or "tiny", **options)
                folder = out or _default_folder(judge.config, row, limit, rubric)
                runs, errors = [work.run(judge, folder=folder)], []
        if len(named) > 1:
            _print_runs(runs, errors, folder=folder, json=json)
        else:
            print_run(runs[0], folder=folder, json=json)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """What the models of a command have in common."""

    row: "Benchmark"
    judgements: "Judgements"
    limit: int | None
    tie_margin: float | None
    bar: "Progress"
    task: "TaskID"

    def run(self, judge: "Judge", *, folder: Path) -> "Run":
        """The finished run of a judge."""
        from descore.evaluation.runs import run_evaluation

        row, total = self.row, len(self.judgements.clips)
        self.bar.reset(self.task, total=total, description="scoring")
        return run_evaluation(
            judge,
            self.judgements,
            folder=folder,
            benchmark=row.name,
            title=row.title,
            licence=row.licence,
            published=row.published,
            limit=self.limit,
            tie_margin=self.tie_margin,
            on_progress=lambda done, total: self.bar.update(
                self.task, completed=done, description="scoring" if done < total else "counting"
            ),
        )


def _named_models(models: Sequence[str], *, scores: Path | None) -> dict[str, str]:
    """Models by the names of their folders in the run's. ConfigError for one that is given twice."""
    if scores is not None and len(models) > 1:
        raise ConfigError("--scores: one table is judged at a time, and --model names it; give one --model")
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise ConfigError(f"--model {twice} is given twice; name each once")
    short = [_slug(Path(model).name or model) for model in models]
    return {name if short.count(name) == 1 else _slug(model): model for name, model in zip(short, models, strict=True)}


def _evaluate_each(
    named: Mapping[str, str],
    work: _Evaluation,
    *,
    folder: Path,
    **options: Any,  # noqa: ANN401  # of `open_judge`
) -> "tuple[list[Run], list[DescoreError]]":
    """The runs of several models, each below `folder`, and the errors of those that have none. One model is in memory
    at a time."""
    from descore.cli.scoring import forget_model, open_judge

    runs, errors = [], []
    for number, (name, model) in enumerate(named.items(), start=1):
        work.bar.reset(work.task, total=None, description=f"opening {model}, {number} of {len(named)}")
        try:
            runs.append(work.run(open_judge(model, **options), folder=folder / name))
        except DescoreError as error:
            errors.append(error.with_traceback(None))  # which would keep the model
            print_error(f"{name}: {error}")
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which features do not import
                raise
            errors.append(ConfigError("too large for the memory of its device; give a smaller --batch-size"))
            print_error(f"{name}: {errors[-1]}")
        forget_model()
    return runs, errors


def _print_runs(runs: "Sequence[Run]", errors: Sequence[DescoreError], *, folder: Path, json: bool) -> None:
    """Write the report of several models and print their figures. Models without a run and clips without a score make
    the exit code."""
    from descore.cli.evaluation_output import print_failures
    from descore.evaluation.records import to_line, to_plain
    from descore.io import atomic_write
    from descore.report.findings import model_differences
    from descore.report.page import render
    from descore.report.tables import name_runs

    named = name_runs(runs)
    for one in named:
        results = one.run.results
        if results["failures"]:
            print_failures(results["failures"], scored=results["scored"], of=results["of"], model=one.name)
    if runs:
        atomic_write(folder / REPORT_FILE, render(runs))
        differences = model_differences(named)
        if json:
            for one in named:
                echo(to_line({"kind": "run", "model": one.name, "folder": one.run.folder_name, **one.run.results}))
            for row in differences:
                names = {"model": row.run.name, "first": row.first.name, "label": row.label}
                echo(to_line({"kind": "difference", **names, **to_plain(row.difference)}))
        else:
            _show_runs(named, differences, folder=folder)
    if errors:
        raise typer.Exit(errors[0].exit_code)
    if any(run.results["failures"] for run in runs):
        raise typer.Exit(VideoError.exit_code)


def _show_runs(named: "Sequence[NamedRun]", differences: "Sequence[ModelDifference]", *, folder: Path) -> None:
    """Print a table of the models for each label."""
    from descore.cli.evaluation_output import NONE, figure_text, show_figures
    from descore.cli.output import console, with_count
    from descore.evaluation.records import to_plain
    from descore.report.text import one_line

    screen, first = console(), named[0]
    heading = f"{with_count(len(named), 'model')} on {first.run.title}"
    screen.print(one_line(heading), style="bold", markup=False)
    change = {(row.run.style, row.label): to_plain(row.difference.accuracy) for row in differences}
    for label in dict.fromkeys(label for one in named for label in one.run.results["labels"]):
        rows = []
        for one in named:
            figures = one.run.results["labels"][label]
            correlation, difference = figures["correlation"], change.get((one.style, label))
            rows.append(
                (
                    one_line(one.name),
                    figure_text(figures["accuracy"]),
                    figure_text(figures["with_ties"]["figure"]) if figures["with_ties"]["tie_rate"] else NONE,
                    NONE if correlation is None else figure_text(correlation["all"]["spearman"]),
                    NONE if difference is None else figure_text(difference),
                )
            )
        screen.print()
        show_figures(screen, (one_line(label), "accuracy", "with ties", "Spearman", "difference"), rows)
    screen.print(f"\n{_RUNS_LEGEND.format(first=one_line(first.name))}", style="dim", markup=False)
    echo(f"\nThe runs: {folder}\nThe page: {folder / REPORT_FILE}; open it in a browser")


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
        from descore.cli.pairs import report_table
        from descore.data.tables import is_sharded, is_table
        from descore.evaluation.runs import RUN_FILE, read_run
        from descore.io import atomic_write
        from descore.report.page import render

        check_page(out)
        tables = [folder for folder in folders if is_table(folder) and (not folder.is_dir() or is_sharded(folder))]
        if column is not None and not tables:
            raise ConfigError("--column: for a scored table; leave it out")
        if tables:
            report_table(folders, out=out, column=column)
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
    return Path("runs") / "-".join(_slug(str(part)) for part in parts if part)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)


def _benchmark_record(row: "Benchmark") -> dict[str, object]:
    keys = ("name", "title", "kind", "size", "labels", "files", "how_to_get", "licence", "notes")
    return {**{key: getattr(row, key) for key in keys}, "published": [asdict(figure) for figure in row.published]}


def _read_stress(path: Path) -> dict[str, Any]:
    from descore.evaluation.records import StressFields, check_fields
    from descore.io import read_json_object

    record = read_json_object(path)
    check_fields(record, StressFields, file=path, advice="expected what descore stress has written")
    return record
