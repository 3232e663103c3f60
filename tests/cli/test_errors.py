"""Errors and usage errors are one line and an exit code; --help and --version import nothing heavy."""

import subprocess
import sys
import warnings

import pytest

from descore import __version__
from descore.cli import main
from descore.cli.errors import reported_errors
from descore.errors import CheckpointError, ConfigError, DescoreError

PROMPT = ("--prompt", "a red ball")


HELP = (["--help"], ["--version"], ["score", "--help"], ["evaluate", "--help"], ["train", "rl", "--help"])
IMPORTS_OF_HELP = """
import sys
from descore.cli import main
for line in sys.argv[1:]:
    sys.argv = ["descore", *line.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    heavy = {"torch", "transformers", "numpy", "av", "PIL"} & set(sys.modules)
    assert not heavy, (line, heavy)
"""


def test_help_and_version_import_nothing_heavy():
    command = [sys.executable, "-c", IMPORTS_OF_HELP, *(" ".join(args) for args in HELP)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "descore", "benchmarks", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (141, "")


def test_python_dash_m_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "descore", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"descore {__version__}\n"


def test_help_lists_every_verb(descore):
    text = descore("--help").output
    for verb in ("score", "compare", "rank", "demo", "doctor"):
        assert verb in text


@pytest.mark.parametrize(
    "args",
    [
        ["score", *PROMPT],
        ["score", "a.mp4"],
        ["score", "a.mp4", "--prompt", "  "],
        ["score", "a.mp4", *PROMPT, "--think", "maybe"],
        ["score", "a.mp4", *PROMPT, "--samples", "0"],
        ["score", "a.mp4", *PROMPT, "--seed", "-1"],
        ["score", "a.mp4", *PROMPT, "--temperature", "-1"],
        ["score", "a.mp4", *PROMPT, "--batch-size", "0"],
        ["score", "a.mp4", *PROMPT, "--nonsense"],
        ["compare", "a.mp4", *PROMPT],
        ["judge", "a.mp4"],
    ],
)
def test_misuse_exits_with_2(descore, args):
    result = descore(*args)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("score a.mp4", "error: Missing option '--prompt' / '-p'; see descore score --help\n"),
        ("scroe a.mp4", "error: No such command 'scroe'. Did you mean 'score'?; see descore --help\n"),
        ("score a.mp4 --prompt x --samples none", "see descore score --help\n"),
        ("train sft", "see descore train sft --help\n"),
        (
            "score a.mp4 --think x",
            "--think': 'x' is not one of 'on', 'off'; see descore score --help\n",
        ),
        ("export a b", "error: Missing option '--for'. Choose from: vllm; see descore export --help\n"),
    ],
)
def test_misuse_is_one_line(monkeypatch, capsys, line, message):
    monkeypatch.setattr("sys.argv", ["descore", *line.split()])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert err.endswith(message)
    assert err.count("\n") == 1


def test_without_arguments_the_help_comes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["descore", "train"])
    with pytest.raises(SystemExit):
        main()
    output = "".join(capsys.readouterr())
    assert "sft" in output
    assert "error:" not in output


def test_an_error_of_ours_keeps_its_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["descore", "benchmarks", "no-such"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    assert capsys.readouterr().err.startswith("error: unknown benchmark")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "no-such-model"], "no such folder"),
        (["--think", "off", "--samples", "2"], "one sample only"),
        (["--samples", "2", "--temperature", "0"], "all the same"),
        (["--device", "abacus"], "cannot be used here"),
    ],
)
def test_what_cannot_be_used_exits_with_3_in_one_line(descore, args, message):
    result = descore("score", "a.mp4", *PROMPT, "--json", *args)
    assert result.exit_code == 3
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("error", [DescoreError, ConfigError, CheckpointError])
def test_an_error_is_one_line_and_its_exit_code(error, capsys):
    with pytest.raises(SystemExit) as end:
        _raise_and_exit(error("first\n  second\x1b[31m"))
    assert end.value.code == error.exit_code
    assert capsys.readouterr().err == "error: first second\N{REPLACEMENT CHARACTER}[31m\n"


def test_debug_lets_errors_through():
    with pytest.raises(ConfigError, match="as it was"), reported_errors(debug=True):
        raise ConfigError("as it was")


def test_an_interrupt_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        _raise_and_exit(KeyboardInterrupt())
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


INTERRUPTED = """
import builtins, sys
import descore.__main__
import_as_ever = builtins.__import__
def interrupt(name, *rest):
    if name == "typer" and sys.argv[1] == "imports":
        raise KeyboardInterrupt
    return import_as_ever(name, *rest)
builtins.__import__ = interrupt
if sys.argv[1] == "options":
    import typer.main
    typer.main.get_callback = lambda **_: exec("raise KeyboardInterrupt")
descore.__main__.main()
"""


@pytest.mark.parametrize("during", ["imports", "options"])
def test_an_early_interrupt_is_one_line(during):
    command = [sys.executable, "-c", INTERRUPTED, during]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_other_packages_warnings_are_kept_off_the_terminal(capsys):
    with reported_errors(debug=False):
        warnings.warn("from a test, not from descore", stacklevel=1)
    assert capsys.readouterr().err == ""


def _raise_and_exit(fault):
    """Raise inside the context manager, and turn Typer's exit into the interpreter's."""
    import typer

    try:
        with reported_errors(debug=False):
            raise fault
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None
