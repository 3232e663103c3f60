"""Convert another project's table into a table of pairs in the project's schema.

In: a table, the name of its layout, and where the new table goes. Out: the new table, with paths relative to it, and a
summary. Pairs are converted one at a time. Ratings are held in memory, since the clips of a prompt may stand anywhere
in the table."""

import ast
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Literal

from descore.data.schema import OVERALL, ClipColumns, PairColumns, SideColumns, pairs_within, parse_pair
from descore.data.tables import Cells, TableRows, columns_of, nearest, read_rows
from descore.data.write import schema_cells, schema_columns, side_columns, table_writer
from descore.errors import ConfigError, DataError
from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.catalogue import A_B_SAME, PUBLIC
from descore.evaluation.layouts import Benchmark
from descore.types import Pair, Preference, RatedClip

RATINGS = "ratings"
"""The layout of a table of rated clips in the project's own schema, whose labels its columns name."""

PairScope = Literal["prompt", "group"]
"""Which rated clips become pairs: those of one prompt, or those of one prompt and one group."""

_CHOICES: Mapping[str, Preference | None] = {**A_B_SAME, "invalid": None}
_VIDEOALIGN_LABELS = ("VQ", "MQ", "TA")


def split_video_list(rows: TableRows, file: str) -> TableRows:
    """DeScore's reference: `videos` holds both paths as a list; they become `video_a` and `video_b`."""
    for line, row in rows:
        paths = _parse_list(row.get("videos"))
        if not isinstance(paths, list | tuple) or len(paths) != 2 or not all(isinstance(path, str) for path in paths):
            raise DataError(file, line, f"videos is {row.get('videos')!r}; expected a list of two paths")
        yield line, {**row, "video_a": paths[0], "video_b": paths[1]}


def _parse_list(cell: Any) -> Any:  # noqa: ANN401  # whatever the table holds
    """The list that a text spells in Python or JSON; any other cell is returned as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell


DESCORE_TABLE = Benchmark(
    name="descore",
    title="DeScore's reference code, training table",
    kind="pairs",
    size="pairs with chains",
    reads=("videos", "prompt", "GSB"),
    reshape=split_video_list,
    columns=PairColumns(
        preference={OVERALL: "GSB"},
        values=_CHOICES,
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

VIDEOALIGN_TABLE = Benchmark(
    name="videoalign",
    title="VideoAlign, training or example table",
    kind="pairs",
    size="pairs",
    table="pairs.csv",
    columns=PairColumns(
        video_a="path_A",
        video_b="path_B",
        preference={label: label for label in _VIDEOALIGN_LABELS},
        values=_CHOICES,
        a=SideColumns(ratings={label: f"MOS_A_{label}" for label in _VIDEOALIGN_LABELS}),
        b=SideColumns(ratings={label: f"MOS_B_{label}" for label in _VIDEOALIGN_LABELS}),
    ),
    how_to_get="a table as datasets/train/README.md of github.com/KlingAIResearch/VideoAlign describes it",
    notes="Columns path_A, path_B, prompt, VQ, MQ, TA (A, B, same or invalid), as the README and data.py have them, and"
    " MOS_A_VQ, MOS_B_VQ and so on where they are there; frame rates and counts are not needed. Not verified: the"
    " training table itself, which is not public.",
)

LAYOUTS: Mapping[str, Benchmark] = MappingProxyType(
    {row.name: row for row in PUBLIC if row.frames_per_second is None}
    | {row.name: row for row in (DESCORE_TABLE, VIDEOALIGN_TABLE)}
)
"""By name. Benchmarks whose videos are folders of frames are left out, since training reads video files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSummary:
    """What was written, and what was left out."""

    out: Path
    rows: int
    left_out: int
    """Pairs without any of the wanted labels."""
    labels: Mapping[str, Counter[str]]
    """By label, how often a, b and tie."""


def find_layout(name: str) -> Benchmark:
    """A layout by name. ConfigError for an unknown one, with the known names."""
    if name in LAYOUTS:
        return LAYOUTS[name]
    close = nearest(name, [*LAYOUTS, RATINGS]) or next((known for known in LAYOUTS if known.startswith(name)), None)
    hint = f"; did you mean {close}?" if close else "."
    raise ConfigError(f"unknown layout {name!r}{hint} Known: {', '.join([*LAYOUTS, RATINGS])}")


def convert_table(
    source: Path,
    *,
    layout: str,
    out: Path,
    root: Path | None = None,
    labels: Sequence[str] = (),
    least_difference: float | None = None,
    within: PairScope | None = None,
    on_progress: Callable[[], object] = lambda: None,
) -> ConversionSummary:
    """Write the pairs of `source` to `out` (.csv, .jsonl or .parquet).

    root: the folder that the videos' paths start from, by default as the layout has it. labels: those to keep, by
    default all. least_difference, in points of the rating, and within: of ratings only; clips whose ratings differ by
    less are a tie. on_progress: called after each pair.

    ConfigError for an unknown layout or label, or a file that cannot be used; DataError for the first row that cannot
    be used. Nothing is left at `out` then."""
    benchmark = _select_columns(_open_layout(source, layout), labels=labels, names=columns_of(source))
    root = _default_root(source, benchmark) if root is None else root
    if isinstance(benchmark.columns, PairColumns):
        if least_difference is not None or within is not None:
            raise ConfigError(f"{layout}: has preferences; a least difference and 'within' are for ratings")
        columns, pairs = benchmark.columns, _read_pairs(source, benchmark, benchmark.columns)
    else:
        assert benchmark.columns is not None
        columns = _pair_columns(benchmark.columns)
        least = benchmark.least_difference if least_difference is None else least_difference
        pairs = _pairs_of_ratings(source, benchmark, least=least, within=within or "prompt")
    relative = (_relocate(pair, root=root, folder=out.parent) for pair in pairs)
    return _write(relative, columns, out=out, source=source, on_progress=on_progress)


def _open_layout(source: Path, name: str) -> Benchmark:
    if name != RATINGS:
        return find_layout(name)
    benchmark = find_benchmark(str(source))
    if benchmark.kind != "ratings":
        raise ConfigError(f"{source}: is in the project's schema of pairs already; use it as it is")
    return benchmark


def _select_columns(benchmark: Benchmark, *, labels: Sequence[str], names: Sequence[str]) -> Benchmark:
    """The layout with the wanted labels only, and without ratings and chains that the table does not have."""
    unknown = [label for label in labels if label not in benchmark.labels]
    if unknown:
        known = ", ".join(benchmark.labels)
        raise ConfigError(f"no label {', '.join(map(repr, unknown))}; {benchmark.name} has {known}")
    wanted, columns = labels or benchmark.labels, benchmark.columns
    if isinstance(columns, ClipColumns):
        return replace(benchmark, columns=replace(columns, ratings={name: columns.ratings[name] for name in wanted}))
    assert columns is not None
    selected = replace(
        columns,
        preference={name: columns.preference[name] for name in wanted},
        a=_select_side(columns.a, labels=wanted, names=names),
        b=_select_side(columns.b, labels=wanted, names=names),
    )
    return replace(benchmark, columns=selected)


def _select_side(side: SideColumns, *, labels: Sequence[str], names: Sequence[str]) -> SideColumns:
    ratings = {label: column for label, column in side.ratings.items() if label in labels and column in names}
    return replace(side, chain=side.chain if side.chain in names else None, ratings=ratings)


def _default_root(source: Path, benchmark: Benchmark) -> Path:
    """The benchmark's folder if the table lies where the benchmark has it, or else the table's own folder."""
    inner = PurePath(benchmark.table).parts
    nested = bool(inner) and source.parts[-len(inner) :] == inner
    return source.parents[len(inner) - 1] if nested else source.parent


def _read_pairs(source: Path, benchmark: Benchmark, columns: PairColumns) -> Iterator[Pair]:
    name_of = benchmark.video_paths.name_of if benchmark.video_paths else str
    rows = read_rows(source, columns=benchmark.reads if benchmark.reshape else columns.required)
    for line, row in benchmark.reshape(rows, str(source)) if benchmark.reshape else rows:
        yield parse_pair(Cells(file=str(source), line=line, row=row), columns=columns, name_of=name_of)


def _pair_columns(columns: ClipColumns) -> PairColumns:
    """The columns of a table of pairs that is made of rated clips."""
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


def _pairs_of_ratings(source: Path, benchmark: Benchmark, *, least: float, within: PairScope) -> Iterator[Pair]:
    """Every two clips that may be compared. Several ratings of a clip count by their mean."""
    clips = load(replace(benchmark, table=source.name, folder=source.parent)).clips
    comparable: dict[tuple[str, str], list[RatedClip]] = defaultdict(list)
    for clip in clips:
        comparable[clip.prompt, clip.group if within == "group" else ""].append(clip)
    for same in comparable.values():
        yield from pairs_within(same, least_difference=least)


def _relocate(pair: Pair, *, root: Path, folder: Path) -> Pair:
    """The pair with its videos' paths relative to the new table's folder; absolute paths stay as they are."""
    video_a, video_b = (
        name if Path(name).is_absolute() else Path(os.path.relpath(root / name, folder)).as_posix()
        for name in (pair.video_a, pair.video_b)
    )
    return replace(pair, video_a=video_a, video_b=video_b)


def _write(
    pairs: Iterable[Pair], columns: PairColumns, *, out: Path, source: Path, on_progress: Callable[[], object]
) -> ConversionSummary:
    labels: dict[str, Counter[str]] = {label: Counter() for label in columns.preference}
    rows = left_out = 0
    with table_writer(out, schema_columns(columns)) as write:
        for pair in pairs:
            on_progress()
            if not pair.preference:
                left_out += 1
                continue
            write(schema_cells(pair))
            rows += 1
            for label, choice in pair.preference.items():
                labels[label][choice] += 1
        if not rows:
            reason = "none of its pairs has a label" if left_out else "no two rated clips are of one prompt"
            raise DataError(str(source), 1, f"nothing to convert: {reason}")
    return ConversionSummary(out=out, rows=rows, left_out=left_out, labels=labels)
