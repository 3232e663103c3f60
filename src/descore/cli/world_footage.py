"""`descore world footage`: real films, out of packages into a store of small frames. Nothing else needs it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.manners import manners

if TYPE_CHECKING:
    from descore.world.footage import Footage


def footage(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store: 0.7 GB, and 0.1 GB of archives.")],
    debug: opt.Debug = False,
) -> None:
    """Fetch real footage with pip, check it, and decode it into a store. Run again, it goes on where it was stopped."""
    with manners(debug=debug):
        from descore.world.films import FILMS
        from descore.world.footage import Footage
        from descore.world.footage_store import make_store

        try:
            make_store(out, FILMS, say=lambda line: typer.echo(line, err=True))
        except OSError as fault:
            raise _unwritable(out, fault) from fault
        for line in _summary(Footage.open(out)):
            typer.echo(line)


def _unwritable(folder: Path, fault: OSError) -> Exception:
    from descore.errors import ConfigError

    return ConfigError(f"{folder}: {fault.strerror or fault}; choose another folder with --out")


def _summary(store: "Footage") -> Iterable[str]:
    for split, shots in store.shots.items():
        seconds = sum(shot.seconds for shot in shots)
        films = sorted({store.films[shot.film].title for shot in shots})
        yield f"{split}: {len(shots)} shots, {seconds:.0f} s, of {', '.join(films) or 'nothing'}"
    for film in store.films.values():
        width, height = film.size
        yield f"{film.title}: {film.frames:,} frames of {width}x{height}; {film.credit}; licence: {film.licence}"
    yield f"The store: {store.folder}"
