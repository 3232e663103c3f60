"""What a table of pairs holds, counted row by row: labels, prompts, videos, chains.

In: rows and looks at videos. Out: a plain record for people and programs. Keeps digests and numbers, no text of a row.
Knows counts; knows nothing of faults or files."""

import hashlib
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from descore.data.schema import NameOf, PairColumns, SideColumns
from descore.data.tables import Cells
from descore.errors import AnswerError, DataError, VideoError
from descore.rubric import mark_text, read_answer
from descore.types import DIMENSIONS, Mark, Preference
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
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


def parse_row(cells: Cells, *, columns: PairColumns, name_of: NameOf) -> ParsedRow:
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
    return ParsedRow(
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
        both = ", ".join(f"{name} is {mark_text(marks[name])} and {mark_text(verdict.marks[name])}" for name in unlike)
        yield f"{side.marks} and the answer of {side.chain} differ: {both}; make them agree"


_ENDS = VideoSampling(min_frames=2, max_frames=2, min_pixels=32 * 32, max_pixels=64 * 64)
"""The first frame and the last: a file that gives both, and whose packets could all be read, is rarely damaged."""

_AHEAD = 4
"""Videos for each thread that wait or are being read; more would only take memory."""


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """What a video is."""

    content: bytes
    """16 bytes of the SHA-256 of the file: equal files have equal ones, whatever they are called."""
    seconds: float
    """How long it lasts."""
    size: tuple[int, int]
    """Width and height as displayed, in pixels."""


def probe_video(path: str) -> VideoProbe | VideoError:
    """Open a file, read all its packets, and decode its first and last frame."""
    try:
        clip = read_clip(path, sampling=_ENDS)
    except VideoError as fault:
        return fault
    with Path(path).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()[:16]
    return VideoProbe(content, clip.duration, clip.source_size)


def probe_videos(paths: Iterable[str], *, workers: int) -> Iterator[tuple[str, VideoProbe | VideoError]]:
    """Each path and what is found there, in order. Paths are taken only as fast as they are looked at."""
    todo = iter(paths)
    waiting: deque[tuple[str, Future[VideoProbe | VideoError]]] = deque()
    # Threads, not processes: FFmpeg decodes and SHA-256 hashes without the interpreter's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        waiting.extend((path, pool.submit(probe_video, path)) for path in islice(todo, _AHEAD * workers))
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()
            waiting.extend((path, pool.submit(probe_video, path)) for path in islice(todo, 1))
    finally:
        pool.shutdown(cancel_futures=True)


LengthOf = Callable[[str], int]
"""The length of a chain, in whatever unit."""


def words_in(chain: str) -> int:
    """Words that white space divides."""
    return len(chain.split())


@dataclass(slots=True, kw_only=True)
class TableSummary:
    """The counts of one table. It grows as rows are added."""

    file: str
    length_of: LengthOf = words_in
    unit: str = "words"
    """What `length_of` counts."""
    rows: int = 0
    unlabelled: int = 0
    """Rows without any label."""
    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By label, how often a, b and tie."""
    prompts: set[bytes] = field(default_factory=set)
    """Digests."""
    videos: int = 0
    """Files, by path."""
    sources: Counter[str] = field(default_factory=Counter)
    """How many clips of the rows each made."""
    chains: "array[int]" = field(default_factory=lambda: array("L"))
    """Their lengths."""
    marked: int = 0
    """Clips of the rows with marks, which stage 2 learns chains from."""
    rated: int = 0
    """Clips of the rows with a rating."""
    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add_row(self, row: ParsedRow, *, prompt: bytes | None) -> None:
        """Count a row; `prompt` is the digest of its prompt."""
        self.rows += 1
        self.unlabelled += not row.preference
        for label, choice in row.preference.items():
            self.labels[label][choice] += 1
        if prompt is not None:
            self.prompts.add(prompt)
        self.sources.update(source for source in row.sources if source is not None)
        self.marked += row.marked
        self.rated += row.rated
        self.chains.extend(self.length_of(chain) for chain in row.chains if chain is not None)

    def add_video(self, look: VideoProbe | None) -> None:
        """Count a video that the table names for the first time; None for one that nobody could or did look at."""
        self.videos += 1
        if look is not None:
            self.seconds.append(look.seconds)
            self.sizes[look.size] += 1

    def record(self) -> dict[str, Any]:
        """All figures. What nothing is known of is None."""
        return {
            "file": self.file,
            "rows": self.rows,
            "unlabelled": self.unlabelled,
            "labels": {label: self._label(counts) for label, counts in self.labels.items()},
            "prompts": len(self.prompts),
            "videos": self.videos,
            "sources": dict(self.sources.most_common()),
            "chains": None if not self.chains else {"unit": self.unit, **_spread(self.chains)},
            "marked": self.marked,
            "rated": self.rated,
            "seconds": None if not self.seconds else {**_spread(self.seconds), "total": sum(self.seconds)},
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
        }

    def _label(self, counts: Counter[str]) -> dict[str, Any]:
        told = counts.total()
        shown = {choice: counts[choice] for choice in ("a", "b", "tie")}
        return {**shown, "none": self.rows - told, "tie_rate": counts["tie"] / told}


def _spread(numbers: Sequence[float]) -> dict[str, Any]:
    median, most = np.percentile(np.asarray(numbers), [50, 95])
    return {"count": len(numbers), "median": float(median), "p95": float(most), "longest": max(numbers)}
