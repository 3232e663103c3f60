"""Learning to score (stage 1): the discriminative cold start on pairs with chains that their table has.

    result = train_cold_start(config)

Takes a `ColdStartConfig`, gives a run directory (see `descore.training.runs`) with a model that a Scorer opens. Both
clips of a pair go through one forward; the random mask drops both chains of a pair together."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
import torch
from torch import Tensor
from transformers import TrainingArguments

from descore.errors import DataError, DescoreWarning
from descore.model.modeling import DescoreModel
from descore.training.collate import PairCollator
from descore.training.config import ColdStartConfig, LossConfig
from descore.training.dataset import EpochSampler, PairTable, index_pairs
from descore.training.evaluate import Evaluator
from descore.training.losses import count_labels, model_inputs, next_token_loss, pair_losses
from descore.training.metrics import ProgressCallback, ignore_progress
from descore.training.models import head_origin, zero_loss
from descore.training.runs import Tables, TrainingResult, finalize_pair_run
from descore.training.trainer import DescoreTrainer, build_trainer, run_training


class PairTrainer(DescoreTrainer):
    """A trainer that judges held-out pairs with chains of each source."""

    def __init__(self, *, config: ColdStartConfig, data: dict[str, PairTable], **trainer: Any) -> None:  # noqa: ANN401
        super().__init__(**trainer)
        self.config = config
        self.data = data
        self.evaluator = Evaluator(
            model=self.descore_model,
            data=data,
            config=config.evaluate,
            batch_size=self.args.per_device_eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
            accelerator=self.accelerator,
            autocast=self.accelerator.autocast,
            on_unreadable=self.on_unreadable,
        )

    def judge(self) -> dict[str, float]:
        """Judge the eval table with the config's chain sources."""
        return self.evaluator.evaluate()


def train_cold_start(config: ColdStartConfig, *, on_progress: ProgressCallback = ignore_progress) -> TrainingResult:
    """Train, or resume training, judge and calibrate the model, and write it. `on_progress` is called after each
    update.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""
    tables = {"train": config.data.train, "eval": config.data.eval, "calibration": config.data.calibration}
    return run_training(
        config,
        tables=tables,
        index=partial(_index_table, config),
        build=partial(_build_pair_trainer, config, on_progress),
        finalize=_finalize,
    )


def _index_table(config: ColdStartConfig, table: Path, index: Path) -> None:
    """Check a table and write its Arrow file. The train table must have labels that the loss learns from."""
    decided = table == config.data.train and config.loss.kind in ("bradley-terry", "margin")
    index_pairs(table, index, dimensions=config.dimensions, decided=decided)


def _build_pair_trainer(
    config: ColdStartConfig,
    on_progress: ProgressCallback,
    model: DescoreModel,
    args: TrainingArguments,
    tables: Tables,
) -> PairTrainer:
    sampling, optim = model.settings.sampling, config.optim
    data = {
        name: PairTable(table, index=index, sampling=sampling, dimensions=config.dimensions)
        for name, (table, index) in tables.items()
    }
    pairs = data["train"]
    if not pairs.has_chains:
        _check_pairs_only(config, is_main_process=args.process_index == 0)
    sampler = EpochSampler(
        len(pairs),
        seed=optim.seed,
        lengths=pairs.lengths.tolist() if config.data.group_by_length else None,
        batch_size=optim.per_device_train_batch_size * optim.gradient_accumulation_steps * args.world_size,
    )
    scale = pairs.rating_scale if config.loss.kind == "regression" else None
    collate = PairCollator(chat=model.chat, chain_drop=config.data.chain_drop, seed=optim.seed, rating_scale=scale)
    return build_trainer(
        config,
        trainer_class=partial(PairTrainer, config=config, data=data),
        model=model,
        examples={str(table.table): len(table) for table in data.values()},
        on_progress=on_progress,
        loss=partial(pair_batch_loss, loss=config.loss),
        count=partial(count_items, loss=config.loss),
        sampler=sampler,
        args=args,
        train_dataset=pairs,
        eval_dataset=data.get("eval"),
        data_collator=collate,
    )


def _check_pairs_only(config: ColdStartConfig, *, is_main_process: bool) -> None:
    """Where no row has a chain: DataError if chains are to be learned, or else a warning of what the model becomes."""
    table, chain_drop = str(config.data.train), config.data.chain_drop
    if config.loss.chain_weight:
        reason = f"no row has a chain, and loss.chain_weight={config.loss.chain_weight:g} learns from them"
        raise DataError(table, 1, f"{reason}; fill chain_a and chain_b, or set it to 0 to train on pairs only")
    if chain_drop < 1 and is_main_process:
        message = (
            f"{table}: no row has a chain: trains on pairs only, and the model will score at once (discriminative)"
        )
        warnings.warn(f"{message}; for one that thinks, fill chain_a and chain_b", DescoreWarning, stacklevel=2)


def _finalize(trainer: PairTrainer) -> None:
    """A model that thinks is calibrated on chains of its own, since it will score with these. One whose head never saw
    a chain is discriminative: all were dropped, or the table has none."""
    config = trainer.config
    without_chains = config.data.chain_drop == 1 or not trainer.data["train"].has_chains
    finalize_pair_run(
        trainer.descore_model,
        config,
        data=trainer.data,
        evaluator=trainer.evaluator if trainer.data.keys() & {"eval", "calibration"} else None,
        source="none" if without_chains else "generated",
        updates={
            "paradigm": "discriminative" if without_chains else "descore",
            "trained_on": f"{len(trainer.data['train']):,} pairs",
        },
        origin=head_origin(config),
        is_main_process=trainer.is_world_process_zero(),
    )


def pair_batch_loss(
    model: DescoreModel, batch: dict[str, Any], *, loss: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The terms of the loss, each summed over its own items: the rewards' over labels, and, if it has a weight, the
    chains' over tokens."""
    inputs, is_empty = model_inputs(batch), len(batch["preference"]) == 0
    hidden_RTD = torch.zeros(0, 1, len(model.query), device=model.device) if is_empty else model.hidden(inputs)
    scored = pair_losses(model, hidden_RTD, batch, kind=loss.kind, k=loss.k, margin_scale=loss.margin_scale)
    terms, metrics = [scored.loss], dict(scored.metrics)
    if loss.chain_weight:
        chain_sum, correct, tokens = torch.zeros(3, device=model.device)
        if not is_empty:
            chains = next_token_loss(model, inputs, hidden_RTD)
            chain_sum, correct, tokens = chains.loss, chains.correct, chains.tokens.float()
        terms.append(loss.chain_weight * chain_sum)
        metrics["next_token_loss"] = torch.stack([chain_sum.detach(), tokens])
        metrics["token_accuracy"] = torch.stack([correct, tokens])
    loss_L = torch.stack(terms)
    return (loss_L + zero_loss(model) if is_empty else loss_L), metrics


def count_items(batch: dict[str, Any], *, loss: LossConfig) -> int | Tensor:
    """How many labels a batch has for its loss, and, if chains are learned, how many chain tokens (2)."""
    labels = count_labels(batch, kind=loss.kind)
    return torch.tensor([labels, int(batch["chain_mask"].sum())]) if loss.chain_weight else labels
