"""transformers' Trainer for a DescoreModel, and the run of stages 0 and 1 with it.

A checkpoint-N folder holds the trained weights (see `descore.training.models`) beside Trainer's optimizer, scheduler
and random states, so that a run killed at any moment resumes from its last checkpoint.

Shapes: L terms of a loss."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from descore.io import read_json_object
from descore.model.modeling import DescoreModel
from descore.training.collate import Unreadable
from descore.training.config import TrainingConfig
from descore.training.dataset import EpochSampler, end_with_parent
from descore.training.metrics import MetricsCallback, ProgressCallback, UnreadableVideos
from descore.training.models import (
    LEARNED_FILE,
    STATE_FILE,
    checkpoint_directory,
    has_frozen_backbone,
    last_checkpoint,
    load_learned,
    load_weights,
    parameter_groups,
    rotate_checkpoints,
    save_learned,
    trainable_weights,
)
from descore.training.runs import (
    TENSORBOARD,
    Tables,
    TrainingResult,
    claim_directory,
    is_trained,
    need_tensorboard,
    read_result,
    start_run,
)

LossFunction = Callable[[DescoreModel, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]
"""From the model and a collated batch to the loss (a scalar, or its terms (L)) and metrics: scalars, or sums with their
counts (2)."""
ItemCount = Callable[[dict[str, Any]], int | Tensor]
"""The number of items in a collated batch, or one for each term of the loss (L)."""
OnUnreadable = Callable[[Sequence[Unreadable]], None]
"""Called with the examples of a batch that cannot be read."""


class LossModule(nn.Module):
    """A model whose forward is its loss, so that mixed precision and distributed wrappers of a forward hold for all."""

    def __init__(self, model: DescoreModel, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics."""
        return self.loss(self.model, batch)


class DescoreTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """Trainer with `loss(model, batch) -> (loss, metrics)`. Metrics are logged as means since the last log.

    With `count`, the loss is a sum over a batch's items, and is averaged over all items of an update, across its
    forwards and processes. A loss of several terms, each a sum over items of its own kind, is the sum of their
    averages. Without `count`, the loss is a batch's mean, and forwards weigh alike.

    With `sampler`, examples come in its order, and its epoch is set."""

    control: TrainerControl

    def __init__(
        self,
        *,
        model: DescoreModel,
        loss: LossFunction,
        count: ItemCount | None = None,
        on_unreadable: OnUnreadable = lambda _: None,
        sampler: EpochSampler | None = None,
        **trainer: Any,  # noqa: ANN401  # Trainer's own arguments
    ) -> None:
        self.loss_module = LossModule(model, loss)
        super().__init__(model=self.loss_module, **trainer)
        self.count, self.on_unreadable, self.sampler = count, on_unreadable, sampler
        if sampler is not None:
            self.add_callback(_SetEpoch(sampler))
        self.loss_is_scaled_for_ga = count is not None
        self._metrics: dict[str, Tensor] = {}
        self._aside: Path | None = None

    @property
    def descore_model(self) -> DescoreModel:
        """The model that is trained, without what Trainer wraps it in."""
        return self.loss_module.model

    @property
    def sharded(self) -> bool:
        """Whether no process holds all weights (FSDP, DeepSpeed). Such a run trains and writes its checkpoints; a run
        of one process resumes from the last of them to judge the model and write it."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The batches of an update, and the number of their items in all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.on_unreadable(batch.pop("unreadable", ()))
        if self.count is None:
            return batches, None
        items = torch.stack([torch.as_tensor(self.count(b), device=self.args.device) for b in batches]).sum(dim=0)
        return batches, self.accelerator.reduce(items).clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:  # noqa: ANN401
        """The loss of a batch; Trainer calls this."""
        loss, metrics = model(inputs)
        self._add(self._metrics, inputs, loss, metrics)
        if num_items_in_batch is not None:
            # Distributed training averages the gradients of processes; their sum is needed.
            loss = (loss * self.accelerator.num_processes / num_items_in_batch).sum()
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the loss and the metrics since the last log to Trainer's own. A mean of no items is left
        out."""
        means = self._means(self._metrics)
        rest = {name: value for name, value in logs.items() if not (name == "loss" and self._metrics)}
        self._metrics = {}
        super().log({**rest, **means}, start_time)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # noqa: ANN401  # Trainer's own arguments
        """Judge the eval data set and log the metrics. Sharded weights cannot be judged: see `sharded`."""
        if self.sharded:
            return {}
        self.loss_module.eval()
        metrics = {f"eval_{name}": value for name, value in self.judge().items()}
        super().log(metrics)  # not self.log, which would reset the metrics of training
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def judge(self) -> dict[str, float]:
        """Means over the eval data set of the loss (over items, with `count`) and the metrics."""
        totals: dict[str, Tensor] = {}
        for batch in self._eval_batches():
            self.on_unreadable(batch.pop("unreadable", ()))
            with self.accelerator.autocast():
                loss, metrics = self.loss_module(self._prepare_inputs(batch))
            self._add(totals, batch, loss, metrics)
        return self._means(totals)

    def _add(self, totals: dict[str, Tensor], batch: dict[str, Any], loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Add a batch's metrics, each as a sum and its count (2), and its loss as one or more of them (L, 2)."""
        items = torch.as_tensor(1 if self.count is None else self.count(batch), device=loss.device)
        values = {"loss": torch.stack([loss.detach(), items.expand_as(loss)], dim=-1), **metrics}
        for name, value in values.items():
            totals[name] = totals.get(name, 0) + _sum_and_count(value)

    def _means(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """Means over all processes, without those of no items."""
        reduced = {name: self.accelerator.reduce(total).reshape(-1, 2) for name, total in totals.items()}
        counted = {name: total[total[:, 1] > 0] for name, total in reduced.items()}
        return {name: float((total[:, 0] / total[:, 1]).sum()) for name, total in counted.items() if len(total)}

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any] | None:
        sampler: Sampler[Any] | None = super()._get_train_sampler(train_dataset)
        return sampler if self.sampler is None else self.sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Trainer's own, whose workers end with this process. Examples draw no random numbers, so none are seeded."""
        loader: DataLoader[Any] = super().get_train_dataloader()
        loader.worker_init_fn = end_with_parent
        return loader

    def _eval_batches(self) -> DataLoader[dict[str, Any]]:
        """Batches of the process's share of the eval data set. Each example is in one share, so none counts twice."""
        numbers = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        return DataLoader(
            Subset(self.eval_dataset, numbers),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            generator=torch.Generator(),  # evaluating must not move the random numbers that training draws
            worker_init_fn=end_with_parent,
        )

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ANN401  # Trainer's own
        """Where Trainer makes checkpoint-N: aside, while one is being written."""
        return str(self._aside or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401  # Trainer's own arguments
        """Trainer's own checkpoint-N, which has that name only once all of it is on the disk; then older ones go."""
        out, step, lead = Path(self.args.output_dir), self.state.global_step, self.is_world_process_zero()
        name, keep = f"checkpoint-{step}", self.args.save_total_limit or sys.maxsize
        with checkpoint_directory(out / name) if lead else nullcontext(out / f"{name}.partial") as aside:
            self.accelerator.wait_for_everyone()  # until it is there
            self._aside = aside
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._aside = None
            self.accelerator.wait_for_everyone()  # until all processes have written
            if lead:
                for inner in (aside / name).iterdir():
                    inner.rename(aside / inner.name)
                (aside / name).rmdir()
        if lead:
            rotate_checkpoints(out, step=step, keep=keep)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """`state_dict`: of the loss module, gathered by Trainer where weights are sharded."""
        folder, model = Path(output_dir or self.args.output_dir), self.descore_model
        folder.mkdir(parents=True, exist_ok=True)
        if state_dict is not None:
            gathered = {name: state_dict[f"model.{name}"].contiguous() for name in trainable_weights(model)}
            save_file(gathered, folder / LEARNED_FILE)
        elif has_frozen_backbone(model):
            save_learned(model, folder)
        else:
            model.save_pretrained(folder / "model")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        self.load_learned(Path(resume_from_checkpoint))

    def load_learned(self, checkpoint: Path) -> None:
        """Read the trained weights of a checkpoint-N folder into the model."""
        if (checkpoint / LEARNED_FILE).is_file():
            load_learned(self.descore_model, checkpoint / LEARNED_FILE)
        else:
            load_weights(self.descore_model, checkpoint / "model")


class _SetEpoch(TrainerCallback):  # type: ignore[misc]
    """Sets a sampler's epoch. Trainer does so too, but not through accelerate's wrappers where several processes resume
    within an epoch."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, _args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        """Trainer also calls this where a run resumes within an epoch."""
        self.sampler.set_epoch(int(state.epoch or 0))


_AnyTrainer = TypeVar("_AnyTrainer", bound=DescoreTrainer)


def run_training(
    config: TrainingConfig,
    *,
    tables: Mapping[str, Path | None],
    index: Callable[[Path, Path], None],
    build: Callable[[DescoreModel, TrainingArguments, Tables], _AnyTrainer],
    finalize: Callable[[_AnyTrainer], None],
) -> TrainingResult:
    """Train, or resume training, and write the model.

    `tables`, `index`: as for `start_run`. `build` makes the stage's trainer; `finalize` writes the trained model, and
    is called in each process. ConfigError if the run directory holds another run, DataError for a faulty table or too
    many unreadable videos."""
    if is_trained(config):
        return read_result(config.run.out, already_trained=True)
    args = training_arguments(config)
    model, indexed = start_run(
        config,
        tables=tables,
        index=index,
        main_process_first=args.main_process_first(),
        is_main_process=args.process_index == 0,
    )
    trainer = build(model, args, indexed)
    if trainer.is_world_process_zero():
        claim_directory(config)
    train_or_resume(trainer, config.run.out)
    if not trainer.sharded:
        finalize(trainer)
    trainer.accelerator.wait_for_everyone()
    return read_result(config.run.out, already_trained=False)


def training_arguments(config: TrainingConfig) -> TrainingArguments:
    """The config as Trainer's arguments; learning rates by part belong to the optimizer."""
    data, optim, run = config.data, config.optim, config.run
    return TrainingArguments(
        output_dir=str(run.out),
        max_steps=optim.max_steps or -1,
        num_train_epochs=optim.num_train_epochs or 1,
        per_device_train_batch_size=optim.per_device_train_batch_size,
        per_device_eval_batch_size=optim.per_device_train_batch_size,
        gradient_accumulation_steps=optim.gradient_accumulation_steps,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=optim.lr_scheduler_type,
        warmup_steps=optim.warmup_ratio,
        max_grad_norm=optim.max_grad_norm,
        seed=optim.seed,
        bf16=config.model.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_steps=run.save_steps,
        save_total_limit=run.save_total_limit,
        logging_steps=run.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if data.eval else "no",
        eval_steps=run.eval_steps or sys.maxsize,  # there is always one at the end
        dataloader_num_workers=data.dataloader_num_workers,
        dataloader_prefetch_factor=data.dataloader_prefetch_factor if data.dataloader_num_workers else None,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
    )


def build_trainer(
    config: TrainingConfig,
    *,
    trainer_class: Callable[..., _AnyTrainer],
    model: DescoreModel,
    examples: Mapping[str, int],
    on_progress: ProgressCallback,
    **trainer: Any,  # noqa: ANN401  # the trainer's own arguments
) -> _AnyTrainer:
    """A trainer with the optimizer and the records of every stage. `examples`: by table's path, how many it has; the
    first is the one that is trained on."""
    optim, out = config.optim, config.run.out
    groups = parameter_groups(model, config.trainable, optim)
    metrics = MetricsCallback(out, examples=next(iter(examples.values())), on_progress=on_progress)
    built = trainer_class(
        model=model,
        on_unreadable=UnreadableVideos(out, share=config.data.max_unreadable, examples=examples),
        optimizers=(torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas), None),
        callbacks=[metrics, *_tensorboard(config)],
        **trainer,
    )
    built.remove_callback(PrinterCallback)
    return built


def train_or_resume(trainer: DescoreTrainer, out: Path) -> None:
    """Train from the last checkpoint, or from the start. A run that lacks only its model reads the trained weights."""
    last = last_checkpoint(out)
    if last is not None and _is_last_step(last):
        trainer.load_learned(last)
    else:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))


def _is_last_step(checkpoint: Path) -> bool:
    state = read_json_object(checkpoint / STATE_FILE)
    return bool(state["global_step"] >= state["max_steps"])


def _tensorboard(config: TrainingConfig) -> list[TrainerCallback]:
    if not config.run.tensorboard:
        return []
    need_tensorboard()
    callback = TensorBoardCallback()
    callback.logging_dir = str(config.run.out / TENSORBOARD)
    return [callback]


def _sum_and_count(value: Tensor) -> Tensor:
    """A metric as a sum and its count (2)."""
    value = value.detach().float()
    return value if value.ndim else torch.stack([value, torch.ones_like(value)])
