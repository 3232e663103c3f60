"""The loop that all training methods share: updates, and looks at what the generator has become.

In: a grown generator, a method, and the reward that it follows. Out: under OUT, updates.jsonl with what each update
gave and how long generation, reward and update took; looks.jsonl with the judge's marks, rewards, diversity and
divergence from the start; sheets/; state.pt, with which a stopped run goes on; and the trained generator in model/.

A look makes the same clips each time, from prompts that no method trains on. A method's random numbers all come from
its seed and the number of the update, so a run that was stopped is the same as one that was not."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from descore.io import (
    append_records,
    atomic_path,
    atomic_write,
    folder_digest,
    lock_directory,
    make_directory,
    read_records,
)
from experiments.generator.diversity import diversities
from experiments.generator.flow import GUIDANCE, STEPS, generate
from experiments.generator.grow import mean_marks
from experiments.generator.judge import judge
from experiments.generator.model import Generator
from experiments.generator.rewards import JUDGE, ModelScorer, RewardScorer, open_rewards
from experiments.generator.sde import path_kl, roll_out
from experiments.generator.sheets import write_sheet
from experiments.generator.world import Ask, Frames, Part, ask
from experiments.harness import keep_plan, known_mean

STATE, UPDATES, LOOKS, PLAN, MODEL = "state.pt", "updates.jsonl", "looks.jsonl", "plan.json", "model"
KL_CLIPS = 8
"""Clips of a look that the divergence is measured on, each of another prompt."""
KINDS = ("generation", "reward", "update")
"""What an update's seconds are spent on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """What all methods have."""

    method: str
    reward: str
    """A name of `rewards.REWARDS`, NAME=CHECKPOINT, or `rewards.JUDGE`."""
    watched: tuple[str, ...] = ("off",)
    """Further rewards that looks report, and no method follows: a reward that rises alone is gamed."""
    seed: int = 0
    updates: int = 100
    learning_rate: float = 2e-5
    trained: Literal["all", "text"] = "all"
    """Weights that are trained: all, or those alone that read the prompt."""
    look_every: int = 50
    look_prompts: int = 24
    look_clips: int = 4
    """Of each prompt."""
    steps: int = STEPS
    guidance: float = GUIDANCE


@dataclass(slots=True, eq=False)
class Run:
    """A generator in training, where it started, and what it has cost so far."""

    plan: TuningPlan
    out: Path
    model: Generator
    start: Generator
    """As it was before training; its weights do not change."""
    followed: RewardScorer | None
    """Of the reward that the method follows; a model's has a monitor. None: it follows the judge."""
    scorers: Mapping[str, RewardScorer]
    """Of looks."""
    optimizer: torch.optim.Optimizer
    update: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the seconds of a block."""
        began = time.monotonic()
        yield
        self.seconds[kind] += time.monotonic() - began

    def asked(self, first: int, count: int) -> list[Ask]:
        """What training asks for, by number."""
        return [ask(Part.UPDATES, first + number) for number in range(count)]

    def reward(self, clips: Sequence[Frames], asked: Sequence[Ask]) -> list[float]:
        """The reward that the method follows; the first of a scorer that has several."""
        if self.followed is None:
            return [judge(frames, one.scene).overall for frames, one in zip(clips, asked, strict=True)]
        scores = self.followed(clips, [one.prompt for one in asked], [str(number) for number in range(len(clips))])
        return next(iter(scores.values()))

    def monitored(self) -> dict[str, float]:
        """The monitor's figures of the rewards since the last call; it warns of the signs of a gamed reward."""
        return self.followed.reward.report() if isinstance(self.followed, ModelScorer) else {}

    def seeds(self, count: int) -> list[int]:
        """Seeds of clips, others in each update."""
        first = ((self.plan.seed + 1) * 100_000 + self.update) * 10_000
        return list(range(first, first + count))


class Method(Protocol):
    """One way to train."""

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Make one update, and return figures for the log."""


def tune(plan: TuningPlan, method: Method, *, generator: Path, out: Path, settings: Mapping[str, Any]) -> Path:
    """Train, or go on training, and return the folder of the trained generator. settings: of the method.

    ConfigError if `out` holds another run."""
    make_directory(out)
    with lock_directory(out):
        planned = {"generator": folder_digest(generator), "settings": dict(settings), **_plain(plan)}
        if not (out / LOOKS).is_file():  # before its first look a run may have ended by a wrong name of a reward
            (out / PLAN).unlink(missing_ok=True)
        otherwise = f"holds another run, see {PLAN} there; choose another --out"
        keep_plan(out / PLAN, planned, otherwise=otherwise)
        run = _open(plan, generator=generator, out=out)
        if not run.update:
            _look(run)
        while run.update < plan.updates:
            _advance(run, method)
            if run.update % plan.look_every == 0 or run.update == plan.updates:
                _look(run)
            _save(run)
        run.model.save(out / MODEL)
    return out / MODEL


def _advance(run: Run, method: Method) -> None:
    """One update, and its line."""
    figures = method(run)
    run.update += 1
    row = {"update": run.update, **figures, "seconds": dict(run.seconds)}
    append_records(run.out / UPDATES, [row], allow_nan=True)


def apply_gradients(run: Run) -> float:
    """Step the optimizer along the gradients, and return their norm before it was bounded by 1. Gradients that are not
    finite, as of rewards that all failed, change nothing."""
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    if torch.isfinite(norm):
        run.optimizer.step()
    run.optimizer.zero_grad()
    return float(norm)


def look(run: Run) -> dict[str, Any]:
    """What the generator is now: marks, rewards, diversity, and divergence from the start; and its sheet."""
    plan = run.plan
    asks = [ask(Part.TEST, number) for number in range(plan.look_prompts) for _ in range(plan.look_clips)]
    seeds, prompts = list(range(len(asks))), [one.prompt for one in asks]
    clips = generate(run.model.eval(), prompts, seeds, steps=plan.steps, guidance=plan.guidance)
    judged = [judge(frames, one.scene) for frames, one in zip(clips, asks, strict=True)]
    scores = {
        name: known_mean(values)
        for scorer in run.scorers.values()
        for name, values in scorer(clips, prompts, [str(seed) for seed in seeds]).items()
    }
    marks = mean_marks(judged)
    if run.followed is None:
        scores[JUDGE] = marks["overall"]
    groups = [slice(first, first + plan.look_clips) for first in range(0, len(clips), plan.look_clips)]
    right = [result.parts["setting"] == 1 for result in judged]
    shown = slice(None, None, plan.look_clips)  # the first of each prompt
    few = prompts[shown][:KL_CLIPS], seeds[shown][:KL_CLIPS]
    rolled = roll_out(run.model, *few, steps=plan.steps, guidance=plan.guidance)
    captions = [f"{result.overall:.2f} {one.prompt}" for result, one in zip(judged, asks, strict=True)]
    write_sheet(run.out / "sheets" / f"{run.update:04d}.png", clips[shown], captions[shown])
    return {
        "update": run.update,
        "marks": marks,
        "overall": [result.overall for result in judged],
        "prompts": prompts,
        "rewards": scores,
        "diversity": diversities([clips[of] for of in groups], [right[of] for of in groups]),
        "kl": float(path_kl(run.model, run.start, rolled, guidance=plan.guidance).mean()),
        "seconds": dict(run.seconds),
    }


def _look(run: Run) -> None:
    if any(row["update"] == run.update for row in read_records(run.out / LOOKS)):
        return  # a run that was stopped behind this look and before its state was written
    row = look(run)
    append_records(run.out / LOOKS, [row], allow_nan=True)
    rewards = ", ".join(f"{name} {value:.2f}" for name, value in row["rewards"].items())
    print(f"update {run.update}: truth {row['marks']['overall']:.3f}, {rewards}, KL {row['kl']:.2g}", flush=True)


def reads_prompt(name: str) -> bool:
    """Whether a weight is of the words, of the layer over them, or of a layer's attention to them."""
    return name.startswith(("embedding.", "position", "encoder.")) or ".text_embedder." in name or ".attn2." in name


def _open(plan: TuningPlan, *, generator: Path, out: Path) -> Run:
    model, start = Generator.load(generator), Generator.load(generator).requires_grad_(requires_grad=False)
    followed = [] if plan.reward == JUDGE else [plan.reward]
    for name, weight in model.named_parameters():
        weight.requires_grad = plan.trained == "all" or reads_prompt(name)
    run = Run(
        plan=plan,
        out=out,
        model=model,
        start=start,
        followed=next(iter(open_rewards(followed, monitored=True).values()), None),
        scorers=open_rewards([*followed, *plan.watched]),
        optimizer=torch.optim.AdamW(
            [weight for weight in model.parameters() if weight.requires_grad], lr=plan.learning_rate, weight_decay=0.0
        ),
    )
    if (out / STATE).is_file():
        state = torch.load(out / STATE, weights_only=True)
        run.update, run.seconds = state["update"], state["seconds"]
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if isinstance(run.followed, ModelScorer):
            run.followed.reward.load_state_dict(state["reward"])
        kept = [row for row in read_records(out / UPDATES) if row["update"] <= run.update]
        atomic_write(out / UPDATES, "")
        append_records(out / UPDATES, kept, allow_nan=True)
    return run


def _save(run: Run) -> None:
    state = {
        "update": run.update,
        "seconds": run.seconds,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "reward": run.followed.reward.state_dict() if isinstance(run.followed, ModelScorer) else {},
    }
    with atomic_path(run.out / STATE) as part:
        torch.save(state, part)


def _plain(plan: TuningPlan) -> dict[str, Any]:
    values = {name: getattr(plan, name) for name in TuningPlan.__dataclass_fields__}
    del values["updates"]  # a run may be made longer
    return {**values, "watched": list(plan.watched)}
