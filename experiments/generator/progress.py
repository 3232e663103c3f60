"""What training runs have made of the generator: truth against reward, at equal divergence and at equal compute, and
where they part.

    python -m experiments.generator.progress runs/grpo-think runs/grpo-off runs/dpo-think [--out FILE]

Each folder is a run of `tune`. Prints for each run the look with the best truth and the last one, and whether the
reward still rose between them while the truth fell: then the run has passed its turning point. The best look is
chosen on the same clips, so its truth is a little too high, and so is the fall behind it. Then all looks, with runs
that differ in their seed alone taken together, and the truth of all runs at equal divergence from the start and at
equal seconds, by straight lines between looks. Intervals at 95 % resample the prompts of the looks, on which no run
trains."""

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from descore.errors import ConfigError
from descore.evaluation.records import to_plain
from descore.io import read_records
from descore.stats.bootstrap import Figure, bootstrap_mean
from experiments.generator.tuning import LOOKS, PLAN
from experiments.harness import format_figure, markdown_table, one_line_errors, write_record

LEVELS = (0.25, 0.5, 1.0)
"""Of divergence and of seconds, as shares of the least that a run has reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRun:
    """A run's looks."""

    name: str
    reward: str
    """The reward that it followed."""
    plan: Mapping[str, Any]
    looks: list[dict[str, Any]]

    def rewards(self) -> list[float]:
        """The followed reward at each look."""
        return [look["rewards"][self.reward] for look in self.looks]

    def truths(self) -> list[float]:
        """The judge's mean overall at each look."""
        return [float(np.mean(look["overall"])) for look in self.looks]


def read_run(folder: Path) -> TunedRun:
    """The run of a folder. ConfigError if there is none."""
    looks = read_records(folder / LOOKS)
    if not looks or not (folder / PLAN).is_file():
        raise ConfigError(f"{folder}: found no looks; expected a run of experiments.generator.tune")
    plan, known = json.loads((folder / PLAN).read_text(encoding="utf-8")), list(looks[0]["rewards"])
    label = plan["reward"].partition("=")[0]
    reward = next((name for name in known if name.startswith(label)), label)
    return TunedRun(name=folder.name, reward=reward, plan=plan, looks=looks)


def change(run: TunedRun, first: int, last: int) -> Figure:
    """Change of the truth between two looks, clip by clip: all looks make clips of the same prompts and noise."""
    before, after = run.looks[first], run.looks[last]
    return bootstrap_mean(np.subtract(after["overall"], before["overall"]), np.asarray(before["prompts"], np.str_))


def of_seeds(runs: Sequence[TunedRun]) -> dict[str, list[TunedRun]]:
    """The runs that differ in their seed alone, by the name of the first without its seed."""
    groups: dict[str, list[TunedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps({**run.plan, "seed": None}, sort_keys=True), []).append(run)
    return {re.sub(r"[-_]?seed[-_]?\d+", "", group[0].name): group for group in groups.values()}


def together(runs: Sequence[TunedRun]) -> list[dict[str, Any]]:
    """Means over runs at each look that all have made, and the change of the truth since the first and since the one
    before."""

    def changed(first: int, last: int) -> Figure:
        changes = [np.subtract(run.looks[last]["overall"], run.looks[first]["overall"]) for run in runs]
        prompts = [np.asarray(run.looks[first]["prompts"], np.str_) for run in runs]
        return bootstrap_mean(np.concatenate(changes), np.concatenate(prompts))

    rows = []
    for index in range(min(len(run.looks) for run in runs)):
        looks = [run.looks[index] for run in runs]
        rows.append(
            {
                "update": looks[0]["update"],
                "truth": float(np.mean([run.truths()[index] for run in runs])),
                "change": changed(0, index),
                "step": changed(max(index - 1, 0), index),
                "reward": float(np.mean([run.rewards()[index] for run in runs])),
                "kl": float(np.mean([look["kl"] for look in looks])),
                **{
                    part: {name: float(np.mean([look[part][name] for look in looks])) for name in looks[0][part]}
                    for part in ("marks", "diversity")
                },
            }
        )
    return rows


def findings(runs: Sequence[TunedRun]) -> dict[str, Any]:
    """`runs`: of each, the best look and the last. `seeds`: all looks, over runs that differ in their seed alone. `at`:
    the truth of all at equal divergence and at equal seconds."""
    least = {axis: min(max(_along(run, axis)) for run in runs) for axis in ("kl", "seconds")}
    return to_plain(  # type: ignore[no-any-return]
        {
            "runs": {run.name: _run_findings(run) for run in runs},
            "seeds": {name: {"runs": len(group), "looks": together(group)} for name, group in of_seeds(runs).items()},
            "at": {
                axis: {
                    f"{share * most:.3g}": {run.name: truth_at(run, axis, share * most) for run in runs}
                    for share in LEVELS
                }
                for axis, most in least.items()
            },
        }
    )


def truth_at(run: TunedRun, axis: str, value: float) -> float:
    """The truth where a run has come so far for the first time, on the straight line between two looks."""
    reached, truths = _along(run, axis), run.truths()
    behind = next((index for index, one in enumerate(reached) if one >= value), None)
    if behind is None:
        return math.nan
    if behind == 0:
        return truths[0]
    share = (value - reached[behind - 1]) / (reached[behind] - reached[behind - 1])
    return truths[behind - 1] + share * (truths[behind] - truths[behind - 1])


def tables(record: Mapping[str, Any]) -> str:
    """The findings as Markdown."""
    head = [
        "run",
        "best truth",
        "at update",
        "KL there",
        "change to it",
        "and from it to the end",
        "turned",
        "seconds",
        "of them the reward's",
    ]
    rows: dict[tuple[str, ...], list[str]] = {
        (name,): [
            f"{of['best']['truth']:.3f}",
            str(of["best"]["update"]),
            f"{of['best']['kl']:.2g}",
            format_figure(of["gain"], "+.3f"),
            format_figure(of["loss"], "+.3f"),
            "yes" if of["turned"] else "no",
            f"{sum(of['last']['seconds'].values()):.0f}",
            f"{_share(of['last']['seconds']):.0%}",
        ]
        for name, of in record["runs"].items()
    }
    parts = [markdown_table(head, rows), _seeds_table(record["seeds"])]
    for axis, by_value in record["at"].items():
        names = list(next(iter(by_value.values())))
        shown: dict[tuple[str, ...], list[str]] = {
            (value,): [f"{truths[name]:.3f}" for name in names] for value, truths in by_value.items()
        }
        parts.append(markdown_table([f"truth at {axis}", *names], shown))
    return "\n\n".join(parts)


@one_line_errors()
def main() -> None:
    """Print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="where the findings are written as JSON")
    options = parser.parse_args()
    record = findings([read_run(folder) for folder in options.runs])
    print(tables(record))
    if options.out:
        write_record(options.out, record)


def _seeds_table(seeds: Mapping[str, Any]) -> str:
    names = list(next(iter(seeds.values()))["looks"][0]["diversity"])
    rows: dict[tuple[str, ...], list[str]] = {
        (name, str(of["runs"]), str(look["update"])): [
            f"{look['truth']:.3f}",
            format_figure(look["change"], "+.3f"),
            format_figure(look["step"], "+.3f"),
            f"{look['reward']:.2f}",
            f"{look['kl']:.2g}",
            *(f"{look['diversity'][one] / of['looks'][0]['diversity'][one] - 1:+.0%}" for one in names),
        ]
        for name, of in seeds.items()
        for look in of["looks"]
    }
    diversity = [f"diversity, {name}" for name in names]
    head = ["runs", "seeds", "update", "truth", "change", "since the look before", "reward", "KL", *diversity]
    return markdown_table(head, rows)


def _run_findings(run: TunedRun) -> dict[str, Any]:
    truths, rewards = run.truths(), run.rewards()
    best, last = int(np.argmax(truths)), len(truths) - 1
    loss = change(run, best, last)
    return {
        "reward": run.reward,
        "best": {**_state(run, best), "truth": truths[best], "reward": rewards[best]},
        "last": {**_state(run, last), "truth": truths[last], "reward": rewards[last]},
        "gain": change(run, 0, best),
        "loss": loss,
        "turned": rewards[last] > rewards[best] and loss.high < 0,
    }


def _state(run: TunedRun, index: int) -> dict[str, Any]:
    look = run.looks[index]
    return {key: look[key] for key in ("update", "kl", "diversity", "seconds", "marks", "rewards")}


def _share(seconds: Mapping[str, float]) -> float:
    """The reward's share of all seconds."""
    return seconds["reward"] / max(sum(seconds.values()), 1e-9)


def _along(run: TunedRun, axis: str) -> list[float]:
    """How far a run has come by each look: divergence, or seconds of all kinds; it never goes back."""
    values = [look["kl"] if axis == "kl" else sum(look["seconds"].values()) for look in run.looks]
    return list(accumulate(values, max))


if __name__ == "__main__":
    main()
