"""Filter a whole run, and write what `descore train` reads.

    summary = filter_run(ChainRun(folder), source, settings, rubric=rubric)

In: a run's journal and its source table. Out, in the run's folder: chains.jsonl with the columns of the source table,
chain and marks of each clip, and where they come from; rejected.jsonl with each chain that was not kept, and why;
stage2.jsonl with the pairs that wait for stage 2, if the settings want that; and summary.json. The chains of one row
are in memory at a time."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from descore.chains.config import CollectConfig
from descore.chains.filtering import STEPS, FilterConfig, FilteredChain, FilteredRow, filter_candidates
from descore.chains.records import Candidate, ChainRun, PairSide, parse_candidate
from descore.chains.source import ChainRow, ChainSourceTable, read_chain_source
from descore.chains.tasks import read_asked_with
from descore.data.tables import TableRow
from descore.data.write import WriteRow, moved_path, table_writer
from descore.errors import ConfigError, DataError
from descore.io import atomic_path, atomic_write, parse_json_object
from descore.rubric import marks_json
from descore.training.config_file import read_config
from descore.types import DIMENSIONS, Mark, Pair

STAGE_2_FILE = "stage2.jsonl"
_ORIGIN = ("teacher", "teacher_settings", "teacher_sees")
"""Columns of a row on where its chains come from."""
_ORIGIN_OF_SIDE = ("chain_key", "chain_seed", "chain_time", "chain_cost")
"""The same of each chain."""


class CandidateIndex:
    """Where each candidate of a journal lies; its text is read when it is asked for.

    Of each place and number the last answer counts, and an error only where there is no answer."""

    def __init__(self, run: ChainRun) -> None:
        """Read the journal once. DataError for a line that is no candidate."""
        self.path = run.candidates
        self._lines: dict[int, dict[tuple[str, int], tuple[int, int, bool]]] = {}
        for line, offset, record in self._records():
            try:
                row, place = int(record["row"]), (record["side"] or "", int(record["number"]))
            except (KeyError, TypeError, ValueError):
                reason = "no candidate's row, side and number; delete the line to ask again"
                raise DataError(str(self.path), line, reason) from None
            lines, failed = self._lines.setdefault(row, {}), record.get("error") is not None
            if not failed or lines.get(place, (0, 0, True))[2]:
                lines[place] = (offset, line, failed)

    def __len__(self) -> int:
        """Candidates of all rows."""
        return sum(map(len, self._lines.values()))

    def of_row(self, row: int) -> list[Candidate]:
        """The candidates of a row, by side and number. DataError for a line that is no candidate."""
        lines = self._lines.get(row)
        if not lines:
            return []
        with self.path.open("rb") as file:
            return [self._candidate(file, *lines[place][:2]) for place in sorted(lines)]

    def _candidate(self, file: Any, offset: int, line: int) -> Candidate:  # noqa: ANN401
        file.seek(offset)
        return parse_candidate(file.readline(), self.path, line)

    def _records(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Line, offset and record of each whole line."""
        if not self.path.is_file():
            raise DataError(str(self.path), 1, "no such file; collect chains first: descore chains collect CONFIG.yaml")
        offset = 0
        with self.path.open("rb") as file:
            for line, text in enumerate(file, start=1):
                if text.endswith(b"\n"):
                    yield line, offset, parse_json_object(text.rstrip(), file=self.path, line=line)
                offset += len(text)


def filter_run(run: ChainRun, source: ChainSourceTable, settings: FilterConfig, *, rubric: str) -> dict[str, Any]:
    """Filter all candidates of a run, write the tables, and give the counts as summary.json has them.

    What an earlier call wrote is replaced. rubric: under which the chains were asked for."""
    index = CandidateIndex(run)
    asked = (row for row in source.rows if index.of_row(row.number))
    rows = filter_candidates(asked, index.of_row, settings, rubric=rubric)
    summary = write_chain_table(rows, source, settings, out=run.table)
    summary["unasked"] = len(source.rows) - summary["rows"]
    atomic_write(run.summary, json.dumps(summary, indent=1) + "\n")
    return summary


def write_chain_table(
    rows: Iterable[FilteredRow], source: ChainSourceTable, settings: FilterConfig, *, out: Path
) -> dict[str, Any]:
    """Write the kept chains of rows as a table, the others to rejected.jsonl and stage2.jsonl beside it, and count.

    Paths of videos are relative to the new tables. A row of which several couples are kept is there as often."""
    counter = FilterCounts()
    with ExitStack() as stack:
        write = stack.enter_context(table_writer(out, _columns(source), overwrite=True))
        reject = stack.enter_context(_json_lines(out.with_name("rejected.jsonl")))
        rest = None
        if source.kind == "pairs" and settings.rejected_pairs == "stage-2":
            rest = stack.enter_context(table_writer(out.with_name(STAGE_2_FILE), _columns(source), overwrite=True))
        for filtered in rows:
            counter.add(filtered)
            for chain in filtered.rejected:
                reject(rejected_record(chain))
            _write_row(filtered, source, settings, out=out, write=write, rest=rest)
    return counter.record | {
        "filters": settings.model_dump(mode="json"),
        "table": str(source.path),
        "kind": source.kind,
    }


def _write_row(
    filtered: FilteredRow,
    source: ChainSourceTable,
    settings: FilterConfig,
    *,
    out: Path,
    write: WriteRow,
    rest: WriteRow | None,
) -> None:
    cells = _source_cells(filtered.row, source, out=out)
    for couple in filtered.couples:
        write(cells | _chain_cells(couple))
    if filtered.couples or not isinstance(filtered.row.record, Pair) or settings.rejected_pairs == "drop":
        return
    cells |= _weak_cells(filtered.row.record, settings)
    (write if rest is None else rest)(cells)


class FilterCounts:
    """What became of chains and rows."""

    def __init__(self) -> None:
        self.chains = self.kept = self.rows = self.rows_kept = self.unlabelled = self.couples = 0
        self.steps: Counter[str] = Counter()
        self.teachers: Counter[str] = Counter()
        self.sees: Counter[str] = Counter()
        self.cost = 0.0

    def add(self, filtered: FilteredRow) -> None:
        """Count a row."""
        self.rows += 1
        self.rows_kept += bool(filtered.couples)
        self.couples += len(filtered.couples)
        self.unlabelled += not filtered.labelled
        for chain in filtered.chains:
            self.chains += 1
            self.kept += chain.step is None
            self.steps.update([chain.step] if chain.step else [])
            self.teachers[chain.candidate.teacher] += 1
            self.sees[chain.candidate.sees] += 1
            self.cost += chain.candidate.cost

    @property
    def record(self) -> dict[str, Any]:
        """All counts."""
        return {
            "rows": self.rows,
            "rows_kept": self.rows_kept,
            "couples": self.couples,
            "unlabelled": self.unlabelled,
            "chains": self.chains,
            "kept": self.kept,
            "rejected": {step: self.steps[step] for step in STEPS},
            "teachers": dict(self.teachers),
            "sees": dict(self.sees),
            "cost": self.cost,
        }


def rejected_record(chain: FilteredChain) -> dict[str, Any]:
    """A line of rejected.jsonl."""
    candidate, verdict = chain.candidate, chain.verdict
    return {
        "row": candidate.row,
        "side": candidate.side,
        "number": candidate.number,
        "step": chain.step,
        "reason": chain.reason,
        "prompt": candidate.prompt,
        "video": candidate.video,
        "marks": None if verdict is None else dict(verdict.marks),
        "overall": None if verdict is None else verdict.overall,
        "text": candidate.text,
        "teacher": candidate.teacher,
        "key": candidate.key,
        "seed": candidate.seed,
    }


def _columns(source: ChainSourceTable) -> tuple[str, ...]:
    """The source table's, those of the chains, and those of their origin."""
    sides = ("_a", "_b") if source.kind == "pairs" else ("",)
    added = [f"{name}{side}" for name in ("chain", "marks", *_ORIGIN_OF_SIDE) for side in sides]
    return tuple(dict.fromkeys((*source.columns, *added, *_ORIGIN)))


def _source_cells(row: ChainRow, source: ChainSourceTable, *, out: Path) -> TableRow:
    """The cells of a row as the source has them, without its own chains and marks, and with paths that lead from the
    new table."""
    sides = ("_a", "_b") if source.kind == "pairs" else ("",)
    cells = dict(row.cells)
    cells |= dict.fromkeys((f"{name}{side}" for name in ("chain", "marks") for side in sides), None)
    for clip in row.clips:
        column = "video" if clip.side is None else f"video_{clip.side}"
        cells[column] = moved_path(clip.video, table=source.path, out=out)
    return cells


def _chain_cells(couple: Sequence[FilteredChain]) -> TableRow:
    cells: TableRow = {}
    for chain in couple:
        candidate, end = chain.candidate, "" if chain.candidate.side is None else f"_{chain.candidate.side}"
        assert chain.verdict is not None, "a chain that was kept has a verdict"
        cells |= {f"chain{end}": candidate.text, f"marks{end}": marks_json(chain.verdict.marks)}
        values = (candidate.key, candidate.seed, candidate.time, candidate.cost)
        cells |= {f"{name}{end}": value for name, value in zip(_ORIGIN_OF_SIDE, values, strict=True)}
    first = couple[0].candidate
    return cells | dict(zip(_ORIGIN, (first.teacher, first.settings, first.sees), strict=True))


def _weak_cells(pair: Pair, settings: FilterConfig) -> TableRow:
    """Marks of a pair from its ratings, if the settings map these to dimensions; of both clips, or of neither."""
    sides: dict[PairSide, Mapping[str, float]] = {"a": pair.a.ratings, "b": pair.b.ratings}
    marks = {side: weak_marks(ratings, settings) for side, ratings in sides.items()}
    known = {side: of_side for side, of_side in marks.items() if of_side is not None}
    return {f"marks_{side}": marks_json(of_side) for side, of_side in known.items()} if len(known) == len(sides) else {}


def weak_marks(ratings: Mapping[str, float], settings: FilterConfig) -> dict[str, Mark] | None:
    """Marks from the ratings that `weak_marks` of the settings maps to dimensions; None without any such rating.

    A third of the range of ratings each is 0, 1 and 2; a dimension without a rating is N/A."""
    low, high = settings.rating_range
    marks: dict[str, Mark] = dict.fromkeys(DIMENSIONS)
    for label, dimension in settings.weak_marks.items():
        if label in ratings:
            thirds = 3 * (ratings[label] - low) / (high - low)
            marks[dimension] = 0 if thirds < 1 else 1 if thirds < 2 else 2
    return marks if set(marks.values()) != {None} else None


@contextmanager
def _json_lines(path: Path) -> Iterator[WriteRow]:
    """A function that writes a line of JSON; the file is there once the block has ended without an error."""
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


def filter_folder(folder: Path, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Filter a run by its own settings, with overrides such as `filters.choice=all`.

    ConfigError for a folder that is no run, or an override of anything else."""
    run = ChainRun(folder)
    if not run.config.is_file():
        raise ConfigError(f"{folder}: has no {run.config.name}; expected a folder of descore chains collect")
    if other := next((text for text in overrides if not text.startswith("filters.")), None):
        raise ConfigError(f"{other}: only the filters can change behind a run; write filters.KEY=VALUE")
    config = read_config(run.config, CollectConfig, overrides=overrides, warn=False)
    source = read_chain_source(config.data.table, limit=config.data.limit)
    return filter_run(run, source, config.filters, rubric=read_asked_with(config).rubric)


def write_weak_marks(table: Path, settings: FilterConfig, *, out: Path) -> int:
    """Write a table of pairs again with marks from its ratings, and give how many pairs have them. Marks that the table
    has already stay. ConfigError if no pair has such a rating, or `out` is there."""
    source, marked = read_chain_source(table), 0
    columns = tuple(dict.fromkeys((*source.columns, "marks_a", "marks_b")))
    with table_writer(out, columns) as write:
        for row in source.rows:
            if not isinstance(row.record, Pair):
                raise ConfigError(
                    f"{table}: is a table of single clips; expected pairs, with rating_a.NAME and rating_b.NAME"
                )
            cells = dict(row.cells)
            for clip in row.clips:
                cells[f"video_{clip.side}"] = moved_path(clip.video, table=table, out=out)
            weak = {} if row.record.a.marks or row.record.b.marks else _weak_cells(row.record, settings)
            marked += bool(weak)
            write(cells | weak)
        if not marked:
            known = ", ".join(name for name in source.columns if name.startswith("rating")) or "none"
            raise ConfigError(
                f"{table}: no pair has ratings of both clips for {', '.join(settings.weak_marks)}; found {known}"
            )
    return marked
