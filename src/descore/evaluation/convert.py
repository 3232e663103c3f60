"""Another project's table, turned into a table of pairs in the project's schema.

In: a table, the name of its layout, and where the new one goes. Out: the new table, its paths relative to it, and what
was counted. Pairs go through one at a time; ratings are held together, since the clips of a prompt may stand anywhere.
Knows layouts and paths; opens no video."""

import ast
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Literal

from descore.data.schema import (
    OVERALL,
    ClipColumns,
    PairColumns,
    PairRow,
    SideAnnotations,
    SideColumns,
    pair_of,
    pairs_within,
)
from descore.data.tables import Cells, Row, Rows, columns_of, nearest, read_rows
from descore.data.write import own_columns, own_row, side_columns, table_writer
from descore.errors import ConfigError, DataError
from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.catalogue import PUBLIC
from descore.evaluation.layouts import Benchmark
from descore.types import Preference, RatedClip

RATINGS = "ratings"
"""The layout of the project's own tables of rated clips, whose columns each table tells itself."""

_A_B_SAME: dict[str, Preference | None] = {"A": "a", "B": "b", "same": "tie", "invalid": None}
_ALIGN = ("VQ", "MQ", "TA")


def two_videos(rows: Rows, file: str) -> Rows:
    """DeScore's reference: `videos` holds both paths as a list; they become `video_a` and `video_b`."""
    for line, row in rows:
        paths = _listed(row.get("videos"))
        if not isinstance(paths, list | tuple) or len(paths) != 2 or not all(isinstance(path, str) for path in paths):
            raise DataError(file, line, f"videos is {row.get('videos')!r}; expected a list of two paths")
        own: Row = {"video_a": paths[0], "video_b": paths[1]}
        yield line, {**row, **own}


def _listed(cell: Any) -> Any:  # noqa: ANN401  # whatever the table holds
    """A list that is written out, as Python and JSON do; what is none stays as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell


DESCORE = Benchmark(
    name="descore",
    title="DeScore's reference code, training table",
    kind="pairs",
    size="pairs with chains",
    reads=("videos", "prompt", "GSB"),
    reshape=two_videos,
    columns=PairColumns(
        preference={OVERALL: "GSB"},
        values=_A_B_SAME,
        a=SideColumns(chain="CoT_A", ratings={OVERALL: "MOS_A_GSB"}),
        b=SideColumns(chain="CoT_B", ratings={OVERALL: "MOS_B_GSB"}),
    ),
    how_to_get="the table that cold_start/train.sh of github.com/KlingAIResearch/DeScore names as --meta_data",
    notes="Columns videos, problem, durations, prompt, CoT_A, CoT_B, GSB (A, B, same or invalid), as the reference's"
    " README and cold_start/data.py have them, and MOS_A_GSB, MOS_B_GSB where they are there. problem, the instruction"
    " that its model was asked with, is left out: here the rubric belongs to the checkpoint, and prompt fills it. Its"
    " code turns 'same' into an invalid label; here it is a tie. Not verified: a table of theirs; whether its paths"
    " are relative to the table (give --root if not); and whether the answers of its chains have the keys that"
    " `descore data check` expects.",
)

VIDEOALIGN = Benchmark(
    name="videoalign",
    title="VideoAlign, training or example table",
    kind="pairs",
    size="pairs",
    table="pairs.csv",
    columns=PairColumns(
        video_a="path_A",
        video_b="path_B",
        preference={label: label for label in _ALIGN},
        values=_A_B_SAME,
        a=SideColumns(ratings={label: f"MOS_A_{label}" for label in _ALIGN}),
        b=SideColumns(ratings={label: f"MOS_B_{label}" for label in _ALIGN}),
    ),
    how_to_get="a table as datasets/train/README.md of github.com/KlingAIResearch/VideoAlign describes it",
    notes="Columns path_A, path_B, prompt, VQ, MQ, TA (A, B, same or invalid), as the README and data.py have them, and"
    " MOS_A_VQ, MOS_B_VQ and so on where they are there; frame rates and counts are not needed. Not verified: the"
    " training table itself, which is not public.",
)

FOREIGN: Mapping[str, Benchmark] = MappingProxyType(
    {row.name: row for row in PUBLIC if row.frames_per_second is None}
    | {row.name: row for row in (DESCORE, VIDEOALIGN)}
)
"""By name. Benchmarks whose videos are folders of frames are left out: training reads films."""


def find_layout(name: str) -> Benchmark:
    """A layout by name; an unknown one raises ConfigError with the known."""
    if name in FOREIGN:
        return FOREIGN[name]
    close = nearest(name, [*FOREIGN, RATINGS]) or next((known for known in FOREIGN if known.startswith(name)), None)
    hint = f"; did you mean {close}?" if close else "."
    raise ConfigError(f"unknown layout {name!r}{hint} Known: {', '.join([*FOREIGN, RATINGS])}")


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
        told = {clip.video: SideAnnotations(chain=None, marks=clip.marks, ratings=clip.ratings) for clip in same}
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
