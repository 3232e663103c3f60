"""Accuracies of the cold-start runs and their differences, as plain values for the record and as Markdown tables.

Seeds are pooled: a value is the mean over seeds, and its interval resamples prompts, each with the items of all seeds.
It holds for these seeds; `by_seed` shows how far they lie apart. Differences are taken pair by pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from descore.evaluation.records import to_plain
from descore.stats.agreement import share
from descore.stats.bootstrap import bootstrap_mean
from descore.types import Think
from experiments.harness import (
    DOMAINS,
    JudgementsByRun,
    by_seed,
    difference,
    format_figure,
    markdown_table,
    over_seeds,
    right_items,
)

Setting: TypeAlias = tuple[float, Think]
"""p of training, and whether the model thinks."""
Condition: TypeAlias = tuple[int, float, Think]
"""Training pairs, p of training, and whether the model thinks."""
COMPARED: tuple[tuple[Setting, Setting], ...] = (
    ((0.5, "on"), (0.0, "on")),
    ((0.5, "off"), (0.0, "off")),
    ((0.5, "on"), (1.0, "off")),
    ((0.5, "off"), (1.0, "off")),
    ((0.5, "on"), (0.5, "off")),
)
"""What the mask costs with chains and buys without them; what chains buy over the discriminative baseline, thinking and
not; what thinking buys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of training."""

    pairs: int
    drop: float
    """p, the probability that both chains of a pair drop out."""
    seed: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.pairs}-pairs-p{self.drop:g}-seed{self.seed}"

    def condition(self, think: Think) -> Condition:
        """The condition under which its judgements are stored."""
        return self.pairs, self.drop, think


def findings(judgements: JudgementsByRun) -> dict[str, Any]:
    """`accuracy`: of each condition and domain. `differences`: between the settings in COMPARED."""
    return to_plain(  # type: ignore[no-any-return]
        {"accuracy": list(_accuracies(judgements)), "differences": list(_differences(judgements))}
    )


def _accuracies(judgements: JudgementsByRun) -> Iterator[dict[str, Any]]:
    conditions: set[Any] = {condition for condition, _, _ in judgements}
    for condition in sorted(conditions):
        pairs, drop, think = condition
        for domain in DOMAINS:
            seeds = by_seed(judgements, condition, domain)
            items = {seed: right_items(of_seed, "pairs") for seed, of_seed in seeds.items()}
            judged = [judgement for of_seed in seeds.values() for judgement in of_seed]
            yield {
                "pairs": pairs,
                "drop": drop,
                "think": think,
                "domain": domain,
                "accuracy": over_seeds(items, share),
                "by_seed": {seed: of_seed.mean for seed, of_seed in items.items()},
                "unreadable": sum(judgement.unreadable for judgement in judged),
                "clips": sum(judgement.clips for judgement in judged),
            }


def _differences(judgements: JudgementsByRun) -> Iterator[dict[str, Any]]:
    conditions: set[Any] = {condition for condition, _, _ in judgements}
    for pairs in sorted({condition[0] for condition in conditions}):
        for one, other in COMPARED:
            for domain in DOMAINS:
                first, second = (by_seed(judgements, (pairs, *setting), domain) for setting in (one, other))
                items = {
                    seed: difference(right_items(first[seed], "pairs"), right_items(second[seed], "pairs"))
                    for seed in first
                    if seed in second
                }
                if items:
                    figure = over_seeds(items, bootstrap_mean)
                    yield {"pairs": pairs, "one": one, "other": other, "domain": domain, "difference": figure}


def tables(record: Mapping[str, Any]) -> str:
    """Accuracies, then differences, as Markdown."""
    accuracy, differences = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    for row in record["accuracy"]:
        cells = accuracy.setdefault((f"{row['pairs']:,}", _setting((row["drop"], row["think"]))), [])
        cells.append(format_figure(row["accuracy"], ".3f"))
        if row["domain"] == "out-of-domain":
            cells.append(f"{row['unreadable']:,} of {row['clips']:,}" if row["think"] == "on" else "")
    for row in record["differences"]:
        key = (f"{row['pairs']:,}", _setting(row["one"]), _setting(row["other"]))
        differences.setdefault(key, []).append(format_figure(row["difference"], "+.3f"))
    inside, outside, *apart = DOMAINS
    first = markdown_table(("pairs", "way", inside, outside, "unreadable chains there", *apart), accuracy)
    return f"{first}\n\n{markdown_table(('pairs', 'of', 'over', *DOMAINS), differences)}"


def _setting(setting: Sequence[Any]) -> str:
    drop, think = setting
    return f"p = {drop:g}, {'thinking' if think == 'on' else 'without thinking'}"
