"""The loop of stage 2: each step writes chains for some pairs, rates them, and learns from them.

In: a model that is set to learn, its pairs, the settings. Out: the learned model, and records of how it went. Which
pairs a step shows is drawn from (seed, epoch) alone, and each process takes its share of them. Knows steps, processes
and checkpoints; knows nothing of how a chain is rated or becomes a gradient."""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from descore.io import atomic_directory
from descore.model.modeling import DescoreModel
from descore.training.collate import TrainingPair, Unreadable
from descore.training.config import OptimConfig, Schedule
from descore.training.dataset import EpochSampler
from descore.training.metrics import MetricAccumulator, UnreadableVideos, as_record
from descore.training.models import learned_weights, parameter_groups
from descore.training.pair_dataset import PairTable
from descore.training.rl.config import RlConfig
from descore.training.rl.logging import RlRecords, chain_records, tally_rollouts
from descore.training.rl.reference_model import ReferenceModel
from descore.training.rl.rewards import load_function
from descore.training.rl.rollout import Rollout, sample
from descore.training.rl.update import Updater
from descore.training.trainer import LEARNED_FILE, last_checkpoint, load_learned

OPTIMIZER_FILE, STATE_FILE = "optimizer.pt", "trainer_state.json"


def save_state(
    out: Path, *, model: DescoreModel, stateful: dict[str, Any], tally: MetricAccumulator, step: int, of: int, keep: int
) -> None:
    """Write checkpoint-`step`, whole or not at all, and leave no more than `keep` of them. `stateful`: by name, what
    has a state_dict."""
    folder = out / f"checkpoint-{step}"
    learned = {name: weight.detach().contiguous() for name, weight in learned_weights(model).items()}
    state = {"global_step": step, "max_steps": of, "tally": as_record(tally)}
    with atomic_directory(folder) as aside:
        save_file(learned, aside / LEARNED_FILE)
        torch.save({name: one.state_dict() for name, one in stateful.items()}, aside / OPTIMIZER_FILE)
        (aside / STATE_FILE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    whole = [p for p in out.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdecimal()]
    for old in sorted(whole, key=lambda p: int(p.name.removeprefix("checkpoint-")))[:-keep]:
        shutil.rmtree(old)


def load_state(out: Path, *, model: DescoreModel, stateful: dict[str, Any]) -> tuple[int, MetricAccumulator]:
    """How many steps were done, and what is tallied, by the last checkpoint; 0 and nothing where there is none."""
    folder = last_checkpoint(out)
    if folder is None:
        return 0, MetricAccumulator()
    load_learned(model, folder / LEARNED_FILE)
    states = torch.load(folder / OPTIMIZER_FILE, map_location=model.device, weights_only=True)
    for name, one in stateful.items():
        one.load_state_dict(states[name])
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return int(state["global_step"]), MetricAccumulator(**state["tally"])


class Shares(Sampler[list[tuple[int, int]]]):
    """For each step, the (epoch, number)s that one process shows. The last step of an epoch may have fewer pairs than
    the others: none of another epoch fills it up, and a process may have none at all."""

    def __init__(self, order: EpochSampler, *, together: int, processes: int = 1, process: int = 0) -> None:
        """`together`: pairs of a step, in all processes."""
        self.order = order
        self.together = together
        self.processes = processes
        self.process = process
        self.per_epoch = math.ceil(len(order) / together)
        self.first, self.last = 0, 0

    def between(self, first: int, last: int) -> "Shares":
        """The steps from `first` up to, but not including, `last`."""
        self.first, self.last = first, last
        return self

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        left, begin = len(self), self.first % self.per_epoch
        for epoch in count(self.first // self.per_epoch):
            self.order.set_epoch(epoch)
            keys = list(self.order)
            for step in range(begin, min(self.per_epoch, begin + left)):
                shown = keys[step * self.together : (step + 1) * self.together]
                yield shown[self.process :: self.processes]
            left -= min(self.per_epoch, begin + left) - begin
            begin = 0
            if left <= 0:
                return


class Loop:
    """Steps until the end, from wherever the last checkpoint is."""

    def __init__(
        self,
        model: DescoreModel,
        *,
        config: RlConfig,
        pairs: PairTable,
        accelerator: Accelerator,
        autocast: Callable[[], AbstractContextManager[Any]],
        on_unreadable: UnreadableVideos,
        records: RlRecords,
    ) -> None:
        """The model as it starts: what is measured against the start is measured against it."""
        self.model, self.config, self.pairs, self.accelerator = model, config, pairs, accelerator
        self.autocast, self.on_unreadable, self.records = autocast, on_unreadable, records
        self.function = load_function(config.rewards.function)
        optim = config.optim
        order = EpochSampler(len(pairs), seed=optim.seed)
        together = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * accelerator.num_processes
        places = {"processes": accelerator.num_processes, "process": accelerator.process_index}
        self.shares = Shares(order, together=together, **places)
        self.steps = optim.max_steps or math.ceil((optim.num_train_epochs or 1) * self.shares.per_epoch)
        asked = config.policy.beta or config.policy.log_kl
        start = ReferenceModel.of(model, config.trainable) if asked else None
        self.updater = Updater(model, start=start, config=config, accelerator=accelerator, autocast=autocast)
        groups = parameter_groups(model, config.trainable, optim)
        self.optimizer = torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas)
        self.schedule = _schedule(self.optimizer, optim, updates=self.steps * config.policy.num_iterations)
        self.stateful = {"optimizer": self.optimizer, "schedule": self.schedule}
        self.tally = MetricAccumulator()
        self.rates: dict[str, float] = {}
        """By part, the learning rate of the last update."""

    def run(self, *, judge: Callable[[], dict[str, float]]) -> None:
        """All steps that are left. `judge` is asked every `run.eval_steps` steps, and at the end."""
        done, self.tally = load_state(self.config.run.out, model=self.model, stateful=self.stateful)
        self.records.at = (done, self.steps)
        if done:
            self.records.resumed(done)
        for step, items in enumerate(self._batches(done), start=done + 1):
            self._step(step, items)
            self.records.at = (step, self.steps)
            if self._due(step, self.config.run.logging_steps):
                self._log(step)
            if self.config.data.eval and self._due(step, self.config.run.eval_steps):
                self._note(step, {f"eval_{name}": value for name, value in judge().items()})
            if self._due(step, self.config.run.save_steps):
                self._save(step)
            self.records.tell()

    def _batches(self, done: int) -> DataLoader[list[TrainingPair | Unreadable]]:
        data = self.config.data
        return DataLoader(
            self.pairs,
            batch_sampler=self.shares.between(done, self.steps),
            collate_fn=list,
            num_workers=data.dataloader_num_workers,
            prefetch_factor=data.dataloader_prefetch_factor if data.dataloader_num_workers else None,
            generator=torch.Generator(),
        )

    def _step(self, step: int, items: Sequence[TrainingPair | Unreadable]) -> None:
        """Write, rate, learn. What cannot be read is left out and counted; nothing takes its place."""
        unreadable = [item for item in items if isinstance(item, Unreadable)]
        self.on_unreadable(unreadable)
        self.tally.count("unreadable_pairs", len(unreadable))
        pairs = [item for item in items if not isinstance(item, Unreadable)]
        began = time.monotonic()
        rollouts = [
            sample(self.model, some, config=self.config, step=step, function=self.function, autocast=self.autocast)
            for some in _at_a_time(pairs, self.config.optim.per_device_train_batch_size)
        ]
        written = time.monotonic()
        tally_rollouts(rollouts, config=self.config, tally=self.tally)
        if self._due(step, self.config.run.logging_steps) and self.records.is_main_process:
            self.records.chains([*chain_records(rollouts, config=self.config, step=step)])
        self.updater.learn(rollouts, step=self._update, tally=self.tally)
        self._tally_pace(rollouts, in_rollout=written - began, in_update=time.monotonic() - written)

    def _update(self) -> None:
        """Move the weights by the gradients that all processes have left."""
        weights = list(learned_weights(self.model).values())
        if self.accelerator.num_processes > 1:
            for weight in weights:
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = self.accelerator.reduce(gradient, reduction="sum")
        norm, share = torch.nn.utils.clip_grad_norm_(weights, self.config.optim.max_grad_norm), self._share
        self.tally.mean("grad_norm", float(norm) * share, share)
        self.rates = {group["name"].split()[0]: group["lr"] for group in self.optimizer.param_groups}
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    @property
    def _share(self) -> float:
        """What one of the processes counts for, where all of them find the same."""
        return 1.0 / int(self.accelerator.num_processes)

    def _tally_pace(self, rollouts: Sequence[Rollout], *, in_rollout: float, in_update: float) -> None:
        tokens = sum(c.num_tokens for rollout in rollouts for group in rollout.groups for c in group)
        self.tally.mean("seconds_in_rollout", in_rollout * self._share, self._share)
        self.tally.mean("seconds_in_update", in_update * self._share, self._share)
        self.tally.mean("tokens_per_second", tokens, in_rollout * self._share)

    def _log(self, step: int) -> None:
        whole = MetricAccumulator.together(gather_object([self.tally]))
        self.tally = MetricAccumulator()
        self._note(step, {**whole.line, "learning_rate": self.rates})

    def _note(self, step: int, found: dict[str, Any]) -> None:
        self.records.line(step, {"epoch": round(step / self.shares.per_epoch, 6), **found})

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            run = self.config.run
            save_state(
                run.out,
                model=self.model,
                stateful=self.stateful,
                tally=self.tally,
                step=step,
                of=self.steps,
                keep=run.save_total_limit,
            )
        self.accelerator.wait_for_everyone()

    def _due(self, step: int, every: int | None) -> bool:
        """Whether a step is one of those, or the last."""
        return step == self.steps or (every is not None and step % every == 0)


def rate_of(update: int, *, schedule: Schedule, warmup: int, updates: int) -> float:
    """What an update's learning rate is of its peak, the first being number 0. The first of n updates of warm-up has
    1/n, where transformers' schedules begin at 0: its whole rollout would have moved nothing."""
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / max(updates - warmup, 1)
    shapes = {"constant_with_warmup": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return shapes[schedule]


def _schedule(optimizer: torch.optim.Optimizer, optim: OptimConfig, *, updates: int) -> LambdaLR:
    warmup = math.ceil(optim.warmup_ratio * updates)
    return LambdaLR(optimizer, partial(rate_of, schedule=optim.lr_scheduler_type, warmup=warmup, updates=updates))


def _at_a_time(pairs: Sequence[TrainingPair], size: int) -> Iterator[Sequence[TrainingPair]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]
