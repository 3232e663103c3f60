"""What the runs of the experiment found: accuracies, what one way has over another, and both as tables.

In: the margins of every run on every split. Out: plain values for the record, and Markdown. Seeds are pooled: a value
is the mean over seeds, and its interval resamples prompts, each with what all seeds say of it. It holds for these
seeds; `by_seed` shows how far they lie apart. Differences are taken pair by pair, which cancels what is easy or hard
for both. Knows margins and preferences; knows nothing of how models are trained or run.

Shapes: B pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from drawn_splits import DOMAINS, decided_pairs, shown, table
from numpy.typing import NDArray

from descore.evaluation.records import to_plain
from descore.evaluation.runs import Run
from descore.stats.agreement import share
from descore.stats.bootstrap import mean
from descore.types import Think

ChainSource: TypeAlias = tuple[float, Think]
"""p of training, and whether the model thinks."""
COMPARED: tuple[tuple[ChainSource, ChainSource], ...] = (
    ((0.5, "on"), (0.0, "on")),
    ((0.5, "off"), (0.0, "off")),
    ((0.5, "on"), (1.0, "off")),
    ((0.5, "off"), (1.0, "off")),
    ((0.5, "on"), (0.5, "off")),
)
"""What the mask costs with chains and buys without them; what chains bring to a model that thinks, and to one that has
only learned with them; what thinking brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of training."""

    pairs: int
    drop: float
    """p, with which both chains of a pair drop out."""
    seed: int

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.pairs}-pairs-p{self.drop:g}-seed{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """What a model said of a split's decided pairs."""

    hit_B: NDArray[np.float64]
    """1 where it ordered a pair as the truth does, else 0; nan where a clip has no score."""
    group_B: NDArray[np.str_]
    """The pair's prompt."""
    unreadable: int
    """Chains without a verdict."""
    clips: int


Judged: TypeAlias = dict[tuple[Cell, str, Think], Judgement]


def judged_of(run: Run) -> Judgement:
    """A run on a split, without all that the findings do not need."""
    found, results = decided_pairs(run.pairs, run.records), run.results
    return Judgement(
        hit_B=found.value_N,
        group_B=found.group_N,
        unreadable=results["unreadable"],
        clips=results["of"],
    )


def findings(judged: Judged) -> dict[str, Any]:
    """`accuracy`: of each training set, p, way of thinking and domain. `differences`: of the ways in COMPARED."""
    return to_plain({"accuracy": list(_accuracies(judged)), "differences": list(_differences(judged))})  # type: ignore[no-any-return]


def _accuracies(judged: Judged) -> Iterator[dict[str, Any]]:
    ways = dict.fromkeys((cell.pairs, cell.drop, think) for cell, _, think in judged)
    for pairs, drop, think in sorted(ways):
        for domain in DOMAINS:
            seeds = _by_seed(judged, pairs, (drop, think), domain)
            found = [one for of_seed in seeds.values() for one in of_seed]
            yield {
                "pairs": pairs,
                "drop": drop,
                "think": think,
                "domain": domain,
                "accuracy": share(_hits(found), _groups(found)),
                "by_seed": {seed: float(np.nanmean(_hits(of_seed))) for seed, of_seed in seeds.items()},
                "unreadable": sum(one.unreadable for one in found),
                "clips": sum(one.clips for one in found),
            }


def _differences(judged: Judged) -> Iterator[dict[str, Any]]:
    for pairs in sorted({cell.pairs for cell, _, _ in judged}):
        for one, other in COMPARED:
            for domain in DOMAINS:
                sides = [_by_seed(judged, pairs, way, domain) for way in (one, other)]
                seeds = [seed for seed in sides[0] if seed in sides[1]]
                if seeds:
                    ours, theirs = ([each for seed in seeds for each in side[seed]] for side in sides)
                    figure = mean(_hits(ours) - _hits(theirs), _groups(ours))
                    yield {"pairs": pairs, "one": one, "other": other, "domain": domain, "difference": figure}


def _by_seed(judged: Judged, pairs: int, way: ChainSource, domain: str) -> dict[int, list[Judgement]]:
    """By seed, the judgements on a domain's splits."""
    drop, think = way
    seeds = sorted({cell.seed for cell, _, _ in judged if (cell.pairs, cell.drop) == (pairs, drop)})
    return {
        seed: [judged[Cell(pairs=pairs, drop=drop, seed=seed), name, think] for name in DOMAINS[domain]]
        for seed in seeds
    }


def _hits(found: Sequence[Judgement]) -> NDArray[np.float64]:
    return np.concatenate([one.hit_B for one in found])


def _groups(found: Sequence[Judgement]) -> NDArray[np.str_]:
    return np.concatenate([one.group_B for one in found])


def tables(found: Mapping[str, Any]) -> str:
    """Accuracies, then differences: Markdown."""
    accuracy, differences = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    for row in found["accuracy"]:
        cells = accuracy.setdefault((f"{row['pairs']:,}", _words((row["drop"], row["think"]))), [])
        cells.append(shown(row["accuracy"], ".3f"))
        if row["domain"] == "out-of-domain":
            cells.append(f"{row['unreadable']:,} of {row['clips']:,}" if row["think"] == "on" else "")
    for row in found["differences"]:
        head = (f"{row['pairs']:,}", _words(row["one"]), _words(row["other"]))
        differences.setdefault(head, []).append(shown(row["difference"], "+.3f"))
    inside, outside, *apart = DOMAINS
    first = table(("pairs", "way", inside, outside, "unreadable chains there", *apart), accuracy)
    return f"{first}\n\n{table(('pairs', 'of', 'over', *DOMAINS), differences)}"


def _words(way: Sequence[Any]) -> str:
    drop, think = way
    return f"p = {drop:g}, {'thinking' if think == 'on' else 'without thinking'}"
