"""The training loop of stage 2: each step samples completions for some pairs, rewards them, and updates the weights.

The pairs of a step are drawn from (seed, epoch) alone, and each process takes its share of them. Checkpoints hold the
trained weights, the optimizer, the schedule and the metrics since the last line, so a killed run resumes to the same
weights."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from descore.io import read_json_object
from descore.model.modeling import DescoreModel
from descore.training.collate import TrainingPair, Unreadable, split_unreadable
from descore.training.config import OptimConfig, Schedule
from descore.training.dataset import EpochSampler, PairTable, end_with_parent
from descore.training.metrics import MetricAccumulator, UnreadableVideos
from descore.training.models import (
    LEARNED_FILE,
    STATE_FILE,
    checkpoint_directory,
    last_checkpoint,
    load_learned,
    parameter_groups,
    rotate_checkpoints,
    save_learned,
    trainable_weights,
)
from descore.training.rl.config import RlConfig
from descore.training.rl.logging import RlLogger, add_rollout_metrics, completion_records
from descore.training.rl.rollout import Rollout, load_function, sample_rollout
from descore.training.rl.update import ReferenceModel, Updater

OPTIMIZER_FILE = "optimizer.pt"


def save_checkpoint(
    out: Path,
    *,
    model: DescoreModel,
    stateful: dict[str, Any],
    metrics: MetricAccumulator,
    progress: tuple[int, int],
    keep: int,
) -> None:
    """Write checkpoint-N whole, and leave no more than `keep` of them. `stateful`: by name, objects with a state_dict.
    `progress`: N, and the number of steps in all."""
    step, steps = progress
    state = {"global_step": step, "max_steps": steps, "tally": asdict(metrics)}
    with checkpoint_directory(out / f"checkpoint-{step}") as aside:
        save_learned(model, aside)
        torch.save({name: part.state_dict() for name, part in stateful.items()}, aside / OPTIMIZER_FILE)
        (aside / STATE_FILE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    rotate_checkpoints(out, step=step, keep=keep)


def load_checkpoint(out: Path, *, model: DescoreModel, stateful: dict[str, Any]) -> tuple[int, MetricAccumulator]:
    """Read the last checkpoint: the number of steps done, and the metrics since the last line. 0 and none without
    one."""
    folder = last_checkpoint(out)
    if folder is None:
        return 0, MetricAccumulator()
    load_learned(model, folder / LEARNED_FILE)
    states = torch.load(folder / OPTIMIZER_FILE, map_location=model.device, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(states[name])
    state = read_json_object(folder / STATE_FILE)
    return int(state["global_step"]), MetricAccumulator(**state["tally"])


class StepSampler(Sampler[list[tuple[int, int]]]):
    """For each step, the (epoch, number)s of one process's pairs. The last step of an epoch may have fewer pairs than
    the others, since none of another epoch fills it up, and a process may have none at all."""

    def __init__(self, sampler: EpochSampler, *, batch_size: int, processes: int = 1, process: int = 0) -> None:
        """`batch_size`: pairs of a step, in all processes."""
        self.sampler = sampler
        self.batch_size = batch_size
        self.processes = processes
        self.process = process
        self.steps_per_epoch = math.ceil(len(sampler) / batch_size)
        self.first, self.last = 0, 0

    def between(self, first: int, last: int) -> "StepSampler":
        """The steps from `first` up to, but not including, `last`."""
        self.first, self.last = first, last
        return self

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys: list[tuple[int, int]] = []
        for step in range(self.first, self.last):
            epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
            if step_of_epoch == 0 or not keys:
                self.sampler.set_epoch(epoch)
                keys = list(self.sampler)
            begin = step_of_epoch * self.batch_size
            yield keys[begin : begin + self.batch_size][self.process :: self.processes]


class RlTrainer:
    """Trains from the last checkpoint to the last step."""

    def __init__(
        self,
        model: DescoreModel,
        *,
        config: RlConfig,
        pairs: PairTable,
        accelerator: Accelerator,
        autocast: Callable[[], AbstractContextManager[Any]],
        on_unreadable: UnreadableVideos,
        logger: RlLogger,
    ) -> None:
        """The model as it is now is the reference model."""
        self.model, self.config, self.pairs, self.accelerator = model, config, pairs, accelerator
        self.autocast, self.on_unreadable, self.logger = autocast, on_unreadable, logger
        self.function = load_function(config.rewards.function)
        optim = config.optim
        self.sampler = StepSampler(
            EpochSampler(len(pairs), seed=optim.seed),
            batch_size=optim.per_device_train_batch_size
            * optim.gradient_accumulation_steps
            * accelerator.num_processes,
            processes=accelerator.num_processes,
            process=accelerator.process_index,
        )
        self.steps = optim.max_steps or math.ceil((optim.num_train_epochs or 1) * self.sampler.steps_per_epoch)
        measures_kl = config.policy.beta or config.policy.log_kl
        reference = ReferenceModel.of(model, config.trainable) if measures_kl else None
        self.updater = Updater(model, reference=reference, config=config, accelerator=accelerator, autocast=autocast)
        groups = parameter_groups(model, config.trainable, optim)
        self.optimizer = torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas)
        self.schedule = _schedule(self.optimizer, optim, updates=self.steps * config.policy.num_iterations)
        self.stateful = {"optimizer": self.optimizer, "schedule": self.schedule}
        self.metrics = MetricAccumulator()
        self.learning_rates: dict[str, float] = {}
        """By part, the learning rate of the last update."""

    def run(self, *, evaluate: Callable[[], dict[str, float]] | None) -> None:
        """All remaining steps. `evaluate` is called every `run.eval_steps` steps, and at the end."""
        done, self.metrics = load_checkpoint(self.config.run.out, model=self.model, stateful=self.stateful)
        self.logger.progress = (done, self.steps)
        self.logger.drop_redone(done)
        if done:
            self.logger.write_resumed(done)
        for step, items in enumerate(self._batches(done), start=done + 1):
            self._step(step, items)
            self.logger.progress = (step, self.steps)
            if self._is_due(step, self.config.run.logging_steps):
                self._log(step)
            if evaluate is not None and self._is_due(step, self.config.run.eval_steps):
                self._write_metrics(step, {f"eval_{name}": value for name, value in evaluate().items()})
            if self._is_due(step, self.config.run.save_steps):
                self._save(step)
            self.logger.report_progress()

    def _batches(self, done: int) -> DataLoader[list[TrainingPair | Unreadable]]:
        data = self.config.data
        return DataLoader(
            self.pairs,
            batch_sampler=self.sampler.between(done, self.steps),
            collate_fn=list,
            num_workers=data.dataloader_num_workers,
            prefetch_factor=data.dataloader_prefetch_factor if data.dataloader_num_workers else None,
            generator=torch.Generator(),
            worker_init_fn=end_with_parent,
        )

    def _step(self, step: int, items: Sequence[TrainingPair | Unreadable]) -> None:
        """Sample, reward, update. Unreadable pairs are left out and counted; none takes their place."""
        pairs, unreadable = split_unreadable(items)
        self.on_unreadable(unreadable)
        self.metrics.add_count("unreadable_pairs", len(unreadable))
        began = time.monotonic()
        rollouts = self._sample(step, pairs)
        sampled = time.monotonic()
        add_rollout_metrics(rollouts, config=self.config, metrics=self.metrics)
        if self._is_due(step, self.config.run.logging_steps) and self.logger.is_main_process:
            self.logger.write_completions([*completion_records(rollouts, config=self.config, step=step)])
        self.updater.learn(rollouts, step=self._update, metrics=self.metrics)
        self._add_pace(rollouts, in_rollout=sampled - began, in_update=time.monotonic() - sampled)

    def _sample(self, step: int, pairs: Sequence[TrainingPair]) -> list[Rollout]:
        """A rollout for each batch of pairs."""
        size = self.config.optim.per_device_train_batch_size
        return [
            sample_rollout(
                self.model,
                pairs[start : start + size],
                config=self.config,
                step=step,
                function=self.function,
                autocast=self.autocast,
            )
            for start in range(0, len(pairs), size)
        ]

    def _update(self) -> None:
        """Update the weights by the sum of the gradients of all processes."""
        weights = list(trainable_weights(self.model).values())
        if self.accelerator.num_processes > 1:
            for weight in weights:
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = self.accelerator.reduce(gradient, reduction="sum")
        norm, share = torch.nn.utils.clip_grad_norm_(weights, self.config.optim.max_grad_norm), self._share
        self.metrics.add_mean("grad_norm", float(norm) * share, share)
        self.learning_rates = {group["name"].split()[0]: group["lr"] for group in self.optimizer.param_groups}
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    @property
    def _share(self) -> float:
        """The weight of one process in a mean of values that all processes have alike."""
        return 1.0 / int(self.accelerator.num_processes)

    def _add_pace(self, rollouts: Sequence[Rollout], *, in_rollout: float, in_update: float) -> None:
        tokens = sum(c.num_tokens for rollout in rollouts for group in rollout.groups for c in group)
        self.metrics.add_mean("seconds_in_rollout", in_rollout * self._share, self._share)
        self.metrics.add_mean("seconds_in_update", in_update * self._share, self._share)
        self.metrics.add_mean("tokens_per_second", tokens, in_rollout * self._share)

    def _log(self, step: int) -> None:
        """Write the metrics of all processes since the last log."""
        merged = MetricAccumulator.merged(gather_object([self.metrics]))
        self.metrics = MetricAccumulator()
        self._write_metrics(step, {**merged.summary, "learning_rate": self.learning_rates})

    def _write_metrics(self, step: int, metrics: dict[str, Any]) -> None:
        self.logger.write_metrics(step, {"epoch": round(step / self.sampler.steps_per_epoch, 6), **metrics})

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.config.run.out,
                model=self.model,
                stateful=self.stateful,
                metrics=self.metrics,
                progress=(step, self.steps),
                keep=self.config.run.save_total_limit,
            )
        self.accelerator.wait_for_everyone()

    def _is_due(self, step: int, every: int | None) -> bool:
        """Whether a step is a multiple of `every`, or the last."""
        return step == self.steps or (every is not None and step % every == 0)


def learning_rate_factor(update: int, *, schedule: Schedule, warmup: int, updates: int) -> float:
    """The learning rate of an update as a share of its peak; the first update is number 0. The first of n updates of
    warm-up has 1/n, where transformers' schedules begin at 0: the whole first rollout would change nothing."""
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / max(updates - warmup, 1)
    shapes = {"constant_with_warmup": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return shapes[schedule]


def _schedule(optimizer: torch.optim.Optimizer, optim: OptimConfig, *, updates: int) -> LambdaLR:
    warmup = math.ceil(optim.warmup_ratio * updates)
    factor = partial(learning_rate_factor, schedule=optim.lr_scheduler_type, warmup=warmup, updates=updates)
    return LambdaLR(optimizer, factor)
