"""The list of all settings in docs/training.md, made from the configs' own fields and what stands under them.

    python -m tests.training.settings_page

writes it anew; a test holds the page to it."""

import ast
import inspect
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Union, get_args, get_origin, get_type_hints

from descore.training.config import ColdStartConfig, SftConfig
from descore.training.config_model import describe, without_rules
from descore.training.rl.config import RlConfig

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEADING = "| key | stage | what | default | meaning |\n|---|---|---|---|---|\n"


def settings_table():
    """A row for each key; several where the stages mean different things by it."""
    stages = {"0": dict(_rows(SftConfig, "")), "1": dict(_rows(ColdStartConfig, "")), "2": dict(_rows(RlConfig, ""))}
    lines = []
    for key in _merged(stages.values()):
        told = {number: rows[key] for number, rows in stages.items() if key in rows}
        for cells in dict.fromkeys(told.values()):
            lines.append((key, ", ".join(number for number in told if told[number] == cells), *cells))
    return HEADING + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _merged(stages):
    """The keys of all stages; one that an earlier stage lacks stands behind the one that comes before it in its own."""
    keys = []
    for rows in stages:
        place = 0
        for key in rows:
            if key not in keys:
                keys.insert(place, key)
            place = keys.index(key) + 1
    return keys


def _rows(settings, at):
    told, hints = _told(settings), get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        hint = without_rules(hints[field.name])[0]
        options = get_args(hint) if get_origin(hint) is Union else (hint,)
        group = next((option for option in options if is_dataclass(option)), None)
        if group:
            yield from _rows(group, f"{at}{field.name}.")
        else:
            yield f"`{at}{field.name}`", (describe(hint), _default(field), told[field.name])


def _default(field):
    if field.default is MISSING:
        return "needed"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def _told(settings):
    """By field, the text that stands under it, here or in the class that it comes from."""
    told = {}
    for kind in (kind for kind in reversed(settings.__mro__) if is_dataclass(kind)):
        body = ast.parse(inspect.getsource(kind)).body[0].body
        told |= {
            field.target.id: " ".join(text.value.value.split())
            for field, text in pairwise(body)
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
        }
    return told


def main():
    before, _, _ = PAGE.read_text(encoding="utf-8").partition("| key |")
    PAGE.write_text(before + settings_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
