"""How far raters agree: Krippendorff's alpha, and what each rater does.

In: votes, one of each rater on a pair. Out: figures by label and by rater. Alpha (Krippendorff 2019, Content Analysis,
chapter 12) is 1 where all agree and 0 where they agree as often as by chance; a tie lies between a and b, so the scale
is ordinal, and two raters who chose a and b disagree more than one of them and a tie. Shapes: V values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np

from descore.serving.votes import Vote
from descore.types import Preference

_RANKS: Mapping[Preference, int] = {"a": 0, "tie": 1, "b": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAgreement:
    """How raters agree on a label."""

    label: str
    votes: int
    pairs: int
    """With a vote."""
    shared: int
    """Pairs with votes of several raters; the others say nothing of agreement."""
    same: float | None
    """Of every two raters on one pair, the share that chose the same; None where no pair is shared."""
    decided: float | None
    """The same of two raters who both chose a or b: what a model's accuracy on decided pairs stands beside."""
    alpha: float | None
    """None where no pair is shared, or all votes are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterFigures:
    """What a rater does."""

    rater: str
    votes: int
    """Pairs with a choice."""
    skipped: int
    ties: float | None
    """Share of the choices, over all labels."""
    left: float | None
    """Of the decided choices, the share for the clip on the left: far from a half, the rater looks at the side."""
    same: float | None
    """Of all comparisons with another rater, the share of equal choices."""
    seconds: float | None
    """Median for a pair."""


def label_agreement(votes: Sequence[Vote], *, label: str) -> LabelAgreement:
    """The agreement on one label."""
    by_pair = _choices(votes, label)
    shared = [choices for choices in by_pair.values() if len(choices) > 1]
    both = [two for choices in shared for two in combinations(choices.values(), 2)]
    return LabelAgreement(
        label=label,
        votes=sum(map(len, by_pair.values())),
        pairs=len(by_pair),
        shared=len(shared),
        same=_share([a == b for a, b in both]),
        decided=_share([a == b for a, b in both if "tie" not in (a, b)]),
        alpha=krippendorff_alpha(shared),
    )


def krippendorff_alpha(units: Sequence[Mapping[str, Preference]]) -> float | None:
    """Ordinal alpha over units (pairs), each with the choices by rater; see `ordinal_alpha`."""
    return ordinal_alpha([[_RANKS[choice] for choice in unit.values()] for unit in units])


def ordinal_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Krippendorff's alpha of values on an ordinal scale, those of a unit together; units with one value do not count.

    alpha = 1 - D_observed / D_expected, both of squared differences of the values' mid-ranks (Krippendorff 2011,
    Computing Krippendorff's Alpha-Reliability, sections C to F). None where nothing can be said: no unit has two
    values, or all values are the same."""
    shared = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in shared for value in unit})
    if len(values) < 2:
        return None
    coincidences_VV = np.zeros((len(values), len(values)))
    for unit in shared:
        counts_V = np.array([unit.count(value) for value in values])
        coincidences_VV += (np.outer(counts_V, counts_V) - np.diag(counts_V)) / (len(unit) - 1)
    count_V = coincidences_VV.sum(axis=0)
    rank_V = count_V.cumsum() - count_V / 2
    distance_VV = np.subtract.outer(rank_V, rank_V) ** 2
    observed = (coincidences_VV * distance_VV).sum() / count_V.sum()
    expected = (np.outer(count_V, count_V) * distance_VV).sum() / (count_V.sum() * (count_V.sum() - 1))
    return float(1 - observed / expected)


def rater_figures(votes: Sequence[Vote], *, labels: Sequence[str]) -> list[RaterFigures]:
    """The figures of each rater, in the order of their names."""
    same: dict[str, list[bool]] = defaultdict(list)
    for label in labels:
        for choices in _choices(votes, label).values():
            for one, other in combinations(choices, 2):
                equal = choices[one] == choices[other]
                same[one].append(equal)
                same[other].append(equal)
    by_rater: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote)
    return [_figures(rater, by_rater[rater], same[rater]) for rater in sorted(by_rater)]


def _figures(rater: str, votes: Sequence[Vote], same: Sequence[bool]) -> RaterFigures:
    chosen = [vote for vote in votes if vote.choices]
    choices = [(choice, vote.left) for vote in chosen for choice in vote.choices.values()]
    seconds = [vote.seconds for vote in chosen if vote.seconds is not None]
    return RaterFigures(
        rater=rater,
        votes=len(chosen),
        skipped=len(votes) - len(chosen),
        ties=_share([choice == "tie" for choice, _ in choices]),
        left=_share([choice == left for choice, left in choices if choice != "tie"]),
        same=_share(same),
        seconds=median(seconds) if seconds else None,
    )


def _choices(votes: Sequence[Vote], label: str) -> dict[str, dict[str, Preference]]:
    """The choices on a label by pair, and of a pair by rater."""
    by_pair: dict[str, dict[str, Preference]] = defaultdict(dict)
    for vote in votes:
        if label in vote.choices:
            by_pair[vote.key][vote.rater] = vote.choices[label]
    return by_pair


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
