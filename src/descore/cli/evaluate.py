"""`descore evaluate`: how well a reward model agrees with people, how sure that is, and where it fails."""

from pathlib import Path
from typing import Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint: folder, hub id, or the bundled 'tiny' (default); or a hand-made feature to read figures "
        "against: 'sharpness', 'jerk'. With --scores, the name to show.",
    ),
]
Benchmark = Annotated[
    str, typer.Option("--benchmark", "-b", help="A benchmark's name, or a table of your own; see descore benchmarks.")
]
Root = Annotated[Path | None, typer.Option("--root", help="Folder that the benchmark was unpacked to.")]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        help="Judge a table of scores in place of a model: columns video, reward, and optionally prompt and named "
        "dimensions. The lines of descore score --json will do.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the benchmark's rows.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The run's folder. Default: runs/ and a name made of the options.")
]


def evaluate(
    *,
    benchmark: Benchmark,
    model: Model = None,
    paradigm: opt.Paradigm = None,
    scores: Scores = None,
    root: Root = None,
    think: opt.Think = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    limit: Limit = None,
    out: Out = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Hold a reward model against people's judgements.

    Each clip is scored once and recorded at once: give the same command again after an interruption, and the run goes
    on where it stopped. Clips that could not be scored are tried again then. A folder never holds two unlike runs."""
    with reported_errors(debug=debug):
        from descore.cli.evaluating import run_and_show

        run_and_show(
            benchmark,
            model=model,
            paradigm=paradigm.value if paradigm else None,
            scores=scores,
            root=root,
            limit=limit,
            out=out,
            json=json,
            batch_size=batch_size,
            device=device,
            sampling_params={
                "think": think.value if think else None,
                "samples": samples,
                "seed": seed,
                "temperature": temperature,
                "max_chain_tokens": max_chain_tokens,
            },
        )
