"""`descore convert-checkpoint`: what the DeScore reference code trained, as a checkpoint that every verb opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from descore.model.convert_official import Converted

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A folder with rm_head.pth and a backbone or a LoRA adapter.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The new checkpoint's folder, which must not be there yet.")]
Rubric = Annotated[
    Path,
    typer.Option("--rubric", help="The judging text that it was trained with: {prompt} once, {video} if not first."),
]
Named = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Where its query stood: 'chain, query, end of turn' (stage 2), \"chain and query in the user's turn\" "
        "(stage 1), or 'chain, end of turn, query'.",
    ),
]
Base = Annotated[str | None, typer.Option("--base", help="An adapter's backbone, if not where the adapter says.")]
QueryToken = Annotated[str, typer.Option("--query-token", help="The query's name in its tokenizer.")]
Dimension = Annotated[
    list[str] | None, typer.Option("--dimension", help="A name for each output of the head, in order. [overall]")
]
Merge = Annotated[
    bool, typer.Option("--merge", help="Fold the adapter into the weights. Default: it stays an adapter.")
]


def convert_checkpoint(
    *,
    source: Source,
    out: Out,
    rubric: Rubric,
    layout: Named,
    base: Base = None,
    query_token: QueryToken = "<Reward>",
    dimension: Dimension = None,
    merge: Merge = False,
    debug: opt.Debug = False,
) -> None:
    """Convert a checkpoint of the DeScore reference code. Nothing in it is run: its head is read as plain tensors."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import quiet_transformers

        text = _read_text(rubric)
        quiet_transformers()
        from descore.model.convert_official import convert_reference

        converted = convert_reference(
            source,
            out,
            rubric=text,
            layout=layout,
            base=base,
            query_token=query_token,
            dimensions=dimension or ["overall"],
            merge=merge,
        )
        typer.echo(_closing(converted))


def _read_text(rubric: Path) -> str:
    try:
        return rubric.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"--rubric: {rubric} cannot be read as text: {fault}") from fault


def _closing(converted: "Converted") -> str:
    """What it is, and what next."""
    settings = converted.settings
    adapters = {"none": "", "kept": ", with its adapter", "merged": ", its adapter merged"}
    return (
        f"converted: {converted.folder}{adapters[converted.adapter]} ({', '.join(settings.dimensions)}; "
        f"{settings.layout})\n"
        f"next: descore score CLIP --prompt TEXT --model {converted.folder}"
    )
