"""`descore data`: tables of pairs before anything is trained on them, checked and brought into the project's schema.

Knows options and messages; knows nothing of how a table is read."""

import typer

from descore.cli.data_check import check
from descore.cli.data_convert import convert

app = typer.Typer(name="data", help="Tables of pairs: check them, or make them of other tables.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Tables of pairs: check them, or make them of other tables."""


for verb in (check, convert):
    app.command()(verb)
