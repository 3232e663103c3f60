"""`descore score`, `compare` and `rank`: clips of one prompt, tables and folders."""

from pathlib import Path
from typing import Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.errors import ConfigError

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="The scored table: .csv, .jsonl or .parquet; with --engine ray a folder of Parquet shards. Default: "
        "beside the source, clips.csv to clips.scores.csv, or the folder clips.scores. What is scored so far is kept "
        "in a .journal beside it.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Of a table or folder, only so many rows.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Of a table or folder: processes that read clips ahead; 0 reads them in this one. Default: the cores but "
        "one, at most 8. With --engine ray of the whole cluster; default: its free cores, at most 8 for each model.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew, and replace the scored table that is there.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Score a scored table again: its reward, chain and so on are replaced.")
]
BulkEngine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What writes chains and reads rewards. native: ours; vllm: vLLM in this process; http://HOST:PORT/v1: an "
        "OpenAI-compatible server that has the checkpoint's export (docs/engines.md). Of a table or folder also ray: "
        "actors on a Ray cluster, each with the model by our engine; or ray:vllm, by that one (docs/cluster.md).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With --engine ray: the cluster's head as HOST:PORT, auto for the cluster of this node, or local for this "
        "machine alone. Default: auto if there is one, else local.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        "--actors",
        min=1,
        help="With --engine ray: models in the cluster. Default: one for each GPU; without GPUs, half of the cores.",
    ),
]
MaxErroredBlocks = Annotated[
    int | None,
    typer.Option(
        "--max-errored-blocks",
        min=-1,
        help="With --engine ray: blocks of rows that may be lost to unexpected errors, such as a node's, before the "
        "run stops; -1 is any number. Clips that cannot be scored are none of them. Default: 0.",
    ),
]

Keep = Annotated[int | None, typer.Option("--keep", min=1, help="Of a scored table: so many clips. Default: 1.")]
BestTable = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Of a scored table: where the best rows go, .jsonl, .csv or .parquet."),
]


def score(
    *,
    sources: opt.Sources,
    prompt: opt.PromptOfAll = None,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    quantize: opt.Quantize = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    engine: BulkEngine = "native",
    address: Address = None,
    actors: Actors = None,
    max_errored_blocks: MaxErroredBlocks = None,
    out: Out = None,
    limit: Limit = None,
    workers: Workers = None,
    replace: Replace = False,
    overwrite: Overwrite = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write a chain of thought about each clip, and score it: clips of one prompt, or all of a table or a folder.

    A table or folder becomes a scored table: its columns, and reward, marks, chain and others. Clips are read in other
    processes while the model thinks. A clip that cannot be scored is a row with an error, and makes the exit code 4.
    The same command goes on with a run that was interrupted, and tries rows without a score again."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_scores
        from descore.cli.scoring import check_bulk_options, parse_engine, score_clips, score_on_ray, score_source
        from descore.rewards.sources import is_source

        parameters: dict[str, Any] = {
            "think": think,
            "samples": samples,
            "seed": seed,
            "temperature": temperature,
            "max_chain_tokens": max_chain_tokens,
        }
        opened: dict[str, Any] = {
            "model": model,
            "paradigm": paradigm,
            "rubric": rubric,
            "quantize": quantize,
            "device": device,
            "batch_size": batch_size,
            "engine": engine,
        }
        bulk: dict[str, Any] = {
            "out": out,
            "limit": limit,
            "workers": workers,
            "replace": replace,
            "overwrite": overwrite,
        }
        cluster = {"address": address, "actors": actors, "max_errored_blocks": max_errored_blocks}
        opened["engine"], on_ray = parse_engine(engine, cluster=cluster)
        check_bulk_options(sources, prompt=prompt, bulk={**bulk, "engine": on_ray})
        if on_ray:
            if any([opened.pop("rubric"), opened.pop("quantize")]):
                raise ConfigError("--rubric, --quantize: are for this process; on a cluster score a saved checkpoint")
            score_on_ray(sources[0], prompt=prompt, json=json, cluster=cluster, **bulk, **opened, **parameters)
            return
        if is_source(sources[0]):
            score_source(sources[0], prompt=prompt, json=json, sampling_params=parameters, **bulk, **opened)
            return
        assert prompt is not None
        results = score_clips([(clip, prompt) for clip in sources], sampling_params=parameters, **opened)
        print_scores(results, clips=sources, prompt=prompt, model=model, json=json)


def rank(
    *,
    clips: opt.RankedClips,
    prompt: opt.PromptOfAll = None,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    quantize: opt.Quantize = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    engine: opt.Engine = "native",
    keep: Keep = None,
    by: opt.RankedBy = None,
    out: BestTable = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Score clips of one prompt, and list them best first; or find the best clips of each prompt in a scored table.

    Of a table: with several chains a lead whose 95 % interval includes 0 is no clear winner."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_ranking
        from descore.cli.pairs import rank_table
        from descore.cli.scoring import check_ranked, score_clips

        check_ranked(clips, prompt=prompt, of_table={"keep": keep, "by": by, "out": out})
        if prompt is None:
            rank_table(Path(clips[0]), keep=keep or 1, by=by, out=out, json=json)
            return
        results = score_clips(
            [(clip, prompt) for clip in clips],
            model=model,
            sampling_params={
                "think": think,
                "samples": samples,
                "seed": seed,
                "temperature": temperature,
                "max_chain_tokens": max_chain_tokens,
            },
            paradigm=paradigm,
            rubric=rubric,
            quantize=quantize,
            device=device,
            batch_size=batch_size,
            engine=engine,
        )
        print_ranking(results, clips=clips, prompt=prompt, model=model, json=json)


def compare(
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A video file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same prompt.")],
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    quantize: opt.Quantize = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    device: opt.Device = None,
    engine: opt.Engine = "native",
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Predict which of two clips of one prompt people prefer, and how probably."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_comparison
        from descore.cli.scoring import score_clips

        results = score_clips(
            [(a, prompt), (b, prompt)],
            model=model,
            sampling_params={
                "think": think,
                "samples": samples,
                "seed": seed,
                "temperature": temperature,
                "max_chain_tokens": max_chain_tokens,
            },
            paradigm=paradigm,
            rubric=rubric,
            quantize=quantize,
            device=device,
            batch_size=2,
            engine=engine,
        )
        print_comparison(list(results), clips=(a, b), prompt=prompt, model=model, json=json)
