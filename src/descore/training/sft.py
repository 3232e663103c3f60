"""Learning to write chains: next-token training of a backbone on chains that were written beforehand (stage 0).

    trained = train_sft(config)

In: an `SftConfig`. Out: a run directory (see `running`) with a model that `DescoreModel.from_pretrained` opens. The
query and the head are not touched: a head that was fitted before does not fit what the backbone says now, so the model
says that it was never trained. Knows what this stage learns from and its loss; knows nothing of how a run goes on."""

from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from descore.model.modeling import DescoreModel
from descore.training.collate import ChainCollator
from descore.training.config import SftConfig
from descore.training.dataset import ChainTable, EpochSampler, index_table
from descore.training.losses import next_tokens
from descore.training.metrics import ProgressCallback
from descore.training.models import no_loss
from descore.training.runs import Stage, Tables, Trained, finish, new_trainer, train
from descore.training.trainer import DescoreTrainer


def train_sft(config: SftConfig, *, watch: ProgressCallback = lambda *_: None) -> Trained:
    """Train, or go on training, and write the model. `watch` is told after each update.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""

    def build_trainer(model: DescoreModel, args: TrainingArguments, tables: Tables) -> DescoreTrainer:
        sampling = model.settings.sampling
        data = {name: ChainTable(table, index=index, sampling=sampling) for name, (table, index) in tables.items()}
        return new_trainer(
            config,
            kind=DescoreTrainer,
            model=model,
            sizes={str(table.table): len(table) for table in data.values()},
            watch=watch,
            loss=learn_chains,
            count=count_tokens,
            order=EpochSampler(len(data["train"]), seed=config.optim.seed),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data.get("eval"),
            data_collator=ChainCollator(model.chat),
        )

    def write(trainer: DescoreTrainer) -> None:
        if trainer.is_world_process_zero():
            finish(trainer.learner.model, config)

    tables = {"train": config.data.train, "eval": config.data.eval}
    return train(config, Stage(tables=tables, index=index_table, trainer=build_trainer, finish=write))


def learn_chains(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Next-token loss summed over a batch's chain tokens, and how many of them were the likeliest."""
    if not len(batch["chain_mask"]):
        zero = no_loss(model)
        return zero, {"token_accuracy": torch.zeros(2, device=zero.device)}
    found = next_tokens(model, batch, model.hidden(batch))
    return found.loss, {"token_accuracy": torch.stack([found.right, found.tokens.float()])}


def count_tokens(batch: dict[str, Any]) -> int:
    """Chain tokens of a batch, each chain's end of turn included."""
    return int(batch["chain_mask"].sum())
