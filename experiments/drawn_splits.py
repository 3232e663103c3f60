"""The splits of the drawn world that experiments judge: what is pooled of them, and how figures are shown.

In: finished runs, figures. Out: numbers with the prompt of each, which intervals resample; Markdown. Knows runs and
figures; knows nothing of how models are trained or run. A script in a folder beside this file puts this folder on its
path.

Shapes: N items (pairs, clips or marks)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descore.data.schema import OVERALL
from descore.evaluation.results import Records, margins_of
from descore.types import Pair

OUT_OF_DOMAIN = ("drawn-combinations", "drawn-wordings", "drawn-generators")
BENCHMARKS = ("drawn", *OUT_OF_DOMAIN)
DOMAINS = {"in-domain": ("drawn",), "out-of-domain": OUT_OF_DOMAIN, **{name: (name,) for name in OUT_OF_DOMAIN}}
"""By column, the splits that are pooled in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """Numbers, and the prompt that each is of."""

    value_N: NDArray[np.float64]
    """nan for an item that has none: it is used nowhere."""
    group_N: NDArray[np.str_]


def pooled(several: Sequence[Items]) -> Items:
    """All items of several in one."""
    return Items(
        value_N=np.concatenate([one.value_N for one in several]),
        group_N=np.concatenate([one.group_N for one in several]),
    )


def difference(one: Items, other: Items) -> Items:
    """Item by item, what one has over the other. ValueError if they are not of the same prompts in the same order."""
    if not np.array_equal(one.group_N, other.group_N):
        raise ValueError("these items are not of the same prompts, so they cannot be told apart one by one")
    return Items(value_N=one.value_N - other.value_N, group_N=one.group_N)


def decided_pairs(pairs: Sequence[Pair], records: Records, *, label: str = OVERALL) -> Items:
    """1 where rewards order a decided pair as its label does, else 0; nan where a clip has no score."""
    found = margins_of(label, pairs, records)
    decided_B = found.preference_B != 0
    margin_B = found.margin_B[decided_B]
    right_B = np.sign(margin_B) == found.preference_B[decided_B]
    return Items(value_N=np.where(np.isnan(margin_B), np.nan, right_B), group_N=found.group_B[decided_B])


def table(head: Sequence[str], rows: Mapping[tuple[str, ...], Sequence[str]]) -> str:
    """Markdown. A row's first cells are its key."""
    lines = [head, ["---"] * len(head), *([*key, *cells] for key, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(figure: Mapping[str, Any], form: str) -> str:
    """`.812 [.780, .844]`; a figure of a single prompt has no interval."""
    if figure["value"] is None or figure["low"] is None:
        return "" if figure["value"] is None else f"{figure['value']:{form}}"
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
