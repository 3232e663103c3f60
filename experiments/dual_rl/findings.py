"""What the runs of the experiment found on the splits: how much better each condition got, and whether rewards drifted.

In: what the start and each trained model said of every split. Out: plain values for the record, and Markdown. Seeds are
pooled: a value is the mean over seeds, and its interval resamples prompts, each with what all seeds say of it. It holds
for these seeds; `by_seed` shows how far they lie apart. A gain is taken item by item, from what the one start said of
the same pair or mark, which cancels what is easy or hard for both. Knows rewards, marks and preferences; knows nothing
of how models are trained or run.

Shapes: N items (pairs, clips or marks)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from drawn_splits import BENCHMARKS, DOMAINS, Items, decided_pairs, difference, pooled, shown, table

from descore.evaluation.records import to_plain
from descore.evaluation.results import Records, key_of
from descore.evaluation.runs import Run
from descore.stats.agreement import share
from descore.stats.bootstrap import Figure, mean
from descore.types import DIMENSIONS, RatedClip

CONDITIONS = ("default", "generative", "no-bt", "stiff", "imitation")
SCORED = ("default", "no-bt", "stiff", "imitation")
"""Conditions whose reward is the head's."""
COMPARED = (("default", "no-bt"), ("default", "generative"), ("default", "stiff"), ("default", "imitation"))
"""What the pair loss buys, what a head has over a written score, what the prompts do, and what true chains would."""
MEASURES = {
    "pairs": "decided pairs that the reward orders right",
    "written": "decided pairs that the written overall orders right",
    "marks": "written marks that are right",
    "asked": "written marks that are right, of what the prompt asks for",
}
"""Of a generative model the reward is the written overall. What a prompt does not ask for can be told from the prompt
alone, so the marks that it asks for are the harder ones."""

UNSEEN = "I see real footage"
"""How a chain begins that did not look at a drawn clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of training."""

    condition: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.condition}-seed{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """What a model said of a split."""

    right: Mapping[str, Items]
    """By measure, 1 for an item that is right, else 0; nan where a clip has no score, or a chain no verdict."""
    reward: Items
    """Of each clip."""
    unreadable: int
    """Chains without a verdict."""
    unseen: int
    """Chains that take a drawn clip for real footage, in which nothing of what is asked can be known."""
    clips: int


Before: TypeAlias = Mapping[str, Judgement]
"""By split, what the start said."""
After: TypeAlias = Mapping[tuple[Cell, str], Judgement]
"""By run and split, what its model said."""


def judgement_of(run: Run) -> Judgement:
    """A run on a split, without all that the findings do not need."""
    return Judgement(
        right={
            "pairs": decided_pairs(run.pairs, run.records),
            "written": decided_pairs(run.pairs, _as_written(run.records)),
            "marks": right_marks(run.clips, run.records, of_all=True),
            "asked": right_marks(run.clips, run.records, of_all=False),
        },
        reward=_rewards(run.clips, run.records),
        unreadable=sum(record["marks"] is None for record in run.records.values()),
        unseen=sum((record["thinking"] or "").startswith(UNSEEN) for record in run.records.values()),
        clips=len(run.clips),
    )


def _as_written(records: Records) -> Records:
    """The same records, as if of a generative model."""
    return {key: {**record, "reward": record["overall"], "rewards": None} for key, record in records.items()}


def right_marks(clips: Sequence[RatedClip], records: Records, *, of_all: bool) -> Items:
    """1 for a written mark that is right, else 0; nan without a verdict. of_all: also what is not asked for."""
    found = [
        (np.nan if said is None else float(said[name] == clip.marks[name]), clip.group)
        for clip in clips
        if clip.marks is not None
        for said in [records[key_of(clip)]["marks"]]
        for name in DIMENSIONS
        if of_all or clip.marks[name] is not None
    ]
    return Items(value_N=np.array([hit for hit, _ in found]), group_N=np.array([group for _, group in found], np.str_))


def _rewards(clips: Sequence[RatedClip], records: Records) -> Items:
    rewards = [records[key_of(clip)]["reward"] for clip in clips]
    value_N = np.array([np.nan if reward is None else reward for reward in rewards])
    return Items(value_N=value_N, group_N=np.array([clip.group for clip in clips], np.str_))


def findings(before: Before, after: After) -> dict[str, Any]:
    """`gains`: of each condition, measure and domain, before, after and their difference. `compared`: what one
    condition has over another after training. `drift`: how far rewards of judged clips have moved from the start's.
    `unseen`: by split, drawn clips that are taken for real footage, by the start and by each seed."""
    conditions = [name for name in CONDITIONS if any(cell.condition == name for cell, _ in after)]
    return to_plain(  # type: ignore[no-any-return]
        {
            "gains": list(_gains(conditions, before, after)),
            "compared": list(_compared(conditions, after)),
            "drift": list(_drift(conditions, before, after)),
            "unseen": list(_unseen(conditions, before, after)),
        }
    )


def _gains(conditions: Sequence[str], before: Before, after: After) -> Iterator[dict[str, Any]]:
    for condition in conditions:
        for measure in MEASURES:
            for domain, splits in DOMAINS.items():
                first = pooled([before[split].right[_at_the_start(condition, measure)] for split in splits])
                last = {seed: _right(seen, measure) for seed, seen in _by_seed(after, condition, domain).items()}
                gain = {seed: difference(items, first) for seed, items in last.items()}
                yield {
                    "condition": condition,
                    "measure": measure,
                    "domain": domain,
                    "before": share(first.value_N, first.group_N),
                    "after": _over_seeds(last, share),
                    "gain": _over_seeds(gain, mean),
                    "by_seed": {seed: _mean(items) for seed, items in last.items()},
                    "gain_by_seed": {seed: _mean(items) for seed, items in gain.items()},
                    **_unreadable(condition, domain, before, after),
                }


def _at_the_start(condition: str, measure: str) -> str:
    """What of the start is a condition's `before`: one that starts without a head scores by what is written."""
    return "written" if measure == "pairs" and condition not in SCORED else measure


def _unreadable(condition: str, domain: str, before: Before, after: After) -> dict[str, int]:
    """Chains without a verdict, and how many were written; after, of all seeds."""
    first = [before[split] for split in DOMAINS[domain]]
    last = [one for seen in _by_seed(after, condition, domain).values() for one in seen]
    return {
        "unreadable_before": sum(one.unreadable for one in first),
        "clips_before": sum(one.clips for one in first),
        "unreadable_after": sum(one.unreadable for one in last),
        "clips_after": sum(one.clips for one in last),
    }


def _compared(conditions: Sequence[str], after: After) -> Iterator[dict[str, Any]]:
    for one, other in COMPARED:
        for measure in MEASURES if one in conditions and other in conditions else ():
            for domain in DOMAINS:
                ours, theirs = (_by_seed(after, condition, domain) for condition in (one, other))
                over = {
                    seed: difference(_right(ours[seed], measure), _right(theirs[seed], measure))
                    for seed in ours
                    if seed in theirs
                }
                figure = _over_seeds(over, mean)
                yield {"one": one, "other": other, "measure": measure, "domain": domain, "difference": figure}


def _drift(conditions: Sequence[str], before: Before, after: After) -> Iterator[dict[str, Any]]:
    """In deviations of the start's rewards over all splits. `shift`: how far rewards have moved on average. `spread`:
    their deviation after, over that before."""
    deviation = float(np.nanstd(pooled([before[split].reward for split in BENCHMARKS]).value_N, ddof=1))
    for condition in conditions:
        for domain, splits in DOMAINS.items() if condition in SCORED else ():
            first = pooled([before[split].reward for split in splits])
            seeds = _by_seed(after, condition, domain)
            last = {seed: pooled([one.reward for one in seen]) for seed, seen in seeds.items()}
            moved = {seed: _scaled(difference(items, first), deviation) for seed, items in last.items()}
            spread = {seed: np.nanstd(items.value_N) / np.nanstd(first.value_N) for seed, items in last.items()}
            yield {
                "condition": condition,
                "domain": domain,
                "deviation": deviation,
                "shift": _over_seeds(moved, mean),
                "shift_by_seed": {seed: _mean(items) for seed, items in moved.items()},
                "spread": float(np.mean(list(spread.values()))),
            }


def _unseen(conditions: Sequence[str], before: Before, after: After) -> Iterator[dict[str, Any]]:
    for condition in conditions:
        for split in BENCHMARKS:
            seeds = {
                cell.seed: one.unseen for (cell, of), one in after.items() if (cell.condition, of) == (condition, split)
            }
            told = {"before": before[split].unseen, "by_seed": seeds, "clips": before[split].clips}
            yield {"condition": condition, "split": split, **told}


def _scaled(items: Items, unit: float) -> Items:
    return Items(value_N=items.value_N / unit, group_N=items.group_N)


def _by_seed(after: After, condition: str, domain: str) -> dict[int, list[Judgement]]:
    """By seed, the judgements on a domain's splits."""
    seeds = sorted({cell.seed for cell, _ in after if cell.condition == condition})
    return {seed: [after[Cell(condition=condition, seed=seed), split] for split in DOMAINS[domain]] for seed in seeds}


def _right(seen: Sequence[Judgement], measure: str) -> Items:
    return pooled([one.right[measure] for one in seen])


def _over_seeds(by_seed: Mapping[int, Items], statistic: Any) -> Figure:  # noqa: ANN401  # mean or share
    items = pooled(list(by_seed.values()))
    return statistic(items.value_N, items.group_N)  # type: ignore[no-any-return]


def _mean(items: Items) -> float:
    there_N = items.value_N[~np.isnan(items.value_N)]
    return float(there_N.mean()) if len(there_N) else float("nan")


def tables(found: Mapping[str, Any]) -> str:
    """Gains by measure, then what conditions have over each other, then drift: Markdown."""
    parts = [f"{words}:\n\n{_gains_table(found, measure)}" for measure, words in MEASURES.items()]
    over, drift = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    for row in found["compared"]:
        key = (row["measure"], row["one"], row["other"])
        over.setdefault(key, []).append(shown(row["difference"], "+.3f"))
    for row in found["drift"]:
        spread = "" if row["spread"] is None else f", spread × {row['spread']:.2f}"
        drift.setdefault((row["condition"],), []).append(f"{shown(row['shift'], '+.3f')}{spread}")
    parts.append(f"after training, of one over the other:\n\n{table(('measure', 'of', 'over', *DOMAINS), over)}")
    parts.append(f"rewards' shift, in deviations of the start's:\n\n{table(('condition', *DOMAINS), drift)}")
    unseen = dict[tuple[str, ...], list[str]]()
    for row in found["unseen"]:
        seeds = ", ".join(map(str, row["by_seed"].values()))
        unseen.setdefault((row["condition"],), []).append(f"{row['before']} → {seeds} of {row['clips']}")
    parts.append(f"drawn clips taken for real footage, by seed:\n\n{table(('condition', *BENCHMARKS), unseen)}")
    return "\n\n".join(parts)


def _gains_table(found: Mapping[str, Any], measure: str) -> str:
    rows = dict[tuple[str, ...], list[str]]()
    for row in found["gains"]:
        if row["measure"] == measure:
            shares = " → ".join(shown({**row[when], "low": None}, ".3f") for when in ("before", "after"))
            cells = rows.setdefault((row["condition"],), [])
            cells.append(f"{shares}: {shown(row['gain'], '+.3f')}")
            if row["domain"] == "out-of-domain":
                counts = (f"{row[f'unreadable_{when}']:,} of {row[f'clips_{when}']:,}" for when in ("before", "after"))
                cells.append(" → ".join(counts))
    inside, outside, *apart = DOMAINS
    return table(("condition", inside, outside, "unreadable chains there", *apart), rows)
