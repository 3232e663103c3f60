"""What a benchmark's row consists of, and how published files are reshaped.

In: the rows of a published file. Out: rows of one pair or one clip each."""

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
"""From the rows of a file, and its name for messages, to rows of one pair or one clip each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
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
class VideoPaths:
    """Maps the cell of a table to the path of its video, relative to the benchmark's folder."""

    folder: str = ""
    """The folder that the videos were unpacked into."""
    after: str = ""
    """The part of a URL behind this text is the path in that folder; if empty, the part behind the host."""

    def name_of(self, cell: str) -> str:
        """The video's path with / between folders."""
        path = unquote(urlsplit(cell).path) if "://" in cell else cell
        if self.after and self.after in path:
            path = path.partition(self.after)[2]
        return str(PurePosixPath(self.folder, path.lstrip("/")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark: what people judged, its files and columns, and where to get it."""

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
    video_paths: VideoPaths | None = None
    """None: cells are paths relative to the table."""
    frames_per_second: float | None = None
    """Where videos are folders of frames: their rate."""
    least_difference: float = 0.0
    """In points of the rating: two clips whose ratings are closer are a tie."""
    published: tuple[PublishedFigure, ...] = ()
    licence: str = ""
    how_to_get: str = ""
    """What to fetch and where to put it, below the folder that --root names."""
    notes: str = ""
    """What a reader of its figures must know, and which parts of its layout could not be verified."""
    drawn: tuple[str, ...] = ()
    """The labels of a benchmark that is drawn."""
    folder: Path | None = field(default=None, repr=False)
    """Of the user's own table; other benchmarks' folders are given as `root`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What people judged."""
        if isinstance(self.columns, PairColumns):
            return tuple(self.columns.preference)
        return self.drawn if self.columns is None else tuple(self.columns.ratings)

    @property
    def files(self) -> tuple[str, ...]:
        """What the benchmark's folder must hold: the table, and the folder of the videos where one is known."""
        videos = self.video_paths.folder if self.video_paths else ""
        return tuple(name for name in (self.table, f"{videos}/" if videos else "") if name)


# VideoScore-Bench keeps prompts and answers inside conversations with its authors' model.
_PROMPT = re.compile(r'text prompt is "(.*?)",\n', re.DOTALL)
_NUMBER = re.compile(r": (\d+)")
_MOST_DIGITS = 9
_LEFT_RIGHT = ("left", "right")


def parse_conversations(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench: adds `prompt`, from the question, and `answers`, the numbers of the answer in their order."""
    for line, row in rows:
        turns = [str(turn.get("value", "")) for turn in row.get("conversations") or [] if isinstance(turn, Mapping)]
        prompt = _PROMPT.search(turns[0]) if turns else None
        if prompt is None:
            raise DataError(file, line, 'no text prompt is "..." in conversations; is this VideoScore-Bench?')
        answers = [_answer(number, file=file, line=line) for turn in turns[1:2] for number in _NUMBER.findall(turn)]
        yield line, {**row, "prompt": prompt.group(1).strip(), "answers": answers}


def _answer(digits: str, *, file: str, line: int) -> int:
    """A score of few digits: Python reads no whole number of 4,300."""
    if len(digits) > _MOST_DIGITS:
        raise DataError(file, line, f"conversations has a score of {len(digits):,} digits; expected a small number")
    return int(digits)


def pair_left_right(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench's GenAI part: rows '0000_left' and '0000_right', each with a preference, are one pair.

    The higher preference is the preferred side; equal ones are a tie."""
    unpaired: dict[str, tuple[int, TableRow]] = {}
    for line, row in parse_conversations(rows, file):
        number, _, side = str(row["id"]).rpartition("_")
        if side not in _LEFT_RIGHT:
            raise DataError(file, line, f"id is {row['id']!r}; expected NUMBER_left or NUMBER_right")
        if number not in unpaired:
            unpaired[number] = line, row
            continue
        _, other = unpaired.pop(number)
        if other["id"] == row["id"]:
            raise DataError(file, line, f"id {row['id']!r} is there twice; fetch the table again")
        left, right = (row, other) if side == "left" else (other, row)
        choice = _higher(left["preference"], right["preference"], file=file, line=line)
        pair = {"prompt": left["prompt"], "video_a": left["id"], "video_b": right["id"], "choice": choice}
        yield line, pair
    for line, row in unpaired.values():
        raise DataError(file, line, f"id is {row['id']!r} and its other side is missing; fetch the table again")


def pair_models(rows: TableRows, file: str) -> TableRows:
    """VideoScore-Bench's VBench part: rows 'technical_quality_0_lavie' hold a preference over each other model's clip
    for the same prompt: 1 preferred, 0 not, 0.5 a tie. Every two models make one pair, judged for that aspect only."""
    by_prompt: dict[str, list[tuple[int, TableRow]]] = defaultdict(list)
    for line, row in parse_conversations(rows, file):
        by_prompt[str(row["id"]).rpartition("_")[0]].append((line, row))
    for key, clips in by_prompt.items():
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
