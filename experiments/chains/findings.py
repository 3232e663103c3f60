"""Pairs and marks of each kind of chains, and their differences, as plain values for the record and as Markdown.

Seeds are pooled: a value is the mean over seeds, and its interval resamples prompts, each with the items of all
seeds."""

from collections.abc import Iterator, Mapping
from typing import Any

from descore.evaluation.records import to_plain
from descore.stats.agreement import share
from descore.stats.bootstrap import bootstrap_mean
from experiments.harness import (
    JudgementsByRun,
    by_seed,
    difference,
    format_figure,
    markdown_table,
    over_seeds,
    right_items,
)

START, TRUE, PAIRS_ONLY = "start", "true", "pairs-only"
TEACHERS = {"80": 0.8, "60": 0.6}
ROUNDS = 3
CONDITIONS = (
    START,
    TRUE,
    *(f"teacher{name}{end}" for name in TEACHERS for end in ("", "-form", "-filtered")),
    *(f"self-{number}" for number in range(1, ROUNDS + 1)),
    PAIRS_ONLY,
)
"""Kinds of chains; `start` is the model that all runs start from. Without an end, teacher's chains are only asked to
have an answer; -form: and to pass the filters of length, marks and grounding; -filtered: and to agree with the
label."""
COMPARED = (
    *((f"teacher{name}-form", f"teacher{name}") for name in TEACHERS),
    *((f"teacher{name}-filtered", f"teacher{name}-form") for name in TEACHERS),
    *((f"teacher{name}-filtered", TRUE) for name in TEACHERS),
    *((name, START) for name in (TRUE, *(f"teacher{name}" for name in TEACHERS), "self-1")),
    ("self-1", PAIRS_ONLY),
    ("self-3", "self-1"),
    ("self-3", TRUE),
    (TRUE, PAIRS_ONLY),
)
"""What the filters of form buy, and that of agreement; what is left to true chains; what chains buy over the start;
what self-collection buys."""
MEASURES = ("pairs", "asked")
SHOWN_DOMAINS = ("in-domain", "out-of-domain")


def chain_findings(judgements: JudgementsByRun, kept: Mapping[str, Any]) -> dict[str, Any]:
    """`results`: of each condition, domain and measure. `differences`: between those in COMPARED. kept: by run, what
    its filters kept."""
    plain = {"results": list(_results(judgements)), "differences": list(_differences(judgements)), "kept": kept}
    return to_plain(plain)  # type: ignore[no-any-return]


def _measures(*conditions: object) -> tuple[str, ...]:
    """What all of these have: without a chain there are no marks, and the start has not learned to score."""
    without: dict[object, str] = {PAIRS_ONLY: "asked", START: "pairs"}
    lacking = {without[condition] for condition in conditions if condition in without}
    return tuple(name for name in MEASURES if name not in lacking)


def _results(judgements: JudgementsByRun) -> Iterator[dict[str, Any]]:
    present = {condition for condition, _, _ in judgements}
    for condition in (name for name in CONDITIONS if name in present):
        for domain in SHOWN_DOMAINS:
            seeds = by_seed(judgements, condition, domain)
            judged = [judgement for of_seed in seeds.values() for judgement in of_seed]
            for measure in _measures(condition):
                items = {seed: right_items(of_seed, measure) for seed, of_seed in seeds.items()}
                yield {
                    "condition": condition,
                    "domain": domain,
                    "measure": measure,
                    "value": over_seeds(items, share),
                    "by_seed": {seed: of_seed.mean for seed, of_seed in items.items()},
                    "unreadable": sum(judgement.unreadable for judgement in judged),
                    "clips": sum(judgement.clips for judgement in judged),
                }


def _differences(judgements: JudgementsByRun) -> Iterator[dict[str, Any]]:
    for one, other in COMPARED:
        for domain in SHOWN_DOMAINS:
            first, second = (by_seed(judgements, condition, domain) for condition in (one, other))
            for measure in _measures(one, other):
                items = {
                    seed: difference(right_items(first[seed], measure), right_items(second[seed], measure))
                    for seed in first
                    if seed in second
                }
                if items:
                    value = over_seeds(items, bootstrap_mean)
                    yield {"one": one, "other": other, "domain": domain, "measure": measure, "value": value}


def chain_tables(record: Mapping[str, Any]) -> str:
    """Results, then differences, as Markdown."""
    head = tuple(f"{measure}, {domain}" for measure in MEASURES for domain in SHOWN_DOMAINS)
    results = _cells(record["results"], ("condition",), ".3f")
    for condition, line in _unreadable(record["results"]).items():
        results[condition,].append(line)
    differences = _cells(record["differences"], ("one", "other"), "+.3f")
    first = markdown_table(("chains", *head, "clips without an answer"), results)
    return f"{first}\n\n{markdown_table(('of', 'over', *head), differences)}"


def _unreadable(rows: list[Mapping[str, Any]]) -> dict[str, str]:
    """By condition, how many clips have no answer that can be read, of how many."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        counts.setdefault(row["condition"], {})[row["domain"]] = (row["unreadable"], row["clips"])
    sums = {name: [sum(each) for each in zip(*domains.values(), strict=True)] for name, domains in counts.items()}
    return {name: f"{unreadable:,} of {clips:,}" for name, (unreadable, clips) in sums.items()}


def _cells(rows: list[Mapping[str, Any]], keys: tuple[str, ...], form: str) -> dict[tuple[str, ...], list[str]]:
    places = [(measure, domain) for measure in MEASURES for domain in SHOWN_DOMAINS]
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        line = cells.setdefault(tuple(row[key] for key in keys), [""] * len(places))
        line[places.index((row["measure"], row["domain"]))] = format_figure(row["value"], form)
    return cells
