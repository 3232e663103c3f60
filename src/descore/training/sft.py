"""Learning to write chains: next-token training of a backbone on chains that were written beforehand (stage 0).

    trained = train_sft(config)

In: an `SftConfig`. Out: a run directory, and in it a model that `DescoreModel.from_pretrained` opens:

    config.yaml, versions.json     what was run
    metrics.jsonl                  how it went
    unreadable.jsonl               examples that were left out, if any
    tables/                        the examples' texts, mapped into memory
    checkpoint-N/                  where a killed run goes on
    model/                         the trained model

The query and the head are not touched: a head that was fitted before does not fit what the backbone says now, so the
model says that it was never trained. Knows the run; knows nothing of how a batch, a loss or a step is made."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainingArguments, set_seed

from descore.data.chat import Chat
from descore.data.sampling import VideoSampling
from descore.errors import ConfigError
from descore.model.adapters import fold_adapters
from descore.model.checkpoint import Settings
from descore.model.descore_model import DescoreModel
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.training.collate import ChainCollator
from descore.training.config import WITHOUT_EFFECT, ModelConfig, OptimConfig, SftConfig
from descore.training.config_file import differences, read_config, write_config
from descore.training.examples import ChainTable, index_table
from descore.training.losses import next_tokens
from descore.training.records import Metrics, UnreadableVideos, Watch, last_metrics, unreadable_in, write_versions
from descore.training.saving import save_trained
from descore.training.trainable import learned_weights, parameter_groups, set_trainable
from descore.training.trainer import DescoreTrainer, last_checkpoint

CONFIG_FILE, TABLES, MODEL = "config.yaml", "tables", "model"

_SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run came to."""

    model: Path
    """Its directory."""
    metrics: dict[str, Any]
    """The last line of metrics.jsonl on training, and the last evaluation's figures."""
    unreadable: int
    """Examples that were left out."""
    before: bool
    """The run had come to its end before; nothing was done."""


def train_sft(config: SftConfig, *, watch: Watch = lambda *_: None) -> Trained:
    """Train, or go on training, and write the model. `watch` is told after each update.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""
    out, rubric = config.run.out, read_rubric_file(config.model.rubric)
    begun = refuse_another_run(config)
    if begun and (out / MODEL).is_dir():
        return _trained(out, before=True)
    args = training_arguments(config)
    with args.main_process_first():
        tables = index_tables(config, anew=not begun and args.process_index == 0)
    set_seed(config.optim.seed)
    model = open_model(config, rubric=rubric)
    set_trainable(model, config.trainable, precision=_dtype(config.model.precision))
    trainer = new_trainer(model, config, args=args, tables=tables, watch=watch)
    if trainer.is_world_process_zero():
        write_config(config, out / CONFIG_FILE)
        write_versions(out)
    run_to_the_end(trainer, out)
    if trainer.is_world_process_zero():
        finish(model, config)
    trainer.accelerator.wait_for_everyone()
    return _trained(out, before=False)


def learn_chains(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Next-token loss summed over a batch's chain tokens, and how many of them were the likeliest."""
    if not len(batch["chain_mask"]):  # no video of the batch could be read; other processes still wait for gradients
        zero = torch.stack([weight.sum() for weight in learned_weights(model).values()]).sum() * 0.0
        return zero, {"token_accuracy": torch.zeros(2, device=zero.device)}
    found = next_tokens(model, batch, model.hidden(batch))
    return found.loss, {"token_accuracy": torch.stack([found.right, found.tokens.float()])}


def count_tokens(batch: dict[str, Any]) -> int:
    """Chain tokens of a batch, each chain's end of turn included."""
    return int(batch["chain_mask"].sum())


def read_rubric_file(file: Path | None) -> str | None:
    """The judging text of a file; ConfigError if it cannot be used."""
    if file is None:
        return None
    try:
        rubric = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"model.rubric: {file} cannot be read as text: {fault}") from fault
    fill_rubric(rubric, prompt="")
    return rubric


def refuse_another_run(config: SftConfig) -> bool:
    """Whether the run directory holds this run's beginning. ConfigError if it holds anything else."""
    out = config.run.out
    if not (out / CONFIG_FILE).is_file():
        others = sorted(p.name for p in out.iterdir() if p.name != TABLES) if out.is_dir() else []
        if others:
            raise ConfigError(f"run.out: {out} is no run's directory, it holds {others[0]}; choose another")
        return False
    if not config.run.resume:
        raise ConfigError(f"run.out: {out} holds a run, and run.resume is false; choose another")
    unlike = differences(config, read_config(out / CONFIG_FILE, SftConfig), but=WITHOUT_EFFECT)
    if unlike:
        named = "; ".join(f"{d.key} is {d.there} there, {d.here} here" for d in unlike)
        raise ConfigError(f"run.out: {out} holds another run: {named}; choose another, or set these back")
    return True


def index_tables(config: SftConfig, *, anew: bool) -> dict[str, tuple[Path, Path]]:
    """By name (train, eval), the table and its Arrow file; `anew`: written again, whatever is there."""
    given = {"train": config.data.train, "eval": config.data.eval}
    tables = {n: (table, config.run.out / TABLES / f"{n}.arrow") for n, table in given.items() if table is not None}
    for table, index in tables.values():
        if anew:
            index.unlink(missing_ok=True)
        index_table(table, index)
    return tables


def open_model(config: SftConfig, *, rubric: str | None) -> DescoreModel:
    """The model that starts, on the CPU. What learns in full is read in float32, so that no digit of it is lost."""
    told, full = config.model, "full" in config.trainable.modes.values()
    dtype = torch.float32 if full else _dtype(told.precision)
    if told.checkpoint is not None:
        model = DescoreModel.from_pretrained(told.checkpoint, device="cpu", dtype=dtype)
    else:
        model = DescoreModel.from_backbone(told.backbone, rubric=rubric or DEFAULT_RUBRIC, dtype=dtype)
    model.chat = Chat(model.chat.processor, rubric or model.chat.rubric)
    model.settings = _settings(model.settings, told, config.data.sampling)
    _refuse_odd_sizes(model)
    if told.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def training_arguments(config: SftConfig) -> TrainingArguments:
    """The config in Trainer's words; learning rates by part come with the optimizer."""
    data, optim, run = config.data, config.optim, config.run
    return TrainingArguments(
        output_dir=str(run.out),
        max_steps=optim.steps or -1,
        num_train_epochs=optim.epochs or 1,
        per_device_train_batch_size=optim.batch_size,
        per_device_eval_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulate,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=_SCHEDULES[optim.schedule],
        warmup_steps=optim.warmup,
        max_grad_norm=optim.max_grad_norm,
        seed=optim.seed,
        bf16=config.model.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_steps=run.save_steps,
        save_total_limit=run.save_total_limit,
        logging_steps=run.log_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if data.eval else "no",
        eval_steps=run.eval_steps or sys.maxsize,  # there is always one at the end
        dataloader_num_workers=data.workers,
        dataloader_prefetch_factor=data.prefetch if data.workers else None,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
    )


def new_trainer(
    model: DescoreModel,
    config: SftConfig,
    *,
    args: TrainingArguments,
    tables: dict[str, tuple[Path, Path]],
    watch: Watch,
) -> DescoreTrainer:
    """The trainer, with its data, optimizer and records."""
    sampling, out = model.settings.sampling, config.run.out
    data = {name: ChainTable(table, index=index, sampling=sampling) for name, (table, index) in tables.items()}
    sizes = {str(table.table): len(table) for table in data.values()}
    trainer = DescoreTrainer(
        model=model,
        loss=learn_chains,
        count=count_tokens,
        lost=UnreadableVideos(out, share=config.data.max_unreadable, examples=sizes),
        args=args,
        train_dataset=data["train"],
        eval_dataset=data.get("eval"),
        data_collator=ChainCollator(model.chat),
        optimizers=(new_optimizer(model, config), None),
        callbacks=[Metrics(out, examples=len(data["train"]), watch=watch)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def new_optimizer(model: DescoreModel, config: SftConfig) -> torch.optim.AdamW:
    """AdamW over what learns."""
    optim: OptimConfig = config.optim
    return torch.optim.AdamW(
        parameter_groups(model, config.trainable, optim), lr=optim.learning_rate, betas=optim.betas
    )


def run_to_the_end(trainer: DescoreTrainer, out: Path) -> None:
    """Train from the last checkpoint, or from the start. A run that lacks only its model reads what it learned."""
    last = last_checkpoint(out)
    if last is not None and _is_complete(last):
        trainer.load_learned(last)
    else:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))


def finish(model: DescoreModel, config: SftConfig) -> None:
    """Write the trained model, in the run's precision."""
    if config.run.merge:
        fold_adapters(model.backbone)
    save_trained(model.eval(), config.run.out / MODEL, precision=_dtype(config.model.precision))


def _trained(out: Path, *, before: bool) -> Trained:
    return Trained(model=out / MODEL, metrics=last_metrics(out), unreadable=unreadable_in(out), before=before)


def _settings(settings: Settings, told: ModelConfig, sampling: VideoSampling | None) -> Settings:
    """The checkpoint's, with what the config says, and a head that fits no more."""
    return replace(
        settings,
        sampling=sampling or settings.sampling,
        max_chain_tokens=told.max_chain_tokens or settings.max_chain_tokens,
        reward_mean=None,
        reward_std=None,
        trained_on=None,
    )


def _refuse_odd_sizes(model: DescoreModel) -> None:
    videos, found = model.chat.processor.video_processor, model.settings.sampling.size_multiple
    needed = videos.patch_size * videos.merge_size
    if found % needed:
        raise ConfigError(f"data.sampling.size_multiple is {found}; this model's frames come in multiples of {needed}")


def _is_complete(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
