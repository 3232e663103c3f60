"""Human judgements to hold a reward model against: the benchmarks by name, and any table of the user's own.

In: a name or a table, and the folder where its files were unpacked. Out: `Judgements`: each clip once, what people said
of it or preferred, and how to open it. A video that is missing is found when it is opened, not before.
Knows tables and names; knows nothing of models, scores or statistics."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from descore.data.schema import (
    OVERALL,
    ClipColumns,
    PairColumns,
    clip_of,
    own_clip_columns,
    own_pair_columns,
    pair_of,
    pairs_within,
)
from descore.data.tables import Cells, columns_of, is_table, nearest, read_rows
from descore.errors import ConfigError, DataError
from descore.evaluation.catalogue import PUBLIC
from descore.evaluation.drawn import MAKERS, PAIRS, make_judgements
from descore.evaluation.layouts import Benchmark, Published
from descore.types import Pair, RatedClip

__all__ = ["BENCHMARKS", "Benchmark", "Judgements", "Published", "find_benchmark", "load"]

_DRAWN = Benchmark(
    name="drawn",
    title="Drawn scenes, in-domain",
    kind="pairs",
    size=f"{PAIRS} pairs, or as many as are asked for",
    drawn=(OVERALL,),
    how_to_get="nothing to get: the clips are drawn when they are opened",
    notes="Several things, nine actions, six cameras, light, styles and flaws. Half the pairs differ in one attribute"
    " or flaw only. True marks and overall are known. The bundled model learned on other such scenes.",
)

MADE = (
    _DRAWN,
    replace(
        _DRAWN,
        name="drawn-combinations",
        title="Drawn scenes, new combinations",
        notes="Every prompt asks for a shape and colour, or an action and camera, that training never combines.",
    ),
    replace(
        _DRAWN,
        name="drawn-wordings",
        title="Drawn scenes, new wordings",
        notes="Every prompt is of words and sentences that no training prompt has.",
    ),
    replace(
        _DRAWN,
        name="drawn-generators",
        title="Drawn scenes, new generators",
        notes="Every clip has the mistakes and flaws of a generator that training does not know.",
    ),
)
"""Those whose clips are made when they are opened."""

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({row.name: row for row in (*MADE, *PUBLIC)})
"""By name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """What people (or whoever drew them) say of some clips."""

    clips: tuple[RatedClip, ...]
    """Each (video, prompt) once, as first met; ratings, marks and source where they are known."""
    pairs: tuple[Pair, ...]
    """May be empty: ratings of which no two have the same prompt."""
    open: Callable[[str], Any] = field(repr=False)
    """From a clip's `video` to what the scorer takes: a path, the bytes of a film, or a Clip."""


def find_benchmark(name_or_table: str) -> Benchmark:
    """A benchmark by name, or the user's own table of pairs or ratings by path (ending in .csv, .jsonl, .json or
    .parquet). ConfigError for an unknown name, DataError for a table that tells neither."""
    if name_or_table in BENCHMARKS:
        return BENCHMARKS[name_or_table]
    if is_table(name_or_table):
        return _own(Path(name_or_table))
    close = nearest(name_or_table, BENCHMARKS)
    hint = f"; did you mean {close}?" if close else "."
    known = ", ".join(BENCHMARKS)
    raise ConfigError(f"unknown benchmark {name_or_table!r}{hint} Known: {known}; or give a table (.csv, .jsonl, ...)")


def load(benchmark: Benchmark, *, root: Path | None = None, limit: int | None = None) -> Judgements:
    """The judgements of a benchmark whose files lie in `root`; a drawn one or the user's own table needs none.

    `limit`: the first so many pairs, or of rated clips the first so many clips. Several rows that rate one clip are
    several raters: their mean counts. ConfigError if files are missing, DataError if a row cannot be used."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least 1")
    if benchmark.drawn:
        count = PAIRS if limit is None else limit
        clips, pairs, open_clip = make_judgements(benchmark.name, MAKERS[benchmark.name], count=count)
        return Judgements(clips=clips, pairs=pairs, open=open_clip)
    folder = _folder_of(benchmark, root)
    open_video = partial(_open, folder=folder, frames_per_second=benchmark.frames_per_second)
    if isinstance(benchmark.columns, PairColumns):
        pairs = tuple(islice(_pairs(benchmark, benchmark.columns, folder), limit))
        both = (clip for pair in pairs for clip in _clips_of(pair))
        return Judgements(clips=_each_once(both), pairs=pairs, open=open_video)
    rated = _each_once(islice(_rated_clips(benchmark, folder), limit))
    made = pairs_within(rated, least_difference=benchmark.least_difference)
    return Judgements(clips=rated, pairs=tuple(made), open=open_video)


def _own(file: Path) -> Benchmark:
    names = columns_of(file)
    columns: PairColumns | ClipColumns
    if "video_a" in names:
        columns = own_pair_columns(names, file=str(file))
    elif "video" in names:
        columns = own_clip_columns(names, file=str(file))
    else:
        expected = "prompt, video_a, video_b, preference for pairs, or prompt, video, rating for single clips"
        raise DataError(str(file), 1, f"found columns {', '.join(names)}; expected {expected}")
    return Benchmark(
        name=file.stem,
        title=file.name,
        kind="pairs" if isinstance(columns, PairColumns) else "ratings",
        size="a table of your own",
        table=file.name,
        columns=columns,
        home=file.parent,
    )


def _folder_of(benchmark: Benchmark, root: Path | None) -> Path:
    folder = benchmark.home or root
    if folder is None:
        raise ConfigError(f"{benchmark.name}: where is it? Name its folder with --root; {benchmark.how_to_get}")
    if not (folder / benchmark.table).is_file():
        raise ConfigError(f"{benchmark.name}: no {benchmark.table} in {folder}; {benchmark.how_to_get}")
    return folder


def _cells(benchmark: Benchmark, folder: Path, *, needed: tuple[str, ...]) -> Iterator[Cells]:
    file = folder / benchmark.table
    rows = read_rows(file, columns=benchmark.reads if benchmark.reshape else needed)
    for line, row in benchmark.reshape(rows, str(file)) if benchmark.reshape else rows:
        yield Cells(file=str(file), line=line, row=row)


def _pairs(benchmark: Benchmark, columns: PairColumns, folder: Path) -> Iterator[Pair]:
    name_of = benchmark.place.name_of if benchmark.place else str
    for cells in _cells(benchmark, folder, needed=columns.needed):
        yield pair_of(cells, columns=columns, name_of=name_of)


def _rated_clips(benchmark: Benchmark, folder: Path) -> Iterator[RatedClip]:
    assert isinstance(benchmark.columns, ClipColumns)
    name_of = benchmark.place.name_of if benchmark.place else str
    for cells in _cells(benchmark, folder, needed=benchmark.columns.needed):
        yield clip_of(cells, columns=benchmark.columns, name_of=name_of)


def _clips_of(pair: Pair) -> Iterator[RatedClip]:
    """Both clips of a pair, with their annotations."""
    for video, source, side in ((pair.video_a, pair.source_a, pair.a), (pair.video_b, pair.source_b, pair.b)):
        yield RatedClip(
            prompt=pair.prompt,
            video=video,
            group=pair.group,
            ratings=side.ratings,
            marks=side.marks,
            source=source,
            aspect=pair.aspect,
        )


def _each_once(clips: Iterable[RatedClip]) -> tuple[RatedClip, ...]:
    met: dict[tuple[str, str], list[RatedClip]] = defaultdict(list)
    for clip in clips:
        met[clip.video, clip.prompt].append(clip)
    return tuple(same[0] if len(same) == 1 else _merged(same) for same in met.values())


def _merged(same: list[RatedClip]) -> RatedClip:
    """One clip that several rows tell of: the mean of its ratings, and of all else what is told first."""
    first = same[0]
    labels = dict.fromkeys(label for clip in same for label in clip.ratings)
    return RatedClip(
        prompt=first.prompt,
        video=first.video,
        group=first.group,
        ratings={label: fmean(clip.ratings[label] for clip in same if label in clip.ratings) for label in labels},
        marks=next((clip.marks for clip in same if clip.marks is not None), None),
        source=next((clip.source for clip in same if clip.source is not None), None),
        aspect=first.aspect,
    )


def _open(video: str, *, folder: Path, frames_per_second: float | None) -> str | bytes:
    if "://" in video:
        return video  # left as it is: the reader of videos says that it reads no addresses
    path = folder / video
    if frames_per_second is None or not path.is_dir():
        return str(path)
    from descore.video.encoder import encode_folder

    return encode_folder(path, fps=frames_per_second)
