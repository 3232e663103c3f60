"""What a row of the benchmark table says, and how a published file becomes rows that tell one pair or one clip each.

Knows column names, paths and the shapes of published files; opens nothing."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from descore.data.schema import ClipColumns, PairColumns
from descore.data.tables import TableRow, TableRows
from descore.errors import DataError

Reshape = Callable[[TableRows, str], TableRows]
"""From the rows of a file, and its name for messages, to rows that tell one pair or one clip each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that others report."""

    model: str
    label: str
    figure: Literal["accuracy", "with_ties", "spearman"]
    """Pair accuracy without ties, pair accuracy with ties, or the correlation with ratings over all clips."""
    value: float
    """0 to 1."""
    source: str
    """The paper or page that reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """From what a table's cell says of a video to the file, relative to the benchmark's folder."""

    folder: str = ""
    """The folder that the videos were unpacked into."""
    after: str = ""
    """Of an address, what comes behind this text is the path in that folder; if empty, all behind the host."""

    def name_of(self, cell: str) -> str:
        """The video's name: its path with / between folders."""
        path = unquote(urlsplit(cell).path) if "://" in cell else cell
        if self.after and self.after in path:
            path = path.partition(self.after)[2]
        return str(PurePosixPath(self.folder, path.lstrip("/")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One row of the table: all that is known of a set of human judgements, and where its columns lie."""

    name: str
    title: str
    kind: Literal["pairs", "ratings"]
    """What people gave: a preference between two clips, or a rating of each."""
    size: str
    """In words."""
    columns: PairColumns | ClipColumns | None = None
    """None for a benchmark that is drawn."""
    table: str = ""
    """The file with the judgements, relative to the benchmark's folder; empty for a benchmark that is drawn."""
    reads: tuple[str, ...] = ()
    """Columns that the file itself needs, where `reshape` makes those of `columns`."""
    reshape: Reshape | None = None
    place: Place | None = None
    """None: cells are paths relative to the table."""
    frames_per_second: float | None = None
    """Of a benchmark whose videos are folders of frames."""
    least_difference: float = 0.0
    """Of ratings: closer ones are a tie between the two clips of a pair, in points of the rating."""
    published: tuple[Published, ...] = ()
    licence: str = ""
    how_to_get: str = ""
    """What to fetch and where to put it, below the folder that --root names."""
    notes: str = ""
    """What a reader of its figures must know, and what of its layout could not be verified."""
    drawn: tuple[str, ...] = ()
    """The labels of a benchmark that is drawn."""
    home: Path | None = field(default=None, repr=False)
    """The folder, where it is known already: of a table of the user's own."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What people judged."""
        if isinstance(self.columns, PairColumns):
            return tuple(self.columns.preference)
        return self.drawn if self.columns is None else tuple(self.columns.ratings)

    @property
    def files(self) -> tuple[str, ...]:
        """What must lie in the benchmark's folder: the table, and the folder of the videos where one is known."""
        videos = self.place.folder if self.place else ""
        return tuple(name for name in (self.table, f"{videos}/" if videos else "") if name)


# VideoScore-Bench keeps prompts and answers inside the conversation that its authors' model was asked.
_ASKED = re.compile(r'text prompt is "(.*?)",\n', re.DOTALL)
_ANSWERED = re.compile(r": (\d+)")
_SIDES = ("left", "right")


def told_in_conversations(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench: adds `prompt`, from the question, and `answers`, the numbers of the answer in their order."""
    for line, row in rows:
        said = [str(turn.get("value", "")) for turn in row.get("conversations") or [] if isinstance(turn, Mapping)]
        asked = _ASKED.search(said[0]) if said else None
        if asked is None:
            raise DataError(file, line, 'no text prompt is "..." in conversations; is this VideoScore-Bench?')
        answers = [int(number) for number in _ANSWERED.findall(said[1])] if len(said) > 1 else []
        yield line, {**row, "prompt": asked.group(1).strip(), "answers": answers}


def left_and_right(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench's GenAI part: rows '0000_left' and '0000_right', each with a preference, are one pair.

    The higher preference is the preferred side; equal ones are a tie."""
    waiting: dict[str, tuple[int, TableRow]] = {}
    for line, row in told_in_conversations(rows, file):
        number, _, side = str(row["id"]).rpartition("_")
        if side not in _SIDES:
            raise DataError(file, line, f"id is {row['id']!r}; expected NUMBER_left or NUMBER_right")
        if number not in waiting:
            waiting[number] = line, row
            continue
        _, other = waiting.pop(number)
        if other["id"] == row["id"]:
            raise DataError(file, line, f"id {row['id']!r} is there twice; fetch the table again")
        left, right = (row, other) if side == "left" else (other, row)
        choice = _higher(left["preference"], right["preference"], file=file, line=line)
        pair = {"prompt": left["prompt"], "video_a": left["id"], "video_b": right["id"], "choice": choice}
        yield line, pair
    for line, row in waiting.values():
        raise DataError(file, line, f"id is {row['id']!r} and its other side is missing; fetch the table again")


def against_each_other(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench's VBench part: rows 'technical_quality_0_lavie' hold a preference over each other model's clip
    for the same prompt: 1 preferred, 0 not, 0.5 a tie. Every two are one pair, judged for that aspect only."""
    same: dict[str, list[tuple[int, TableRow]]] = defaultdict(list)
    for line, row in told_in_conversations(rows, file):
        same[str(row["id"]).rpartition("_")[0]].append((line, row))
    for key, clips in same.items():
        aspect = key.rpartition("_")[0]
        for (line, a), (_, b) in combinations(clips, 2):
            model_a, model_b = (str(row["id"]).rpartition("_")[2] for row in (a, b))
            share = (a["preference"] or {}).get(model_b)
            if share is not None:
                choice = _higher(share, 1 - share, file=file, line=line)
                sides = {"video_a": a["id"], "video_b": b["id"], "source_a": model_a, "source_b": model_b}
                yield line, {"prompt": a["prompt"], **sides, "choice": {aspect: choice}}


def _higher(a: Any, b: Any, *, file: str, line: int) -> str:  # noqa: ANN401  # whatever the table holds
    if not (isinstance(a, int | float) and isinstance(b, int | float)):
        raise DataError(file, line, f"preference is {a!r} and {b!r}; expected two numbers")
    return "tie" if a == b else "a" if a > b else "b"
