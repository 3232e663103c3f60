"""Cut the bundled real clips from the film in MoviePy's source distribution.

    pip download --no-deps --no-binary :all: moviepy==2.2.1
    python -m experiments.bundled_clips moviepy-2.2.1.tar.gz

Big Buck Bunny is (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0: see the README beside the clips."""

import argparse
import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from descore.video.encoder import write_mp4

CLIPS = Path(__file__).parent.parent / "src" / "descore" / "bundled" / "clips"
ARCHIVE = "moviepy_10_minutes.zip"
FILM = "moviepy_10_minutes/resources/bbb.mp4"
FILM_SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
FPS = 24
SIZE = (320, 180)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A stretch of the film within one shot."""

    name: str
    start: float
    """Seconds into the film."""
    frames: int


CUTS = (
    Cut(name="rabbit.mp4", start=48.25, frames=60),
    Cut(name="squirrel.mp4", start=424.375, frames=46),
)


def film_of(archive: Path) -> bytes:
    """The film's bytes, from the archive in the archive. Exits if its hash is not the known one."""
    with tarfile.open(archive) as tar:
        name = next(name for name in tar.getnames() if name.endswith(ARCHIVE))
        inner = tar.extractfile(name)
        assert inner is not None
        with zipfile.ZipFile(io.BytesIO(inner.read())) as folder:
            film = folder.read(FILM)
    digest = hashlib.sha256(film).hexdigest()
    if digest != FILM_SHA256:
        raise SystemExit(f"{archive}: the film's sha256 is {digest}, expected {FILM_SHA256}")
    return film


def frames_of(film: bytes, cut: Cut) -> NDArray[np.uint8]:
    """(T, H, W, 3): the frames from the cut's start on, at SIZE."""
    with av.open(io.BytesIO(film), "r") as container:
        container.seek(int(cut.start * av.time_base))
        pictures = []
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= cut.start - 0.5 / FPS:
                small = frame.reformat(*SIZE, format="rgb24", interpolation="AREA")
                pictures.append(small.to_ndarray())
            if len(pictures) == cut.frames:
                break
    return np.stack(pictures)


def main() -> None:
    """Write every cut."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path, help="moviepy-2.2.1.tar.gz")
    film = film_of(parser.parse_args().archive)
    for cut in CUTS:
        path = CLIPS / cut.name
        write_mp4(path, frames_of(film, cut), fps=FPS, options={"crf": "27", "preset": "veryslow", "threads": "1"})
        print(f"{cut.name}: {cut.frames} frames, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
