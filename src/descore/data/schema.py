"""Read tables of preferences and of ratings into `Pair` and `RatedClip`.

In: a table, and the names of its columns if they are not those of the project's own schema:

    pairs     prompt, video_a, video_b, preference (a, b or tie) or a preference.NAME for each label; and where known
              chain_a, chain_b, marks_a, marks_b, rating_a, rating_b (or rating_a.NAME ...), group, aspect, source_a,
              source_b (or source, for both)
    ratings   prompt, video, rating or a rating.NAME for each label; and where known marks, group, source, aspect

Out: records, one at a time. Paths are relative to the table. The columns of the first row define the labels."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from descore.data.tables import Cells, columns_of, folder_of, read_rows
from descore.errors import ConfigError, DataError
from descore.types import Pair, Preference, RatedClip, SideAnnotations

OVERALL = "overall"
"""The label of a preference or rating without a name."""

PREFERENCES: Mapping[str, Preference] = {"a": "a", "b": "b", "tie": "tie"}

NameResolver = Callable[[str], str]
"""From the cell of a video to the video's name, mostly its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideColumns:
    """The columns on one of a pair's two videos. None: the table has no such column."""

    chain: str | None = None
    marks: str | None = None
    ratings: Mapping[str, str] = field(default_factory=dict)
    """By label, the column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairColumns:
    """The columns of a table of pairs. None: the table has no such column."""

    prompt: str = "prompt"
    video_a: str = "video_a"
    video_b: str = "video_b"
    preference: Mapping[str, str]
    """By label, the column."""
    values: Mapping[str, Preference | None] = field(default_factory=lambda: dict(PREFERENCES))
    """The meaning of the cells in these columns; None: people could not decide."""
    group: str | None = None
    """The cluster of the bootstrap; None: the prompt."""
    source_a: str | None = None
    source_b: str | None = None
    aspect: str | None = None
    a: SideColumns = SideColumns()
    b: SideColumns = SideColumns()

    @property
    def required(self) -> tuple[str, ...]:
        """Columns without which the table cannot be read."""
        return (self.prompt, self.video_a, self.video_b, *self.preference.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipColumns:
    """The columns of a table of rated clips. None: the table has no such column."""

    prompt: str = "prompt"
    video: str = "video"
    ratings: Mapping[str, str]
    """By label, the column. Higher is better."""
    unrated: float | None = None
    """The number that means no rating."""
    marks: str | None = None
    group: str | None = None
    """The cluster of the bootstrap; None: the prompt."""
    source: str | None = None
    aspect: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Columns without which the table cannot be read."""
        return (self.prompt, self.video, *self.ratings.values())


def read_pairs(file: str | Path, *, columns: PairColumns | None = None, resolve: bool = True) -> Iterator[Pair]:
    """The pairs of a table, one at a time. `columns` None: the project's schema. `resolve` joins the videos' paths to
    the table's folder; without it they stay as the table has them.

    ConfigError for a file that is no table, DataError for the first row that cannot be used."""
    columns = pair_columns_of(columns_of(file), file=str(file)) if columns is None else columns
    name_of = path_resolver(file) if resolve else str
    for line, row in read_rows(file, columns=columns.required):
        yield parse_pair(Cells(file=str(file), line=line, row=row), columns=columns, name_of=name_of)


def path_resolver(file: str | Path) -> NameResolver:
    """The function that joins a path to the folder of a table. An address such as https://... stays as it is."""
    folder = folder_of(file)
    return lambda cell: cell if "://" in cell else str(folder / cell)


def pair_columns_of(names: Sequence[str], *, file: str) -> PairColumns:
    """The columns of a table of pairs in the project's schema."""
    preference = _labelled("preference", names)
    if not preference:
        raise DataError(file, 1, "no column 'preference' or 'preference.NAME'; expected one for each label")
    known = _known(names)
    return PairColumns(
        preference=preference,
        group=known("group"),
        source_a=known("source_a", "source"),
        source_b=known("source_b", "source"),
        aspect=known("aspect"),
        a=SideColumns(chain=known("chain_a"), marks=known("marks_a"), ratings=_labelled("rating_a", names)),
        b=SideColumns(chain=known("chain_b"), marks=known("marks_b"), ratings=_labelled("rating_b", names)),
    )


def clip_columns_of(names: Sequence[str], *, file: str) -> ClipColumns:
    """The columns of a table of rated clips in the project's schema."""
    ratings = _labelled("rating", names)
    if not ratings:
        raise DataError(file, 1, "no column 'rating' or 'rating.NAME'; expected one for each label")
    known = _known(names)
    return ClipColumns(
        ratings=ratings,
        marks=known("marks"),
        group=known("group"),
        source=known("source"),
        aspect=known("aspect"),
    )


def _labelled(stem: str, names: Sequence[str]) -> dict[str, str]:
    """'stem' and every 'stem.NAME' among the columns, by label."""
    plain = {OVERALL: stem} if stem in names else {}
    return plain | {name.removeprefix(f"{stem}."): name for name in names if name.startswith(f"{stem}.")}


def _known(names: Sequence[str]) -> Callable[..., str | None]:
    return lambda *wanted: next((name for name in wanted if name in names), None)


def parse_pair(cells: Cells, *, columns: PairColumns, name_of: NameResolver = str) -> Pair:
    """The pair in a row. A label whose cell is empty, or means that people could not decide, is absent."""
    prompt = cells.required(columns.prompt)
    chosen: dict[str, Preference | None] = {
        label: cells.choice(column, columns.values) for label, column in columns.preference.items()
    }
    return Pair(
        prompt=prompt,
        video_a=name_of(cells.video(columns.video_a)),
        video_b=name_of(cells.video(columns.video_b)),
        preference={label: choice for label, choice in chosen.items() if choice is not None},
        group=cells.text(columns.group) or prompt,
        source_a=cells.text(columns.source_a),
        source_b=cells.text(columns.source_b),
        aspect=cells.text(columns.aspect),
        a=_annotations_of(cells, columns.a),
        b=_annotations_of(cells, columns.b),
        line=cells.line,
    )


def parse_clip(cells: Cells, *, columns: ClipColumns, name_of: NameResolver = str) -> RatedClip:
    """The rated clip in a row. A label whose cell is empty or `unrated` is absent."""
    prompt = cells.required(columns.prompt)
    return RatedClip(
        prompt=prompt,
        video=name_of(cells.video(columns.video)),
        group=cells.text(columns.group) or prompt,
        ratings=_numbers(cells, columns.ratings, unrated=columns.unrated),
        marks=None if columns.marks is None else cells.marks(columns.marks),
        source=cells.text(columns.source),
        aspect=cells.text(columns.aspect),
    )


def _annotations_of(cells: Cells, columns: SideColumns) -> SideAnnotations:
    return SideAnnotations(
        chain=cells.text(columns.chain),
        marks=None if columns.marks is None else cells.marks(columns.marks),
        ratings=_numbers(cells, columns.ratings),
    )


def _numbers(cells: Cells, columns: Mapping[str, str], *, unrated: float | None = None) -> dict[str, float]:
    numbers = {label: cells.number(column) for label, column in columns.items()}
    return {label: number for label, number in numbers.items() if number is not None and number != unrated}


def pairs_within(clips: Iterable[RatedClip], *, least_difference: float = 0.0) -> list[Pair]:
    """Every two clips of one prompt as a pair, preferred by their ratings.

    Ratings that are equal, or differ by less than `least_difference` (in points of the rating), are a tie. A pair
    without a label that both clips have is left out."""
    if not least_difference >= 0:
        raise ConfigError(f"least_difference is {least_difference}; expected 0 or more, in points of the rating")
    by_prompt: dict[str, list[RatedClip]] = defaultdict(list)
    for clip in clips:
        by_prompt[clip.prompt].append(clip)
    pairs = (_pair(a, b, least=least_difference) for same in by_prompt.values() for a, b in combinations(same, 2))
    return [pair for pair in pairs if pair.preference]


def _pair(a: RatedClip, b: RatedClip, *, least: float) -> Pair:
    labels = [label for label in a.ratings if label in b.ratings]
    return Pair(
        prompt=a.prompt,
        video_a=a.video,
        video_b=b.video,
        preference={label: _preferred(a.ratings[label], b.ratings[label], least=least) for label in labels},
        group=a.group,
        source_a=a.source,
        source_b=b.source,
        aspect=a.aspect,
        a=SideAnnotations(marks=a.marks, ratings=a.ratings),
        b=SideAnnotations(marks=b.marks, ratings=b.ratings),
    )


def _preferred(a: float, b: float, *, least: float) -> Preference:
    difference = round(a - b, 9)  # 3.67 - 3.33 is 0.33999...
    if difference == 0 or abs(difference) < least:
        return "tie"
    return "a" if difference > 0 else "b"
