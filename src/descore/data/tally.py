"""What a table of pairs holds, counted row by row: labels, prompts, videos, chains.

In: rows and looks at videos. Out: a plain record for people and programs. Keeps digests and numbers, no text of a row.
Knows counts; knows nothing of faults or files."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from descore.data.probing import Look
from descore.data.row_check import SeenRow

LengthOf = Callable[[str], int]
"""The length of a chain, in whatever unit."""


def words_in(chain: str) -> int:
    """Words that white space divides."""
    return len(chain.split())


@dataclass(slots=True, kw_only=True)
class Tally:
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

    def add_row(self, row: SeenRow, *, prompt: bytes | None) -> None:
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

    def add_video(self, look: Look | None) -> None:
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
