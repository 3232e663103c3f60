"""The figures of filters, checks and rounds as lines of text, for a terminal.

In: plain records. Out: lines."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_TESTS = {
    "own": "own chains, equal overalls as half",
    "shuffled": "shuffled labels",
    "exchanged": "with a chain of another prompt",
    "words": "words of one chain alone",
    "verdict": "marks and overall of one chain alone",
}
_WHERE = {
    "pair-loss": "in the table, for the pair loss of descore train cold-start",
    "stage-2": "in stage2.jsonl, for descore train rl",
    "drop": "left out",
}
_UNKNOWN: Mapping[str, Any] = {"value": None}


def filter_lines(run: Path, summary: Mapping[str, Any]) -> Iterator[str]:
    """What became of the chains of a run."""
    rejected = ", ".join(f"{count:,} at {step}" for step, count in summary["rejected"].items() if count)
    kept = f"kept {summary['kept']:,} of {_count(summary['chains'], 'chain')}"
    yield f"filters: {kept}" + (f"; rejected {rejected}" if rejected else "")
    if summary["unasked"]:
        yield f"without any answer so far: {_count(summary['unasked'], 'row')}"
    if summary["unlabelled"] and summary["kind"] != "clips":
        yield f"without a label to agree with: {_count(summary['unlabelled'], 'row')}"
    left = summary["rows"] - summary["rows_kept"]
    if left and summary["kind"] == "pairs":
        yield f"{_count(left, 'pair')} without chains: {_WHERE[summary['filters']['rejected_pairs']]}"
    yield f"{run / 'chains.jsonl'}: {summary['rows_kept']:,} of {_count(summary['rows'], 'row')} with chains"
    if summary["kept"]:
        yield f"next: descore chains check {run}; then name chains.jsonl as data.train of descore train"


def check_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """The figures of a check."""
    yield (
        f"{record['file']}: kept {record['kept']:,} of {_count(record['chains'], 'chain')}, "
        f"for {record['rows_kept']:,} of {_count(record['rows'], 'row')}"
    )
    rejected = ", ".join(f"{count:,} {step}" for step, count in record["rejected"].items() if count)
    yield f"rejected: {rejected or 'none'}"
    for name, spread in record["words"].items():
        if spread is not None:
            yield f"words, {name}: {spread['median']:.0f} (5 to 95 %: {spread['p5']:.0f} to {spread['p95']:.0f})"
    yield f"marks (2, 1, 0, N/A): {_marks_text(record['marks'])}"
    for title, name in (("agreement", "agreement"), ("by generator", "agreement_by_generator")):
        if record[name]:
            yield f"{title}: " + ", ".join(f"{key} {_share(value)}" for key, value in record[name].items())
    if record["kind"] == "pairs":
        yield f"by dimension (right, equal, wrong): {_order_text(record['agreement_by_dimension'])}"
    if record["right_marks"]:
        yield "marks as the table's own: " + ", ".join(f"{n} {_share(v)}" for n, v in record["right_marks"].items())
    duplicates = record["duplicates"]
    yield f"duplicates: {_count(duplicates['chains'], 'chain')}, {duplicates['words']:,} by their words alone"
    leak = record["leak"]
    tests = ", ".join(f"{words} {_share(leak[name])}" for name, words in _TESTS.items() if name in leak)
    why = leak["left_out"] or f"{leak['tested']:,} labelled chains are too few"
    yield f"leak: {tests or f'not tested, {why}'}"
    if tests and leak["left_out"]:
        yield f"leak: {leak['left_out']}"
    yield from (f"leak: {finding}" for finding in leak["findings"])
    if tests and not leak["findings"]:
        yield f"leak: {'none of these tests' if leak['left_out'] else 'no test'} shows one"


def round_lines(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rounds side by side, a figure a line."""
    rows: dict[str, list[str]] = {"round": [str(one["round"]) for one in figures]}
    rows["pairs with chains"] = [f"{one['rows_kept']:,} of {one['rows']:,}" for one in figures]
    rows["chains kept"] = [f"{one['kept']:,} of {one['chains']:,}" for one in figures]
    for name in dict.fromkeys(name for one in figures for name in one["agreement"]):
        rows[f"agreement, {name}"] = [_share(one["agreement"].get(name, _UNKNOWN)) for one in figures]
    for name in dict.fromkeys(name for one in figures for name in one["right_marks"]):
        rows[f"right marks, {name}"] = [_share(one["right_marks"].get(name, _UNKNOWN)) for one in figures]
    for name in dict.fromkeys(name for one in figures for name in one["held_out"]):
        rows[f"held-out pairs, {name}"] = [f"{one['held_out'].get(name, float('nan')):.3f}" for one in figures]
    width = max(map(len, rows))
    cell = max(len(text) for row in rows.values() for text in row)
    for name, row in rows.items():
        yield f"{name:<{width}}  " + "  ".join(f"{text:>{cell}}" for text in row)
    for one in figures:
        yield from (f"round {one['round']}: {finding}" for finding in one["leak"])
    yield f"model: {figures[-1]['model']}"


def _share(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "unknown"
    interval = "" if figure["low"] is None else f" [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"{figure['value']:.2f}{interval}"


def _marks_text(marks: Mapping[str, Mapping[str, int]]) -> str:
    rows = {name: [counts.get(mark, 0) for mark in ("2", "1", "0", "N/A")] for name, counts in marks.items()}
    return ", ".join(f"{name} {'/'.join(map(str, row))}" for name, row in rows.items())


def _order_text(orders: Mapping[str, Mapping[str, int]]) -> str:
    rows = {name: [counts.get(key, 0) for key in ("right", "equal", "wrong")] for name, counts in orders.items()}
    return ", ".join(f"{name} {'/'.join(map(str, row))}" for name, row in rows.items())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
