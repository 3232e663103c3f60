"""`descore train`: one verb for each stage of training. A config says what is done; overrides change single keys of it.

Knows configs and the bar on standard error; knows nothing of how a model learns."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.manners import manners

if TYPE_CHECKING:
    from descore.training.records import Watch
    from descore.training.sft import Trained

_PACKAGES = {"accelerate": "accelerate", "peft": "peft", "pyarrow": "pyarrow", "PyYAML": "yaml"}
"""Package → the module that it brings."""

app = typer.Typer(name="train", help="Train a reward model, stage by stage.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train, on what, and how.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as optim.steps=100.")
]


@app.callback()
def _train() -> None:
    """Train a reward model, stage by stage."""


@app.command()
def sft(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Teach a backbone to write chains: next-token training on chains that were written beforehand.

    A run that was killed goes on from its last checkpoint when the same command is given again."""
    with manners(debug=debug), _faults_one_a_line(debug=debug):
        _need_packages()
        from descore.training.config import SftConfig
        from descore.training.config_file import read_config

        settings = read_config(config, SftConfig, overrides=overrides or [])
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # batches are collated in forked workers
        with _bar("opening " + (settings.model.checkpoint or settings.model.backbone or "")) as watch:
            import transformers

            from descore.training.sft import train_sft

            transformers.utils.logging.set_verbosity_error()
            transformers.utils.logging.disable_progress_bar()
            trained = train_sft(settings, watch=watch)
        if _speaks():
            typer.echo(_closing(trained))


def _need_packages() -> None:
    """ConfigError where the packages that only training needs are not there."""
    from descore.errors import ConfigError

    missing = [package for package, module in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}; run pip install 'descore[train]'")


def _speaks() -> bool:
    """Whether this is the one of several processes that a launcher lets speak."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _faults_one_a_line(*, debug: bool) -> Iterator[None]:
    """A config's faults are shown one a line, since there may be many."""
    from descore.errors import ConfigError

    try:
        yield
    except ConfigError as fault:
        from descore.training.checked import SettingsError

        if debug or not isinstance(fault, SettingsError):
            raise
        typer.echo(fault.page, err=True)
        raise typer.Exit(fault.exit_code) from None


@contextmanager
def _bar(opening: str) -> Iterator["Watch"]:
    """A bar that shows steps, loss and token accuracy."""
    from descore.cli.judging import progress_bar

    bar = progress_bar()
    bar.disable |= not _speaks()
    with bar:
        task = bar.add_task(opening, total=None)

        def watch(step: int, of: int, metrics: Mapping[str, Any]) -> None:
            bar.update(task, completed=step, total=of, description=_pulse(metrics))

        yield watch


def _pulse(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "learning to write"
    return f"loss {metrics['loss']:.3f}, {metrics['token_accuracy']:.1%} of tokens right"


def _closing(trained: "Trained") -> str:
    """Where the model is, how it came out, what next."""
    m = trained.metrics
    figures = f"step {m['step']:,}, loss {m['loss']:.3f}, {m['token_accuracy']:.1%} of tokens right"
    if "eval_loss" in m:
        figures += f"; held out: loss {m['eval_loss']:.3f}, {m['eval_token_accuracy']:.1%}"
    lost = (
        f"left out {trained.unreadable:,} unreadable examples, named in unreadable.jsonl\n"
        if trained.unreadable
        else ""
    )
    done = "was trained before" if trained.before else "trained"
    return (
        f"{done}: {trained.model} ({figures})\n{lost}"
        f"next: descore score CLIP --prompt TEXT --model {trained.model} shows the chains that it writes; "
        "its reward means nothing until query and head are fitted on pairs"
    )
