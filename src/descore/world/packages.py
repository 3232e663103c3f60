"""Archives out of the package indexes of Python and Debian: fetched, verified, and opened.

In: what the archives are, a folder. Out: verified archives in it, and the files in them, however deep they lie.
Knows pip, apt-get, checksums and archives; knows nothing of films or photographs.

pip and apt-get fetch the archives as they fetch anything, from wherever they are told to; nothing is installed, and pip
checks each before a line of it runs. An archive that somebody put into the folder by hand is as good."""

import contextlib
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from descore.errors import ConfigError
from descore.world.qt_resources import qt_files

Say = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file that a package index serves: a wheel or a source distribution of PyPI, or a package of Debian."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def client(self) -> str:
        """The program that fetches it."""
        return "apt-get" if self.file.endswith(".deb") else "pip"


def fetch(archives: Sequence[Archive], folder: Path, *, say: Say) -> None:
    """See to it that the archives are in the folder and are what they should be; what is there is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    for client, download in (("pip", _download_with_pip), ("apt-get", _download_with_apt)):
        missing = [a for a in archives if a.client == client and not (folder / a.file).exists()]
        if missing:
            say(f"fetching {_names(missing)} with {client}")
            with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as aside:
                download(missing, Path(aside))
                for archive in missing:
                    _verify(Path(aside) / archive.file, archive)
                    (Path(aside) / archive.file).rename(folder / archive.file)
    for archive in archives:
        _verify(folder / archive.file, archive)


def packed_file(archive: Archive, path: Sequence[str], folder: Path) -> bytes:
    """One file out of an archive in the folder. path: where it lies; before the last, archives in the archive."""
    return next(content for _, content in _opened(archive, path, folder, lambda name: name == path[-1]))


def packed_folder(archive: Archive, path: Sequence[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file under the folder that ends `path`, in the archive's order."""
    return _opened(archive, path, folder, lambda name: name.startswith(f"{path[-1]}/"))


def _opened(
    archive: Archive, path: Sequence[str], folder: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    with contextlib.ExitStack() as kept:
        file: BinaryIO = kept.enter_context((folder / archive.file).open("rb"))
        name = archive.file
        for inner in path[:-1]:
            file = io.BytesIO(next(content() for found, content in _members(file, name) if found == inner))
            name = inner
        yield from ((found, content()) for found, content in _members(file, name) if wanted(found))


def _members(file: BinaryIO, archive: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of the files in an archive, in its order, and how to read each before the next is asked for."""
    if archive.endswith(".deb"):
        yield from _ar_members(file)
    elif archive.endswith(".rcc"):
        yield from qt_files(file.read())
    elif archive.endswith((".tar.gz", ".tar.xz")):
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content.read
    else:
        with zipfile.ZipFile(file) as box:
            for name in box.namelist():
                yield name, partial(box.read, name)


def _ar_members(file: BinaryIO) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Of a package of Debian (deb(5), ar(5)): headers of 60 bytes, each with a name and a length in decimal digits."""
    file.seek(len(b"!<arch>\n"))
    while header := file.read(60):
        start, length = file.tell(), int(header[48:58])
        yield header[:16].decode().strip().removesuffix("/"), partial(file.read, length)
        file.seek(start + length + length % 2)


def _download_with_pip(archives: Sequence[Archive], folder: Path) -> None:
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
    _complain("pip", done, archives, folder)


def _download_with_apt(archives: Sequence[Archive], folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigError(
            f"apt-get, of Debian: not found, expected it to fetch {_names(archives)}; take the films alone with "
            f"--no-photographs, or fetch the files elsewhere and put them into {folder.parent}"
        )
    wanted = [f"{archive.package}={archive.version}" for archive in archives]
    done = subprocess.run(["apt-get", "download", *wanted], cwd=folder, capture_output=True, text=True, check=False)
    _complain("apt-get", done, archives, folder)


def _complain(client: str, done: "subprocess.CompletedProcess[str]", archives: Sequence[Archive], folder: Path) -> None:
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("W", "WARNING"))]
        raise ConfigError(
            f"{client} cannot fetch {_names(archives)}: {faults[0] if faults else 'it says no reason'}; "
            f"see to it that {client} works, or put the files into {folder.parent} yourself"
        )


def _names(archives: Sequence[Archive]) -> str:
    return " and ".join(archive.file for archive in archives)


def _verify(path: Path, archive: Archive) -> None:
    if not path.exists():
        raise ConfigError(
            f"{archive.client} fetched no {archive.file} for {archive.package} {archive.version}; expected that file"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise ConfigError(f"{path}: sha256 is {found}, expected {archive.sha256}; delete the file and run this again")
