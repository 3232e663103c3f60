"""Learning to score: the discriminative cold start on pairs with chains that were written beforehand (stage 1).

    trained = train_cold_start(config)

In: a `ColdStartConfig`. Out: a run directory (see `running`) with `evaluation.json` and a model that a Scorer opens.
Both clips of a pair go through one forward; the random mask drops both chains of a pair together. Knows what this stage
learns from and its loss; knows nothing of how a run goes on."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainingArguments

from descore.io import atomic_write
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.training.collate import PairCollator
from descore.training.config import ChainSource, ColdStartConfig, LossConfig
from descore.training.dataset import EpochSampler
from descore.training.evaluate import (
    Found,
    JudgedPair,
    Judging,
    calibrated,
    figures,
    judge_pairs,
    quick_metrics,
    record,
)
from descore.training.losses import count_labels, next_tokens, pair_losses, sequences
from descore.training.metrics import ProgressCallback
from descore.training.model_card import write_card
from descore.training.models import no_loss, origin_of_head
from descore.training.pair_dataset import PairTable, index_pairs
from descore.training.runs import Stage, Tables, Trained, finish, new_trainer, tables_of, train
from descore.training.trainer import DescoreTrainer

EVALUATION_FILE = "evaluation.json"


class PairTrainer(DescoreTrainer):
    """A trainer that judges held-out pairs with several chain sources."""

    def __init__(self, *, config: ColdStartConfig, data: dict[str, PairTable], **trainer: Any) -> None:  # noqa: ANN401
        super().__init__(**trainer)
        self.config = config
        self.data = data
        self.judged: list[JudgedPair] = []
        """What the last evaluation found."""

    def judge(self) -> dict[str, float]:
        """Judge the eval table with the config's chain sources."""
        self.judged = self.judge_table("eval", self.config.evaluate.chain_sources)
        return quick_metrics(self.judged, dimensions=self.config.dimensions)

    def judge_table(self, name: str, chain_sources: Sequence[ChainSource]) -> list[JudgedPair]:
        """All pairs of a table, judged by all processes together. Each of them gets the whole."""
        self.learner.eval()
        judging = Judging(
            batch_size=self.args.per_device_eval_batch_size,
            workers=self.args.dataloader_num_workers,
            generated_pairs=self.config.evaluate.generated_pairs,
            autocast=self.accelerator.autocast,
            on_unreadable=self.on_unreadable,
            processes=self.args.world_size,
            process=self.args.process_index,
        )
        mine = [record(*pair) for pair in judge_pairs(self.learner.model, self.data[name], chain_sources, judging)]
        return sorted(gather_object(mine), key=lambda pair: pair.number)


def train_cold_start(config: ColdStartConfig, *, watch: ProgressCallback = lambda *_: None) -> Trained:
    """Train, or go on training, judge and calibrate the model, and write it. `watch` is told after each update.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""
    tables = {"train": config.data.train, "eval": config.data.eval, "calibration": config.data.calibration}
    stage = Stage(
        tables=tables,
        index=partial(index_table, config),
        trainer=partial(build_trainer, config, watch),
        finish=finalize,
    )
    return train(config, stage)


def index_table(config: ColdStartConfig, table: Path, index: Path) -> None:
    """Check a table and write its Arrow file. What is trained on must have something for the loss to learn from."""
    decided = table == config.data.train and config.loss.kind in ("bradley-terry", "margin")
    index_pairs(table, index, dimensions=config.dimensions, decided=decided)


def build_trainer(
    config: ColdStartConfig, watch: ProgressCallback, model: DescoreModel, args: TrainingArguments, tables: Tables
) -> DescoreTrainer:
    """The trainer, with its pairs in their order, the mask and the losses."""
    sampling, optim = model.settings.sampling, config.optim
    data = {
        name: PairTable(table, index=index, sampling=sampling, dimensions=config.dimensions)
        for name, (table, index) in tables.items()
    }
    pairs = data["train"]
    order = EpochSampler(
        len(pairs),
        seed=optim.seed,
        lengths=pairs.lengths.tolist() if config.data.group_by_length else None,
        together=optim.per_device_train_batch_size * optim.gradient_accumulation_steps * args.world_size,
    )
    scale = pairs.rating_scale if config.loss.kind == "regression" else None
    collate = PairCollator(chat=model.chat, chain_drop=config.data.chain_drop, seed=optim.seed, rating_scale=scale)
    return new_trainer(
        config,
        kind=partial(PairTrainer, config=config, data=data),
        model=model,
        sizes={str(table.table): len(table) for table in data.values()},
        watch=watch,
        loss=partial(learn_pairs, loss=config.loss),
        count=partial(count_items, loss=config.loss),
        order=order,
        args=args,
        train_dataset=pairs,
        eval_dataset=data.get("eval"),
        data_collator=collate,
    )


def learn_pairs(model: DescoreModel, batch: dict[str, Any], *, loss: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The terms of the loss, each summed over its own items: the rewards' over labels, and, if it has a weight, the
    chains' over tokens."""
    inputs, there = sequences(batch), len(batch["preference"]) > 0
    hidden_RTD = model.hidden(inputs) if there else torch.zeros(0, 1, len(model.query), device=model.device)
    scored = pair_losses(model, hidden_RTD, batch, kind=loss.kind, k=loss.k, margin_scale=loss.margin_scale)
    terms, metrics = [scored.loss], dict(scored.metrics)
    if loss.chain_weight:
        written, right, tokens = torch.zeros(3, device=model.device)
        if there:
            found = next_tokens(model, inputs, hidden_RTD)
            written, right, tokens = found.loss, found.right, found.tokens.float()
        terms.append(loss.chain_weight * written)
        metrics["next_token_loss"] = torch.stack([written.detach(), tokens])
        metrics["token_accuracy"] = torch.stack([right, tokens])
    summed = torch.stack(terms)
    return (summed if there else summed + no_loss(model)), metrics


def count_items(batch: dict[str, Any], *, loss: LossConfig) -> int | Tensor:
    """How many labels a batch has for its loss, and, if chains are learned, how many chain tokens (2)."""
    labels = count_labels(batch, kind=loss.kind)
    return torch.tensor([labels, int(batch["chain_mask"].sum())]) if loss.chain_weight else labels


def finalize(trainer: DescoreTrainer) -> None:
    """Judge the model, calibrate its reward, and write it with its card."""
    assert isinstance(trainer, PairTrainer)
    config, model = trainer.config, trainer.learner.model
    if "eval" in trainer.data and not trainer.judged:  # the run was killed behind its last checkpoint
        trainer.judge()
    settings = calibrate(trainer).model_copy(
        update={
            "paradigm": "discriminative" if config.data.chain_drop == 1 else "descore",
            "trained_on": f"{len(trainer.data['train']):,} pairs",
        }
    )
    if trainer.is_world_process_zero():
        model.settings, found = settings, figures(trainer.judged, dimensions=config.dimensions)
        write_evaluation(config.run.out / EVALUATION_FILE, found)
        tables = tables_of(trainer.data)
        card = write_card(config, settings, tables=tables, found=found, origin=origin_of_head(config))
        finish(model, config, card=card)


def calibrate(trainer: PairTrainer) -> CheckpointSettings:
    """The model's settings with the reward's mean and deviation, if there is a table to find them on.

    A model that thinks is calibrated on chains of its own, which is how it will be used."""
    settings, config = trainer.learner.model.settings, trainer.config
    source: ChainSource = "none" if config.data.chain_drop == 1 else "generated"
    name = "calibration" if "calibration" in trainer.data else "eval"
    if name not in trainer.data:
        return settings
    known = name == "eval" and source in config.evaluate.chain_sources
    return calibrated(settings, trainer.judged if known else trainer.judge_table(name, [source]), source=source)


def write_evaluation(file: Path, found: Sequence[Found]) -> None:
    """What was found on held-out pairs, as JSON; a number that is not known is null."""
    atomic_write(file, json.dumps([_known(asdict(one)) for one in found], indent=1) + "\n")


def _known(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _known(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
