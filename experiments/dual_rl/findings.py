"""Gains of each condition of the stage 2 study over the start, and the drift of rewards, as plain values and as tables.

Seeds are pooled: a value is the mean over seeds, and its interval resamples prompts, each with the items of all seeds.
It holds for these seeds; `by_seed` shows how far they lie apart. A gain is taken item by item, from what the start had
for the same pair or mark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from descore.evaluation.records import to_plain
from descore.stats.agreement import share
from descore.stats.bootstrap import bootstrap_mean
from experiments.harness import (
    BENCHMARKS,
    DOMAINS,
    Items,
    Judgement,
    JudgementsByRun,
    by_seed,
    difference,
    format_figure,
    markdown_table,
    over_seeds,
    pooled,
    right_items,
)

CONDITIONS = ("default", "generative", "no-bt", "stiff", "imitation")
SCORED = ("default", "no-bt", "stiff", "imitation")
"""Conditions whose reward is the head's."""
COMPARED = (("default", "no-bt"), ("default", "generative"), ("default", "stiff"), ("default", "imitation"))
"""What the pair loss buys, what a head has over a written score, what new prompts do, and what true chains would."""
MEASURES = {
    "pairs": "decided pairs that the reward orders right",
    "written": "decided pairs that the written overall orders right",
    "marks": "written marks that are right",
    "asked": "written marks that are right, of what the prompt asks for",
}
"""A generative model's reward is the written overall. That a dimension is not asked for can be read off the prompt
alone, so the asked marks are the harder ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of training."""

    condition: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.condition}-seed{self.seed}"


Before: TypeAlias = Mapping[str, Judgement]
"""The start's judgement of each benchmark."""


def findings(before: Before, after: JudgementsByRun) -> dict[str, Any]:
    """`gains`: of each condition, measure and domain, before, after and their difference. `compared`: one condition
    minus another after training. `drift`: how far the rewards of judged clips have moved from the start's. `unseen`: by
    benchmark, drawn clips that are taken for real footage, by the start and by each seed."""
    conditions = [name for name in CONDITIONS if any(condition == name for condition, _, _ in after)]
    return to_plain(  # type: ignore[no-any-return]
        {
            "gains": list(_gains(conditions, before, after)),
            "compared": list(_compared(conditions, after)),
            "drift": list(_drift(conditions, before, after)),
            "unseen": list(_unseen(conditions, before, after)),
        }
    )


def _gains(conditions: Sequence[str], before: Before, after: JudgementsByRun) -> Iterator[dict[str, Any]]:
    for condition in conditions:
        for measure in MEASURES:
            for domain, names in DOMAINS.items():
                first = right_items([before[name] for name in names], _measure_before(condition, measure))
                seeds = by_seed(after, condition, domain)
                last = {seed: right_items(of_seed, measure) for seed, of_seed in seeds.items()}
                gain = {seed: difference(items, first) for seed, items in last.items()}
                yield {
                    "condition": condition,
                    "measure": measure,
                    "domain": domain,
                    "before": share(first.value_N, first.group_N),
                    "after": over_seeds(last, share),
                    "gain": over_seeds(gain, bootstrap_mean),
                    "by_seed": {seed: items.mean for seed, items in last.items()},
                    "gain_by_seed": {seed: items.mean for seed, items in gain.items()},
                    **_unreadable(condition, domain, before, after),
                }


def _measure_before(condition: str, measure: str) -> str:
    """The start's measure that a condition's is compared with: a model without a head scores by its written overall."""
    return "written" if measure == "pairs" and condition not in SCORED else measure


def _unreadable(condition: str, domain: str, before: Before, after: JudgementsByRun) -> dict[str, int]:
    """Clips without a verdict, and all clips, of the start and of all seeds."""
    first = [before[name] for name in DOMAINS[domain]]
    last = [judgement for of_seed in by_seed(after, condition, domain).values() for judgement in of_seed]
    return {
        "unreadable_before": sum(judgement.unreadable for judgement in first),
        "clips_before": sum(judgement.clips for judgement in first),
        "unreadable_after": sum(judgement.unreadable for judgement in last),
        "clips_after": sum(judgement.clips for judgement in last),
    }


def _compared(conditions: Sequence[str], after: JudgementsByRun) -> Iterator[dict[str, Any]]:
    for one, other in COMPARED:
        for measure in MEASURES if one in conditions and other in conditions else ():
            for domain in DOMAINS:
                first, second = (by_seed(after, condition, domain) for condition in (one, other))
                items = {
                    seed: difference(right_items(first[seed], measure), right_items(second[seed], measure))
                    for seed in first
                    if seed in second
                }
                figure = over_seeds(items, bootstrap_mean)
                yield {"one": one, "other": other, "measure": measure, "domain": domain, "difference": figure}


def _drift(conditions: Sequence[str], before: Before, after: JudgementsByRun) -> Iterator[dict[str, Any]]:
    """In standard deviations of the start's rewards over all benchmarks. `shift`: the mean change of the rewards.
    `spread`: the ratio of their deviations after and before."""
    deviation = float(np.nanstd(pooled([before[name].reward for name in BENCHMARKS]).value_N, ddof=1))
    for condition in conditions:
        for domain, names in DOMAINS.items() if condition in SCORED else ():
            first = pooled([before[name].reward for name in names])
            seeds = by_seed(after, condition, domain)
            last = {seed: pooled([one.reward for one in of_seed]) for seed, of_seed in seeds.items()}
            moved = {seed: _scaled(difference(items, first), deviation) for seed, items in last.items()}
            spread = {seed: np.nanstd(items.value_N) / np.nanstd(first.value_N) for seed, items in last.items()}
            yield {
                "condition": condition,
                "domain": domain,
                "deviation": deviation,
                "shift": over_seeds(moved, bootstrap_mean),
                "shift_by_seed": {seed: items.mean for seed, items in moved.items()},
                "spread": float(np.mean(list(spread.values()))),
            }


def _unseen(conditions: Sequence[str], before: Before, after: JudgementsByRun) -> Iterator[dict[str, Any]]:
    for condition in conditions:
        for benchmark in BENCHMARKS:
            seeds = {
                seed: judgement.unseen
                for (other, seed, name), judgement in after.items()
                if (other, name) == (condition, benchmark)
            }
            counts = {"before": before[benchmark].unseen, "by_seed": seeds, "clips": before[benchmark].clips}
            yield {"condition": condition, "split": benchmark, **counts}


def _scaled(items: Items, unit: float) -> Items:
    return Items(value_N=items.value_N / unit, group_N=items.group_N)


def tables(record: Mapping[str, Any]) -> str:
    """Gains by measure, then comparisons of conditions, drift and unseen clips, as Markdown."""
    parts = [f"{words}:\n\n{_gains_table(record, measure)}" for measure, words in MEASURES.items()]
    over, drift = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    for row in record["compared"]:
        key = (row["measure"], row["one"], row["other"])
        over.setdefault(key, []).append(format_figure(row["difference"], "+.3f"))
    for row in record["drift"]:
        spread = "" if row["spread"] is None else f", spread × {row['spread']:.2f}"
        drift.setdefault((row["condition"],), []).append(f"{format_figure(row['shift'], '+.3f')}{spread}")
    parts.append(
        f"after training, of one over the other:\n\n{markdown_table(('measure', 'of', 'over', *DOMAINS), over)}"
    )
    parts.append(f"rewards' shift, in deviations of the start's:\n\n{markdown_table(('condition', *DOMAINS), drift)}")
    unseen = dict[tuple[str, ...], list[str]]()
    for row in record["unseen"]:
        seeds = ", ".join(map(str, row["by_seed"].values()))
        unseen.setdefault((row["condition"],), []).append(f"{row['before']} → {seeds} of {row['clips']}")
    parts.append(
        f"drawn clips taken for real footage, by seed:\n\n{markdown_table(('condition', *BENCHMARKS), unseen)}"
    )
    return "\n\n".join(parts)


def _gains_table(record: Mapping[str, Any], measure: str) -> str:
    rows = dict[tuple[str, ...], list[str]]()
    for row in record["gains"]:
        if row["measure"] == measure:
            shares = " → ".join(format_figure({**row[when], "low": None}, ".3f") for when in ("before", "after"))
            cells = rows.setdefault((row["condition"],), [])
            cells.append(f"{shares}: {format_figure(row['gain'], '+.3f')}")
            if row["domain"] == "out-of-domain":
                counts = (f"{row[f'unreadable_{when}']:,} of {row[f'clips_{when}']:,}" for when in ("before", "after"))
                cells.append(" → ".join(counts))
    inside, outside, *apart = DOMAINS
    return markdown_table(("condition", inside, outside, "unreadable chains there", *apart), rows)
