"""Print evaluations, stress tests and benchmarks: tables for people, or lists on a narrow terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from descore.cli.errors import echo, print_error
from descore.cli.output import console, key_value_grid, name_first
from descore.errors import VideoError
from descore.evaluation.features import HACK_MEASURES, LEAST_CHANGE
from descore.evaluation.records import to_line, to_plain
from descore.evaluation.results import LEAST_CLIPS
from descore.report.text import mode_suffix, one_line, plain, signed
from descore.types import DIMENSIONS

if TYPE_CHECKING:
    from descore.evaluation.features import GeneratorChange
    from descore.evaluation.layouts import Benchmark
    from descore.evaluation.runs import Run
    from descore.evaluation.stress import GeneratorComparison, StressResults, StressRow

NONE = "–"
"""In the place of a figure."""
_MAX_NAMED = 4
"""Failed clips that an error line names."""
_MIN_TABLE_WIDTH = 72
"""Columns, below which a table is a list."""

_CELL_WIDTH = 12
"""Columns that a figure needs."""

_EVALUATION_TITLES = ("label", "accuracy", "with ties", "held out", "ties", "Spearman")
_EVALUATION_LEGEND = (
    "Values with the number of pairs, and below them 95 % intervals drawn by prompt. Accuracy: of the decided pairs; "
    "chance is 0.5. With ties: of all pairs, where a difference of rewards up to the threshold (below the share of "
    "ties) is a tie; the threshold is fitted on the same pairs, or, held out, on the other half of the prompts."
)
_SPREAD_TITLES = ("label", "AUROC", "margin alone", "gain", "clear", "right, if clear")
_SPREAD_LEGEND = (
    "AUROC: how well |margin| over its standard error tells wrong pairs from right ones; chance is 0.5. Margin alone: "
    "the same by |margin|, without the spread; gain is the difference. Clear: the share of pairs whose 95 % interval "
    "of the margin leaves out 0, and the accuracy on these."
)
_MARGIN_LEGEND = " Margin: of all pairs; ties are right where rewards differ by less than {margin:g}."
_STRESS_TITLES = ("change", "should be", "as expected", "shift", "left out")
_STRESS_LEGEND = (
    "As expected: the share of clips whose reward fell (lower), or shifted by at most {tolerance} deviations (same), "
    "with the number of clips and, below, the 95 % interval drawn by prompt. Shift: the mean, in deviations of the "
    "unchanged clips' rewards. Left out: clips that a change has nothing to say of, such as those that do not move."
)
_GENERATORS_LEGEND = (
    "Change: of the mean, with its interval drawn by prompt: of 95 % for the reward, and so wide for the measures that "
    "all of them together raise a false alarm in a twentieth of all comparisons. Worse: the interval lies on the side "
    "of the hack, and the change is {least} deviations of the clips before or more."
)
_FIGURE_TITLES = {"accuracy": "without ties", "with_ties": "with ties", "spearman": "Spearman"}


def print_run(run: "Run", *, folder: Path, json: bool) -> None:
    """Print the results of an evaluation. Clips without a score come first, on standard error, and make the exit
    code 4."""
    results = run.results
    if results["failures"]:
        print_failures(results["failures"], scored=results["scored"], of=results["of"])
    if json:
        echo(to_line(results))
    else:
        _show_run(console(), run, folder)
    if results["failures"]:
        raise typer.Exit(VideoError.exit_code)


def print_stress(results: "StressResults", config: Mapping[str, Any], *, file: Path | None, json: bool) -> None:
    """Print the results of a stress test. Clips without a score come first, on standard error, and make the exit
    code 4. file: where the results were written, if anywhere."""
    if results.failures:
        print_failures(results.failures, scored=results.scored, of=results.clips)
    for row in results.rows:
        if row.failures:
            print_error(f"{row.perturbation}: {len(row.failures):,} clips not scored: {_named(row.failures)}")
    if json:
        for row in results.rows:
            echo(to_line(to_plain(row)))
    else:
        _show_stress(console(), results, config, file)
    if results.failures or any(row.failures for row in results.rows):
        raise typer.Exit(VideoError.exit_code)


def print_generators(
    results: "GeneratorComparison", config: Mapping[str, Any], *, file: Path | None, json: bool
) -> None:
    """Print how two generators differ. Clips without a score come first, on standard error."""
    if results.failures:
        print_failures(results.failures, scored=sum(results.scored.values()), of=sum(results.clips.values()))
    if json:
        for row in results.changes:
            echo(to_line(to_plain(row) | {"named": row.hack in results.hacks}))
    else:
        _show_generators(console(), results, config, file)


def show_benchmarks(benchmarks: Iterable["Benchmark"]) -> None:
    """Show each benchmark's name, size and labels."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in benchmarks:
        grid.add_row(row.name, Text.assemble(f"{row.title}: {row.size}\n", (", ".join(row.labels), "dim")))
    console().print(grid, Text("\ndescore benchmarks NAME says what to get and where to put it", style="dim"))


def show_benchmark(benchmark: "Benchmark") -> None:
    """Show all that is known of a benchmark, and the published figures."""
    facts = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "what": f"{benchmark.size}; people gave {'preferences' if benchmark.kind == 'pairs' else 'ratings'}",
        "labels": ", ".join(benchmark.labels),
        "files": ", ".join(benchmark.files),
        "to get": benchmark.how_to_get,
        "licence": benchmark.licence,
        "notes": benchmark.notes,
    }
    grid = key_value_grid((title, one_line(value)) for title, value in facts.items() if value)
    console().print(Group(grid, Text(), _published(benchmark)) if benchmark.published else grid)


def print_failures(failures: Sequence[Mapping[str, str]], *, scored: int, of: int, model: str = "") -> None:
    """Name clips without a score on standard error, with the model where there are several."""
    print_error(f"{model and f'{model}: '}scored {scored:,} of {of:,}; not scored: {_named(failures)}")


def _named(failures: Sequence[Mapping[str, str]]) -> str:
    return name_first([f"{failure['video']}: {failure['error']}" for failure in failures], limit=_MAX_NAMED)


def _show_run(screen: Console, run: "Run", folder: Path) -> None:
    results = run.results
    heading = f"{run.config['model']}{mode_suffix(run.config)}, on {run.title}"
    screen.print(Text(one_line(heading), style="bold"))
    if not results["failures"]:
        screen.print(f"scored {results['scored']:,} of {results['of']:,}")
    for warning in _run_warnings(results):
        screen.print(Text(f"! {warning}", style="bold yellow"))
    screen.print()
    _show_labels(screen, results["labels"])
    spreads = {label: s for label, figures in results["labels"].items() if (s := figures.get("spread")) is not None}
    if spreads:
        _show_spreads(screen, spreads, samples=run.config["samples"])
    if results["marks"]:
        screen.print(Text(f"\nMarks right: {_marks(results['marks'])}"))
    if results["scored"]:
        screen.print(f"\n{results['seconds'] / results['of']:.2f} s a clip, {results['seconds']:,.0f} s in all")
    screen.print(Text(plain(f"The run: {folder}\nNext: descore report {folder}")), soft_wrap=True)


def _run_warnings(results: Mapping[str, Any]) -> list[str]:
    counts = {
        "chains were cut off at the token limit": results["truncated"],
        "chains have no verdict that can be read": results["unreadable"],
        "chains say that the subject or the dynamics cannot be known": results.get("partial_overall"),
        "chains have no answer that can be read, and were left out": results.get("left_out"),
    }
    return [f"{count:,} {text}" for text, count in counts.items() if count]


def _tie_margin(labels: Mapping[str, Any]) -> float | None:
    """That the run was counted with, if with any."""
    counted = (figures.get("with_tie_margin") for figures in labels.values())
    return next((figure["threshold"] for figure in counted if figure), None)


def _label_cells(label: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The label, then a cell for each title after it."""
    tied, held_out, correlation = figures["with_ties"], figures["with_ties_held_out"], figures["correlation"]
    has_ties = bool(tied["tie_rate"])
    by_margin = figures.get("with_tie_margin")
    return (
        one_line(label),
        figure_text(figures["accuracy"]),
        figure_text(tied["figure"]) if has_ties else NONE,
        figure_text(held_out["figure"]) if has_ties else NONE,
        *([figure_text(by_margin["figure"])] if by_margin else []),
        f"{tied['tie_rate']:.0%}\n{_threshold(tied)}" if has_ties else "0%" if tied["figure"]["n"] else NONE,
        NONE if correlation is None else figure_text(correlation["all"]["spearman"]),
    )


def _show_labels(screen: Console, labels: Mapping[str, Any]) -> None:
    rows, margin = [_label_cells(label, figures) for label, figures in labels.items()], _tie_margin(labels)
    titles = [*_EVALUATION_TITLES[:4], *([f"margin {margin:g}"] if margin else []), *_EVALUATION_TITLES[4:]]
    if not rows:
        screen.print("The benchmark has no labels; nothing to hold the rewards against.")
    else:
        show_figures(screen, titles, rows)
    legend = _EVALUATION_LEGEND + (_MARGIN_LEGEND.format(margin=margin) if margin else "")
    screen.print(Text(f"\n{legend}", style="dim"))


def _show_spreads(screen: Console, spreads: Mapping[str, Mapping[str, Any]], *, samples: int | None) -> None:
    """What the spread of the chains is worth, by label."""
    chains = "" if samples is None else f" of {samples} chains"
    screen.print(Text(f"\nThe spread{chains}: does it tell wrong pairs from right ones?\n", style="bold"))
    names = ("auroc", "auroc_margin", "gain", "clear", "clear_accuracy")
    show_figures(
        screen,
        _SPREAD_TITLES,
        [(one_line(label), *(figure_text(spread[name]) for name in names)) for label, spread in spreads.items()],
    )
    for label, spread in spreads.items():
        shares = zip(spread["shares"], spread["accuracy"], spread["accuracy_margin"], strict=True)
        parts = [f"{share:.0%}: {_share(sure)} ({_share(margin)})" for share, sure, margin in shares]
        named = f", {one_line(label)}" if len(spreads) > 1 else ""
        screen.print(f"\nAccuracy on the surest share (by margin alone){named}: {', '.join(parts)}")
    screen.print(Text(f"\n{_SPREAD_LEGEND}", style="dim"))


def show_figures(screen: Console, titles: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """A row for each label, as a table or, on a narrow terminal, as a list."""
    if screen.width < max(_MIN_TABLE_WIDTH, _CELL_WIDTH * len(titles)):
        for label, *cells in rows:
            named = zip(titles[1:], (cell.replace("\n", ", ") for cell in cells), strict=True)
            screen.print(Text("\n".join([label, *(f"  {title} {cell}" for title, cell in named if cell != NONE)])))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(titles[0], overflow="fold")
    for title in titles[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    screen.print(table)


def _threshold(tied: Mapping[str, Any]) -> str:
    return "none" if tied["threshold"] < 0 else f"≤ {tied['threshold']:.3g}"


def figure_text(figure: Mapping[str, Any]) -> str:
    """A figure with its number of pairs, and below it its interval."""
    if figure["value"] is None:
        return NONE
    text = f"{figure['value']:.3f} ({figure['n']:,})"
    if figure["low"] is None:
        return text
    low, high = (round(figure[end], 2) + 0.0 for end in ("low", "high"))  # no "-0.00"
    return f"{text}\n{low:.2f}{' to ' if low < 0 else '–'}{high:.2f}"


def _marks(marks: Mapping[str, Any]) -> str:
    by_dimension = ", ".join(f"{name} {_share(marks[name])}" for name in DIMENSIONS)
    asked = f"{_share(marks['asked'])} of the {marks['asked']['n']:,} that the prompts ask for"
    return f"{_share(marks['all'])} of {marks['all']['n']:,}, {asked}; {by_dimension}"


def _share(figure: Mapping[str, Any]) -> str:
    return NONE if figure["value"] is None else f"{figure['value']:.2f}"


def _show_stress(screen: Console, results: "StressResults", config: Mapping[str, Any], file: Path | None) -> None:
    benchmark = f", on {config['benchmark']}" if config["benchmark"] else ""
    screen.print(Text(one_line(f"{config['model']}{mode_suffix(config)}{benchmark}"), style="bold"))
    if not results.failures:
        screen.print(f"scored {results.scored:,} of {results.clips:,}")
    screen.print()
    _show_perturbations(screen, results.rows)
    screen.print(Text(f"\n{_STRESS_LEGEND.format(tolerance=results.tolerance)}", style="dim"))
    wrong = [row.perturbation for row in results.rows if row.as_expected is False]
    few = [row.perturbation for row in results.rows if row.n and row.as_expected is None]
    if any(row.as_expected is not None for row in results.rows):
        screen.print(Text(f"\nNot as expected for most clips: {', '.join(wrong) or 'nothing'}."))
    if few:
        screen.print(Text(f"\nToo few clips to conclude from (under {LEAST_CLIPS}): {', '.join(few)}."))
    if file is not None:
        screen.print(Text(plain(f"Written: {file}\nNext: descore report {file.parent}")), soft_wrap=True)


def _show_perturbations(screen: Console, rows: Sequence["StressRow"]) -> None:
    if screen.width < _MIN_TABLE_WIDTH:
        for row in rows:
            figure, shift, left_out = (cell.replace("\n", ", ") for cell in _stress_cells(row))
            text = f"  {row.expected}: {figure}\n  shift {shift}" + (f"\n  left out {left_out}" if left_out else "")
            screen.print(Text.assemble(f"{row.perturbation}\n", (text, "bold red" if row.as_expected is False else "")))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in _STRESS_TITLES[:2]:
        table.add_column(title)
    for title in _STRESS_TITLES[2:]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        figure, shift, left_out = _stress_cells(row)
        table.add_row(
            Text.assemble(row.perturbation, "\n", (row.why, "dim")),
            row.expected,
            Text(figure, style="bold red" if row.as_expected is False else ""),
            shift,
            left_out,
        )
    screen.print(table)


def _stress_cells(row: "StressRow") -> tuple[str, str, str]:
    """The cells under the last three titles."""
    shift = NONE if math.isnan(row.shift) else signed(row.shift, digits=2)
    left_out = f"{row.left_out:,}" if row.left_out else ""
    if not row.n:
        return NONE, shift, left_out
    figure = f"{row.figure.value:.2f} ({row.figure.n:,})"
    if not math.isnan(row.figure.low):
        figure += f"\n{row.figure.low:.2f}–{row.figure.high:.2f}"
    return figure, shift, left_out


def _show_generators(
    screen: Console, results: "GeneratorComparison", config: Mapping[str, Any], file: Path | None
) -> None:
    counts = ", ".join(f"{results.scored[side]:,} of {results.clips[side]:,} clips {side}" for side in results.clips)
    screen.print(Text(one_line(f"{config['model']}{mode_suffix(config)}"), style="bold"))
    by_prompt = f"compared by prompt, {results.prompts:,} on both sides" if results.matched else "not paired by prompt"
    left_out = f"; {results.left_out:,} of other prompts left out" if results.left_out else ""
    screen.print(f"scored {counts}; {by_prompt}{left_out}\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for row in results.changes:
        table.add_row(*_change_cells(row))
    screen.print(table)
    screen.print(Text(f"\n{_GENERATORS_LEGEND.format(least=LEAST_CHANGE)}", style="dim"))
    if all(row.worse is None for row in results.changes):
        screen.print(Text(f"\nToo few clips or prompts to conclude from (under {LEAST_CLIPS} clips on a side)."))
    elif results.hacks:
        screen.print(Text(f"\nThe reward went up while measures say worse: {', '.join(results.hacks)}.", "bold red"))
    else:
        screen.print(Text("\nNo measure says worse while the reward went up."))
    if file is not None:
        screen.print(Text(plain(f"Written: {file}")), soft_wrap=True)


def _change_cells(row: "GeneratorChange") -> tuple[Text, str, str, str, Text]:
    """The name with what it recognizes, both means, the change with its interval, and the conclusion."""
    measure = HACK_MEASURES.get(row.name)
    digits = 2 if measure is None else measure.digits

    def number(value: float) -> str:
        return NONE if math.isnan(value) else f"{value:.{digits}f}"

    change = NONE if math.isnan(row.figure.value) else signed(row.figure.value, digits=digits)
    if not math.isnan(row.figure.low):
        change += f"\n{signed(row.figure.low, digits=digits)} to {signed(row.figure.high, digits=digits)}"
    worse, better = ("other", "") if measure is not None and measure.worse == "either" else ("worse", "better")
    if row.hack is None:
        worse, better = "down", "up"
    conclusion = Text(worse, style="bold red") if row.worse else Text(better if row.better else "")
    return (
        Text.assemble(row.name, "\n", (row.hack or "", "dim")),
        number(row.before),
        number(row.after),
        change,
        conclusion,
    )


def _published(benchmark: "Benchmark") -> RenderableType:
    """A row for each model and label, with the published figures and their source."""
    kinds = [kind for kind in _FIGURE_TITLES if any(figure.figure == kind for figure in benchmark.published)]
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for figure in benchmark.published:
        rows.setdefault((figure.label, figure.model, figure.source), {})[figure.figure] = figure.value
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("label")
    table.add_column("model")
    for kind in kinds:
        table.add_column(_FIGURE_TITLES[kind], justify="right")
    table.add_column("source")
    for (label, model, source), values in rows.items():
        table.add_row(label, model, *(f"{values[kind]:.3f}" if kind in values else "" for kind in kinds), source)
    return table
