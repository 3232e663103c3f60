"""`descore benchmarks`: which human judgements a model can be held against, and what to get for each."""

import json as json_lines
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

if TYPE_CHECKING:
    from rich.console import RenderableType

    from descore.evaluation.benchmarks import Benchmark

Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="One benchmark, or a table of your own: .csv, .jsonl, .json, .parquet."),
]


def benchmarks(*, name: Name = None, json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the benchmarks, or say all that is known of one: labels, files, where to get them, published figures."""
    with reported_errors(debug=debug):
        from descore.cli.screen import console
        from descore.evaluation.benchmarks import BENCHMARKS, find_benchmark

        rows = list(BENCHMARKS.values()) if name is None else [find_benchmark(name)]
        if json:
            for row in rows:
                typer.echo(json_lines.dumps(_record(row)))
        else:
            console().print(_list(rows) if name is None else _in_full(rows[0]))


def _record(row: "Benchmark") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "name": row.name,
        "title": row.title,
        "kind": row.kind,
        "size": row.size,
        "labels": row.labels,
        "files": row.files,
        "how_to_get": row.how_to_get,
        "licence": row.licence,
        "notes": row.notes,
        "published": [asdict(figure) for figure in row.published],
    }


def _list(rows: list["Benchmark"]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(row.name, Text.assemble(f"{row.title}: {row.size}\n", (", ".join(row.labels), "dim")))
    return Group(grid, Text("\ndescore benchmarks NAME says what to get and where to put it", style="dim"))


def _in_full(row: "Benchmark") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from descore.report.text import one_line

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    facts = {
        "benchmark": row.name,
        "title": row.title,
        "what": f"{row.size}; people gave {'preferences' if row.kind == 'pairs' else 'ratings'}",
        "labels": ", ".join(row.labels),
        "files": ", ".join(row.files),
        "to get": row.how_to_get,
        "licence": row.licence,
        "notes": row.notes,
    }
    for title, value in facts.items():
        if value:
            grid.add_row(title, Text(one_line(value)))
    return Group(grid, Text(), _published(row)) if row.published else grid


def _published(row: "Benchmark") -> "RenderableType":
    """A line for each model and label, with what is reported of it, and by whom."""
    from rich.table import Table

    words = {"accuracy": "without ties", "with_ties": "with ties", "spearman": "Spearman"}
    found = [figure for figure in words if any(published.figure == figure for published in row.published)]
    lines: dict[tuple[str, str, str], dict[str, float]] = {}
    for figure in row.published:
        lines.setdefault((figure.label, figure.model, figure.source), {})[figure.figure] = figure.value
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("label", "model", *(words[figure] for figure in found), "source"):
        table.add_column(title, justify="right" if title in words.values() else "left")
    for (label, model, source), values in lines.items():
        table.add_row(label, model, *(f"{values[f]:.3f}" if f in values else "" for f in found), source)
    return table
