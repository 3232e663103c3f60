"""Parse the rows of a table of pairs, probe their videos, and count what the table holds.

In: rows with their cells, and paths. Out: parsed rows with their faults, a probe per video, and a summary as a plain
record. A summary keeps digests and numbers, and no text of a row."""

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

from descore.data.schema import NameResolver, PairColumns, SideColumns
from descore.data.tables import Cells
from descore.errors import AnswerError, DataError, VideoError
from descore.rubric import mark_text, read_answer
from descore.types import DIMENSIONS, PREFERENCE_SIGN, Mark, Preference
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

_T = TypeVar("_T")

_ENDS = VideoSampling(min_frames=2, max_frames=2, min_pixels=32 * 32, max_pixels=64 * 64)
"""Samples the first frame and the last: a file that gives both, and all of whose packets can be read, is rarely
damaged."""

_QUEUED = 4
"""Videos per thread that are being read or wait for it; more would only take memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
    """The cells of a row that can be read, and what is wrong with the others."""

    line: int
    prompt: str | None
    videos: tuple[str | None, str | None]
    """Paths of a and b; None if the cell is empty."""
    preference: Mapping[str, Preference]
    """By label, without those that are empty or wrong."""
    chains: tuple[str | None, str | None]
    marked: int
    """How many of its two clips have marks."""
    rated: int
    """How many have a rating, on any dimension."""
    sources: tuple[str | None, str | None]
    faults: tuple[str, ...]
    """What is wrong, one line each."""


class _CellReader:
    """Reads cells one after another, and collects their errors."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def __call__(self, read: Callable[..., _T], *args: Any) -> _T | None:  # noqa: ANN401  # whatever the method takes
        """What a method of `Cells` returns, or None if it raises."""
        try:
            return read(*args)
        except DataError as error:
            self.faults.append(error.reason)
            return None


def parse_row(cells: Cells, *, columns: PairColumns, name_of: NameResolver) -> ParsedRow:
    """Read every cell of a row, whatever is wrong with the others. `name_of` makes a path of a video's cell."""
    read = _CellReader()
    prompt = read(cells.required, columns.prompt)
    video_a, video_b = (read(cells.video, column) for column in (columns.video_a, columns.video_b))
    labels = {label: read(cells.choice, column, columns.values) for label, column in columns.preference.items()}
    chains = tuple(read(cells.text, side.chain) for side in (columns.a, columns.b))
    marked = rated = 0
    for side, chain in zip((columns.a, columns.b), chains, strict=True):
        ratings = [read(cells.number, column) for column in side.ratings.values()]
        marks = None if side.marks is None else read(cells.marks, side.marks)
        rated += any(rating is not None for rating in ratings)
        marked += marks is not None
        read.faults += [] if chain is None else _chain_faults(chain, side, marks)
    if (chains[0] is None) != (chains[1] is None):
        present, empty = (columns.a, columns.b) if chains[0] else (columns.b, columns.a)
        other = empty.chain or "the other"
        read.faults.append(f"{present.chain} is there and {other} is empty; give both or neither")
    return ParsedRow(
        line=cells.line,
        prompt=prompt,
        videos=(video_a and name_of(video_a), video_b and name_of(video_b)),
        preference={label: choice for label, choice in labels.items() if choice is not None},
        chains=(chains[0], chains[1]),
        marked=marked,
        rated=rated,
        sources=(read(cells.text, columns.source_a), read(cells.text, columns.source_b)),
        faults=tuple(read.faults),
    )


def _chain_faults(chain: str, side: SideColumns, marks: Mapping[str, Mark] | None) -> Iterator[str]:
    """What is wrong with a chain, and where the row's marks differ from those of its answer."""
    try:
        verdict = read_answer(chain)
    except AnswerError as error:
        yield f"{side.chain}: {error}; expected a chain that ends with its verdict"
        return
    unlike = [name for name in DIMENSIONS if marks is not None and marks[name] != verdict.marks[name]]
    if marks is not None and unlike:
        both = ", ".join(f"{name} is {mark_text(marks[name])} and {mark_text(verdict.marks[name])}" for name in unlike)
        yield f"{side.marks} and the answer of {side.chain} differ: {both}; make them agree"


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """What is known of a video file that was opened."""

    content: bytes
    """The first 16 bytes of the file's SHA-256: equal files have equal digests, whatever their names."""
    seconds: float
    """Its duration."""
    size: tuple[int, int]
    """Width and height as displayed, in pixels."""


def probe_video(path: str) -> VideoProbe | VideoError:
    """Open a file, read all its packets, and decode its first and last frame."""
    try:
        clip = read_clip(path, sampling=_ENDS)
    except VideoError as error:
        return error
    with Path(path).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()[:16]
    return VideoProbe(content, clip.duration, clip.source_size)


def probe_videos(paths: Iterable[str], *, workers: int) -> Iterator[tuple[str, VideoProbe | VideoError]]:
    """Each path with its probe, in order. Paths are taken only as fast as their videos are probed."""
    todo = iter(paths)
    waiting: deque[tuple[str, Future[VideoProbe | VideoError]]] = deque()
    # Threads, not processes: FFmpeg decodes and SHA-256 hashes without the interpreter's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        waiting.extend((path, pool.submit(probe_video, path)) for path in islice(todo, _QUEUED * workers))
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()
            waiting.extend((path, pool.submit(probe_video, path)) for path in islice(todo, 1))
    finally:
        pool.shutdown(cancel_futures=True)


ChainLength = Callable[[str], int]
"""From a chain to its length, in words or tokens."""


def count_words(chain: str) -> int:
    """The number of words between white space."""
    return len(chain.split())


@dataclass(slots=True, kw_only=True)
class TableSummary:
    """The counts of one table, which grow as rows and videos are added."""

    file: str
    length_of: ChainLength = count_words
    unit: str = "words"
    """The unit of `length_of`."""
    rows: int = 0
    unlabelled: int = 0
    """Rows without any label."""
    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By label, how often a, b and tie."""
    prompts: set[bytes] = field(default_factory=set)
    """Digests."""
    videos: int = 0
    """Files, counted by path."""
    sources: Counter[str] = field(default_factory=Counter)
    """How many clips of the rows came from each."""
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

    def add_video(self, probe: VideoProbe | None) -> None:
        """Count a video that the table has not named before; None for one that was not or could not be opened."""
        self.videos += 1
        if probe is not None:
            self.seconds.append(probe.seconds)
            self.sizes[probe.size] += 1

    def record(self) -> dict[str, Any]:
        """All counts; None for lengths of chains or videos where there are none."""
        return {
            "file": self.file,
            "rows": self.rows,
            "unlabelled": self.unlabelled,
            "labels": {label: self._label(counts) for label, counts in self.labels.items()},
            "prompts": len(self.prompts),
            "videos": self.videos,
            "sources": dict(self.sources.most_common()),
            "chains": None if not self.chains else {"unit": self.unit, **_distribution(self.chains)},
            "marked": self.marked,
            "rated": self.rated,
            "seconds": None if not self.seconds else {**_distribution(self.seconds), "total": sum(self.seconds)},
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
        }

    def _label(self, counts: Counter[str]) -> dict[str, Any]:
        labelled = counts.total()
        choices: dict[str, int] = {choice: counts[choice] for choice in PREFERENCE_SIGN}
        return {**choices, "none": self.rows - labelled, "tie_rate": counts["tie"] / labelled}


def _distribution(numbers: Sequence[float]) -> dict[str, Any]:
    median, most = np.percentile(np.asarray(numbers), [50, 95])
    return {"count": len(numbers), "median": float(median), "p95": float(most), "longest": max(numbers)}
