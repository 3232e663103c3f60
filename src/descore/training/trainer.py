"""transformers' Trainer for a DescoreModel: our losses, our checkpoint directory, our record of metrics.

A checkpoint-N folder holds what was learned beside the Trainer's optimizer, scheduler and random states, so that a run
killed at any moment goes on from its last checkpoint: `model/`, a whole checkpoint directory of its own; or, where
adapters learn, or query and head alone, `learned.safetensors`, the weights that have a gradient.

Shapes: L terms of a loss."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from descore.model.checkpoint import read_head
from descore.model.modeling import DescoreModel, has_adapters
from descore.training.collate import Unreadable
from descore.training.dataset import EpochSampler
from descore.training.models import learned_weights

Loss = Callable[[DescoreModel, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]
"""From the model and a collated batch to the loss (a scalar, or its terms (L)) and what to log beside it: scalars, or
sums with their counts (2)."""
Count = Callable[[dict[str, Any]], int | Tensor]
"""How many items a collated batch holds, or how many for each term of the loss (L)."""
OnUnreadable = Callable[[Sequence[Unreadable]], None]
"""Told of the examples that a batch lacks."""

LEARNED_FILE = "learned.safetensors"
STATE_FILE = "trainer_state.json"
"""Trainer's own, which it writes last."""


class Learner(nn.Module):
    """A model whose forward is its loss, so that what wraps a forward (mixed precision, processes) wraps all."""

    def __init__(self, model: DescoreModel, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics."""
        return self.loss(self.model, batch)


class DescoreTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """Trainer with `loss(model, batch) -> (loss, metrics)`. Metrics are logged as means since the last log.

    With `count`, the loss is a sum over a batch's items, and is averaged over all items of an update, whatever forwards
    and processes they are spread over. A loss of several terms, each a sum over items of its own kind, is the sum of
    their averages. Without `count`, the loss is a batch's mean, and forwards weigh alike.

    With `order`, examples come as this sampler says, which is told each epoch's number."""

    control: TrainerControl

    def __init__(
        self,
        *,
        model: DescoreModel,
        loss: Loss,
        count: Count | None = None,
        on_unreadable: OnUnreadable = lambda _: None,
        order: EpochSampler | None = None,
        **trainer: Any,  # noqa: ANN401  # Trainer's own arguments
    ) -> None:
        self.learner = Learner(model, loss)
        super().__init__(model=self.learner, **trainer)
        self.count, self.on_unreadable, self.order = count, on_unreadable, order
        if order is not None:
            self.add_callback(_TellsEpochs(order))
        self.loss_is_scaled_for_ga = count is not None
        self._metrics: dict[str, Tensor] = {}

    @property
    def sharded(self) -> bool:
        """Whether no process holds all weights (FSDP, DeepSpeed). Such a run trains and writes its checkpoints; a run
        of one process goes on from the last of them to judge the model and write it."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The batches of an update, and how many items they have in all processes together."""
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
            # Several processes average their gradients, where their sum is wanted.
            loss = (loss * self.accelerator.num_processes / num_items_in_batch).sum()
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put the means of the loss and the metrics since the last log to what Trainer logs. Where there was no item,
        there is no mean: a loss of nothing is not 0."""
        means = self._means(self._metrics)
        rest = {name: value for name, value in logs.items() if not (name == "loss" and self._metrics)}
        self._metrics = {}
        super().log({**rest, **means}, start_time)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # noqa: ANN401  # Trainer's own arguments
        """Judge the eval data set, and log what comes of it. Sharded weights cannot be judged: see `sharded`."""
        if self.sharded:
            return {}
        self.learner.eval()
        found = {f"eval_{name}": value for name, value in self.judge().items()}
        super().log(found)  # not our own: the metrics of training steps since the last log stay as they are
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def judge(self) -> dict[str, float]:
        """Means over the eval data set of the loss (over items, with `count`) and the metrics."""
        totals: dict[str, Tensor] = {}
        for batch in self._eval_batches():
            self.on_unreadable(batch.pop("unreadable", ()))
            with self.accelerator.autocast():
                loss, metrics = self.learner(self._prepare_inputs(batch))
            self._add(totals, batch, loss, metrics)
        return self._means(totals)

    def _add(self, totals: dict[str, Tensor], batch: dict[str, Any], loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Add what a batch came to, each as a sum and its count (2), the loss as one or more of them (L, 2)."""
        items = torch.as_tensor(1 if self.count is None else self.count(batch), device=loss.device)
        found = {"loss": torch.stack([loss.detach(), items.expand_as(loss)], dim=-1), **metrics}
        for name, value in found.items():
            totals[name] = totals.get(name, 0) + _sum_and_count(value)

    def _means(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """Over all processes; of what was never counted there is none."""
        whole = {name: self.accelerator.reduce(total).reshape(-1, 2) for name, total in totals.items()}
        counted = {name: total[total[:, 1] > 0] for name, total in whole.items()}
        return {name: float((total[:, 0] / total[:, 1]).sum()) for name, total in counted.items() if len(total)}

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any] | None:
        sampler: Sampler[Any] | None = super()._get_train_sampler(train_dataset)
        return sampler if self.order is None else self.order

    def _eval_batches(self) -> DataLoader[dict[str, Any]]:
        """One process's share of the eval data set. Each example is in one share, so none counts twice."""
        mine = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        return DataLoader(
            Subset(self.eval_dataset, mine),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            generator=torch.Generator(),  # evaluating must not move the random numbers that training draws
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """`state_dict`: the learner's, gathered by Trainer where weights are sharded."""
        folder, model = Path(output_dir or self.args.output_dir), self.learner.model
        folder.mkdir(parents=True, exist_ok=True)
        if state_dict is not None:
            gathered = {name: state_dict[f"model.{name}"].contiguous() for name in learned_weights(model)}
            save_file(gathered, folder / LEARNED_FILE)
        elif _learns_beside(model):
            save_file(learned_weights(model), folder / LEARNED_FILE)
        else:
            model.save_pretrained(folder / "model")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        self.load_learned(Path(resume_from_checkpoint))

    def load_learned(self, checkpoint: Path) -> None:
        """Read what was learned from a checkpoint-N folder into the model."""
        if (checkpoint / LEARNED_FILE).is_file():
            load_learned(self.learner.model, checkpoint / LEARNED_FILE)
        else:
            load_weights(self.learner.model, checkpoint / "model")


class _TellsEpochs(TrainerCallback):  # type: ignore[misc]
    """Tells an order its epoch. Trainer does so too, but not through all that accelerate wraps an order in where
    several processes go on within an epoch."""

    def __init__(self, order: EpochSampler) -> None:
        self.order = order

    def on_epoch_begin(self, _args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        """Also where a run goes on within an epoch."""
        self.order.set_epoch(int(state.epoch or 0))


def training_arguments(out: Path, *, steps: int, batch: int, learning_rate: float, seed: int) -> TrainingArguments:
    """bf16, AdamW along a cosine after 5 % of warm-up, a checkpoint every 200 steps, one process reading ahead."""
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        weight_decay=0.05,
        adam_beta2=0.98,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        save_steps=200,
        save_total_limit=2,
        logging_steps=20,
        dataloader_num_workers=1,
        dataloader_prefetch_factor=4,
        remove_unused_columns=False,
        report_to=[],
        seed=seed,
    )


def load_weights(model: DescoreModel, folder: Path) -> None:
    """Read a checkpoint's weights into a model of the same form, in place."""
    load_model(model.backbone, folder / "model.safetensors")
    weights = read_head(folder, width=model.query.shape[0], outputs=len(model.settings.dimensions))
    model.query.data.copy_(weights["query"])
    model.head.weight.data.copy_(weights["head"])


def load_learned(model: DescoreModel, file: Path) -> None:
    """Read the weights that learn into a model of which the same ones do, in place."""
    learned = learned_weights(model)
    found: dict[str, Any] = load_file(file)
    assert learned.keys() == found.keys(), f"{file} holds other weights than those that learn here"
    # Puts whole weights where they belong also where each process holds a shard of the model.
    set_model_state_dict(model, found, options=StateDictOptions(full_state_dict=True, strict=False))


def _learns_beside(model: DescoreModel) -> bool:
    """Whether what learns is little beside a backbone that stays: adapters, or query and head alone."""
    backbone = model.backbone
    return has_adapters(backbone) or not any(weight.requires_grad for weight in backbone.parameters())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that was written to its end; None if there is none."""
    whole = [p for p in folder.glob("checkpoint-*") if _is_whole(p / STATE_FILE)]
    return max(whole, key=lambda p: int(re.sub(r"\D", "", p.name)), default=None)


def _is_whole(state: Path) -> bool:
    """Whether a checkpoint's last file was written to its end."""
    try:
        json.loads(state.read_bytes())
    except (FileNotFoundError, ValueError):  # neither JSON nor UTF-8
        return False
    return True


def _sum_and_count(value: Tensor) -> Tensor:
    """A metric as a sum and its count (2)."""
    value = value.detach().float()
    return value if value.ndim else torch.stack([value, torch.ones_like(value)])
