"""How training went, from the lines of metrics.jsonl: curves, where they began and ended, how much they fluctuate.

In: the metrics of each run. Out: plain values for the record, and Markdown. All conditions of a seed are shown the same
pairs in the same order, so that which pairs come when shakes them alike; what differs is what is learned from them.
Knows lines of metrics; knows nothing of models or splits.

Shapes: T updates."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
from drawn_splits import table
from findings import CONDITIONS, Cell
from numpy.typing import NDArray

from descore.evaluation.records import to_plain

Line: TypeAlias = Mapping[str, Any]
Curves: TypeAlias = Mapping[Cell, Sequence[Line]]

CURVES = (
    "pair_accuracy",
    "correctness",
    "rollout_reward",
    "quality",
    "format",
    "margin",
    "reward",
    "reward_drift",
    "kl",
    "entropy",
    "clip_share",
    "chain_tokens",
    "truncated_chains",
    "groups_without_spread",
    "grad_norm",
)
"""What is kept of a line. reward_drift and margin are in raw rewards, of which only differences mean something."""
MOST_POINTS = 48
"""Of a curve in the record; of a longer one every second point is kept, or every third ..."""
WINDOW = 5
"""Updates of the moving mean, that of its middle and as many on both sides."""
FLUCTUATING = {
    "Bradley-Terry, the head's rewards": ("default", "pair_accuracy"),
    "GRPO, written scores": ("generative", "pair_accuracy"),
    "GRPO, written scores, ties half right": ("generative", "correctness"),
    "without Bradley-Terry, the head's rewards": ("no-bt", "pair_accuracy"),
}
"""Training accuracies. pair_accuracy is one measure for all: of decided pairs, and equal scores are wrong. correctness
is what the generative paradigm is rewarded for: ties count too, and half a point where only one side says tie."""


def curve_of(file: Path) -> list[Line]:
    """The lines on training in a metrics.jsonl, by step. Of steps that were done again the last line counts."""
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    by_step = {line["step"]: line for line in lines if "loss" in line}
    return [by_step[step] for step in sorted(by_step)]


def training(curves: Curves) -> dict[str, Any]:
    """`fluctuation`: of training accuracies. `course`: what each curve was in its first third and its last. `curves`:
    thinned."""
    return to_plain(  # type: ignore[no-any-return]
        {
            "fluctuation": list(_fluctuations(curves)),
            "course": list(_courses(curves)),
            "curves": {cell.name: _thinned(lines) for cell, lines in curves.items()},
        }
    )


def step_to_step(value_T: NDArray[np.float64]) -> float:
    """Sample standard deviation of the change from one update to the next; nan of fewer than two changes."""
    return _deviation(np.diff(value_T))


def around_mean(value_T: NDArray[np.float64], *, window: int = WINDOW) -> float:
    """Sample standard deviation of the distance from the centred moving mean, where the window is whole; nan of fewer
    than two such updates. A course that is a straight line does not count."""
    if len(value_T) < window:
        return float("nan")
    mean_t = np.convolve(value_T, np.full(window, 1 / window), mode="valid")
    half = window // 2
    return _deviation(value_T[half : half + len(mean_t)] - mean_t)


def _deviation(value_N: NDArray[np.float64]) -> float:
    return float(np.std(value_N, ddof=1)) if len(value_N) > 1 else float("nan")


def _fluctuations(curves: Curves) -> Iterator[dict[str, Any]]:
    for words, (condition, name) in FLUCTUATING.items():
        known = _by_seed(curves, condition, name)
        if known:
            steps = {seed: step_to_step(value_T) for seed, value_T in known.items()}
            rest = {seed: around_mean(value_T) for seed, value_T in known.items()}
            yield {
                "what": words,
                "condition": condition,
                "metric": name,
                "mean": fmean(float(np.mean(value_T)) for value_T in known.values()),
                "step_to_step": fmean(steps.values()),
                "step_to_step_by_seed": steps,
                "around_mean": fmean(rest.values()),
                "around_mean_by_seed": rest,
            }


def _courses(curves: Curves) -> Iterator[dict[str, Any]]:
    for condition in CONDITIONS:
        for name in CURVES:
            ends = {seed: _ends(value_T) for seed, value_T in _by_seed(curves, condition, name).items()}
            if ends:
                yield {
                    "condition": condition,
                    "metric": name,
                    "first": fmean(first for first, _ in ends.values()),
                    "last": fmean(last for _, last in ends.values()),
                    "last_by_seed": {seed: last for seed, (_, last) in ends.items()},
                }


def _ends(value_T: NDArray[np.float64]) -> tuple[float, float]:
    """The means of the first third and of the last."""
    third = max(len(value_T) // 3, 1)
    return float(value_T[:third].mean()), float(value_T[-third:].mean())


def _by_seed(curves: Curves, condition: str, name: str) -> dict[int, NDArray[np.float64]]:
    """A curve of each seed, without the updates that say nothing of it; no seed of which all say nothing."""
    known = {
        cell.seed: np.array([line[name] for line in lines if name in line], np.float64)
        for cell, lines in curves.items()
        if cell.condition == condition
    }
    return {seed: value_T for seed, value_T in known.items() if len(value_T)}


def _thinned(lines: Sequence[Line]) -> dict[str, list[float | None]]:
    """By name, every so many-th value; `step` says of which updates."""
    kept = lines[:: -(-len(lines) // MOST_POINTS) or 1]
    there = [name for name in CURVES if any(name in line for line in kept)]
    rounded = {name: [None if name not in line else round(line[name], 5) for line in kept] for name in there}
    return {"step": [line["step"] for line in kept], **rounded}


def training_tables(found: Mapping[str, Any]) -> str:
    """Fluctuations side by side, then courses: Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {
        (row["what"],): [
            _number(row["mean"]),
            *(_with_seeds(row[name], row[f"{name}_by_seed"]) for name in ("step_to_step", "around_mean")),
        ]
        for row in found["fluctuation"]
    }
    head = ("training accuracy", "mean", "deviation from step to step, by seed", "around the moving mean, by seed")
    by_metric = {(row["metric"], row["condition"]): row for row in found["course"]}
    conditions = [name for name in CONDITIONS if any(name == condition for _, condition in by_metric)]
    names = [name for name in CURVES if any(name == metric for metric, _ in by_metric)]
    courses: dict[tuple[str, ...], list[str]] = {
        (name,): [_course(by_metric.get((name, condition))) for condition in conditions] for name in names
    }
    said = "first third → last third of the updates"
    return f"{table(head, rows)}\n\n{said}:\n\n{table(('metric', *conditions), courses)}"


def _with_seeds(value: float | None, by_seed: Mapping[str, float | None]) -> str:
    return f"{_number(value)} ({', '.join(map(_number, by_seed.values()))})" if value is not None else ""


def _course(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{_number(row['first'])} → {_number(row['last'])}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
