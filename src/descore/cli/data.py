"""`descore data`: check tables of pairs, and convert other projects' tables into such tables."""

import json as json_lines
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError, DataError

if TYPE_CHECKING:
    from descore.data.validate import Finding, Probes, TableCheck
    from descore.evaluation.convert import ConversionSummary
    from descore.serving.votes import Vote

MAX_SHOWN = 50
"""Findings of each kind that are shown without --all."""
_MAX_NAMED = 6
"""Sources and picture sizes that the summary names."""
_MAX_THREADS = 8
_VOTES_LEGEND = (
    "shared: pairs with several raters. same: of every two raters on a pair, the share that chose the same; decided: "
    "of two who both chose a or b. alpha: Krippendorff's, ordinal, 1 is full agreement and 0 what chance gives. left: "
    "of a rater's decided choices, the share for the left side; near a half, unless the rater looks at the side."
)
_MODEL_LEGEND = (
    " model: of the pairs that the raters decided, the share that the rewards order as they do; read it beside decided."
)

data_app = typer.Typer(
    name="data",
    help="Check tables of pairs, convert other tables to them, or show how raters agree.",
    no_args_is_help=True,
)


@data_app.command("check")
def check_tables(
    *,
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE", help="Tables of pairs; several are the parts of a split.")
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="Measure chains in the tokens of this checkpoint, not in words."),
    ] = None,
    open_videos: Annotated[
        bool,
        typer.Option("--open/--no-open", help="Open every video; without it, clips are identified by their paths."),
    ] = True,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Videos opened at a time. Default: one a core, 8 at most.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as faults.")] = False,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"Show every finding, not the first {MAX_SHOWN} only.")
    ] = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Check every row of tables of pairs: show all that is wrong at once, and what the tables hold.

    A fault ends the command with exit code 5; a warning does so with --strict only."""
    with reported_errors(debug=debug):
        from descore.data.inspect import count_words
        from descore.data.validate import TableCheck, require_tables

        require_tables(tables)  # before a checkpoint or a video is opened
        length_of, unit = (count_words, "words") if checkpoint is None else (_token_counter(checkpoint), "tokens")
        probes = _probe_videos(tables, workers=workers) if open_videos else {}
        checked = TableCheck(tables, probes=probes, length_of=length_of, unit=unit)
        faults = _print_check(checked, strict=strict, show_all=show_all, json=json)
        if faults:
            raise typer.Exit(DataError.exit_code)


@data_app.command("convert")
def convert_tables(
    *,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The table: .csv, .tsv, .jsonl, .json or .parquet.")],
    layout: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="LAYOUT",
            help="descore (the reference code's pairs with chains), videoalign, videogen-rewardbench, "
            "genai-bench-video or another public benchmark; or ratings, for a table of rated clips in the project's "
            "own schema.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write: .csv, .jsonl or .parquet.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder that the videos' paths start from. Default: as the layout has it."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="A label to keep; give it again for more.")
    ] = None,
    least_difference: Annotated[
        float | None,
        typer.Option("--least-difference", min=0.0, help="Of ratings: closer ones are a tie, in points of the rating."),
    ] = None,
    within: Annotated[
        Literal["prompt", "group"] | None,
        typer.Option(
            "--within", help="Of ratings: compare all clips of a prompt, or those of its groups among themselves."
        ),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Turn another project's table into a table of pairs, with paths relative to it.

    Pairs that have none of the labels are left out and counted. descore benchmarks NAME shows a benchmark's
    layout and where to get its files."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import progress_bar
        from descore.evaluation.convert import convert_table

        with progress_bar() as bar:
            task = bar.add_task("converting", total=None)
            converted = convert_table(
                source,
                layout=layout,
                out=out,
                root=root,
                labels=labels or (),
                least_difference=least_difference,
                within=within,
                on_progress=lambda: bar.advance(task),
            )
        for line in _conversion_summary(converted):
            echo(line)


@data_app.command("votes")
def summarize_votes(
    *,
    votes: Annotated[
        Path, typer.Argument(metavar="VOTES", help="The table that descore serve --annotate writes, with its journal.")
    ],
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores", help="Rewards of the same clips, as descore score VOTES writes them: how far a model agrees."
        ),
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show how far raters agree: by label Krippendorff's alpha, and what each rater does.

    With --scores also the accuracy of a model on the pairs that the raters decided, beside that of the raters among
    each other."""
    with reported_errors(debug=debug):
        from dataclasses import asdict

        from descore.rewards.journal import journal_of
        from descore.serving.agreement import label_agreement, rater_figures
        from descore.serving.votes import latest_votes, read_votes

        journal = journal_of(votes)
        if not journal.is_file():
            raise ConfigError(f"{journal}: no such file; expected the journal of votes beside their table")
        settings, all_votes = read_votes(journal)
        latest, labels = latest_votes(all_votes), settings["labels"]
        accuracy = {} if scores is None else _accuracy_by_label(votes, scores)
        by_label = [asdict(label_agreement(latest, label=label)) for label in labels]
        by_rater = [asdict(figures) for figures in rater_figures(latest, labels=labels)]
        if json:
            for record in by_label:
                _print_json({"kind": "label", **record, **accuracy.get(record["label"], {})})
            for record in by_rater:
                _print_json({"kind": "rater", **record})
            return
        _show_votes(votes, latest, by_label, by_rater, accuracy)


def _accuracy_by_label(votes: Path, scores: Path) -> dict[str, dict[str, float | None]]:
    """By label: of the pairs that the raters decided, the share that the rewards order as they do."""
    from descore.evaluation.benchmarks import find_benchmark, load
    from descore.evaluation.judges import read_scores
    from descore.evaluation.results import key_of, labels_of, margins_of
    from descore.stats.agreement import accuracy_without_ties

    judgements = load(find_benchmark(str(votes)))
    labels = labels_of(judgements.clips, judgements.pairs)
    judge = read_scores(scores, clips=judgements.clips, labels=labels)
    records = judge.judge(judgements.clips, open_video=judgements.open)
    by_clip = {key_of(clip): record for clip, record in zip(judgements.clips, records, strict=True)}
    accuracy = {}
    for label in labels:
        margins = margins_of(label, judgements.pairs, by_clip)
        figure = accuracy_without_ties(margins.margin_B, margins.preference_B, margins.group_B)
        accuracy[label] = {"model": figure.value if figure.n else None}
    return accuracy


def _show_votes(
    file: Path,
    votes: "Sequence[Vote]",
    by_label: Sequence[Mapping[str, Any]],
    by_rater: Sequence[Mapping[str, Any]],
    accuracy: Mapping[str, Mapping[str, Any]],
) -> None:
    from descore.cli.output import with_count

    pairs, skipped = len({vote.key for vote in votes}), sum(vote.skipped is not None for vote in votes)
    names = f"{with_count(len(votes), 'vote')} of {with_count(len(by_rater), 'rater')} on {with_count(pairs, 'pair')}"
    echo(f"{file}: {names}" + (f"; {skipped:,} skipped" if skipped else ""))
    titles = ["label", "votes", "pairs", "shared", "same", "alpha", "decided", *(["model"] if accuracy else [])]
    rows = [{**row, **accuracy.get(row["label"], {})} for row in by_label]
    _show_figures(titles, rows)
    _show_figures(["rater", "votes", "skipped", "ties", "left", "same", "seconds"], by_rater)
    echo("\n" + _VOTES_LEGEND + (_MODEL_LEGEND if accuracy else ""))
    if not accuracy:
        echo(f"next: descore data check {file}; descore evaluate --benchmark {file}")


def _show_figures(titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of counts, shares, and names in its first column; what is not known is a dash."""
    from rich.table import Table
    from rich.text import Text

    from descore.cli.output import console
    from descore.report.text import UNKNOWN, one_line

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="left" if title == titles[0] else "right", overflow="fold")
    for row in rows:
        cells = [row.get(title) for title in titles[1:]]
        shown = [UNKNOWN if cell is None else f"{cell:,}" if isinstance(cell, int) else f"{cell:.2f}" for cell in cells]
        table.add_row(Text(one_line(row[titles[0]])), *shown)
    screen = console()
    screen.print()
    screen.print(table)


def _probe_videos(tables: Sequence[Path], *, workers: int | None) -> "Probes":
    """Open every video of the tables under a progress bar."""
    from descore.cli.scoring import progress_bar
    from descore.data.validate import probe_table_videos

    with progress_bar() as bar:
        task = bar.add_task("opening videos", total=None)
        threads = workers or min(os.cpu_count() or 1, _MAX_THREADS)
        return probe_table_videos(tables, workers=threads, on_progress=lambda: bar.advance(task))


def _token_counter(checkpoint: str) -> Callable[[str], int]:
    """The function from a chain to its length in tokens of a checkpoint, its end of turn included."""
    from descore.model.chat import Chat
    from descore.model.checkpoint import find_checkpoint, read_rubric
    from descore.model.modeling import open_processor

    folder = find_checkpoint(checkpoint)
    chat = Chat(open_processor(folder), read_rubric(folder))
    return lambda chain: len(chat.encode_chain(chain))


def _print_check(checked: "TableCheck", *, strict: bool, show_all: bool, json: bool) -> int:
    """Print findings and a summary of each table; the number of faults. Without `show_all`, people see the first
    findings of each kind, and how many more there are."""
    counts = {"fault": 0, "warning": 0}
    for finding in checked.findings():
        kind = "warning" if finding.warning and not strict else "fault"
        counts[kind] += 1
        if json:
            _print_json({"kind": kind, "file": finding.file, "line": finding.line, "message": finding.message})
        elif show_all or counts[kind] <= MAX_SHOWN:
            _print_finding(finding, kind=kind)
    summaries = [summary.record() for summary in checked.summaries]
    if json:
        for summary in summaries:
            _print_json({"kind": "table", **summary})
    else:
        _print_summaries(summaries, counts, hidden=not show_all)
    return counts["fault"]


def _print_summaries(summaries: Iterable[Mapping[str, Any]], counts: Mapping[str, int], *, hidden: bool) -> None:
    """Print how many findings were not shown, what each table holds, and the counts of faults and warnings."""
    from descore.cli.output import with_count

    rest = [with_count(count - MAX_SHOWN, kind) for kind, count in counts.items() if count > MAX_SHOWN]
    if hidden and rest:
        echo(f"and {' and '.join(rest)} more; --all shows them")
    for summary in summaries:
        _show_table(summary)
    faults, warnings = counts["fault"], counts["warning"]
    mark = "" if faults else typer.style("no faults", fg=typer.colors.GREEN)
    text = with_count(faults, "fault") if faults else ""
    echo(text + (f", {with_count(warnings, 'warning')}" if warnings else ""), mark=mark)


def _print_json(record: Mapping[str, Any]) -> None:
    echo(json_lines.dumps(record))


def _print_finding(finding: "Finding", *, kind: str) -> None:
    from descore.report.text import one_line

    mark = typer.style("warning: ", fg=typer.colors.YELLOW) if kind == "warning" else ""
    echo(one_line(str(finding)), mark=mark)


def _show_table(summary: Mapping[str, Any]) -> None:
    from rich.text import Text

    from descore.cli.output import console, key_value_grid
    from descore.report.text import one_line

    screen = console()
    screen.print(Text(f"\n{one_line(summary['file'])}", style="bold"))
    screen.print(key_value_grid((f" {one_line(title)}", one_line(value)) for title, value in _facts(summary)))
    screen.print()


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a table holds: titles and values."""
    without = f", {summary['unlabelled']:,} of them without any label" if summary["unlabelled"] else ""
    yield "rows", f"{summary['rows']:,}{without}"
    for label, counts in summary["labels"].items():
        none = f", not labelled {counts['none']:,}" if counts["none"] else ""
        ties = f"tie {counts['tie']:,} ({counts['tie_rate']:.1%} ties)"
        yield label, f"a {counts['a']:,}, b {counts['b']:,}, {ties}{none}"
    yield "prompts", f"{summary['prompts']:,}"
    yield "videos", f"{summary['videos']:,}"
    seconds, chains = summary["seconds"], summary["chains"]
    if seconds is not None:
        yield "seconds", f"{_distribution(seconds, '.1f')}; {seconds['total'] / 3600:.2f} hours in all"
        yield "sizes", _largest(summary["sizes"])
    if summary["sources"]:
        yield "sources", _largest(summary["sources"])
    if chains is not None:
        yield "chains", f"{chains['count']:,}; {chains['unit']}: {_distribution(chains, ',.0f')}"
    for kind in ("marked", "rated"):
        if summary[kind]:
            yield kind, f"{summary[kind]:,} of {2 * summary['rows']:,} clips"


def _distribution(figures: Mapping[str, float], form: str) -> str:
    return f"median {figures['median']:{form}}, 95 % {figures['p95']:{form}}, longest {figures['longest']:{form}}"


def _largest(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:_MAX_NAMED])
    return shown + (f" and {len(counts) - _MAX_NAMED:,} more" if len(counts) > _MAX_NAMED else "")


def _conversion_summary(converted: "ConversionSummary") -> Iterator[str]:
    """What was written, and the next command."""
    from descore.cli.output import with_count

    left_out = f"; {converted.left_out:,} without a label left out" if converted.left_out else ""
    yield f"{converted.out}: {with_count(converted.rows, 'pair')}{left_out}"
    for label, counts in converted.labels.items():
        yield f"  {label}: " + ", ".join(f"{choice} {counts[choice]:,}" for choice in ("a", "b", "tie"))
    yield f"next: descore data check {converted.out}"
