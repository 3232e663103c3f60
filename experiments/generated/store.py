"""Decode a folder of generated clips into a store of small frames, by repository, with an index of the clips.

    index.json   a row for each repository; one that is listed is complete, so an interrupted store resumes
    OWNER-NAME.npy  uint8 frames (N, H, W, 3) of the repository's clips, of several sizes, one clip after another, flat

The folder holds `generated.csv` and `clips/`. Frames keep their rate: the index has the time of each. Splits are by
repository (splits.csv), since size, rate, compression and what is shown go with it, and so are generators: no family of
models is in two splits.

Shapes in names: N frames, H rows, W columns."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import av
import numpy as np
from numpy.typing import NDArray

from descore.errors import ConfigError, DataError
from descore.io import atomic_path, atomic_write
from descore.video.decoder import FrameConverter
from experiments.footage.packages import Log

Split = Literal["train", "choose", "test"]
"""For training, for decisions, and for the final figures alone."""

SCHEMA = 1
SHORT_SIDE = 160
"""Largest short side of a frame, in pixels; a smaller clip keeps its size."""
TABLE = "generated.csv"

_MADE_WITH = {"schema": SCHEMA, "short_side": SHORT_SIDE}
_COLUMNS = ("clip", "repository", "licence", "generator", "prompt", "pair", "role")
_KEPT = ("generator", "prompt", "pair", "role")

Frames = NDArray[np.uint8]
Row = Mapping[str, str]


def _read_splits() -> list[Row]:
    with (Path(__file__).parent / "splits.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


_ROWS = _read_splits()
SPLITS: Mapping[str, Split] = MappingProxyType(
    {row["repository"]: split for row in _ROWS for split in get_args(Split) if row["split"] == split}
)
"""The split of each repository, as the committed table states it."""
PLAIN = frozenset(row["repository"] for row in _ROWS if row["plain"] == "yes")
"""Repositories whose clips look sound by themselves. In those of the others, made frame by frame with a network for
stills, things change or flicker: they serve in pairs, where both sides do."""
EARLY, LATE = (frozenset(row["repository"] for row in _ROWS if row["era"] == era) for era in ("early", "late"))
"""Repositories of generators before 2024, convolutional networks and such as were made for stills, and of transformers
since: the latter are far ahead on public leaderboards (VBench, Huang et al. 2024, arXiv 2311.17982)."""


def make_store(source: Path, folder: Path, *, log: Log) -> dict[str, Any]:
    """Decode the repositories that the folder lacks. Returns the index. ConfigError if `source` holds no clips, or a
    clip of a repository without a split."""
    rows = read_table(source)
    index: dict[str, Any] = _MADE_WITH | {"repositories": {}}
    index |= read_index(folder) if (folder / "index.json").exists() else {}
    folder.mkdir(parents=True, exist_ok=True)
    for repository in dict.fromkeys(row["repository"] for row in rows):
        if repository not in index["repositories"]:
            log(f"decoding {repository}")
            own = [row for row in rows if row["repository"] == repository]
            index["repositories"][repository] = _store_repository(own, source, folder)
            atomic_write(folder / "index.json", json.dumps(index, indent=1) + "\n")
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a store. ConfigError if the folder holds none, or one of another schema."""
    path = folder / "index.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found, expected a store; make one: python -m experiments.generated --out DIR")
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made_with = {key: index.get(key) for key in _MADE_WITH}
    if made_with != _MADE_WITH:
        raise ConfigError(f"{path}: made with {made_with}, expected {_MADE_WITH}; make it again elsewhere")
    return index


def read_table(source: Path) -> list[Row]:
    """The rows of generated.csv. ConfigError without the file, DataError for a missing column or split."""
    path = source / TABLE
    if not path.is_file():
        raise ConfigError(f"{path}: not found, expected the table of the clips; name their folder with --clips")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise DataError(str(path), 1, f"no column {', '.join(missing)}; expected {', '.join(_COLUMNS)}")
        rows = list(reader)
    for line, row in enumerate(rows, 2):
        if row["repository"] not in SPLITS:
            raise DataError(str(path), line, f"{row['repository']!r} has no split; add it to generated/splits.csv")
    return list(rows)


def _store_repository(rows: Sequence[Row], source: Path, folder: Path) -> dict[str, Any]:
    """Write the frames of a repository's clips. Its row in the index has each clip's place in the file."""
    clips, parts, at = [], list[Frames](), 0
    for row in rows:
        frames_NHWC, times = read_frames(source / "clips" / row["clip"])
        count, height, width = frames_NHWC.shape[:3]
        place = {"at": at, "frames": count, "width": width, "height": height, "times": times}
        clips.append({"name": row["clip"], **{key: row[key] for key in _KEPT}, **place})
        parts.append(frames_NHWC.ravel())
        at += frames_NHWC.size
    path = folder / f"{rows[0]['repository'].replace('/', '-')}.npy"
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(parts))
    return {"licence": rows[0]["licence"], "file": path.name, "clips": clips}


def read_frames(path: Path) -> tuple[Frames, list[float]]:
    """All frames of a clip, scaled to SHORT_SIDE, and their times in seconds from the first. ConfigError if the file is
    not there or cannot be decoded."""
    try:
        with av.open(str(path), "r") as film:
            stream = film.streams.video[0]
            scale = min(1.0, SHORT_SIDE / min(stream.width, stream.height))
            converter = FrameConverter((round(stream.width * scale), round(stream.height * scale)))
            shown = list(_shown(film.decode(stream), converter))
    except (OSError, av.error.FFmpegError) as fault:
        raise ConfigError(f"{path}: cannot be read ({fault}); expected a clip of {TABLE}") from fault
    if not shown:
        raise ConfigError(f"{path}: found no frame; expected a clip of {TABLE}")
    first = shown[0][1]
    return np.stack([picture for picture, _ in shown]), [round(time - first, 6) for _, time in shown]


def _shown(frames: Iterator[av.VideoFrame], converter: FrameConverter) -> Iterator[tuple[Frames, float]]:
    for frame in frames:
        if frame.time is not None:
            yield converter.convert(frame), frame.time
