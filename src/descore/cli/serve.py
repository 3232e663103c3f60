"""`descore serve`: answer requests for rewards over HTTP; or, with `--annotate`, have people judge pairs.

An option is a name here, a parameter of `serve`, and a field of `ServerSettings` that `serve` fills."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, print_error, reported_errors
from descore.errors import ConfigError, how_to_install

if TYPE_CHECKING:
    from descore.scorer import Scorer

_REQUIRED_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python-multipart": "python_multipart",
    "prometheus-client": "prometheus_client",
}
"""Package → a module of it."""
_MEGABYTE = 2**20
_STOPPING = 5.0
"""Seconds that a server of votes waits for browsers that still read a video."""
_EVERYONE = "everyone who reaches this address may ask: no token is set"

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
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="[NAME=]ENGINE",
        help="What writes chains and reads rewards: native, vllm, or the address of an OpenAI-compatible server, "
        "http://HOST:PORT/v1 (docs/engines.md); of all models, or of the one that is named. Default: native.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that decode. Default: the cores but one, at most 8."),
]
Window = Annotated[
    float, typer.Option("--window", min=0.0, help="Seconds that an idle model waits for a batch to fill.")
]
Dialects = Annotated[
    list[str] | None,
    typer.Option(
        "--dialect",
        metavar="NAME[=FPS]",
        help="Answer a trainer's own client too: flow_grpo, verl_omni, unirl, flow_factory, cosmos_rl, openai "
        "(Pref-GRPO), classify (vLLM); repeat it. FPS: frames per second of videos that it sends as frames. `all`: all "
        "but the first two, whose requests are pickles. Default: none.",
    ),
]

# Who may ask, and for what.
Host = Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all of them.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="DESCORE_API_KEY",
        show_envvar=True,
        help="The token that clients send. On the command line other users of the machine can read it; in the "
        "environment they cannot.",
    ),
]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Ask for no token, though other machines reach the server.")]
MediaRoot = Annotated[
    Path | None,
    typer.Option("--media-root", help="Folder below which requests may name files. Default: they may name none."),
]

AllowUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-url",
        metavar="HOST",
        help="A host, or HOST:PORT, that videos are fetched from where requests give an address; repeat it for others. "
        "Private addresses are refused. Default: none.",
    ),
]

# The bounds of a request.
MaxQueue = Annotated[
    int, typer.Option("--max-queue", min=1, help="Clips in the server at a time. Beyond it the answer is 503.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that a request may take.")]
MaxUpload = Annotated[float, typer.Option("--max-upload", help="Megabytes of a request.")]
MaxPrompt = Annotated[int, typer.Option("--max-prompt", min=1, help="Characters of a prompt.")]
DecodeSeconds = Annotated[float, typer.Option("--decode-seconds", help="Seconds to read one video.")]

# Judging by people, in place of a model.
Annotate = Annotated[
    Path | None,
    typer.Option(
        "--annotate",
        metavar="TABLE",
        help="Have people judge the pairs of this table on a page; of a table of clips, every two of a prompt. No "
        "model is opened.",
    ),
]
VotesOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="With --annotate: the table of pairs that the votes make, .jsonl, .csv or .parquet. All votes are kept in "
        "a .journal beside it, and the same command goes on with them.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="With --annotate: what pairs are judged by; give it again for more. Default: the labels of the table's "
        "preferences, or overall.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="With --annotate: draws the order of the pairs, and their sides.")]


def serve(
    *,
    models: Models = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    no_auth: NoAuth = False,
    media_root: MediaRoot = None,
    dialects: Dialects = None,
    allow_urls: AllowUrls = None,
    engines: Engines = None,
    paradigm: opt.ParadigmChoice = None,
    quantize: opt.Quantize = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    workers: Workers = None,
    window: Window = 0.01,
    max_queue: MaxQueue = 64,
    timeout: Timeout = 120.0,
    max_upload: MaxUpload = 64.0,
    max_prompt: MaxPrompt = 10_000,
    decode_seconds: DecodeSeconds = 20.0,
    annotate: Annotate = None,
    out: VotesOut = None,
    labels: Labels = None,
    seed: Seed = 0,
    debug: opt.Debug = False,
) -> None:
    """Answer requests for rewards over HTTP, until it is stopped; or, with --annotate, have people judge pairs.

    Requests of many clients are scored in batches. At / is a page for people. Loopback by default; another --host needs
    a token, or --no-auth."""
    with reported_errors(debug=debug):
        _require_packages()
        if annotate is not None:
            _check_absent({"--model": models, "--media-root": media_root}, reason="no model is opened with --annotate")
            access: dict[str, Any] = {"api_key": api_key, "no_auth": no_auth, "decode_seconds": decode_seconds}
            _judge(annotate, out=out, labels=labels or [], seed=seed, host=host, port=port, **access)
            return
        _check_absent({"--out": out, "--label": labels, "--seed": seed or None}, reason="it goes with --annotate")
        from descore.rewards.decoding import default_workers
        from descore.serving.dialects import parse_dialects
        from descore.serving.settings import ServerSettings, check_access, is_loopback

        named = _named(models or ["tiny"])
        engine_of = _engines(engines or [], models=named)
        check_access(host, api_key=api_key, no_auth=no_auth)
        settings = ServerSettings(
            api_key=api_key,
            local_only=is_loopback(host) and api_key is None and not no_auth,
            media_root=media_root,
            allow_urls=tuple(allow_urls or ()),
            workers=workers or default_workers(),
            window=window,
            max_queue=max_queue,
            timeout=timeout,
            max_upload=round(max_upload * _MEGABYTE),
            max_prompt=max_prompt,
            decode_seconds=decode_seconds,
            dialects=parse_dialects(dialects or []),
        )
        from descore.serving.server import address_of, bind, run_server

        with bind(host, port) as listening:
            # Each model is used in a thread of its own. OpenMP's threads of a main thread that once computed would stay
            # beside those, and with more of them than cores every barrier sleeps: a third slower on two cores.
            with ThreadPoolExecutor(1) as opening:
                opened: dict[str, Any] = {"paradigm": paradigm, "device": device, "batch_size": batch_size}
                opened["quantize"] = quantize
                scorers = opening.submit(_open, named, engine_of, **opened).result()
            from descore.serving.app import create_app

            if no_auth and not is_loopback(host):
                print_error(_EVERYONE, kind="warning")

            def open_again(name: str) -> "Scorer":
                if engine_of[name] == "native":  # it has no process that could have died
                    return scorers[name]
                one = {name: named[name]}
                return _open(one, engine_of, **opened)[name]

            app = create_app(scorers, settings=settings, open_again=open_again)
            echo(
                f"serving {', '.join(scorers)} at {address_of(listening)} (page: /, API: /openapi.json; stop: Ctrl-C)",
                err=True,
            )
            run_server(app, listening)
            echo("stopped", err=True)


def _judge(
    table: Path,
    *,
    out: Path | None,
    labels: list[str],
    seed: int,
    host: str,
    port: int,
    api_key: str | None,
    no_auth: bool,
    decode_seconds: float,
) -> None:
    """Serve the pairs of a table to people."""
    from descore.cli.output import with_count
    from descore.serving.server import address_of, bind, run_server
    from descore.serving.settings import ServerSettings, check_access, is_loopback
    from descore.serving.votes import VoteJournal, read_task

    if out is None:
        raise ConfigError("--annotate: where do the votes go? add --out votes.jsonl")
    check_access(host, api_key=api_key, no_auth=no_auth)
    local_only = is_loopback(host) and api_key is None and not no_auth
    settings = ServerSettings(
        api_key=api_key, local_only=local_only, timeout=_STOPPING, decode_seconds=decode_seconds, max_upload=_MEGABYTE
    )
    task = read_task(table, labels=labels, seed=seed)
    with VoteJournal.open(task, out) as journal, bind(host, port) as listening:
        from descore.serving.annotation import create_annotation_app

        if no_auth and not is_loopback(host):
            print_error(_EVERYONE, kind="warning")
        app = create_annotation_app(journal, settings=settings)
        echo(f"{with_count(len(task.order), 'pair')} to judge at {address_of(listening)} (stop: Ctrl-C)", err=True)
        run_server(app, listening)
        echo(f"stopped; next: descore data votes {out}", err=True)


def _check_absent(options: Mapping[str, object], *, reason: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name}: {reason}; leave it out")


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


def _engines(engines: list[str], *, models: Iterable[str]) -> dict[str, str]:
    """The engine of each model: its own, that of all, or native."""
    models, own, of_all = list(models), dict[str, str](), list[str]()
    for text in engines:
        name, separator, engine = text.partition("=")
        if separator and name in models:
            own[name] = engine
        elif separator and not text.startswith("http"):
            raise ConfigError(f"--engine {text}: no model is called {name}; expected one of {', '.join(models)}")
        else:
            of_all.append(text)
    if len(of_all) > 1:
        raise ConfigError(f"--engine: {of_all[0]} and {of_all[1]} for all models; name one: --engine {models[0]}=...")
    return {name: own.get(name, *of_all) if of_all else own.get(name, "native") for name in models}


def _open(
    named: dict[str, str],
    engine_of: dict[str, str],
    **opening: Any,  # noqa: ANN401  # options of `open_scorer`, by their names
) -> "dict[str, Scorer]":
    from descore.cli.scoring import open_scorer, progress_bar

    scorers = {}
    with progress_bar() as bar:
        for name, source in named.items():
            bar.add_task(f"opening {source}", total=None)
            scorers[name] = open_scorer(source, **opening, engine=engine_of[name])
    return scorers
