"""Human judgements to evaluate a reward model on: the benchmarks by name, and any table of the user's own.

In: a name or a table, and the folder where its files were unpacked. Out: `Judgements`: each clip once, its ratings or
its pairs' preferences, and how to open it. A missing video is an error when it is opened, not before."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Protocol

from descore.data.schema import (
    OVERALL,
    ClipColumns,
    PairColumns,
    clip_columns_of,
    pair_columns_of,
    pairs_within,
    parse_clip,
    parse_pair,
)
from descore.data.tables import Cells, columns_of, is_table, nearest, read_rows
from descore.errors import ConfigError, DataError, VideoError
from descore.evaluation.catalogue import PUBLIC
from descore.evaluation.layouts import Benchmark
from descore.synthetic.splits import Split, draw_pair
from descore.types import Clip, Pair, Preference, RatedClip, Verdict
from descore.video.reader import local_path

DEFAULT_PAIRS = 500
"""Pairs of a generated benchmark without a limit."""
FRAME_SIZE = (128, 128)
"""Width and height of drawn frames, in pixels."""

_CACHED_PAIRS = 512  # of some 800 kB each: a pair is drawn for its labels, and again when its clips are opened

_DRAWN = Benchmark(
    name="drawn",
    title="Drawn scenes, in-domain",
    kind="pairs",
    size=f"{DEFAULT_PAIRS} pairs, or as many as are asked for",
    drawn=(OVERALL,),
    how_to_get="nothing to get: the clips are drawn when they are opened",
    notes="Several things, nine actions, six cameras, light, styles and flaws. Half the pairs differ in one attribute"
    " or flaw only. True marks and overall are known. The bundled model learned on other such scenes.",
)

_GENERATED = (
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

_SPLITS: Mapping[str, Split] = {
    "drawn": Split.IN_DOMAIN,
    "drawn-combinations": Split.COMBINATIONS,
    "drawn-wordings": Split.WORDINGS,
    "drawn-generators": Split.GENERATORS,
}

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({row.name: row for row in (*_GENERATED, *PUBLIC)})
"""By name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Ratings and preferences for some clips."""

    clips: tuple[RatedClip, ...]
    """Each (video, prompt) once, in the order of the table; ratings, marks and source where they are known."""
    pairs: tuple[Pair, ...]
    """Empty where no two rated clips have the same prompt."""
    open: Callable[[str], Any] = field(repr=False)
    """From a clip's `video` to what the scorer takes: a path, the bytes of a film, or a Clip."""
    file: Callable[[str], Path | None] = field(default=lambda _: None, repr=False)
    """From a clip's `video` to its file, or its folder of frames; None if it has none."""


class LabelledClip(Protocol):
    """A generated clip with its true marks."""

    @property
    def clip(self) -> Clip:
        """The clip."""

    @property
    def prompt(self) -> str:
        """The prompt it is judged by."""

    @property
    def verdict(self) -> Verdict:
        """Its true marks and overall."""


class LabelledPair(Protocol):
    """Two generated clips of one prompt."""

    @property
    def a(self) -> LabelledClip:
        """One clip."""

    @property
    def b(self) -> LabelledClip:
        """The other."""

    @property
    def preference(self) -> Preference:
        """The clip with the better overall."""


def find_benchmark(name_or_table: str) -> Benchmark:
    """A benchmark by name, or the user's own table of pairs or ratings by path (ending in .csv, .jsonl, .json or
    .parquet). ConfigError for an unknown name, DataError for a table of neither."""
    if name_or_table in BENCHMARKS:
        return BENCHMARKS[name_or_table]
    if is_table(name_or_table):
        return _own_table(Path(name_or_table))
    close = nearest(name_or_table, BENCHMARKS)
    hint = f"; did you mean {close}?" if close else "."
    known = ", ".join(BENCHMARKS)
    raise ConfigError(f"unknown benchmark {name_or_table!r}{hint} Known: {known}; or give a table (.csv, .jsonl, ...)")


def load(benchmark: Benchmark, *, root: Path | None = None, limit: int | None = None) -> Judgements:
    """The judgements of a benchmark whose files are in `root`; a drawn one or the user's own table needs none.

    `limit`: only the first pairs, or of rated clips the first clips. Several rows of one clip are several raters, whose
    mean is taken. ConfigError if files are missing, DataError if a row cannot be used."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least 1")
    if benchmark.drawn:
        draw = partial(draw_pair, _SPLITS[benchmark.name], size=FRAME_SIZE)
        return generated_judgements(benchmark.name, draw, count=DEFAULT_PAIRS if limit is None else limit)
    folder = _folder_of(benchmark, root)
    open_video = partial(_open, folder=folder, frames_per_second=benchmark.frames_per_second)
    file = partial(_file, folder=folder)
    if isinstance(benchmark.columns, PairColumns):
        pairs = tuple(islice(_pairs(benchmark, benchmark.columns, folder), limit))
        both = (clip for pair in pairs for clip in _clips_of(pair))
        return Judgements(clips=_each_once(both), pairs=pairs, open=open_video, file=file)
    rated = _each_once(islice(_rated_clips(benchmark, folder), limit))
    pairs = tuple(pairs_within(rated, least_difference=benchmark.least_difference))
    return Judgements(clips=rated, pairs=pairs, open=open_video, file=file)


def generated_judgements(name: str, draw: Callable[[int], LabelledPair], *, count: int) -> Judgements:
    """The first `count` pairs of a benchmark whose clips are generated: `draw` gives a pair by its index. A clip's
    video is a name such as 'drawn:17/a', and its pair is drawn again when it is opened."""
    draw = lru_cache(maxsize=_CACHED_PAIRS)(draw)
    clips: list[RatedClip] = []
    pairs: list[Pair] = []
    for index in range(count):
        drawn, group = draw(index), f"{name}:{index}"
        a, b = _labelled(f"{group}/a", drawn.a, group), _labelled(f"{group}/b", drawn.b, group)
        clips += [a, b]
        preference = {OVERALL: drawn.preference}
        pairs.append(Pair(prompt=a.prompt, video_a=a.video, video_b=b.video, preference=preference, group=group))

    def open_clip(video: str) -> Clip:
        number, _, side = video.removeprefix(f"{name}:").partition("/")
        if not number.isdecimal() or side not in ("a", "b"):
            raise ConfigError(f"{video}: no clip of {name}; expected {name}:NUMBER/a or /b")
        drawn = draw(int(number))
        return (drawn.a if side == "a" else drawn.b).clip

    return Judgements(clips=tuple(clips), pairs=tuple(pairs), open=open_clip)


def _own_table(file: Path) -> Benchmark:
    names = columns_of(file)
    columns: PairColumns | ClipColumns
    if "video_a" in names:
        columns = pair_columns_of(names, file=str(file))
    elif "video" in names:
        columns = clip_columns_of(names, file=str(file))
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
        folder=file.parent,
    )


def _folder_of(benchmark: Benchmark, root: Path | None) -> Path:
    folder = benchmark.folder or root
    if folder is None:
        raise ConfigError(f"{benchmark.name}: where is it? Name its folder with --root; {benchmark.how_to_get}")
    if not (folder / benchmark.table).is_file():
        raise ConfigError(f"{benchmark.name}: no {benchmark.table} in {folder}; {benchmark.how_to_get}")
    return folder


def _cells(benchmark: Benchmark, folder: Path, *, required: tuple[str, ...]) -> Iterator[Cells]:
    file = folder / benchmark.table
    rows = read_rows(file, columns=benchmark.reads if benchmark.reshape else required)
    for line, row in benchmark.reshape(rows, str(file)) if benchmark.reshape else rows:
        yield Cells(file=str(file), line=line, row=row)


def _pairs(benchmark: Benchmark, columns: PairColumns, folder: Path) -> Iterator[Pair]:
    name_of = benchmark.video_paths.name_of if benchmark.video_paths else str
    for cells in _cells(benchmark, folder, required=columns.required):
        yield parse_pair(cells, columns=columns, name_of=name_of)


def _rated_clips(benchmark: Benchmark, folder: Path) -> Iterator[RatedClip]:
    assert isinstance(benchmark.columns, ClipColumns)
    name_of = benchmark.video_paths.name_of if benchmark.video_paths else str
    for cells in _cells(benchmark, folder, required=benchmark.columns.required):
        yield parse_clip(cells, columns=benchmark.columns, name_of=name_of)


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
    by_key: dict[tuple[str, str], list[RatedClip]] = defaultdict(list)
    for clip in clips:
        by_key[clip.video, clip.prompt].append(clip)
    return tuple(same[0] if len(same) == 1 else _merged(same) for same in by_key.values())


def _merged(same: list[RatedClip]) -> RatedClip:
    """One clip of several rows: the mean of its ratings, and the first known value of everything else."""
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


def _labelled(video: str, drawn: LabelledClip, group: str) -> RatedClip:
    ratings = {OVERALL: drawn.verdict.overall}
    return RatedClip(prompt=drawn.prompt, video=video, group=group, ratings=ratings, marks=drawn.verdict.marks)


def _file(video: str, *, folder: Path) -> Path | None:
    if "://" not in video:
        return folder / video
    try:
        return local_path(video)
    except VideoError:
        return None  # it cannot be opened either


def _open(video: str, *, folder: Path, frames_per_second: float | None) -> str | bytes:
    if "://" in video:
        return video  # the reader of videos refuses it with a message of its own
    path = folder / video
    if frames_per_second is None or not path.is_dir():
        return str(path)
    from descore.video.encoder import encode_folder

    return encode_folder(path, fps=frames_per_second)
