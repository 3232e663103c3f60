"""Accuracy without ties and with, and their intervals, on as many pairs as VideoGen-RewardBench has. The aim is 2 s.

The other way is plain Python: repeat the resampled prompts' pairs, sort, and try every threshold. It is run for a few
resamples, and its seconds are scaled to all of them.

python -m benchmarks.agreement [--repeats 5]"""

import random
import time
from collections import defaultdict
from itertools import groupby

import numpy as np

from benchmarks.measure import environment, interleaved, option_parser
from descore.stats.agreement import accuracy_with_ties, accuracy_without_ties

PAIRS = 26_500
RESAMPLES = 1000
PLAIN_RESAMPLES = 5

Pair = tuple[float, int, int]  # margin, preference, group


def drawn_pairs(groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, preferences, groups: a fifth of ties, and rewards that agree in about three of four decided pairs."""
    rng = np.random.default_rng(0)
    preference_B = rng.choice([-1, 0, 1], PAIRS, p=[0.4, 0.2, 0.4])
    return rng.normal(0.7 * preference_B), preference_B, np.arange(PAIRS) % groups


def plain(pairs: list[Pair]) -> tuple[float, float]:
    """Accuracy without ties and with, in one walk over the sorted pairs."""
    right = sum(margin * preference > 0 for margin, preference, _ in pairs)
    decided = sum(preference != 0 for _, preference, _ in pairs)
    best = now = right
    for _, equals in groupby(sorted(pairs, key=lambda pair: abs(pair[0])), key=lambda pair: abs(pair[0])):
        for margin, preference, _ in equals:
            now += (preference == 0) - (margin * preference > 0)
        best = max(best, now)
    return right / decided, best / len(pairs)


def plain_bootstrap(pairs: list[Pair], *, resamples: int) -> list[tuple[float, float]]:
    """Both accuracies of each resample."""
    groups = defaultdict(list)
    for pair in pairs:
        groups[pair[2]].append(pair)
    members = list(groups.values())
    dice = random.Random(0)
    return [plain([p for group in dice.choices(members, k=len(members)) for p in group]) for _ in range(resamples)]


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=5).parse_args().repeats
    print(environment())
    print(f"{PAIRS:,} pairs, {RESAMPLES:,} resamples; plain Python scaled from {PLAIN_RESAMPLES}")
    print(f"{'groups':>8} {'without':>9} {'with ties':>10} {'together':>9} {'plain':>9} {'ratio':>7}")
    for groups in (420, PAIRS):
        columns = drawn_pairs(groups)
        pairs = list(zip(*(column.tolist() for column in columns), strict=True))
        seconds = interleaved(
            {
                "without": lambda columns=columns: accuracy_without_ties(*columns, resamples=RESAMPLES),
                "with": lambda columns=columns: accuracy_with_ties(*columns, resamples=RESAMPLES),
            },
            repeats=repeats,
        )
        start = time.perf_counter()
        plain_bootstrap(pairs, resamples=PLAIN_RESAMPLES)
        scaled = (time.perf_counter() - start) * RESAMPLES / PLAIN_RESAMPLES
        ours = seconds["without"] + seconds["with"]
        print(
            f"{groups:>8,} {seconds['without']:>8.3f}s {seconds['with']:>9.3f}s {ours:>8.3f}s {scaled:>8.1f}s "
            f"{scaled / ours:>7.0f}"
        )


if __name__ == "__main__":
    main()
