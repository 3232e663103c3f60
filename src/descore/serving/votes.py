"""People's votes on pairs of clips: the order of the pairs, a journal of all votes, and the table that they make.

    votes.jsonl.journal    first line: the settings; then a vote a line, on the disk before the next pair is shown
    votes.jsonl            a table of pairs (data/schema.py): a row for each pair with a choice, in the source's order

In: a table of pairs or of clips, and votes. Out: both files. All raters see the pairs in one order, drawn by a seed, so
that the first pairs get the most votes; the sides are drawn for each rater and pair anew."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from descore.data.schema import OVERALL, PairColumns, pair_columns_of, parse_pair
from descore.data.tables import Cells, columns_of, read_rows
from descore.data.write import moved_path, schema_cells, schema_columns, table_writer
from descore.errors import ConfigError, DataError
from descore.io import append_records, lock_file, make_directory, read_records
from descore.rewards.journal import check_out, journal_of
from descore.types import Pair, Preference

PairMember = Literal["a", "b"]

_TABLE_SHARE = 20
"""The table is written again after so many times the seconds that it took: votes do not wait for a large one."""

VOTES_COLUMN = "votes"
"""Column of the table: how many chose a, b and tie, by label, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What a rater says of a pair."""

    rater: str
    prompt: str
    video_a: str
    """As the source has it."""
    video_b: str
    choices: Mapping[str, Preference]
    """By label; empty where the pair was skipped."""
    skipped: str | None = None
    """Why there is no choice."""
    left: PairMember
    """Which of the two was shown on the left."""
    seconds: float | None = None
    """From the sight of the pair to the vote, as the page has it."""

    @property
    def key(self) -> str:
        """Names the pair."""
        return pair_key(self.prompt, self.video_a, self.video_b)

    def record(self) -> dict[str, Any]:
        """A line of the journal."""
        return {name: getattr(self, name) for name in self.__slots__} | {"choices": dict(self.choices)}


_VOTE = TypeAdapter(Vote)


def pair_key(prompt: str, video_a: str, video_b: str) -> str:
    """A digest of what makes a pair."""
    return hashlib.blake2b(json.dumps([prompt, video_a, video_b]).encode(), digest_size=16).hexdigest()


def _drawn(seed: int, *parts: str) -> bytes:
    """Bytes that depend on a seed and on nothing else than these texts: a table that grows keeps the order it had."""
    return hashlib.blake2b(json.dumps([seed, *parts]).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationTask:
    """The pairs of a source that people judge."""

    source: Path
    labels: tuple[str, ...]
    """What each pair is judged by."""
    seed: int
    columns: PairColumns
    """Of the source; its preferences are not read."""
    pairs: Mapping[str, Pair]
    """By key, in the order of the source; paths as the source has them."""
    order: tuple[str, ...]
    """Keys, in the order in which they are shown."""

    def path(self, video: str) -> Path:
        """Where a video is."""
        return self.source.parent / video

    def left_of(self, key: str, *, rater: str) -> PairMember:
        """Which of the two a rater sees on the left."""
        return "ab"[_drawn(self.seed, key, rater)[0] & 1]  # type: ignore[return-value]


def read_task(source: str | Path, *, labels: Sequence[str] = (), seed: int = 0) -> AnnotationTask:
    """The task of a table of pairs, or of clips: then every two clips of a prompt are a pair.

    labels: by default those of the table's own preferences, or overall. ConfigError for a table that cannot be read;
    DataError for the first row that cannot be used, and for the first video that is not there."""
    source = Path(source)
    names = columns_of(source)
    if "video_a" in names or "video" not in names:
        # Preferences may be missing: that is why people are asked.
        columns = pair_columns_of([*names, "preference"], file=str(source))
        own = tuple(label for label in columns.preference if label != OVERALL or "preference" in names)
        columns = replace(columns, preference={})
        rows: Iterable[Pair] = _read_pairs(source, columns)
    else:
        own, columns = (), _columns_of_clips(names)
        rows = _pair_clips(source, columns)
    pairs = {pair_key(pair.prompt, pair.video_a, pair.video_b): pair for pair in rows}
    task = AnnotationTask(
        source=source,
        labels=_checked_labels(labels or own or (OVERALL,)),
        seed=seed,
        columns=columns,
        pairs=pairs,
        order=tuple(sorted(pairs, key=lambda key: _drawn(seed, key))),
    )
    _check_videos(task)
    return task


def _read_pairs(source: Path, columns: PairColumns) -> Iterator[Pair]:
    for line, row in read_rows(source, columns=columns.required):
        pair = parse_pair(Cells(file=str(source), line=line, row=row), columns=columns)
        if pair.video_a == pair.video_b:
            raise DataError(str(source), line, f"video_a and video_b are both {pair.video_a}; expected two clips")
        yield pair


def _columns_of_clips(names: Sequence[str]) -> PairColumns:
    """The columns of pairs that a table of clips gives."""
    source = "source" if "source" in names else None
    return PairColumns(preference={}, group="group" if "group" in names else None, source_a=source, source_b=source)


def _pair_clips(source: Path, columns: PairColumns) -> Iterator[Pair]:
    """Every two clips of one prompt."""
    clips: dict[str, dict[str, Cells]] = defaultdict(dict)
    for line, row in read_rows(source, columns=("prompt", "video")):
        cells = Cells(file=str(source), line=line, row=row)
        clips[cells.required("prompt")].setdefault(cells.video("video"), cells)
    several = {prompt: videos for prompt, videos in clips.items() if len(videos) > 1}
    if not several:
        raise DataError(str(source), 1, "no prompt has two clips; expected pairs to compare")
    for prompt, videos in several.items():
        for (a, of_a), (b, of_b) in combinations(videos.items(), 2):
            yield Pair(
                prompt=prompt,
                video_a=a,
                video_b=b,
                preference={},
                group=of_a.text(columns.group) or prompt,
                source_a=of_a.text(columns.source_a),
                source_b=of_b.text(columns.source_b),
                line=of_b.line,
            )


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    wrong = next((label for label in labels if not label.strip() or not label.isprintable()), None)
    if wrong is not None or len(set(labels)) < len(labels):
        raise ConfigError(f"--label: {'given twice' if wrong is None else repr(wrong)}; expected names, each once")
    return tuple(labels)


def _check_videos(task: AnnotationTask) -> None:
    for pair in task.pairs.values():
        for video in (pair.video_a, pair.video_b):
            if "://" in video or not task.path(video).is_file():
                raise DataError(str(task.source), pair.line or 1, f"{video}: no such file; expected a video file")


class VoteJournal:
    """The votes on a task, in memory and on the disk."""

    def __init__(self, task: AnnotationTask, out: Path) -> None:
        self.task, self.out = task, out
        self._latest: dict[str, dict[str, Vote]] = defaultdict(dict)
        self._writing = Lock()
        self._written, self._seconds = 0.0, 0.0

    @classmethod
    @contextmanager
    def open(cls, task: AnnotationTask, out: str | Path) -> Iterator[Self]:
        """The journal beside the table `out`, locked until the block ends; begun if it is not there.

        ConfigError if another process holds it, it is of other labels, another seed or other pairs, or there is a
        table without a journal."""
        out = Path(out)
        if out.exists() and out.samefile(task.source):
            raise ConfigError(f"{out}: is the table that is judged; choose another --out")
        check_out(out, overwrite=False)
        path, settings = journal_of(out), {"labels": list(task.labels), "seed": task.seed}
        make_directory(out.parent)
        with lock_file(path, name=out):
            journal = cls(task, out)
            if path.stat().st_size:
                journal._load(path, settings)
            else:
                append_records(path, [{"settings": settings}])
            journal._write_table()
            try:
                yield journal
            finally:
                journal._write_table()

    def _load(self, path: Path, settings: Mapping[str, Any]) -> None:
        began, votes = read_votes(path)
        if began != settings:
            raise ConfigError(
                f"{self.out}: was begun with labels {', '.join(began['labels'])} and seed {began['seed']}; go on with "
                "these, or choose another --out"
            )
        strange = sum(vote.key not in self.task.pairs for vote in votes)
        if strange:
            raise ConfigError(
                f"{self.out}: {strange} of {len(votes)} votes are on pairs that {self.task.source} does not have; "
                "go on with their table, or choose another --out"
            )
        for vote in votes:
            self._latest[vote.rater][vote.key] = vote

    @property
    def raters(self) -> list[str]:
        """Who has voted."""
        return sorted(rater for rater, votes in list(self._latest.items()) if votes)

    def votes_of(self, rater: str) -> Mapping[str, Vote]:
        """A rater's vote on each pair, by its key: the last one, where there are several."""
        return self._latest.get(rater, {})

    def add(self, vote: Vote) -> None:
        """Keep a vote; on return it is on the disk, and soon in the table too. Threads may call it. ConfigError if it
        cannot be written."""
        with self._writing:
            append_records(journal_of(self.out), [vote.record()])
            self._latest[vote.rater][vote.key] = vote
            if perf_counter() - self._written > _TABLE_SHARE * self._seconds:
                self._write_table()

    def _write_table(self) -> None:
        """The table of all votes so far, in place of the one that is there."""
        start = perf_counter()
        self._replace_table()
        self._written = perf_counter()
        self._seconds = self._written - start

    def _replace_table(self) -> None:
        by_key: dict[str, list[Vote]] = defaultdict(list)
        for votes in self._latest.values():
            for vote in votes.values():
                by_key[vote.key].append(vote)
        labels = {label: label for label in self.task.labels}
        columns = (*schema_columns(replace(self.task.columns, preference=labels)), VOTES_COLUMN)
        rows = [row for key in self.task.pairs if (row := self._row(key, by_key[key])) is not None]
        if not rows:
            self.out.unlink(missing_ok=True)
            return
        with table_writer(self.out, columns, overwrite=True) as write:
            for row in rows:
                write(row)

    def _row(self, key: str, votes: Sequence[Vote]) -> dict[str, Any] | None:
        """A pair's row; None while nobody has chosen."""
        counts = count_choices(votes, labels=self.task.labels)
        chosen = {label: choice for label in self.task.labels if (choice := majority(counts[label])) is not None}
        if not chosen:
            return None
        cells = schema_cells(replace(self.task.pairs[key], preference=chosen))
        for column in ("video_a", "video_b"):
            cells[column] = moved_path(cells[column], table=self.task.source, out=self.out)
        return {**cells, VOTES_COLUMN: json.dumps(counts)}


def count_choices(votes: Iterable[Vote], *, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many chose a, b and tie, by label. No votes on a label: none of them."""
    counts = {label: Counter(vote.choices[label] for vote in votes if label in vote.choices) for label in labels}
    return {label: {choice: count[choice] for choice in ("a", "b", "tie")} for label, count in counts.items()}


def majority(counts: Mapping[str, int]) -> Preference | None:
    """What more than half of the votes say, a or b; else a tie. None without votes."""
    total = sum(counts.values())
    if not total:
        return None
    return next((side for side in ("a", "b") if 2 * counts[side] > total), "tie")  # type: ignore[return-value]


def read_votes(path: Path) -> tuple[dict[str, Any], list[Vote]]:
    """The settings and all votes of a journal, in their order. DataError for one that is none."""
    records = read_records(path)
    settings = records[0].get("settings") if records else None
    if not isinstance(settings, dict) or not settings.keys() >= {"labels", "seed"}:
        raise DataError(str(path), 1, "no settings; expected a journal that descore serve --annotate has written")
    return settings, [_parse_vote(record, path, line) for line, record in enumerate(records[1:], start=2)]


def _parse_vote(record: Mapping[str, Any], path: Path, line: int) -> Vote:
    try:
        return _VOTE.validate_python(record)
    except ValidationError as error:
        raise DataError(str(path), line, f"no vote ({error.errors()[0]['msg']}); restore the journal") from None


def latest_votes(votes: Iterable[Vote]) -> list[Vote]:
    """Of several votes of one rater on one pair the last."""
    return list({(vote.rater, vote.key): vote for vote in votes}.values())
