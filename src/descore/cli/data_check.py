"""`descore data check`: all that is wrong with tables of pairs, and what they hold."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from descore.data.validate import Check, Finding, Probes

_SHOWN = 50
"""Findings of each kind that are shown without --all."""
_NAMED = 6
"""Sources and picture sizes that the summary names."""
_MOST_THREADS = 8

Tables = Annotated[
    list[Path], typer.Argument(metavar="TABLE...", help="Tables of pairs; several are the parts of a split.")
]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", help="Measure chains in the tokens of this checkpoint, not in words.")
]
Open = Annotated[
    bool, typer.Option("--open/--no-open", help="Open every video; without it, clips are told apart by their paths.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Videos opened at a time. Default: one a core, 8 at most.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Take warnings for faults.")]
All = Annotated[bool, typer.Option("--all", help=f"Show every finding, not the first {_SHOWN} only.")]


def check(
    *,
    tables: Tables,
    checkpoint: Checkpoint = None,
    open_videos: Open = True,
    workers: Workers = None,
    strict: Strict = False,
    everything: All = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Look at every row of tables of pairs, say all that is wrong at once, and what the tables hold.

    A fault ends the command with exit code 5; a warning does so with --strict only."""
    with reported_errors(debug=debug):
        from descore.data.validate import Check, find_tables

        find_tables(tables)  # before a checkpoint or a video is opened
        length_of, unit = _words() if checkpoint is None else (_tokens_of(checkpoint), "tokens")
        looks = _look(tables, workers=workers or _threads()) if open_videos else {}
        checked = Check(tables, looks=looks, length_of=length_of, unit=unit)
        faults, warnings = _show(checked, strict=strict, everything=everything, json=json)
        if not json:
            _conclude(faults, warnings)
        if faults:
            raise typer.Exit(DataError.exit_code)


def _words() -> tuple[Callable[[str], int], str]:
    from descore.data.inspect import words_in

    return words_in, "words"


def _tokens_of(checkpoint: str) -> Callable[[str], int]:
    """The length of a chain as the checkpoint's model sees it, its end of turn included."""
    from descore.data.chat import Chat
    from descore.model.checkpoint import find_checkpoint, read_rubric
    from descore.model.modeling import open_processor

    folder = find_checkpoint(checkpoint)
    chat = Chat(open_processor(folder), read_rubric(folder))
    return lambda chain: len(chat.encode_chain(chain))


def _threads() -> int:
    return min(os.cpu_count() or 1, _MOST_THREADS)


def _look(tables: list[Path], *, workers: int) -> "Probes":
    from descore.cli.scoring import progress_bar
    from descore.data.validate import look_at_videos

    with progress_bar() as bar:
        task = bar.add_task("opening videos", total=None)
        return look_at_videos(tables, workers=workers, watch=lambda: bar.advance(task))


def _show(checked: "Check", *, strict: bool, everything: bool, json: bool) -> tuple[int, int]:
    """How many faults and warnings there are. What is beyond the first few of each is counted only."""
    counts = {"fault": 0, "warning": 0}
    for finding in checked.findings():
        kind = "warning" if finding.warning and not strict else "fault"
        counts[kind] += 1
        if json:
            _say_record({"kind": kind, **_record(finding)})
        elif everything or counts[kind] <= _SHOWN:
            _say_finding(finding, kind=kind)
    if json:
        for tally in checked.tallies:
            _say_record({"kind": "table", **tally.record()})
        return counts["fault"], counts["warning"]
    if not everything:
        _say_rest(counts)
    from descore.cli.screen import console

    screen = console()
    for tally in checked.tallies:
        _show_table(screen, tally.record())
    return counts["fault"], counts["warning"]


def _record(finding: "Finding") -> dict[str, Any]:
    return {"file": finding.file, "line": finding.line, "message": finding.message}


def _say_record(record: Mapping[str, Any]) -> None:
    import json

    typer.echo(json.dumps(record, ensure_ascii=False))


def _say_finding(finding: "Finding", *, kind: str) -> None:
    from descore.report.text import one_line

    mark = typer.style("warning: ", fg=typer.colors.YELLOW) if kind == "warning" else ""
    typer.echo(f"{mark}{one_line(str(finding))}")


def _say_rest(counts: Mapping[str, int]) -> None:
    rest = [counted(count - _SHOWN, kind) for kind, count in counts.items() if count > _SHOWN]
    if rest:
        typer.echo(f"and {' and '.join(rest)} more; --all shows them")


def _conclude(faults: int, warnings: int) -> None:
    told = counted(faults, "fault") if faults else typer.style("no faults", fg=typer.colors.GREEN)
    typer.echo(told + (f", {counted(warnings, 'warning')}" if warnings else ""))


def counted(count: int, thing: str) -> str:
    """A number and what is counted, as in '1 fault' and '1,200 faults'."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _show_table(screen: "Console", record: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from descore.report.text import one_line

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, value in _lines(record):
        grid.add_row(f" {one_line(title)}", Text(one_line(value)))
    screen.print(Text(f"\n{one_line(record['file'])}", style="bold"))
    screen.print(grid)
    screen.print()


def _lines(record: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What the summary of a table says, each with its title."""
    without = f", {record['unlabelled']:,} of them without any label" if record["unlabelled"] else ""
    yield "rows", f"{record['rows']:,}{without}"
    for label, told in record["labels"].items():
        none = f", not labelled {told['none']:,}" if told["none"] else ""
        yield label, f"a {told['a']:,}, b {told['b']:,}, tie {told['tie']:,} ({told['tie_rate']:.1%} ties){none}"
    yield "prompts", f"{record['prompts']:,}"
    yield "videos", f"{record['videos']:,}"
    if record["seconds"] is not None:
        yield "seconds", f"{_spread(record['seconds'], '.1f')}; {record['seconds']['total'] / 3600:.2f} hours in all"
        yield "sizes", _most(record["sizes"])
    if record["sources"]:
        yield "sources", _most(record["sources"])
    if record["chains"] is not None:
        chains = record["chains"]
        yield "chains", f"{chains['count']:,}; {chains['unit']}: {_spread(chains, ',.0f')}"
    for known in ("marked", "rated"):
        if record[known]:
            yield known, f"{record[known]:,} of {2 * record['rows']:,} clips"


def _spread(figures: Mapping[str, float], form: str) -> str:
    return f"median {figures['median']:{form}}, 95 % {figures['p95']:{form}}, longest {figures['longest']:{form}}"


def _most(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:_NAMED])
    return shown + (f" and {len(counts) - _NAMED:,} more" if len(counts) > _NAMED else "")
