"""All that is wrong with one row of a table of pairs, looked at by itself.

In: the cells of a row and what its columns are called. Out: what could be read of it, and its faults in words.
Knows single rows; knows nothing of other rows, and opens no video."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from descore.data.cells import Cells
from descore.data.pairs import NameOf, PairColumns, SideColumns
from descore.errors import AnswerError, DataError
from descore.rubric import read_answer
from descore.types import DIMENSIONS, Mark, Preference

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRow:
    """A row, as far as it can be read."""

    line: int
    prompt: str | None
    videos: tuple[str | None, str | None]
    """Paths of a and b; None where there is none."""
    preference: Mapping[str, Preference]
    """By label, without those that are empty or wrong."""
    chains: tuple[str | None, str | None]
    marked: int
    """How many of its two clips have marks."""
    rated: int
    """How many of them have a rating, on any dimension."""
    sources: tuple[str | None, str | None]
    faults: tuple[str, ...]
    """What is wrong, each on a line of its own."""


class _Reading:
    """Reads cells one after another, and keeps what is wrong with them."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def cell(self, read: Callable[..., T], *what: Any) -> T | None:  # noqa: ANN401  # whatever the reader takes
        """What a reader of cells gives, or None where it gives up."""
        try:
            return read(*what)
        except DataError as fault:
            self.faults.append(fault.reason)
            return None


def see_row(cells: Cells, *, columns: PairColumns, name_of: NameOf) -> SeenRow:
    """Read every cell of a row, whatever is wrong with the others. `name_of` makes a path of a video's cell."""
    reading = _Reading()
    prompt = reading.cell(cells.needed, columns.prompt)
    video_a, video_b = (reading.cell(cells.needed, column) for column in (columns.video_a, columns.video_b))
    labels = {label: reading.cell(cells.choice, column, columns.values) for label, column in columns.preference.items()}
    chains = tuple(reading.cell(cells.text, side.chain) for side in (columns.a, columns.b))
    marked = rated = 0
    for side, chain in zip((columns.a, columns.b), chains, strict=True):
        ratings = [reading.cell(cells.number, column) for column in side.ratings.values()]
        marks = None if side.marks is None else reading.cell(cells.marks, side.marks)
        rated += any(rating is not None for rating in ratings)
        marked += marks is not None
        reading.faults += [] if chain is None else _in_chain(chain, side, marks)
    if (chains[0] is None) != (chains[1] is None):
        there, empty = (columns.a, columns.b) if chains[0] else (columns.b, columns.a)
        reading.faults.append(f"{there.chain} is there and {empty.chain or 'the other'} is empty; give both or neither")
    return SeenRow(
        line=cells.line,
        prompt=prompt,
        videos=(video_a and name_of(video_a), video_b and name_of(video_b)),
        preference={label: choice for label, choice in labels.items() if choice is not None},
        chains=(chains[0], chains[1]),
        marked=marked,
        rated=rated,
        sources=(reading.cell(cells.text, columns.source_a), reading.cell(cells.text, columns.source_b)),
        faults=tuple(reading.faults),
    )


def _in_chain(chain: str, side: SideColumns, marks: Mapping[str, Mark] | None) -> Iterator[str]:
    """What is wrong with a chain, and with the marks that stand beside it."""
    try:
        verdict = read_answer(chain)
    except AnswerError as fault:
        yield f"{side.chain}: {fault}; expected a chain that ends with its verdict"
        return
    unlike = [name for name in DIMENSIONS if marks is not None and marks[name] != verdict.marks[name]]
    if marks is not None and unlike:
        told = ", ".join(f"{name} is {_sign(marks[name])} and {_sign(verdict.marks[name])}" for name in unlike)
        yield f"{side.marks} and the answer of {side.chain} differ: {told}; make them agree"


def _sign(mark: Mark) -> str:
    return "N/A" if mark is None else str(mark)
