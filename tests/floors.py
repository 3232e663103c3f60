"""The oldest version of each dependency that pyproject.toml allows, as constraints for pip.

    python -m tests.floors > floors.txt

Needs Python only, since it runs before anything is installed. torch and torchvision are left out: the Makefile holds
them."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELD = ("torch", "torchvision")


def requirements(project: Mapping) -> Iterator[str]:
    """All requirements of the package and its extras, but those that are the package's own extras."""
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from (line for line in group if not line.startswith(f"{project['name']}["))


def floors(lines: Sequence[str]) -> dict[str, str]:
    """Name → lowest version. ValueError for a name without a floor or with two."""
    found: dict[str, str] = {}
    for line in lines:
        name, floor = re.match(r"[\w.-]+", line)[0].lower(), re.search(r">=([\w.]+)", line)
        if floor and found.setdefault(name, floor[1]) != floor[1]:
            raise ValueError(f"pyproject.toml: {name} has the floors {found[name]} and {floor[1]}; expected one")
    bare = {re.match(r"[\w.-]+", line)[0].lower() for line in lines} - found.keys()
    if bare:
        raise ValueError(f"pyproject.toml: no floor for {', '.join(sorted(bare))}; expected NAME>=VERSION")
    return found


def read_floors(file: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """The floors of a project's file."""
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return floors(list(requirements(project)))


if __name__ == "__main__":
    for package, version in read_floors().items():
        if package not in HELD:
            print(f"{package}=={version}")
