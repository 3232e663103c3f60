"""Training curves of the stage 2 study from metrics.jsonl: their course and fluctuation, as plain values and as tables.

All conditions of a seed see the same pairs in the same order, so the order of pairs moves their curves alike.

Shapes: T updates."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from descore.evaluation.records import to_plain
from experiments.dual_rl.findings import CONDITIONS, Cell
from experiments.harness import markdown_table

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
"""Metrics that the record keeps. reward_drift and margin are in raw rewards, of which only differences mean
something."""
MOST_POINTS = 48
"""Points of a curve in the record, at most; of a longer one every second point is kept, or every third ..."""
WINDOW = 5
"""Updates in a centred moving mean."""
FLUCTUATING = {
    "Bradley-Terry, the head's rewards": ("default", "pair_accuracy"),
    "GRPO, written scores": ("generative", "pair_accuracy"),
    "GRPO, written scores, ties half right": ("generative", "correctness"),
    "without Bradley-Terry, the head's rewards": ("no-bt", "pair_accuracy"),
}
"""Training accuracies, as condition and metric. pair_accuracy is comparable between all: decided pairs, equal scores
are wrong. correctness is the generative paradigm's reward: ties count, half a point where only one side is a tie."""


def curve_of(file: Path) -> list[Line]:
    """The training lines of a metrics.jsonl, by step. Of a step that was repeated the last line counts."""
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    by_step = {line["step"]: line for line in lines if "loss" in line}
    return [by_step[step] for step in sorted(by_step)]


def training(curves: Curves) -> dict[str, Any]:
    """`fluctuation`: of training accuracies. `course`: means of each curve's first and last third. `curves`:
    thinned."""
    return to_plain(  # type: ignore[no-any-return]
        {
            "fluctuation": list(_fluctuations(curves)),
            "course": list(_courses(curves)),
            "curves": {cell.name: _thinned(lines) for cell, lines in curves.items()},
        }
    )


def step_to_step(value_T: NDArray[np.float64]) -> float:
    """Sample standard deviation of the change from one update to the next; nan for fewer than two changes."""
    return _deviation(np.diff(value_T))


def around_mean(value_T: NDArray[np.float64], *, window: int = WINDOW) -> float:
    """Sample standard deviation of the distance from the centred moving mean, where the window is whole; nan for fewer
    than two such updates. It is 0 for a straight line."""
    if len(value_T) < window:
        return float("nan")
    mean_t = np.convolve(value_T, np.full(window, 1 / window), mode="valid")
    half = window // 2
    return _deviation(value_T[half : half + len(mean_t)] - mean_t)


def _deviation(value_N: NDArray[np.float64]) -> float:
    return float(np.std(value_N, ddof=1)) if len(value_N) > 1 else float("nan")


def _fluctuations(curves: Curves) -> Iterator[dict[str, Any]]:
    for description, (condition, name) in FLUCTUATING.items():
        values = _by_seed(curves, condition, name)
        if values:
            steps = {seed: step_to_step(value_T) for seed, value_T in values.items()}
            rest = {seed: around_mean(value_T) for seed, value_T in values.items()}
            yield {
                "what": description,
                "condition": condition,
                "metric": name,
                "mean": fmean(float(np.mean(value_T)) for value_T in values.values()),
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
    """By seed, a metric's values, without updates that lack it; without seeds that never have it."""
    values = {
        cell.seed: np.array([line[name] for line in lines if name in line], np.float64)
        for cell, lines in curves.items()
        if cell.condition == condition
    }
    return {seed: value_T for seed, value_T in values.items() if len(value_T)}


def _thinned(lines: Sequence[Line]) -> dict[str, list[float | None]]:
    """By metric, every n-th value; `step` has the numbers of these updates."""
    kept = lines[:: -(-len(lines) // MOST_POINTS) or 1]
    names = [name for name in CURVES if any(name in line for line in kept)]
    rounded = {name: [None if name not in line else round(line[name], 5) for line in kept] for name in names}
    return {"step": [line["step"] for line in kept], **rounded}


def training_tables(record: Mapping[str, Any]) -> str:
    """Fluctuations side by side, then courses, as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {
        (row["what"],): [
            _number(row["mean"]),
            *(_with_seeds(row[name], row[f"{name}_by_seed"]) for name in ("step_to_step", "around_mean")),
        ]
        for row in record["fluctuation"]
    }
    head = ("training accuracy", "mean", "deviation from step to step, by seed", "around the moving mean, by seed")
    by_metric = {(row["metric"], row["condition"]): row for row in record["course"]}
    conditions = [name for name in CONDITIONS if any(name == condition for _, condition in by_metric)]
    names = [name for name in CURVES if any(name == metric for metric, _ in by_metric)]
    courses: dict[tuple[str, ...], list[str]] = {
        (name,): [_course(by_metric.get((name, condition))) for condition in conditions] for name in names
    }
    course = markdown_table(("metric", *conditions), courses)
    return f"{markdown_table(head, rows)}\n\nfirst third → last third of the updates:\n\n{course}"


def _with_seeds(value: float | None, by_seed: Mapping[str, float | None]) -> str:
    return f"{_number(value)} ({', '.join(map(_number, by_seed.values()))})" if value is not None else ""


def _course(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{_number(row['first'])} → {_number(row['last'])}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
