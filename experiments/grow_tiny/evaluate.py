"""How well a model judges drawn clips that it never saw: marks and decided pairs, with thinking and without.

    python experiments/grow_tiny/evaluate.py [--model tiny] [--pairs 500] [--out evaluation.json]

The clips come from the test split of the drawn world, whose seeds no training uses; each pair's truth is known. Marks
are those of the pairs' own clips. Intervals are the bootstrap's at 95 %, over pairs."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from descore import Scorer
from descore.maths.agreement import accuracy_without_ties
from descore.maths.bootstrap import Figure
from descore.types import DIMENSIONS, Score, Think
from descore.world.telling import TEST_SEED, Example, PairExample, pair

SIGN = {"a": 1, "b": -1, "tie": 0}


def judge(scorer: Scorer, pairs: list[PairExample], think: Think) -> list[Score]:
    """Scores of all a, then all b."""
    clips = [p.a for p in pairs] + [p.b for p in pairs]
    scores = scorer.score_each(((e.clip, e.prompt) for e in clips), think=think)
    found = track(scores, description=f"think {think}", total=len(clips), console=Console(stderr=True), transient=True)
    return [score for score in found if isinstance(score, Score)]


def agreement(pairs: list[PairExample], scores: list[Score]) -> Figure:
    """Of the rewards with the true preferences."""
    reward_a, reward_b = np.array([s.reward for s in scores]).reshape(2, -1)
    preference = np.array([SIGN[p.preference] for p in pairs])
    return accuracy_without_ties(reward_a - reward_b, preference, np.arange(len(pairs)))


def marks_right(pairs: list[PairExample], scores: list[Score]) -> dict[str, dict[str, float]]:
    """For each dimension and in all: the share of true marks that the verdict gives. No verdict is five wrong marks."""
    right: dict[str, list[bool]] = {name: [] for name in DIMENSIONS}
    examples: list[Example] = [p.a for p in pairs] + [p.b for p in pairs]
    for example, score in zip(examples, scores, strict=True):
        for name in DIMENSIONS:
            verdict = score.verdict
            right[name].append(verdict is not None and verdict.marks[name] == example.verdict.marks[name])
    asked = [
        hit
        for name in DIMENSIONS
        for hit, example in zip(right[name], examples, strict=True)
        if example.verdict.marks[name] is not None
    ]
    every = {**right, "all": [hit for hits in right.values() for hit in hits], "all that were asked": asked}
    return {name: {"right": float(np.mean(hits)), "n": len(hits)} for name, hits in every.items()}


def rows(record: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The record as a person reads it."""
    for think, found in record["pairs"].items():
        yield (
            f"decided pairs right, think {think}",
            f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]",
            str(found["n"]),
        )
    for name, found in record["marks"].items():
        yield f"marks right, {name}", f"{found['right']:.3f}", str(found["n"])
    yield "chains without a readable answer", f"{record['unreadable']:.3f}", str(2 * record["of_pairs"])


def main() -> None:
    """Judge, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.model, batch_size=32)
    pairs = [pair(TEST_SEED, index) for index in range(options.pairs)]
    on, off = judge(scorer, pairs, "on"), judge(scorer, pairs, "off")
    record = {
        "model": options.model,
        "of_pairs": options.pairs,
        "versions": {name: version(name) for name in ("descore", "torch", "transformers")},
        "pairs": {
            "on": asdict(agreement(pairs, on)),
            "off": asdict(agreement(pairs, off)),
        },
        "marks": marks_right(pairs, on),
        "unreadable": float(np.mean([score.verdict is None for score in on])),
    }
    table = Table("what", "value", "n", title=f"{options.model} on {options.pairs} drawn pairs of the test split")
    for row in rows(record):
        table.add_row(*row)
    Console().print(table)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
