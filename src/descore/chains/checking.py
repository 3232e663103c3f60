"""`descore chains check`: what came of collecting chains, and whether a label leaked into them.

    check = check_chains(Path("runs/chains"))         # a run's folder, or any table with chains
    check.record                                      # plain values; check.shown has rows for the page

In: a run's folder or a table with chains. Out: counts by step, lengths, marks, agreement with people, duplicates, and
four tests of a leak. Chains are read one row at a time; of each a few numbers are kept, and the words of the first
thousands.

The tests, on couples of which people prefer one clip:

    own chains          how often the preferred clip has the higher overall
    shuffled labels     the same with labels of other pairs: what the chains' balance of a and b gives by itself
    exchanged           the same with the preferred clip's chain, and for the other clip the chain of another prompt's
                        clip that was not preferred either. A teacher that does not know the label cannot tell from one
                        clip how the other one is, and is less sure so
    words alone         how often one chain's words tell whether its clip is preferred, beside what its marks and
                        overall tell. Words that tell more than the verdict which they lead to know the label"""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from descore.chains.config import CollectConfig
from descore.chains.filtering import FilterConfig, FilteredChain, FilteredRow, filter_candidates, label_of, prose_of
from descore.chains.leaks import LeakTests
from descore.chains.output import CandidateIndex, FilterCounts
from descore.chains.records import Candidate, ChainRun
from descore.chains.source import ChainRow, ChainSourceTable, read_chain_source
from descore.chains.tasks import read_asked_with
from descore.data.tables import Cells
from descore.errors import ConfigError, DataError, VideoError
from descore.io import read_json_object
from descore.rubric import DEFAULT_RUBRIC, mark_text
from descore.stats.agreement import share
from descore.training.config_file import read_config
from descore.types import DIMENSIONS, PREFERENCE_SIGN, Clip, Pair, RatedClip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

MOST_SHOWN = 12
"""Rows on a page."""
_FRAMES = 4
_ANY_RATING = FilterConfig(rating_range=(-1e9, 1e9))
_SAMPLING = VideoSampling(
    fps=0.01, min_frames=_FRAMES, max_frames=_FRAMES, min_pixels=1, max_pixels=256 * 256, size_multiple=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """A row of the page."""

    filtered: FilteredRow
    clips: tuple[Clip | None, ...]
    """Frames of its clips; None for a video that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCheck:
    """What came of collecting."""

    is_run: bool
    record: Mapping[str, Any]
    """All counts and figures, as plain values."""
    shown: tuple[ShownRow, ...]


def check_chains(path: Path, *, shown: int = MOST_SHOWN) -> ChainCheck:
    """Check a run's folder or a table. `shown`: rows whose frames are read for a page.

    ConfigError for a path that is neither; DataError for a table without chains, or a row that cannot be used."""
    is_run = path.is_dir()
    source, rows = _rows_of_run(path) if is_run else _rows_of_table(path)
    figures, picked = _Figures(), _Picked(shown)
    for filtered in rows:
        figures.add(filtered)
        picked.add(filtered)
    if not figures.counts.chains:
        raise DataError(str(path), 1, "no row has a chain; collect some: descore chains collect CONFIG.yaml")
    return ChainCheck(
        is_run=is_run,
        record={"file": str(path), "kind": source.kind, **figures.record},
        shown=tuple(_with_frames(filtered) for filtered in picked.rows),
    )


def _rows_of_run(folder: Path) -> tuple[ChainSourceTable, Iterator[FilteredRow]]:
    """The rows of a run, filtered as its table was, or else as its settings say."""
    run = ChainRun(folder)
    if not run.config.is_file():
        raise ConfigError(
            f"{folder}: has no {run.config.name}; expected a folder of descore chains collect, or a table"
        )
    config = read_config(run.config, CollectConfig, warn=False)
    settings = config.filters
    if run.summary.is_file():
        settings = FilterConfig(**read_json_object(run.summary)["filters"])
    source, index = read_chain_source(config.data.table, limit=config.data.limit), CandidateIndex(run)
    asked = (row for row in source.rows if index.of_row(row.number))
    return source, filter_candidates(asked, index.of_row, settings, rubric=read_asked_with(config).rubric)


def _rows_of_table(table: Path) -> tuple[ChainSourceTable, Iterator[FilteredRow]]:
    """The rows of a table by the filters' defaults, each chain a candidate."""
    source = read_chain_source(table)
    rows = {row.number: list(_candidates_in(row, file=str(table))) for row in source.rows}
    with_chains = (row for row in source.rows if rows[row.number])
    defaults = FilterConfig(rating_range=_range_of(source))
    return source, filter_candidates(with_chains, rows.__getitem__, defaults, rubric=DEFAULT_RUBRIC)


def _range_of(source: ChainSourceTable) -> tuple[float, float]:
    """1 to 5, or the range of a table's ratings where that is wider."""
    ratings = [
        rating for row in source.rows if isinstance(row.record, RatedClip) for rating in row.record.ratings.values()
    ]
    return min([1.0, *ratings]), max([5.0, *ratings])


def _candidates_in(row: ChainRow, *, file: str) -> Iterator[Candidate]:
    cells = Cells(file=file, line=row.line, row=row.cells)
    for clip in row.clips:
        end = "" if clip.side is None else f"_{clip.side}"
        if (text := cells.text(f"chain{end}")) is not None:
            yield Candidate(
                key=cells.text(f"chain_key{end}") or "",
                row=row.number,
                side=clip.side,
                number=0,
                prompt=clip.prompt,
                video=clip.video,
                text=text,
                thinking=None,
                finish=None,
                teacher=cells.text("teacher") or "unknown",
                settings=cells.text("teacher_settings") or "",
                seed=0,
                tokens_in=0,
                tokens_out=0,
                cost=cells.number(f"chain_cost{end}") or 0.0,
                seconds=0.0,
                time=cells.text(f"chain_time{end}") or "",
                sees=sees if (sees := cells.text("teacher_sees")) in ("label", "comments") else "nothing",  # type: ignore[arg-type]
                error=None,
            )


@dataclass(slots=True)
class _Shares:
    """Hits by name, and the prompt of each."""

    hits: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    prompts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, hit: float, prompt: str) -> None:
        self.hits[name].append(hit)
        self.prompts[name].append(prompt)

    @property
    def record(self) -> dict[str, Any]:
        """By name, the share of hits."""
        return {name: figure_of(np.array(hits), self.prompts[name]) for name, hits in self.hits.items()}


def figure_of(hit_N: Any, prompts: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401  # an array of numbers
    """A share with its interval, as plain values; nan is None."""
    figure = share(hit_N, np.array(prompts, np.str_))
    values = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {name: None if value != value else value for name, value in values.items()} | {"n": figure.n}


class _Figures:
    """All counts, which grow row by row."""

    def __init__(self) -> None:
        self.counts = FilterCounts()
        self.words: dict[str, array[int]] = {"kept": array("L"), "all": array("L")}
        self.marks: dict[str, Counter[str]] = {name: Counter() for name in DIMENSIONS}
        self.right_marks, self.agreement, self.generators = _Shares(), _Shares(), _Shares()
        self.dimensions: dict[str, Counter[str]] = {name: Counter() for name in DIMENSIONS}
        self.chains: dict[bytes, tuple[str, str]] = {}
        """By digest of a chain, or of its words, the first clip that had it."""
        self.copies = self.copied_words = 0
        self.leaks = LeakTests()

    def add(self, filtered: FilteredRow) -> None:
        """Take a row."""
        self.counts.add(filtered)
        for chain in filtered.chains:
            self._add_chain(chain, filtered.row)
        for couple in filtered.compared:
            self._add_couple(couple, filtered.row)

    def _add_chain(self, chain: FilteredChain, row: ChainRow) -> None:
        if chain.candidate.text is None:
            return
        self.words["all"].append(chain.words)
        self._add_copy(chain)
        if chain.verdict is None:
            return
        if chain.step is None:
            self.words["kept"].append(chain.words)
            for name, mark in chain.verdict.marks.items():
                self.marks[name][mark_text(mark)] += 1
        true = _reference_marks(row, chain)
        if true is None:
            return
        for name in DIMENSIONS:
            hit = float(chain.verdict.marks[name] == true[name])
            for which in ("all", "kept") if chain.step is None else ("all",):
                self.right_marks.add(which, hit, row.record.prompt)

    def _add_copy(self, chain: FilteredChain) -> None:
        """Count a chain that another clip has too, and one whose words alone another clip's has."""
        text = chain.candidate.text or ""
        whole, prose = (
            hashlib.sha256(part.encode("utf-8", "replace")).digest()[:12] for part in (text, prose_of(text))
        )
        clip = (chain.candidate.prompt, chain.candidate.video)
        self.copies += self.chains.setdefault(whole, clip) != clip
        self.copied_words += self.chains.setdefault(b"words" + prose, clip) != clip

    def _add_couple(self, couple: Sequence[FilteredChain], row: ChainRow) -> None:
        label = label_of(row, _ANY_RATING)
        record, prompt = row.record, row.record.prompt
        if label is None:
            return
        if not isinstance(record, Pair):
            self.agreement.add("overall", float(couple[0].step != "agreement"), prompt)
            self.generators.add(record.source or "unknown", float(couple[0].step != "agreement"), prompt)
            self.leaks.add_clip(couple[0], label.overalls[0], prompt)
            return
        lead = _overall(couple[0]) - _overall(couple[1])
        for name, choice in record.preference.items():
            if sign := PREFERENCE_SIGN[choice]:
                self.agreement.add(name, float(lead * sign > 0), prompt)
        if not label.sign:
            return
        for source in dict.fromkeys(filter(None, (record.source_a, record.source_b))):
            self.generators.add(source, float(lead * label.sign > 0), prompt)
        for name in DIMENSIONS:
            self.dimensions[name][_order(couple, name, label.sign)] += 1
        self.leaks.add_pair(couple, label.sign, prompt)

    @property
    def record(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            **self.counts.record,
            "words": {name: _spread(words) for name, words in self.words.items()},
            "marks": {name: dict(counts) for name, counts in self.marks.items()},
            "right_marks": self.right_marks.record,
            "agreement": self.agreement.record,
            "agreement_by_dimension": {name: dict(counts) for name, counts in self.dimensions.items()},
            "agreement_by_generator": self.generators.record,
            "duplicates": {"chains": self.copies, "words": self.copied_words},
            "leak": self.leaks.record(self.counts.sees),
        }


def _overall(chain: FilteredChain) -> float:
    assert chain.verdict is not None, "only chains with a verdict are compared"
    return chain.verdict.overall


def _order(couple: Sequence[FilteredChain], name: str, sign: int) -> str:
    """Whether the marks of one dimension order a pair as people do."""
    marks = [chain.verdict.marks[name] for chain in couple if chain.verdict is not None]
    if marks[0] is None or marks[1] is None:
        return "not asked"
    lead = (marks[0] - marks[1]) * sign
    return "right" if lead > 0 else "wrong" if lead < 0 else "equal"


def _reference_marks(row: ChainRow, chain: FilteredChain) -> Mapping[str, Any] | None:
    """The marks of the source table, where these are not the teacher's own."""
    if row.cells.get("teacher") not in (None, ""):
        return None
    record = row.record
    if isinstance(record, RatedClip):
        return record.marks
    return record.a.marks if chain.candidate.side == "a" else record.b.marks


def _spread(words: Sequence[int]) -> dict[str, float] | None:
    if not words:
        return None
    low, median, high = np.percentile(np.asarray(words), [5, 50, 95])
    return {"count": len(words), "p5": float(low), "median": float(median), "p95": float(high), "longest": max(words)}


class _Picked:
    """The rows of a page: those with kept and rejected chains first, then those of which nothing was kept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._rows: dict[str, list[FilteredRow]] = {"both": [], "rejected": [], "kept": []}

    def add(self, filtered: FilteredRow) -> None:
        """Note a row, if there is room for its kind."""
        kind = "kept" if not filtered.rejected else "both" if filtered.couples else "rejected"
        if len(self._rows[kind]) < self.most:
            self._rows[kind].append(filtered)

    @property
    def rows(self) -> list[FilteredRow]:
        """As many as wanted, at most two in three of the first kind."""
        both, rejected, kept = self._rows.values()
        first = both[: max(self.most * 2 // 3, self.most - len(rejected) - len(kept))]
        return [*first, *rejected, *kept, *both[len(first) :]][: self.most]


def _with_frames(filtered: FilteredRow) -> ShownRow:
    return ShownRow(filtered=filtered, clips=tuple(_read(clip.path) for clip in filtered.row.clips))


def _read(path: str) -> Clip | None:
    try:
        return read_clip(path, sampling=_SAMPLING)
    except VideoError:
        return None
