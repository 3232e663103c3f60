"""`descore report`: runs of `descore evaluate` and `descore stress`, as one page to read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.errors import ConfigError, DataError

STRESS_FILE = "stress.json"

Folders = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Folders that descore evaluate or descore stress has written.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the page is written; a page that is there is replaced.")]


def report(*, folders: Folders, out: Out = Path("report.html"), debug: opt.Debug = False) -> None:
    """Make one self-contained page of HTML out of evaluation runs: agreement with people, beside published figures;
    reliability; what thinking changes; the worst mistakes with frames and chains. The page needs no network."""
    with reported_errors(debug=debug):
        from descore.evaluation.runs import RUN_FILE, read_run
        from descore.report.page import render

        if out.is_dir() or not out.absolute().parent.is_dir():
            raise ConfigError(f"--out: found {out}, expected a file in a folder that is there, such as report.html")
        given = list({folder.resolve(): folder for folder in folders}.values())
        stress = [_read_stress(folder / STRESS_FILE) for folder in given if (folder / STRESS_FILE).is_file()]
        # A folder with stress results alone is no run.
        runs = [read_run(f) for f in given if (f / RUN_FILE).is_file() or not (f / STRESS_FILE).is_file()]
        page = render(runs, stress=stress).encode()
        aside = out.with_name(f"{out.name}.partial")
        aside.write_bytes(page)
        aside.replace(out)
        typer.echo(f"{out}: {_counted(len(runs), len(stress))}, {len(page) / 1e6:.1f} MB; open it in a browser")


def _counted(runs: int, stress: int) -> str:
    said = [
        f"{n} {word}{'' if n == 1 else plural}"
        for n, word, plural in ((runs, "run", "s"), (stress, "stress test", "s"))
    ]
    return " and ".join(text for text, n in zip(said, (runs, stress), strict=True) if n)


def _read_stress(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as fault:
        raise DataError(str(path), 1, f"is not JSON ({fault}); give the command of the stress test again") from None
    if not isinstance(found, dict) or not {"model", "rows"} <= found.keys():
        raise DataError(str(path), 1, "has no model and rows; expected what descore stress has written")
    return found
