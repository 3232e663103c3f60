"""Keep an album's photographs in a store of footage, small and in one file.

In: an album and its archive. Out: `NAME.npy`, the uint8 pictures (H, W, 3) one after the other, flat; the copyright
file; and a row of `index.json`. Knows pictures' files and sizes; knows nothing of films, cameras or texts.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from descore.world.albums import Album
from descore.world.packages import packed_file, packed_folder

SHORT_SIDE = 384
"""Pixels of a photograph's short side, at most: a smaller one keeps its size."""
LEAST_SIDE = 192
"""Pixels of the short side, at least, of a photograph that is kept."""

_ENDINGS = (".jpg", ".jpeg", ".webp")  # what cameras' pictures are kept in

Frames = NDArray[np.uint8]


def store_album(album: Album, folder: Path) -> dict[str, Any]:
    """Write the album's files into the folder. The row has where in the file each picture is, and its size."""
    pictures = dict(_pictures(album, folder / "archives"))
    assert pictures, f"{album.name}: the archive is verified, so the pictures are in it"
    path, aside = folder / f"{album.name}.npy", folder / f"{album.name}.npy.partial"
    with aside.open("wb") as file:
        np.save(file, np.concatenate([picture_HWC.ravel() for picture_HWC in pictures.values()]))
    aside.replace(path)
    licences = folder / f"{album.archive.package}.copyright"
    licences.write_bytes(packed_file(album.archive, album.copyright_path, folder / "archives"))
    return {
        "title": album.title,
        "about": album.about,
        "licence": album.licence,
        "credit": album.credit,
        "from": f"{album.archive.file}: {' / '.join(album.path)}",
        "copyright": licences.name,
        "file": path.name,
        "pictures": list(_placed(pictures)),
    }


def _pictures(album: Album, archives: Path) -> Iterator[tuple[str, Frames]]:
    """By path in the album, without the ending."""
    for path, content in packed_folder(album.archive, album.path, archives):
        name = str(PurePosixPath(path.removeprefix(f"{album.path[-1]}/")).with_suffix(""))
        if path.endswith(_ENDINGS) and name not in album.without:
            picture = Image.open(io.BytesIO(content))
            if picture.mode == "RGB" and min(picture.size) >= LEAST_SIDE:
                yield name, _small(picture)


def _small(picture: Image.Image) -> Frames:
    upright = ImageOps.exif_transpose(picture)
    scale = min(1.0, SHORT_SIDE / min(upright.size))
    size = round(upright.width * scale), round(upright.height * scale)
    return np.asarray(upright.resize(size, Image.Resampling.LANCZOS))


def _placed(pictures: Mapping[str, Frames]) -> Iterator[dict[str, Any]]:
    at = 0
    for name, picture_HWC in pictures.items():
        yield {"name": name, "at": at, "width": picture_HWC.shape[1], "height": picture_HWC.shape[0]}
        at += picture_HWC.size
