"""The whole study in order: best of N, then each training method with each reward and seed, then the page.

    python -m experiments.generator.run --model runs/generator/model [--siblings discriminative=FOLDER ...]
                                        [--seeds 3] [--out runs/generator_study] [--plan]

Prints what there is to do and how long it will take (on one quiet core, from figures that were measured), and does what
is not done yet, each step in a process of its own with its output in OUT/logs. A stopped study goes on with the same
command. --plan prints alone. --only takes the steps whose names begin so: --only best-of grpo-think."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.generator.best_of import DEFAULT_REWARDS, RECORD
from experiments.generator.dpo import DpoSettings
from experiments.generator.grpo import GrpoSettings
from experiments.generator.raft import RaftSettings
from experiments.generator.refl import ReflSettings
from experiments.generator.rounds import RoundSettings
from experiments.generator.tuning import MODEL, TuningPlan
from experiments.harness import one_line_errors, positive

PROMPTS, MOST = 16, 64
UPDATES = {"raft": 300, "dpo": 300, "grpo": 60, "refl": 150}
"""Of a run of each method; the first two have two rounds of them."""

IN_ROUNDS = ("raft", "dpo")
"""Methods whose runs share their first round."""

MAKE, PLAIN, TRAIN, JUDGE = 0.5, 0.15, 0.05, 0.03
"""Seconds of one quiet core, measured as processor time: to make a clip in 16 steps, the same without guidance, to
train on a clip once, to judge it."""
READ = {"think": 0.25, "off": 0.05}
"""Seconds of a clip's reward by tiny, from benchmarks of the bundled model; that of a sibling is taken for `think`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One process of the study."""

    name: str
    command: tuple[str, ...]
    """Module of experiments.generator, and its options."""
    result: Path
    """There once it is done."""
    seconds: float


def steps_of(
    *, model: Path, out: Path, siblings: Sequence[str], seeds: int, prompts: int = PROMPTS, most: int = MOST
) -> list[Step]:
    """All steps but the page."""
    rewards = [*DEFAULT_REWARDS, *siblings]
    read = READ["think"] * (5 + len(siblings)) + READ["off"]  # a chain, four chains, at once, and the siblings
    best = Step(
        name="best-of",
        command=(
            *("best_of", "--model", str(model), "--prompts", str(prompts), "--most", str(most)),
            *("--seeds", str(seeds), "--out", str(out / "best-of"), "--rewards", *rewards),
        ),
        result=out / "best-of" / RECORD,
        seconds=prompts * most * seeds * (MAKE + JUDGE + read),
    )
    models = ["think", *siblings]
    trained = [
        _tune(method, reward, seed, settings=settings, model=model, out=out)
        for seed in range(seeds)
        for method, reward, settings in (
            *((one, reward, ()) for one in IN_ROUNDS for reward in models),
            *(("grpo", reward, (f"comparison={one}",)) for reward in models for one in ("groupwise", "pointwise")),
            *(
                ("refl", reward, ())
                for reward in ("think", "off", *(one for one in siblings if not one.startswith("generative")))
            ),
        )
    ]
    return [best, *trained]


@one_line_errors()
def main() -> None:
    """Print the plan, and do what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a grown generator")
    parser.add_argument("--siblings", nargs="*", default=[], metavar="NAME=CHECKPOINT", help="further rewards")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/generator_study"))
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names of steps")
    parser.add_argument("--plan", action="store_true", help="print the plan alone")
    options = parser.parse_args()
    steps = steps_of(model=options.model, out=options.out, siblings=options.siblings, seeds=options.seeds)
    chosen = [step for step in steps if step.name.startswith(tuple(options.only))]
    print_plan(chosen)
    if options.plan:
        return
    for step in chosen:
        if not step.result.exists():
            run(step, out=options.out)
    runs = [str(step.result.parent) for step in steps if step.result.name == MODEL and step.result.exists()]
    page = ["page", *(["--best-of", str(options.out / "best-of")] if steps[0].result.exists() else [])]
    if len(page) > 1 or runs:
        subprocess.run(_command((*page, "--runs", *runs, "--out", str(options.out / "study.html"))), check=True)


def print_plan(steps: Sequence[Step]) -> None:
    """Each step with its expected duration."""
    for step in steps:
        print(f"{step.name:>40}  {'done' if step.result.exists() else f'{step.seconds / 60:.0f} min, roughly'}")
    left = sum(step.seconds for step in steps if not step.result.exists())
    print(
        f"{sum(not step.result.exists() for step in steps)} of {len(steps)} steps to do, {left / 3600:.1f} hours",
        flush=True,
    )


def run(step: Step, *, out: Path) -> None:
    """One step. Its output goes to a log, which a run that goes on is added to; an error of it ends the study."""
    log = out / "logs" / f"{step.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{step.name} ... {log}", flush=True)
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(_command(step.command), stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{step.name}: exit code {done.returncode}; see {log}")


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", f"experiments.generator.{words[0]}", *words[1:]]


def _tune(method: str, reward: str, seed: int, *, settings: tuple[str, ...], model: Path, out: Path) -> Step:
    label = reward.partition("=")[0]
    name = "-".join([method, label, *(one.partition("=")[2] for one in settings), f"seed{seed}"])
    watched = [one for one in ("think", "off") if one != label]
    updates = UPDATES[method]
    return Step(
        name=name,
        command=(
            *("tune", method, "--generator", str(model), "--reward", reward, "--watched", *watched),
            *(("--first-round", str(out / "first-round")) if method in IN_ROUNDS else ()),
            *("--seed", str(seed), "--out", str(out / name), "--set", f"updates={updates}", *settings),
        ),
        result=out / name / MODEL,
        seconds=_look_seconds(updates) + _seconds(method, updates),
    )


def _look_seconds(updates: int) -> float:
    plan = TuningPlan(method="", reward="")
    clips = plan.look_prompts * plan.look_clips
    return (1 + updates // plan.look_every) * clips * (MAKE + JUDGE + READ["think"] + READ["off"])


def _seconds(method: str, updates: int) -> float:
    """Of generation, reward and update. Guidance doubles the passes of a clip; a reference adds about half of one."""
    if method in IN_ROUNDS:
        own: RoundSettings = RaftSettings() if method == "raft" else DpoSettings()
        clips, rounds = own.prompts * own.clips, updates // own.round_updates
        passes = RaftSettings().batch if method == "raft" else 2 * DpoSettings().batch * 1.5
        # The first round's clips are there already, unless it is the study's first such run.
        return clips * (PLAIN * (rounds - 1) + READ["think"] * rounds) + updates * passes * TRAIN
    if method == "grpo":
        grpo = GrpoSettings()
        clips = grpo.prompts * grpo.group
        return updates * clips * (PLAIN * grpo.steps / 16 + READ["think"] + grpo.trained_steps * 1.5 * TRAIN)
    refl = ReflSettings()
    return updates * refl.batch * (MAKE + READ["think"] + 4 * READ["off"] + 2.5 * TRAIN)


if __name__ == "__main__":
    main()
