"""Another project's table, turned into a table of pairs in the project's schema.

In: a table, the name of its layout, and where the new one goes. Out: the new table, its paths relative to it, and what
was counted. Pairs go through one at a time; ratings are held together, since the clips of a prompt may stand anywhere.
Knows layouts and paths; opens no video."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from descore.data.cells import Cells
from descore.data.pairs import ClipColumns, PairColumns, PairRow, SideColumns, Told, pair_of, pairs_within
from descore.data.tables import columns_of, read_rows
from descore.data.writing import own_columns, own_row, side_columns, table_writer
from descore.errors import ConfigError, DataError
from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.foreign import RATINGS, find_layout
from descore.evaluation.layouts import Benchmark
from descore.types import RatedClip

Within = Literal["prompt", "group"]
"""Of ratings, which clips become pairs: those of one prompt, or of one prompt and one group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What became of a table."""

    out: Path
    rows: int
    left_out: int
    """Pairs without any of the wanted labels."""
    labels: Mapping[str, Counter[str]]
    """By label, how often a, b and tie."""


def convert(
    source: Path,
    *,
    layout: str,
    out: Path,
    root: Path | None = None,
    labels: Sequence[str] = (),
    least_difference: float | None = None,
    within: Within | None = None,
    watch: Callable[[], object] = lambda: None,
) -> Converted:
    """Write the pairs of `source` to `out` (.csv, .jsonl or .parquet).

    `root` is the folder that the videos' paths start from, by default the one that the layout has them in. `labels`
    are those to keep, by default all. `least_difference`, in points of the rating, and `within` belong to ratings;
    clips that differ by less are a tie. `watch` is called after each row. ConfigError for an unknown layout or label,
    or a file that cannot be used; DataError for the first row that cannot be. Nothing is left at `out` then."""
    names = columns_of(source)
    row = _restricted(_layout_of(source, layout), labels=labels, names=names)
    home = _home_of(source, row) if root is None else root
    if isinstance(row.columns, PairColumns):
        if least_difference is not None or within is not None:
            raise ConfigError(f"{layout}: has preferences; a least difference and 'within' are for ratings")
        columns, pairs = row.columns, _pairs_of(source, row, row.columns)
    else:
        assert row.columns is not None
        columns = _pair_columns(row.columns)
        least = row.least_difference if least_difference is None else least_difference
        pairs = _pairs_of_ratings(source, row, least=least, within=within or "prompt")
    moved = (_moved(pair, home=home, beside=out.parent) for pair in pairs)
    return _write(moved, columns, out=out, source=source, watch=watch)


def _layout_of(source: Path, name: str) -> Benchmark:
    if name != RATINGS:
        return find_layout(name)
    row = find_benchmark(str(source))
    if row.kind != "ratings":
        raise ConfigError(f"{source}: is in the project's schema of pairs already; use it as it is")
    return row


def _restricted(row: Benchmark, *, labels: Sequence[str], names: Sequence[str]) -> Benchmark:
    """The layout with the wanted labels only, and without ratings and chains that the table does not have."""
    unknown = [label for label in labels if label not in row.labels]
    if unknown:
        raise ConfigError(f"no label {', '.join(map(repr, unknown))}; {row.name} has {', '.join(row.labels)}")
    wanted = labels or row.labels
    if isinstance(row.columns, ClipColumns):
        return replace(row, columns=replace(row.columns, ratings={name: row.columns.ratings[name] for name in wanted}))
    assert row.columns is not None
    columns = replace(
        row.columns,
        preference={name: row.columns.preference[name] for name in wanted},
        a=_side(row.columns.a, labels=wanted, names=names),
        b=_side(row.columns.b, labels=wanted, names=names),
    )
    return replace(row, columns=columns)


def _side(side: SideColumns, *, labels: Sequence[str], names: Sequence[str]) -> SideColumns:
    ratings = {label: column for label, column in side.ratings.items() if label in labels and column in names}
    return replace(side, chain=side.chain if side.chain in names else None, ratings=ratings)


def _home_of(source: Path, row: Benchmark) -> Path:
    """The folder that the layout's paths start from: where its table lies in it, or else the table's own."""
    below = PurePath(row.table).parts
    nested = bool(below) and source.parts[-len(below) :] == below
    return source.parents[len(below) - 1] if nested else source.parent


def _pairs_of(source: Path, row: Benchmark, columns: PairColumns) -> Iterator[PairRow]:
    name_of = row.place.name_of if row.place else str
    rows = read_rows(source, columns=row.reads if row.reshape else columns.needed)
    for line, cells in row.reshape(rows, str(source)) if row.reshape else rows:
        yield pair_of(Cells(file=str(source), line=line, row=cells), columns=columns, name_of=name_of)


def _pair_columns(columns: ClipColumns) -> PairColumns:
    """What a table of pairs can tell that is made of rated clips."""
    labels, marks = tuple(columns.ratings), columns.marks is not None
    return PairColumns(
        preference={label: label for label in labels},
        group=columns.group,
        source_a=columns.source,
        source_b=columns.source,
        aspect=columns.aspect,
        a=side_columns("a", labels=labels, marks=marks),
        b=side_columns("b", labels=labels, marks=marks),
    )


def _pairs_of_ratings(source: Path, row: Benchmark, *, least: float, within: Within) -> Iterator[PairRow]:
    """Every two clips that may be compared. Several ratings of a clip count by their mean."""
    clips = load(replace(row, table=source.name, home=source.parent)).clips
    together: dict[tuple[str, str], list[RatedClip]] = defaultdict(list)
    for clip in clips:
        together[clip.prompt, clip.group if within == "group" else ""].append(clip)
    for same in together.values():
        told = {clip.video: Told(chain=None, marks=clip.marks, ratings=clip.ratings) for clip in same}
        for pair in pairs_within(same, least_difference=least):
            yield PairRow(line=0, pair=pair, a=told[pair.video_a], b=told[pair.video_b])


def _moved(row: PairRow, *, home: Path, beside: Path) -> PairRow:
    """The pair with its videos' paths as seen from the new table's folder; absolute ones stay as they are."""
    pair = row.pair
    video_a, video_b = (
        name if Path(name).is_absolute() else Path(os.path.relpath(home / name, beside)).as_posix()
        for name in (pair.video_a, pair.video_b)
    )
    return replace(row, pair=replace(pair, video_a=video_a, video_b=video_b))


def _write(
    pairs: Iterable[PairRow], columns: PairColumns, *, out: Path, source: Path, watch: Callable[[], object]
) -> Converted:
    labels: dict[str, Counter[str]] = {label: Counter() for label in columns.preference}
    rows = left_out = 0
    with table_writer(out, own_columns(columns)) as write:
        for row in pairs:
            watch()
            if not row.pair.preference:
                left_out += 1
                continue
            write(own_row(row))
            rows += 1
            for label, choice in row.pair.preference.items():
                labels[label][choice] += 1
        if not rows:
            reason = "none of its pairs has a label" if left_out else "no two rated clips are of one prompt"
            raise DataError(str(source), 1, f"nothing to convert: {reason}")
    return Converted(out=out, rows=rows, left_out=left_out, labels=labels)
