"""Imports point back along the flow of data, never forward; and importing descore loads no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import descore

SOURCE = Path(descore.__file__).parent

# What each room may import. A file at the top of the package is a room of its own.
BASE = {"types", "errors", "config_model", "rubric", "io"}
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "config_model": {"errors"},
    "rubric": {"types", "errors"},
    "io": {"errors"},
    "stats": {"types", "errors"},
    "video": BASE,
    "data": BASE | {"video"},
    "synthetic": BASE | {"video"},
    "world": BASE | {"video", "synthetic"},
    "model": BASE | {"data", "video"},
    "scorer": BASE | {"data", "video", "model", "stats"},
    "training": BASE | {"data", "video", "model", "stats"},
    "evaluation": BASE | {"data", "video", "model", "stats", "scorer", "synthetic", "world"},
    "report": BASE | {"evaluation", "stats"},
    "cli": BASE
    | {"data", "video", "synthetic", "world", "model", "scorer", "training", "evaluation", "report", "stats"}
    | {"__init__"},
    "__main__": {"cli"},
    "__init__": {"video", "model", "scorer"},  # for the type checker only; at run time they are loaded when used
}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module] if node.module != "descore" else [f"descore.{n.name}" for n in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "descore":
                room = parts[1] if len(parts) > 1 else "__init__"
                yield "__init__" if room.startswith("__") else room


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_back(path):
    room = room_of(path)
    forward = {other for other in imported_rooms(path) if other != room} - MAY_IMPORT[room]
    assert not forward, f"{room} must not import {', '.join(sorted(forward))}"


def test_importing_descore_loads_no_torch():
    code = "import sys, descore; assert not {'torch', 'transformers', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_public_name_lists_the_known():
    with pytest.raises(AttributeError, match="it has DescoreModel"):
        descore.Scorrer  # noqa: B018
