"""A run of training, whatever it teaches: claim a directory, open a model, train from where it was killed, write it.

In: a stage's settings and what is particular to it (`Stage`). Out: a run directory, and in it a trained model:

    config.yaml, versions.json     what was run
    metrics.jsonl                  how it went
    unreadable.jsonl               examples that were left out, if any
    tables/                        the examples' texts, mapped into memory
    checkpoint-N/                  where a killed run goes on
    model/                         the trained model

Knows the run; knows nothing of how a batch, a loss or a step is made."""

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback

from descore.config_model import SettingsError
from descore.errors import ConfigError, DescoreWarning
from descore.model.modeling import DescoreModel, merge_adapters
from descore.training.config import WITHOUT_EFFECT, TrainingConfig
from descore.training.config_file import differences, read_config, write_config
from descore.training.dataset import ArrowTable
from descore.training.metrics import (
    Metrics,
    ProgressCallback,
    UnreadableVideos,
    last_metrics,
    unreadable_in,
    write_versions,
)
from descore.training.model_card import Table
from descore.training.models import (
    dtype_of,
    open_model,
    parameter_groups,
    read_rubric_file,
    save_trained,
    set_trainable,
)
from descore.training.pair_dataset import PairTable
from descore.training.trainer import STATE_FILE, DescoreTrainer, last_checkpoint

CONFIG_FILE, TABLES, MODEL, TENSORBOARD = "config.yaml", "tables", "model", "tensorboard"

Tables: TypeAlias = Mapping[str, tuple[Path, Path]]
"""By name (train, eval ...), a table and its Arrow file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is particular to a stage."""

    tables: Mapping[str, Path | None]
    """By name, the tables that it reads; None is one that is not given."""
    index: Callable[[Path, Path], None]
    """Checks a table and writes its Arrow file."""
    trainer: Callable[[DescoreModel, TrainingArguments, Tables], DescoreTrainer]
    """Puts data, losses and records together."""
    finish: Callable[[DescoreTrainer], None]
    """Writes the trained model. Called in each process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run came to."""

    model: Path | None
    """Its directory. None: the weights were sharded, and a run of one process is to write it."""
    metrics: dict[str, Any]
    """The last line of metrics.jsonl on training, and the last evaluation's figures."""
    unreadable: int
    """Examples that were left out."""
    before: bool
    """The run had come to its end before; nothing was done."""


def train(config: TrainingConfig, stage: Stage) -> Trained:
    """Train, or go on training, and write the model.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""
    out, rubric = config.run.out, read_rubric_file(config.model.rubric)
    begun = refuse_another_run(config)
    if begun and (out / MODEL).is_dir():
        return trained_in(out, before=True)
    args = training_arguments(config)
    with args.main_process_first():
        tables = index_tables(stage.tables, stage.index, out, anew=not begun and args.process_index == 0)
    set_seed(config.optim.seed)
    model = open_model(config, rubric=rubric)
    set_trainable(model, config.trainable, precision=dtype_of(config.model.precision))
    trainer = stage.trainer(model, args, tables)
    if trainer.is_world_process_zero():
        write_config(config, out / CONFIG_FILE)
        write_versions(out)
    run_trainer(trainer, out)
    if not trainer.sharded:
        stage.finish(trainer)
    trainer.accelerator.wait_for_everyone()
    return trained_in(out, before=False)


def refuse_another_run(config: TrainingConfig) -> bool:
    """Whether the run directory holds this run's beginning. ConfigError if it holds anything else."""
    out = config.run.out
    if not (out / CONFIG_FILE).is_file():
        others = sorted(p.name for p in out.iterdir() if p.name != TABLES) if out.is_dir() else []
        if others:
            raise ConfigError(f"run.out: {out} is no run's directory, it holds {others[0]}; choose another")
        return False
    if not config.run.resume:
        raise ConfigError(f"run.out: {out} holds a run, and run.resume is false; choose another")
    try:
        there = read_config(out / CONFIG_FILE, type(config), warn=False)
    except SettingsError as fault:
        raise ConfigError(f"run.out: {out} holds a run of another stage; choose another") from fault
    unlike = differences(config, there, but=WITHOUT_EFFECT)
    if unlike:
        named = "; ".join(f"{d.key} is {d.there} there, {d.here} here" for d in unlike)
        raise ConfigError(f"run.out: {out} holds another run: {named}; choose another, or set these back")
    return True


def index_tables(
    named: Mapping[str, Path | None], write: Callable[[Path, Path], None], out: Path, *, anew: bool
) -> Tables:
    """By name, the tables that are given, and their Arrow files; `anew`: written again, whatever is there."""
    tables = {name: (table, out / TABLES / f"{name}.arrow") for name, table in named.items() if table is not None}
    for table, index in tables.values():
        if anew:
            index.unlink(missing_ok=True)
        write(table, index)
    if anew:
        _warn_of_trained_on(tables)
    return tables


def _warn_of_trained_on(tables: Tables) -> None:
    """Say so if what is to judge or calibrate the model is the table that is trained on, whatever it is called."""
    digests = {name: ArrowTable(index).digest for name, (_, index) in tables.items()}
    for name, digest in digests.items():
        if name != "train" and digest == digests["train"]:
            told = f"data.{name}: {tables[name][0]} is the very table that is trained on; its figures will flatter"
            warnings.warn(told, DescoreWarning, stacklevel=2)


def training_arguments(config: TrainingConfig) -> TrainingArguments:
    """The config in Trainer's words; learning rates by part come with the optimizer."""
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


def new_trainer(
    config: TrainingConfig,
    *,
    kind: Callable[..., DescoreTrainer],
    model: DescoreModel,
    sizes: Mapping[str, int],
    watch: ProgressCallback,
    **trainer: Any,  # noqa: ANN401  # the trainer's own arguments
) -> DescoreTrainer:
    """A trainer with the optimizer and the records of every stage. `sizes`: by table's path, its rows; the first is
    the one that is trained on."""
    optim, out = config.optim, config.run.out
    groups = parameter_groups(model, config.trainable, optim)
    made = kind(
        model=model,
        on_unreadable=UnreadableVideos(out, share=config.data.max_unreadable, examples=sizes),
        optimizers=(torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas), None),
        callbacks=[Metrics(out, examples=next(iter(sizes.values())), watch=watch), *_tensorboard(config)],
        **trainer,
    )
    made.remove_callback(PrinterCallback)
    return made


def run_trainer(trainer: DescoreTrainer, out: Path) -> None:
    """Train from the last checkpoint, or from the start. A run that lacks only its model reads what it learned."""
    last = last_checkpoint(out)
    if last is not None and _is_complete(last):
        trainer.load_learned(last)
    else:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))


def finish(model: DescoreModel, config: TrainingConfig, *, card: str | None = None) -> None:
    """Write the trained model in the run's precision, with its model card if there is one."""
    if config.run.merge:
        merge_adapters(model.backbone)
    save_trained(model.eval(), config.run.out / MODEL, precision=dtype_of(config.model.precision), card=card)


def _tensorboard(config: TrainingConfig) -> list[TrainerCallback]:
    if not config.run.tensorboard:
        return []
    need_tensorboard()
    callback = TensorBoardCallback()
    callback.logging_dir = str(config.run.out / TENSORBOARD)
    return [callback]


def need_tensorboard() -> None:
    """ConfigError where it is not installed."""
    if find_spec("tensorboard") is None:
        raise ConfigError("run.tensorboard: tensorboard is not installed; run pip install 'descore[tensorboard]'")


def tables_of(data: Mapping[str, PairTable]) -> list[Table]:
    """The tables of pairs that a run read, for its model card."""
    return [
        Table(name=name, file=str(table.table), pairs=len(table), digest=table.digest) for name, table in data.items()
    ]


def trained_in(out: Path, *, before: bool) -> Trained:
    """What a run directory says that its run came to."""
    model = out / MODEL
    return Trained(
        model=model if model.is_dir() else None, metrics=last_metrics(out), unreadable=unreadable_in(out), before=before
    )


def _is_complete(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])
