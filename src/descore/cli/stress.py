"""`descore stress`: does the reward look at what it should?"""

from pathlib import Path
from typing import Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

Clips = Annotated[list[str] | None, typer.Argument(metavar="CLIP", help="Video files of one prompt.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="The text that the clips were generated from.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint: folder, hub id, or the bundled 'tiny'; or a hand-made feature: 'sharpness', 'jerk'.",
    ),
]
Benchmark = Annotated[
    str | None,
    typer.Option("--benchmark", "-b", help="Clips of a benchmark, each with its own prompt; see descore benchmarks."),
]
Root = Annotated[Path | None, typer.Option("--root", help="Folder that the benchmark was unpacked to.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the benchmark's rows.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder for stress.json. That of a run of descore evaluate will do, if it is of the same model.",
    ),
]


def stress(
    *,
    clips: Clips = None,
    prompt: Prompt = None,
    benchmark: Benchmark = None,
    root: Root = None,
    limit: Limit = None,
    model: Model = "tiny",
    paradigm: opt.Paradigm = None,
    think: opt.Think = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    out: Out = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Change clips and prompts on purpose, and see whether the reward falls or stays as it should.

    The frames are shuffled, frozen, greyed; the prompt is another clip's, or has praise and commands in it; and so on.
    Clips come from the command line, from a benchmark, or, without either, from a dozen pairs of drawn scenes."""
    with reported_errors(debug=debug):
        from descore.cli.stressing import run_and_show

        run_and_show(
            clips or [],
            prompt=prompt,
            benchmark=benchmark,
            root=root,
            limit=limit,
            model=model,
            paradigm=paradigm.value if paradigm else None,
            think=think.value if think else None,
            seed=seed,
            batch_size=batch_size,
            device=device,
            out=out,
            json=json,
        )
