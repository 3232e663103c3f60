"""docs/cli.md is what the generator makes of the app."""

import typer
from tests.cli.cli_page import PAGE, cli_page, verbs

from descore.cli import app


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == cli_page(), "run python -m tests.cli.cli_page"


def test_the_page_ignores_the_terminal(monkeypatch):
    before = cli_page()
    for name, value in {"COLUMNS": "30", "TERM": "dumb", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert cli_page() == before


def test_every_option_of_help_is_on_the_page():
    page = cli_page()
    for path, _ in verbs(app, "descore"):
        command = typer.main.get_command(app)
        for name in path.split()[1:]:
            command = command.commands[name]
        section = page.split(f"\n## {path}\n")[1].split("\n## ")[0]
        names = {name for param in command.params for name in param.opts if name.startswith("-")}
        assert {name for name in names - {"--help", "-h"} if f"`{name}`" not in section} == set()
