"""transformers' Trainer for a DescoreModel: our losses, our checkpoint directory, our record of metrics.

A checkpoint-N folder holds `model/`, a whole checkpoint directory of its own, beside the Trainer's optimizer,
scheduler and random states, so that a run killed at any moment goes on from its last checkpoint."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from descore.model.checkpoint import read_head
from descore.model.descore_model import DescoreModel

Loss = Callable[[DescoreModel, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]
"""From the model and a collated batch to the loss and what to log beside it."""


class DescoreTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """Trainer with `loss(model, batch) -> (loss, metrics)`. Metrics are logged as means since the last log."""

    def __init__(self, *, loss: Loss, **trainer: Any) -> None:  # noqa: ANN401  # Trainer's own arguments
        super().__init__(**trainer)
        self.descore_loss = loss
        self._metrics: dict[str, list[Tensor]] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,  # noqa: ARG002  # Trainer's signature
    ) -> Any:  # noqa: ANN401
        """The loss of a batch; Trainer calls this."""
        # Mixed precision otherwise reaches `model.forward` only, and losses call other methods as well.
        with self.accelerator.autocast():
            loss, metrics = self.descore_loss(self.accelerator.unwrap_model(model), inputs)
        for name, value in metrics.items():
            self._metrics.setdefault(name, []).append(value.detach())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the metrics to what Trainer logs."""
        means = {name: sum(float(v) for v in values) / len(values) for name, values in self._metrics.items()}
        self._metrics.clear()
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:  # noqa: ARG002
        model: DescoreModel = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(Path(output_dir or self.args.output_dir) / "model")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target: DescoreModel = self.accelerator.unwrap_model(model or self.model)
        load_weights(target, Path(resume_from_checkpoint) / "model")


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


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that was written to its end; None if there is none."""
    whole = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(whole, key=lambda p: int(re.sub(r"\D", "", p.name)), default=None)
