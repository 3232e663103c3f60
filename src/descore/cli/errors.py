"""How every verb behaves towards a terminal: errors are one line, warnings too, pipes and interrupts are quiet.

Knows the error family and its exit codes; knows nothing of what the verbs do."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from descore.errors import DescoreError, DescoreWarning

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""
PIPE_CLOSED = 141
"""128 and the number of SIGPIPE."""


@contextmanager
def reported_errors(*, debug: bool) -> Iterator[None]:
    """Run a verb's body. With `debug`, errors and warnings come as Python shows them."""
    _never_fail_to_encode()
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("always", DescoreWarning)
                warnings.showwarning = _show_own_warnings
            yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes on its way out and would complain; let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print_error("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except DescoreError as fault:
        if debug:
            raise
        print_error(str(fault))
        raise typer.Exit(fault.exit_code) from None


def print_error(message: str, *, kind: str = "error") -> None:
    """One line on standard error."""
    from descore.report.text import one_line

    colour = typer.colors.RED if kind == "error" else typer.colors.YELLOW
    typer.echo(f"{typer.style(f'{kind}:', fg=colour)} {one_line(message)}", err=True)


def _show_own_warnings(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Other packages' warnings are for those who write programs with them."""
    if issubclass(category, DescoreWarning):
        print_error(str(message), kind="warning")


def _never_fail_to_encode() -> None:
    """A terminal that cannot show a letter shows a question mark in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
