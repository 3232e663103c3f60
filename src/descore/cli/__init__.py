"""The command line: a file for each verb or group of verbs.

Heavy packages are imported when a verb runs, so that --help and --version are quick."""

import gc
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from descore import __version__
from descore.cli.chains import chains_app
from descore.cli.checkpoints import convert_checkpoint, doctor, export
from descore.cli.data import data_app
from descore.cli.errors import USAGE_ERROR, echo, print_error
from descore.cli.evaluate import benchmarks, evaluate_judge, report
from descore.cli.pairs import pairs
from descore.cli.score import compare, rank, score
from descore.cli.serve import serve
from descore.cli.stress import stress_test
from descore.cli.train import train_app
from descore.cli.world import demo, world_app

app = typer.Typer(
    name="descore",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: dict[str, Callable[..., None]] = {
    "score": score,
    "compare": compare,
    "rank": rank,
    "pairs": pairs,
    "serve": serve,
    "evaluate": evaluate_judge,
    "stress": stress_test,
    "report": report,
    "benchmarks": benchmarks,
    "demo": demo,
    "doctor": doctor,
    "convert-checkpoint": convert_checkpoint,
    "export": export,
}
for name, verb in VERBS.items():
    app.command(name)(verb)
app.add_typer(data_app)
app.add_typer(train_app)
app.add_typer(chains_app)
app.add_typer(world_app)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"descore {__version__}")
        raise typer.Exit


@app.callback()
def _descore(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A video reward model that thinks before it scores a video by the prompt it was generated from."""


def main() -> None:
    """The console entry point. A usage error is one line on standard error, as every other error."""
    gc.set_threshold(100_000, 20, 20)  # at the default, a tenth of the start-up searches imports for garbage
    try:
        sys.exit(app(prog_name="descore", standalone_mode=False))
    except USAGE_ERROR as error:
        message = error.format_message().replace(": Value error, ", ": ")  # which newer releases of Typer put there
        command = error.ctx.command_path if error.ctx else "descore"
        if not message:  # a group without a command, whose help was printed
            sys.exit(error.exit_code)
        if message.startswith("Missing "):  # an option's choices follow in a list
            message = " ".join(message.split())
        if "\n" in message:  # the help, where arguments are missing
            echo(message, err=True)
        else:
            print_error(f"{message.rstrip('.')}; see {command} --help")
        sys.exit(error.exit_code)
