"""Check tables of pairs before training: every row, with all that is wrong reported at once.

    probes = probe_table_videos(tables, workers=4)    # opens each file once; {} to open none
    check = TableCheck(tables, probes=probes)
    for finding in check.findings(): ...              # in the order of the rows
    check.summaries                                   # complete once all findings were read

Several tables are the parts of a split: no clip may be in two of them. Clips are the same if their files hold the same
bytes or, where no file was opened, if their paths are equal. Prompts are compared regardless of case and white space.
In: tables in the project's schema. Out: findings with file and line. Of each row digests are kept, and no text."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from sys import intern

from descore.data.inspect import ChainLength, ParsedRow, TableSummary, VideoProbe, count_words, parse_row, probe_videos
from descore.data.schema import PairColumns, pair_columns_of, path_resolver
from descore.data.tables import Cells, columns_of, read_rows, value_at
from descore.errors import ConfigError, DataError, VideoError

Probes = Mapping[bytes, VideoProbe | VideoError]
"""By the digest of a path, its video's probe, or the error of opening it."""

_NO_LABEL = "-"
"""In place of a preference's first letter."""
_SWAPPED = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault in a table, or a warning."""

    file: str
    line: int
    message: str
    warning: bool = False
    """Whether it may be intended, which the table cannot tell."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class _Place:
    table: int
    """Its number among the tables."""
    line: int


def require_tables(tables: Sequence[Path]) -> None:
    """ConfigError if a table is missing, or is given twice."""
    for table in tables:
        if not table.is_file():
            raise ConfigError(f"{table}: {'not a file' if table.exists() else 'no such file'}; expected a table")
    if len({table.resolve() for table in tables}) < len(tables):
        raise ConfigError(f"{', '.join(map(str, tables))}: a table is there twice; name each once")


def probe_table_videos(
    tables: Iterable[Path], *, workers: int, on_progress: Callable[[], object] = lambda: None
) -> Probes:
    """Probe the videos of all tables, `workers` at a time. `on_progress` is called after each file. A table that cannot
    be read is passed over, since the check reports it."""
    probes: dict[bytes, VideoProbe | VideoError] = {}
    for path, probe in probe_videos(_paths(tables), workers=workers):
        probes[_path_key(path)] = probe
        on_progress()
    return probes


def _paths(tables: Iterable[Path]) -> Iterator[str]:
    """Each path of the tables once."""
    known: set[bytes] = set()
    for table in tables:
        name_of = path_resolver(table)
        try:
            for columns, cells in _rows_of(table):
                for column in (columns.video_a, columns.video_b):
                    name = value_at(cells.row, column)
                    path = name_of(name.strip()) if isinstance(name, str) and name.strip() else None
                    if path is not None and (key := _path_key(path)) not in known:
                        known.add(key)
                        yield path
        except DataError:
            continue  # the check reports it


def _rows_of(table: Path) -> Iterator[tuple[PairColumns, Cells]]:
    columns = pair_columns_of(columns_of(table), file=str(table))
    for line, row in read_rows(table, columns=columns.required):
        yield columns, Cells(file=str(table), line=line, row=row)


class TableCheck:
    """The check of tables that are the parts of one split."""

    def __init__(
        self, tables: Sequence[Path], *, probes: Probes, length_of: ChainLength = count_words, unit: str = "words"
    ) -> None:
        """probes: empty if no video was opened. unit: of `length_of`. ConfigError if a table is missing, or is given
        twice."""
        require_tables(tables)
        self.tables = tuple(tables)
        self.probes = probes
        self.summaries = tuple(TableSummary(file=str(table), length_of=length_of, unit=unit) for table in tables)
        self.clips: dict[bytes, _Place] = {}
        """Where each clip came first."""
        self.prompts: dict[bytes, _Place] = {}

    def findings(self) -> Iterator[Finding]:
        """All faults and warnings, table by table and row by row."""
        for number in range(len(self.tables)):
            yield from self._check_table(number)

    def _check_table(self, number: int) -> Iterator[Finding]:
        table, summary = self.tables[number], self.summaries[number]
        checker = _RowChecker(self, number)
        try:
            for message in _misspelt(columns_of(table)):
                yield Finding(file=str(table), line=1, message=message, warning=True)
            for columns, cells in _rows_of(table):
                row = parse_row(cells, columns=columns, name_of=path_resolver(table))
                for message, warning in checker.check(row):
                    yield Finding(file=str(table), line=cells.line, message=message, warning=warning)
        except DataError as error:
            rest = "" if not summary.rows else " (no row behind it could be looked at)"
            yield Finding(file=str(table), line=error.line, message=error.reason + rest)

    def first_in_another_table(self, known: dict[bytes, _Place], key: bytes, here: _Place) -> str | None:
        """File and line where a key came first, if in another table; the key is added to the `known` ones."""
        if len(self.tables) == 1:
            return None
        first = known.setdefault(key, here)
        return None if first.table == here.table else f"{self.tables[first.table]}:{first.line}"


class _RowChecker:
    """Checks the rows of one table in their order, and adds them to its summary.

    Its methods yield messages, each with whether it is a warning."""

    def __init__(self, parent: TableCheck, number: int) -> None:
        self.parent, self.number = parent, number
        self.summary = parent.summaries[number]
        self.labels: list[str] = []
        self._videos: set[bytes] = set()
        self._pairs: dict[bytes, tuple[int, str]] = {}
        """By prompt and clips: the line, and a letter for each label."""

    def check(self, row: ParsedRow) -> Iterator[tuple[str, bool]]:
        """Everything about a row."""
        yield from ((error, False) for error in row.faults)
        prompt = None if row.prompt is None else _prompt_key(row.prompt)
        if prompt is not None and prompt not in self.summary.prompts:
            yield from self._check_prompt(prompt, row.line)
        self.summary.add_row(row, prompt=prompt)
        keys = [None if path is None else _path_key(path) for path in row.videos]
        for letter, path, key in zip("ab", row.videos, keys, strict=True):
            if key is not None and key not in self._videos:
                self._videos.add(key)
                yield from self._check_video(f"video_{letter} {path}", key, row.line)
        if keys[0] is not None and keys[1] is not None:
            yield from self._check_pair(row, prompt, self._clip(keys[0]), self._clip(keys[1]))

    def _check_prompt(self, key: bytes, line: int) -> Iterator[tuple[str, bool]]:
        other = self.parent.first_in_another_table(self.parent.prompts, key, _Place(self.number, line))
        if other is not None:
            yield f"its prompt is that of {other} too; a held-out table tells more with prompts of its own", True

    def _check_video(self, name: str, key: bytes, line: int) -> Iterator[tuple[str, bool]]:
        probe = self.parent.probes.get(key)
        self.summary.add_video(probe if isinstance(probe, VideoProbe) else None)
        if isinstance(probe, VideoError):
            yield f"{name}: {probe.reason}; expected a video that opens", False
        other = self.parent.first_in_another_table(self.parent.clips, self._clip(key), _Place(self.number, line))
        if other is not None:
            yield f"{name} is the clip of {other} too; keep it on one side of the split", False

    def _check_pair(
        self, row: ParsedRow, prompt: bytes | None, clip_a: bytes, clip_b: bytes
    ) -> Iterator[tuple[str, bool]]:
        if clip_a == clip_b:
            yield "video_a and video_b are the same clip; expected two", False
            return
        if prompt is None:
            return
        key = _digest(prompt + min(clip_a, clip_b) + max(clip_a, clip_b))
        letters = self._letters(row, swapped=clip_b < clip_a)
        if key not in self._pairs:
            self._pairs[key] = row.line, letters
            return
        line, before = self._pairs[key]
        both = list(zip_longest(self.labels, before, letters, fillvalue=_NO_LABEL))
        unlike = [label for label, x, y in both if x != y and _NO_LABEL not in (x, y)]
        if unlike:
            yield f"the pair of line {line} with another preference ({', '.join(unlike)}); keep the right one", False
        elif not row.preference or any(x == y != _NO_LABEL for _, x, y in both):
            yield f"the pair of line {line} again; it will count twice", True
        self._pairs[key] = line, "".join(y if x == _NO_LABEL else x for _, x, y in both)

    def _letters(self, row: ParsedRow, *, swapped: bool) -> str:
        """The row's preferences as letters, one for each label of the rows so far."""
        self.labels += [label for label in row.preference if label not in self.labels]
        letters = [row.preference.get(label, _NO_LABEL)[0] for label in self.labels]
        # Interned, since every row keeps its letters and a table has few combinations of them.
        return intern("".join(_SWAPPED.get(letter, letter) if swapped else letter for letter in letters))

    def _clip(self, key: bytes) -> bytes:
        """What identifies a clip: the digest of its file if it was opened, or else that of its path."""
        probe = self.parent.probes.get(key)
        return probe.content if isinstance(probe, VideoProbe) else key


_SIDED = ("video", "chain", "marks", "rating", "source")
_KNOWN = {"prompt", "preference", "group", "aspect", "source"} | {f"{stem}_{side}" for stem in _SIDED for side in "ab"}


def _misspelt(names: Sequence[str]) -> Iterator[str]:
    """A message for each column that is not read and differs from one of the schema's in case only."""
    for name in names:
        stem = name.partition(".")[0]
        if stem not in _KNOWN and stem.casefold() in _KNOWN:
            yield f"column {name!r} is not read; is it {stem.casefold() + name[len(stem) :]!r}?"


def _path_key(path: str) -> bytes:
    # Path.resolve would ask the file system for every name of every row, which would take most of the time.
    return _digest(os.path.abspath(path).encode("utf-8", "surrogatepass"))  # noqa: PTH100


def _prompt_key(prompt: str) -> bytes:
    return _digest(" ".join(prompt.split()).casefold().encode("utf-8", "surrogatepass"))


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
