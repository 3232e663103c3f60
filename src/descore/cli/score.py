"""`descore score`, `compare` and `rank` score clips of one prompt, tables and folders here; `descore serve` does it for
others, over HTTP."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, print_error, reported_errors
from descore.errors import ConfigError, how_to_install

if TYPE_CHECKING:
    from descore.scorer import Scorer
    from descore.types import Paradigm

_REQUIRED_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python-multipart": "python_multipart",
    "prometheus-client": "prometheus_client",
}
"""Package → a module of it."""
_MEGABYTE = 2**20

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="The scored table: .csv, .jsonl or .parquet. Default: beside the source, clips.csv to clips.scores.csv. "
        "What is scored so far is kept in a .journal beside it.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Of a table or folder, only so many rows.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Of a table or folder: processes that read clips ahead; 0 reads them in this one. Default: the cores but "
        "one, at most 8.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew, and replace the scored table that is there.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Score a scored table again: its reward, chain and so on are replaced.")
]

Keep = Annotated[int | None, typer.Option("--keep", min=1, help="Of a scored table: so many clips. Default: 1.")]
BestTable = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Of a scored table: where the best rows go, .jsonl, .csv or .parquet."),
]

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="[NAME=]CHECKPOINT",
        help="A checkpoint: folder, hub id, or the bundled 'tiny'; with a name for requests if there are several. The "
        "first is the default one. Default: tiny.",
    ),
]


def score(
    *,
    sources: opt.Sources,
    prompt: opt.PromptOfAll = None,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
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
        from descore.cli.scoring import check_bulk_options, score_clips, score_source
        from descore.rewards.sources import is_source

        parameters: dict[str, Any] = {
            "think": think,
            "samples": samples,
            "seed": seed,
            "temperature": temperature,
            "max_chain_tokens": max_chain_tokens,
        }
        opened: dict[str, Any] = {"model": model, "paradigm": paradigm, "device": device, "batch_size": batch_size}
        bulk: dict[str, Any] = {
            "out": out,
            "limit": limit,
            "workers": workers,
            "replace": replace,
            "overwrite": overwrite,
        }
        check_bulk_options(sources, prompt=prompt, bulk=bulk)
        if is_source(sources[0]):
            score_source(sources[0], prompt=prompt, json=json, **bulk, **opened, **parameters)
            return
        assert prompt is not None
        results = score_clips([(clip, prompt) for clip in sources], **opened, **parameters)
        print_scores(results, clips=sources, prompt=prompt, model=model, json=json)


def rank(
    *,
    clips: opt.RankedClips,
    prompt: opt.PromptOfAll = None,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
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
            paradigm=paradigm,
            device=device,
            batch_size=batch_size,
            think=think,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        print_ranking(results, clips=clips, prompt=prompt, model=model, json=json)


def compare(
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A video file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same prompt.")],
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    device: opt.Device = None,
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
            paradigm=paradigm,
            device=device,
            batch_size=2,
            think=think,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        print_comparison(list(results), clips=(a, b), prompt=prompt, model=model, json=json)


def serve(
    *,
    models: Models = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="DESCORE_API_KEY",
            show_envvar=True,
            help="The token that clients send. On the command line other users of the machine can read it; in the "
            "environment they cannot.",
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no token, though other machines reach the server.")
    ] = False,
    media_root: Annotated[
        Path | None,
        typer.Option("--media-root", help="Folder below which requests may name files. Default: they may name none."),
    ] = None,
    paradigm: opt.ParadigmChoice = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that decode. Default: the cores but one, at most 8."),
    ] = None,
    window: Annotated[
        float, typer.Option("--window", min=0.0, help="Seconds that an idle model waits for a batch to fill.")
    ] = 0.01,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Clips in the server at a time. Beyond it the answer is 503.")
    ] = 64,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that a request may take.")] = 120.0,
    max_upload: Annotated[float, typer.Option("--max-upload", help="Megabytes of a request.")] = 64.0,
    max_prompt: Annotated[int, typer.Option("--max-prompt", min=1, help="Characters of a prompt.")] = 10_000,
    decode_seconds: Annotated[float, typer.Option("--decode-seconds", help="Seconds to read one video.")] = 20.0,
    debug: opt.Debug = False,
) -> None:
    """Answer requests for rewards over HTTP, until it is stopped. Requests of many clients are scored in batches.

    Loopback by default; another --host needs a token, or --no-auth. No address in a request is ever fetched."""
    with reported_errors(debug=debug):
        _require_packages()
        from descore.rewards.decoding import default_workers
        from descore.serving.settings import ServerSettings, check_access, is_loopback

        named = _named(models or ["tiny"])
        check_access(host, api_key=api_key, no_auth=no_auth)
        settings = ServerSettings(
            api_key=api_key,
            local_only=is_loopback(host) and api_key is None and not no_auth,
            media_root=media_root,
            workers=workers or default_workers(),
            window=window,
            max_queue=max_queue,
            timeout=timeout,
            max_upload=round(max_upload * _MEGABYTE),
            max_prompt=max_prompt,
            decode_seconds=decode_seconds,
        )
        from descore.serving.server import address_of, bind, run_server

        with bind(host, port) as listening:
            scorers = _open(named, paradigm=paradigm, device=device, batch_size=batch_size)
            from descore.serving.app import create_app

            if no_auth and not is_loopback(host):
                print_error("everyone who reaches this address may ask: no token is set", kind="warning")
            app = create_app(scorers, settings=settings)
            echo(
                f"serving {', '.join(scorers)} at {address_of(listening)} (API: /openapi.json; stop: Ctrl-C)", err=True
            )
            run_server(app, listening)
            echo("stopped", err=True)


def _require_packages() -> None:
    missing = [package for package, module in _REQUIRED_PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"descore serve needs {', '.join(missing)}; {how_to_install('serve')}")


def _named(models: list[str]) -> dict[str, str]:
    """Checkpoints by the names that requests use."""
    named: dict[str, str] = {}
    for text in models:
        name, separator, source = text.partition("=")
        name, source = (name, source) if separator else (Path(text).name, text)
        if not name or not source:
            raise ConfigError(f"--model {text}: expected a checkpoint, or NAME=CHECKPOINT")
        if name in named:
            raise ConfigError(f"--model: two models are called {name}; name them: --model {name}2={source}")
        named[name] = source
    return named


def _open(
    named: dict[str, str], *, paradigm: "Paradigm | None", device: str | None, batch_size: int
) -> "dict[str, Scorer]":
    from descore.cli.scoring import open_scorer, progress_bar

    scorers = {}
    with progress_bar() as bar:
        for name, source in named.items():
            bar.add_task(f"opening {source}", total=None)
            scorers[name] = open_scorer(source, paradigm=paradigm, device=device, batch_size=batch_size)
    return scorers
