"""The command line: one file per verb.

Nothing heavy is imported before a verb runs, so --help and --version answer at once."""

import sys
from typing import Annotated, Any

import typer

from descore import __version__
from descore.cli.benchmarks import benchmarks
from descore.cli.compare import compare
from descore.cli.convert_checkpoint import convert_checkpoint
from descore.cli.data import app as data
from descore.cli.demo import demo
from descore.cli.doctor import doctor
from descore.cli.errors import print_error
from descore.cli.evaluate import evaluate
from descore.cli.rank import rank
from descore.cli.report import report
from descore.cli.score import score
from descore.cli.stress import stress
from descore.cli.train import app as train
from descore.cli.world import app as world

app = typer.Typer(
    name="descore",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (score, compare, rank, evaluate, stress, report, benchmarks, demo, doctor, convert_checkpoint):
    app.command()(verb)
app.add_typer(data)
app.add_typer(train)
app.add_typer(world)


_USAGE_ERROR: Any = typer.BadParameter.__base__  # Typer gives its own error's base no public name


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"descore {__version__}")
        raise typer.Exit


@app.callback()
def _descore(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """A video reward model that thinks before it scores: judge videos by the prompts they were generated from."""


def main() -> None:
    """The console entry. What is wrong with the command line is one line, as every other error."""
    try:
        sys.exit(app(prog_name="descore", standalone_mode=False))
    except _USAGE_ERROR as fault:
        message, where = fault.format_message(), fault.ctx.command_path if fault.ctx else "descore"
        if "\n" in message:  # the help, where arguments are wanting
            typer.echo(message, err=True)
        else:
            print_error(f"{message.rstrip('.')}; see {where} --help")
        sys.exit(fault.exit_code)
