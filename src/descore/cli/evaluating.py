"""Run an evaluation under a progress bar, and show what came out: failures first.

In: options as the command line gives them. Out: a run directory; a table for people or a JSON object for programs, and
the exit code. Knows runs and the terminal; knows nothing of statistics or of how clips are scored."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from descore.cli.errors import print_error
from descore.cli.scoring import open_scorer, progress_bar
from descore.cli.screen import console
from descore.errors import VideoError
from descore.evaluation.benchmarks import Benchmark, Judgements, find_benchmark, load
from descore.evaluation.records import to_line
from descore.evaluation.runs import Judge, Run
from descore.evaluation.runs import evaluate as run_evaluation
from descore.report.text import one_line, way_in_words
from descore.types import DIMENSIONS, Paradigm

_NONE = "–"
_NAMED = 4  # failed clips that the first line names
_NARROW = 72  # columns, below which the table is a list
_HISTORY = 3600.0  # seconds of progress that the time left is estimated from: a batch may take minutes


def run_and_show(
    name: str,
    *,
    model: str | None,
    paradigm: Paradigm | None,
    scores: Path | None,
    root: Path | None,
    limit: int | None,
    out: Path | None,
    json: bool,
    batch_size: int,
    device: str | None,
    sampling_params: Mapping[str, Any],
) -> None:
    """The body of `descore evaluate`."""
    benchmark = find_benchmark(name)
    with progress_bar() as bar:
        bar.columns = (*bar.columns, TimeRemainingColumn())
        bar.speed_estimate_period = _HISTORY
        task = bar.add_task(f"reading {benchmark.name}", total=None)
        judgements = load(benchmark, root=root, limit=limit)
        bar.update(task, description=f"opening {scores or model or 'tiny'}")
        judge = _judge(
            model,
            scores,
            judgements,
            paradigm=paradigm,
            batch_size=batch_size,
            device=device,
            sampling_params=sampling_params,
        )
        folder = out or _default_folder(judge, benchmark, limit)
        bar.update(task, description="scoring", total=len(judgements.clips))

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, description="scoring" if done < total else "counting")

        run = run_evaluation(
            judge,
            judgements,
            folder=folder,
            benchmark=benchmark.name,
            title=benchmark.title,
            licence=benchmark.licence,
            published=benchmark.published,
            limit=limit,
            progress=advance,
        )
    show(run, folder=folder, json=json)


def show(run: Run, *, folder: Path, json: bool) -> None:
    """What a finished run found. Clips without a score come first, on standard error, and make the exit code 4."""
    results = run.results
    _complain_of_failures(results)
    if json:
        typer.echo(to_line(results))
    else:
        _show_for_people(console(), run, folder)
    if results["failures"]:
        raise typer.Exit(VideoError.exit_code)


def _judge(
    model: str | None,
    scores: Path | None,
    judgements: Judgements,
    *,
    paradigm: Paradigm | None,
    batch_size: int,
    device: str | None,
    sampling_params: Mapping[str, Any],
) -> Judge:
    if scores is not None:
        from descore.evaluation.results import labels_of
        from descore.evaluation.score_tables import read_scores

        labels = labels_of(judgements.clips, judgements.pairs)
        return read_scores(scores, clips=judgements.clips, labels=labels, model=model)
    from descore.evaluation.judges import FEATURES, FeatureJudge, ModelJudge
    from descore.scorer import SamplingParams

    if model is not None and model in FEATURES:
        return FeatureJudge(feature=FEATURES[model], batch_size=batch_size)
    params = SamplingParams(**sampling_params)
    params.resolved(paradigm)  # options that do not go together are refused before a large model is opened
    scorer = open_scorer(model or "tiny", paradigm=paradigm, device=device, batch_size=batch_size)
    return ModelJudge(scorer=scorer, sampling_params=params)


def _default_folder(judge: Judge, benchmark: Benchmark, limit: int | None) -> Path:
    """A name of the options that people vary; other differences are refused by the run itself."""
    config = judge.config
    think = config["think"] and f"think-{config['think']}"
    name = Path(config["model"]).name
    parts = [name, Path(benchmark.name).stem, config.get("paradigm"), think, limit and f"first-{limit}"]
    return Path("runs") / "-".join(re.sub(r"[^\w.]+", "-", str(part)) for part in parts if part)


def _complain_of_failures(results: Mapping[str, Any]) -> None:
    failures = results["failures"]
    if not failures:
        return
    named = "; ".join(f"{failure['video']}: {failure['error']}" for failure in failures[:_NAMED])
    more = f"; and {len(failures) - _NAMED:,} more" if len(failures) > _NAMED else ""
    print_error(f"scored {results['scored']:,} of {results['of']:,}; not scored: {named}{more}")


def _show_for_people(screen: Console, run: Run, folder: Path) -> None:
    results = run.results
    screen.print(Text(one_line(_heading(run)), style="bold"))
    if not results["failures"]:
        screen.print(f"scored {results['scored']:,} of {results['of']:,}")
    for flaw in _flaws(results):
        screen.print(Text(f"! {flaw}", style="bold yellow"))
    screen.print()
    rows = [_row(label, found) for label, found in results["labels"].items()]
    _show_rows(screen, rows)
    if results["marks"]:
        screen.print(Text(f"\nMarks right: {_marks(results['marks'])}"))
    if results["scored"]:
        screen.print(f"\n{results['seconds'] / results['of']:.2f} s a clip, {results['seconds']:,.0f} s in all")
    screen.print(Text(f"The run: {folder}\nNext: descore report {folder}"), soft_wrap=True)


def _heading(run: Run) -> str:
    return f"{run.config['model']}{way_in_words(run.config)}, on {run.title}"


def _flaws(results: Mapping[str, Any]) -> list[str]:
    told = {
        "chains were cut off at the token limit": results["truncated"],
        "chains have no verdict that can be read": results["unreadable"],
        "chains have no answer that can be read, and were left out": results.get("left_out"),
    }
    return [f"{count:,} {what}" for what, count in told.items() if count]


_TITLES = ("label", "accuracy", "with ties", "held out", "ties", "Spearman")
_LEGEND = (
    "Values with the number of pairs, and below them 95 % intervals drawn by prompt. Accuracy: of the decided pairs; "
    "chance is 0.5. With ties: of all pairs, where a difference of rewards up to the threshold (below the share of "
    "ties) is a tie; the threshold is fitted on the same pairs, or, held out, on the other half of the prompts."
)


def _row(label: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    tied, held_out, correlation = found["with_ties"], found["with_ties_held_out"], found["correlation"]
    has_ties = bool(tied["tie_rate"])
    return (
        one_line(label),
        _figure(found["accuracy"]),
        _figure(tied["figure"]) if has_ties else _NONE,
        _figure(held_out["figure"]) if has_ties else _NONE,
        f"{tied['tie_rate']:.0%}\n{_threshold(tied)}" if has_ties else "0%" if tied["figure"]["n"] else _NONE,
        _NONE if correlation is None else _figure(correlation["all"]["spearman"]),
    )


def _show_rows(screen: Console, rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        screen.print("The benchmark has no labels; nothing to hold the rewards against.")
    elif screen.width < _NARROW:
        for row in rows:
            told = [(title, value.replace("\n", ", ")) for title, value in zip(_TITLES[1:], row[1:], strict=True)]
            facts = (f"  {title} {value}" for title, value in told if value != _NONE)
            screen.print(Text("\n".join([row[0], *facts])))
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column(_TITLES[0], overflow="fold")
        for title in _TITLES[1:]:
            table.add_column(title, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        screen.print(table)
    screen.print(Text(f"\n{_LEGEND}", style="dim"))


def _threshold(tied: Mapping[str, Any]) -> str:
    return "none" if tied["threshold"] < 0 else f"≤ {tied['threshold']:.3g}"


def _figure(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return _NONE
    told = f"{figure['value']:.3f} ({figure['n']:,})"
    if figure["low"] is None:
        return told
    low, high = (round(figure[end], 2) + 0.0 for end in ("low", "high"))  # no "-0.00"
    return f"{told}\n{low:.2f}{' to ' if low < 0 else '–'}{high:.2f}"


def _marks(marks: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name} {_share(marks[name])}" for name in DIMENSIONS)
    asked = f"{_share(marks['asked'])} of the {marks['asked']['n']:,} that the prompts ask for"
    return f"{_share(marks['all'])} of {marks['all']['n']:,}, {asked}; {told}"


def _share(figure: Mapping[str, Any]) -> str:
    return _NONE if figure["value"] is None else f"{figure['value']:.2f}"
