"""`descore convert-checkpoint`: turn a checkpoint of the official DeScore code into one that every verb opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from descore.model.convert_official import Conversion


def convert_checkpoint(
    *,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder with rm_head.pth and a backbone or a LoRA adapter.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new checkpoint's folder, which must not be there yet.")],
    rubric: Annotated[
        Path,
        typer.Option(
            "--rubric", help="The judging text that it was trained with: {prompt} once, {video} if not first."
        ),
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Where its query stood: 'chain, query, end of turn' (stage 2), \"chain and query in the user's "
            "turn\" (stage 1), or 'chain, end of turn, query'.",
        ),
    ],
    base: Annotated[
        str | None, typer.Option("--base", help="An adapter's backbone, if not where the adapter says.")
    ] = None,
    query_token: Annotated[str, typer.Option("--query-token", help="The query's name in its tokenizer.")] = "<Reward>",
    dimension: Annotated[
        list[str] | None, typer.Option("--dimension", help="A name for each output of the head, in order. [overall]")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Fold the adapter into the weights. Default: it stays an adapter.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Convert a checkpoint of the official DeScore code. Nothing in it is run: its head is read as plain tensors."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import quiet_transformers

        text = _read_text(rubric)
        quiet_transformers()
        from descore.model.convert_official import convert_official

        converted = convert_official(
            source,
            out,
            rubric=text,
            layout=layout,
            base=base,
            query_token=query_token,
            dimensions=dimension or ["overall"],
            merge=merge,
        )
        echo(_summary(converted))


def _read_text(rubric: Path) -> str:
    try:
        return rubric.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--rubric: {rubric} cannot be read as text: {error}") from error


def _summary(converted: "Conversion") -> str:
    """What was written, and the next command."""
    settings = converted.settings
    adapter = {"none": "", "kept": ", with its adapter", "merged": ", its adapter merged"}[converted.adapter]
    return (
        f"converted: {converted.folder}{adapter} ({', '.join(settings.dimensions)}; {settings.layout})\n"
        f"next: descore score CLIP --prompt TEXT --model {converted.folder}"
    )
