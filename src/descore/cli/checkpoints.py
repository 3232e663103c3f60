"""`descore convert-checkpoint` turns a checkpoint of the official DeScore code into one that every verb opens;
`descore export` turns one of ours into one that engines open."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from descore.model.convert_official import Conversion
    from descore.model.export import Export


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
        echo(_conversion_text(converted))


def _read_text(rubric: Path) -> str:
    try:
        return rubric.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--rubric: {rubric} cannot be read as text: {error}") from error


def _conversion_text(converted: "Conversion") -> str:
    """What was written, and the next command."""
    settings = converted.settings
    adapter = {"none": "", "kept": ", with its adapter", "merged": ", its adapter merged"}[converted.adapter]
    return (
        f"converted: {converted.folder}{adapter} ({', '.join(settings.dimensions)}; {settings.layout})\n"
        f"next: descore score CLIP --prompt TEXT --model {converted.folder}"
    )


def export(
    *,
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A folder, a hub id, or the bundled 'tiny'."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder, which must not be there yet.")],
    target: Annotated[
        Literal["vllm"],
        typer.Option("--for", help="The engine. vllm: query and head become rows of the vocabulary (docs/engines.md)."),
    ],
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(
            "--dtype", help="Precision of the weights; float32 keeps query and head exact. Default: the checkpoint's."
        ),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Export a checkpoint for an engine that knows of no reward head, such as vLLM. Adapters are merged; descore and
    transformers open the result too."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import quiet_transformers

        quiet_transformers()
        import torch

        from descore.model.export import export_for_vllm

        assert target == "vllm", "another engine needs another function"
        echo(_export_text(export_for_vllm(checkpoint, out, dtype=getattr(torch, dtype) if dtype else None)))


def _export_text(exported: "Export") -> str:
    """What was written, how the reward is read from logits, and the next command."""
    rows = exported.rows
    pairs = ", ".join(f"{rows.hi[name]} + {rows.lo[name]} ({name})" for name in rows.hi)
    return "\n".join(
        [
            f"exported: {exported.folder} ({str(exported.dtype).removeprefix('torch.')}; {exported.settings.layout})",
            f"reward: at token {rows.query}, {rows.scale:g} * the sum of two logits: {pairs}",
            f"next: descore score CLIP --prompt TEXT --model {exported.folder}",
        ]
    )
