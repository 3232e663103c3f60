"""Tables of pairs checked before anything is trained on them: every row, and all that is wrong at once.

    looks = look_at_videos(tables, workers=4)    # each file once; {} to open nothing
    check = Check(tables, looks=looks)
    for finding in check.findings(): ...         # as they are found, in the order of the rows
    check.tallies                                # then, what the tables hold

Several tables are the parts of a split: no clip may be in two of them. Clips are the same if their files hold the same
bytes or, where no file was opened, if their paths are the same. Prompts may differ in case and white space.
In: tables in the project's schema. Out: findings with file and line. Of each row digests are kept, and no text.
Knows rows and how they stand to each other; knows nothing of what is trained on them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from sys import intern

from descore.data.inspect import LengthOf, ParsedRow, TableSummary, VideoProbe, parse_row, probe_videos, words_in
from descore.data.schema import PairColumns, beside, own_pair_columns
from descore.data.tables import Cells, columns_of, read_rows, value_at
from descore.errors import ConfigError, DataError, VideoError

Probes = Mapping[bytes, VideoProbe | VideoError]
"""By the digest of a path, what is there."""

_NONE = "-"
"""In place of a preference's first letter: there is none."""
_TURNED = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong in a table, or worth knowing."""

    file: str
    line: int
    message: str
    warning: bool = False
    """Nothing need be wrong: whether it is, the table cannot tell."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class _Place:
    table: int
    line: int


def find_tables(tables: Sequence[Path]) -> None:
    """ConfigError if one is not there, or is named twice."""
    for table in tables:
        if not table.is_file():
            raise ConfigError(f"{table}: {'not a file' if table.exists() else 'no such file'}; expected a table")
    if len({table.resolve() for table in tables}) < len(tables):
        raise ConfigError(f"{', '.join(map(str, tables))}: a table is there twice; name each once")


def look_at_videos(tables: Iterable[Path], *, workers: int, watch: Callable[[], object] = lambda: None) -> Probes:
    """What the videos of all tables are. `watch` is called after each file. What cannot be read is passed over."""
    looks: dict[bytes, VideoProbe | VideoError] = {}
    for path, look in probe_videos(_paths(tables), workers=workers):
        looks[_path_key(path)] = look
        watch()
    return looks


def _paths(tables: Iterable[Path]) -> Iterator[str]:
    """Each path of the tables once."""
    met: set[bytes] = set()
    for table in tables:
        name_of = beside(table)
        try:
            for columns, cells in _rows_of(table):
                for column in (columns.video_a, columns.video_b):
                    name = value_at(cells.row, column)
                    path = name_of(name.strip()) if isinstance(name, str) and name.strip() else None
                    if path is not None and (key := _path_key(path)) not in met:
                        met.add(key)
                        yield path
        except DataError:
            continue  # the check itself will say so


def _rows_of(table: Path) -> Iterator[tuple[PairColumns, Cells]]:
    columns = own_pair_columns(columns_of(table), file=str(table))
    for line, row in read_rows(table, columns=columns.needed):
        yield columns, Cells(file=str(table), line=line, row=row)


class Check:
    """Tables that are checked together."""

    def __init__(
        self, tables: Sequence[Path], *, looks: Probes, length_of: LengthOf = words_in, unit: str = "words"
    ) -> None:
        """`looks` is empty if no video was opened. ConfigError if a table is not there, or is there twice."""
        find_tables(tables)
        self.tables = tuple(tables)
        self.looks = looks
        self.tallies = tuple(TableSummary(file=str(table), length_of=length_of, unit=unit) for table in tables)
        self.clips: dict[bytes, _Place] = {}
        self.prompts: dict[bytes, _Place] = {}

    def findings(self) -> Iterator[Finding]:
        """All that is wrong, table by table and row by row."""
        for number in range(len(self.tables)):
            yield from self._in_table(number)

    def _in_table(self, number: int) -> Iterator[Finding]:
        table, tally = self.tables[number], self.tallies[number]
        part = _Part(self, number)
        try:
            for message in _misspelt(columns_of(table)):
                yield Finding(file=str(table), line=1, message=message, warning=True)
            for columns, cells in _rows_of(table):
                for message, warning in part.about(parse_row(cells, columns=columns, name_of=beside(table))):
                    yield Finding(file=str(table), line=cells.line, message=message, warning=warning)
        except DataError as fault:
            rest = "" if not tally.rows else " (no row behind it could be looked at)"
            yield Finding(file=str(table), line=fault.line, message=fault.reason + rest)

    def elsewhere(self, known: dict[bytes, _Place], key: bytes, here: _Place) -> str | None:
        """Where another table has the same, if one has it."""
        if len(self.tables) == 1:
            return None
        first = known.setdefault(key, here)
        return None if first.table == here.table else f"{self.tables[first.table]}:{first.line}"


class _Part:
    """One of the tables while its rows go by."""

    def __init__(self, check: Check, number: int) -> None:
        self.check, self.number = check, number
        self.tally = check.tallies[number]
        self.labels: list[str] = []
        self._videos: set[bytes] = set()
        self._pairs: dict[bytes, tuple[int, str]] = {}
        """By what is compared: the line, and a letter for each label."""

    def about(self, row: ParsedRow) -> Iterator[tuple[str, bool]]:
        """What is wrong with a row, and whether that is a warning."""
        yield from ((fault, False) for fault in row.faults)
        prompt = None if row.prompt is None else _prompt_key(row.prompt)
        if prompt is not None and prompt not in self.tally.prompts:
            yield from self._about_prompt(prompt, row.line)
        self.tally.add_row(row, prompt=prompt)
        keys = [None if path is None else _path_key(path) for path in row.videos]
        for letter, path, key in zip("ab", row.videos, keys, strict=True):
            if key is not None and key not in self._videos:
                self._videos.add(key)
                yield from self._about_video(f"video_{letter} {path}", key, row.line)
        if keys[0] is not None and keys[1] is not None:
            yield from self._about_pair(row, prompt, self._clip(keys[0]), self._clip(keys[1]))

    def _about_prompt(self, key: bytes, line: int) -> Iterator[tuple[str, bool]]:
        other = self.check.elsewhere(self.check.prompts, key, _Place(self.number, line))
        if other is not None:
            yield f"its prompt is that of {other} too; a held-out table tells more with prompts of its own", True

    def _about_video(self, name: str, key: bytes, line: int) -> Iterator[tuple[str, bool]]:
        look = self.check.looks.get(key)
        self.tally.add_video(look if isinstance(look, VideoProbe) else None)
        if isinstance(look, VideoError):
            yield f"{name}: {look.reason}; expected a video that opens", False
        other = self.check.elsewhere(self.check.clips, self._clip(key), _Place(self.number, line))
        if other is not None:
            yield f"{name} is the clip of {other} too; keep it on one side of the split", False

    def _about_pair(
        self, row: ParsedRow, prompt: bytes | None, clip_a: bytes, clip_b: bytes
    ) -> Iterator[tuple[str, bool]]:
        if clip_a == clip_b:
            yield "video_a and video_b are the same clip; expected two", False
            return
        if prompt is None:
            return
        key = _digest(prompt + min(clip_a, clip_b) + max(clip_a, clip_b))
        told = self._letters(row, turned=clip_b < clip_a)
        if key not in self._pairs:
            self._pairs[key] = row.line, told
            return
        line, before = self._pairs[key]
        both = list(zip_longest(self.labels, before, told, fillvalue=_NONE))
        unlike = [label for label, x, y in both if x != y and _NONE not in (x, y)]
        if unlike:
            yield f"the pair of line {line} with another preference ({', '.join(unlike)}); keep the right one", False
        elif not row.preference or any(x == y != _NONE for _, x, y in both):
            yield f"the pair of line {line} again; it will count twice", True
        self._pairs[key] = line, "".join(y if x == _NONE else x for _, x, y in both)

    def _letters(self, row: ParsedRow, *, turned: bool) -> str:
        """A letter for each label that the table had so far."""
        self.labels += [label for label in row.preference if label not in self.labels]
        told = [row.preference.get(label, _NONE)[0] for label in self.labels]
        # A table has few combinations of preferences, and each row keeps one.
        return intern("".join(_TURNED.get(letter, letter) if turned else letter for letter in told))

    def _clip(self, key: bytes) -> bytes:
        """What makes a clip itself: its bytes if they are known, and else its path."""
        look = self.check.looks.get(key)
        return look.content if isinstance(look, VideoProbe) else key


_SIDED = ("video", "chain", "marks", "rating", "source")
_KNOWN = {"prompt", "preference", "group", "aspect", "source"} | {f"{stem}_{side}" for stem in _SIDED for side in "ab"}


def _misspelt(names: Sequence[str]) -> Iterator[str]:
    """Columns that nothing reads and that differ from one of ours in case only."""
    for name in names:
        stem = name.partition(".")[0]
        if stem not in _KNOWN and stem.casefold() in _KNOWN:
            yield f"column {name!r} is not read; is it {stem.casefold() + name[len(stem) :]!r}?"


def _path_key(path: str) -> bytes:
    # By its letters only: asking the file system for each name of each row would take longer than the rest.
    return _digest(os.path.abspath(path).encode("utf-8", "surrogatepass"))  # noqa: PTH100


def _prompt_key(prompt: str) -> bytes:
    return _digest(" ".join(prompt.split()).casefold().encode("utf-8", "surrogatepass"))


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
