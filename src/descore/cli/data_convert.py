"""`descore data convert`: a table of pairs out of somebody else's table."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

if TYPE_CHECKING:
    from descore.evaluation.convert import Converted

Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="The table: .csv, .jsonl, .json or .parquet.")]
Layout = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="LAYOUT",
        help="descore (the reference code's pairs with chains), videoalign, videogen-rewardbench, genai-bench-video or "
        "another public benchmark; or ratings, for a table of rated clips in the project's own schema.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The table to write: .csv, .jsonl or .parquet.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Folder that the videos' paths start from. Default: as the layout has it.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="A label to keep; give it again for more.")]
Least = Annotated[
    float | None,
    typer.Option("--least-difference", min=0.0, help="Of ratings: closer ones are a tie, in points of the rating."),
]


class WithinChoice(StrEnum):
    """Which rated clips become pairs."""

    PROMPT = "prompt"
    GROUP = "group"


Within = Annotated[
    WithinChoice | None,
    typer.Option(
        "--within", help="Of ratings: compare all clips of a prompt, or those of its groups among themselves."
    ),
]


def convert(
    *,
    source: Source,
    layout: Layout,
    out: Out,
    root: Root = None,
    labels: Labels = None,
    least_difference: Least = None,
    within: Within = None,
    debug: opt.Debug = False,
) -> None:
    """Turn another project's table into a table of pairs, with paths relative to it.

    Pairs that have none of the labels are left out and counted. descore benchmarks NAME tells of each benchmark's
    layout and where its files are to be had."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import progress_bar
        from descore.evaluation.convert import convert as convert_table

        with progress_bar() as bar:
            task = bar.add_task("converting", total=None)
            done = convert_table(
                source,
                layout=layout,
                out=out,
                root=root,
                labels=labels or (),
                least_difference=least_difference,
                within=None if within is None else within.value,
                watch=lambda: bar.advance(task),
            )
        for line in _closing(done):
            typer.echo(line)


def _closing(done: "Converted") -> Iterator[str]:
    """What was written, and what next."""
    left_out = f"; {done.left_out:,} without a label left out" if done.left_out else ""
    yield f"{done.out}: {done.rows:,} pair{'' if done.rows == 1 else 's'}{left_out}"
    for label, counts in done.labels.items():
        yield f"  {label}: " + ", ".join(f"{choice} {counts[choice]:,}" for choice in ("a", "b", "tie"))
    yield f"next: descore data check {done.out}"
