"""Errors and warnings on the terminal: each is one line on standard error, and an error sets the exit code."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import typer

from descore.errors import ConfigError, DescoreError, DescoreWarning

USAGE_ERROR: Any = typer.BadParameter.__base__
"""Typer exports no name for this base class."""
INTERRUPTED = 130
"""128 + SIGINT, as in shells."""
PIPE_CLOSED = 141
"""128 + SIGPIPE."""
_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF)
"""Errors of a standard output that cannot be written."""


@contextmanager
def reported_errors(*, debug: bool) -> Iterator[None]:
    """Run the body of a verb. With `debug`, errors and warnings are left to Python."""
    _open_standard_streams()
    _replace_unencodable_characters()
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("always", DescoreWarning)
                warnings.showwarning = _print_own_warning
            yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        if debug:
            raise
        where = error.filename
        if where is None and error.errno in _LOST:  # what writes to files names them
            _discard_output()
            where = "standard output"
        print_error(f"{'' if where is None else f'{where}: '}{error.strerror or error}; make room, or choose another")
        raise typer.Exit(ConfigError.exit_code) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print_error("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except DescoreError as error:
        if debug:
            raise
        print_error(str(error))
        raise typer.Exit(error.exit_code) from None


@contextmanager
def reported_settings_errors(*, debug: bool) -> Iterator[None]:
    """Print the problems of a config one a line, since there may be many."""
    try:
        yield
    except ConfigError as error:
        from descore.config_model import SettingsError

        if debug or not isinstance(error, SettingsError):
            raise
        echo(error.page, err=True)
        raise typer.Exit(error.exit_code) from None


def check_page(out: Path) -> None:
    """ConfigError unless a page can be written there: by its suffix, so that it never takes the place of a table."""
    from descore.io import check_place

    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise ConfigError(f"--out: found {out}, expected a page, such as report.html")
    check_place(out)


def _discard_output() -> None:
    """Discard what is left for standard output: the interpreter flushes it when it exits, which would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_streams() -> None:
    """Give a process that was started with closed streams open ones: else the next file that it opens would get what is
    written to standard output or error."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY
            os.dup2(os.open(os.devnull, mode), number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def echo(text: str, *, mark: str = "", err: bool = False) -> None:
    """Print text that may hold names of files, prompts or chains: no control character and no bidirectional override
    reaches the terminal. `mark`, before it, is ours and may be coloured."""
    from descore.report.text import plain

    typer.echo(mark + plain(text), err=err)


def print_error(message: str, *, kind: str = "error") -> None:
    """Print one line on standard error."""
    from descore.report.text import one_line

    colour = typer.colors.RED if kind == "error" else typer.colors.YELLOW
    with suppress(OSError):  # the reader of standard error has gone, or its disk is full
        echo(one_line(message), mark=f"{typer.style(f'{kind}:', fg=colour)} ", err=True)


def _print_own_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Warnings of other packages are not shown: they are meant for programmers."""
    if issubclass(category, DescoreWarning):
        print_error(str(message), kind="warning")


def _replace_unencodable_characters() -> None:
    """Print a question mark for a character that the terminal's encoding lacks, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
