"""Dual-objective reinforcement learning (stage 2): GRPO on the chains, and a pair loss on the rewards behind them.

    result = train_rl(config)

Takes an `RlConfig`, gives a run directory (see `descore.training.runs`) with `chains.jsonl` and a model that a Scorer
opens."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from descore.errors import ConfigError, DescoreWarning
from descore.model.checkpoint import ANSWER_DIMENSIONS, find_checkpoint, read_settings
from descore.model.modeling import DescoreModel
from descore.training.config import RowConfig
from descore.training.dataset import PairTable, index_pairs
from descore.training.metrics import ProgressCallback, UnreadableVideos, ignore_progress, last_metrics
from descore.training.model_card import chain_metrics_section
from descore.training.rl.config import RlConfig
from descore.training.rl.logging import RlLogger
from descore.training.rl.packing import check_attention
from descore.training.rl.rollout import max_chain_tokens
from descore.training.rl.trainer import RlTrainer
from descore.training.runs import (
    TrainingResult,
    claim_directory,
    finalize_pair_run,
    is_trained,
    read_result,
    start_run,
)

if TYPE_CHECKING:
    from descore.training.evaluate import Evaluator


def warn_of_lengths(config: RlConfig, *, limit: int, served: int) -> None:
    """Warn if chains are cut off before they have the length reward, or all of it; or if they may be longer than those
    of the trained model.

    limit: tokens of a chain in a rollout. served: tokens of a chain of the trained model."""
    rewards = config.rewards
    pays = rewards.length if rewards.length_unit == "tokens" else 0.0  # a limit in tokens bounds no characters
    if pays and limit <= rewards.length_none_below:
        _warn(
            f"rewards.length is never paid: chains are cut off at {limit:,} tokens, it is 0 up to "
            f"{rewards.length_none_below:,}; raise rollout.max_completion_length or lower rewards.length_none_below"
        )
    elif pays and limit < rewards.length_full_from:
        _warn(
            f"rewards.length is never paid in full: chains are cut off at {limit:,} tokens, it is 1 from "
            f"{rewards.length_full_from:,}; raise rollout.max_completion_length or lower rewards.length_full_from"
        )
    if limit > served:
        _warn(
            f"chains of up to {limit:,} tokens are learned, the trained model may write {served:,}; raise "
            "model.max_chain_tokens"
        )


def warn_of_table(config: RlConfig, pairs: PairTable) -> None:
    """Warn if no pair has marks to train the policy, or a label to train the rewards."""
    marked = _has_any(pairs, ["marks_a", "marks_b"])
    decided, named = _is_decided(pairs), f"{pairs.table}: none of {len(pairs):,} pairs"
    # A generative model's chains also differ by their correctness; every table has a label at least.
    if config.paradigm == "descore" and not marked:
        _warn(f"{named} has marks, so the policy learns from none of its chains; give marks_a and marks_b")
    if _trains_rewards(config) and config.loss.kind == "bradley-terry" and not decided:
        _warn(
            f"{named} is decided, so rewards learn from none of them; give an a or b as preference, or loss.kind=ties"
        )


def _trains_rewards(config: RlConfig) -> bool:
    return config.paradigm == "descore" and config.loss.bt_weight > 0


def _is_decided(pairs: PairTable) -> bool:
    """Whether any pair is decided in any dimension."""
    labels = (pairs.rows.column(f"preference.{name}") for name in pairs.dimensions)
    return any(pc.any(pc.not_equal(column, 0)).as_py() for column in labels)


def _has_any(pairs: PairTable, names: Sequence[str]) -> bool:
    return any(pairs.rows.column(name).null_count < len(pairs) for name in names)


def _warn(message: str) -> None:
    warnings.warn(message, DescoreWarning, stacklevel=4)


def warn_of_whole_rows(model: DescoreModel) -> None:
    """Warn if chains do not share their prompt in an update."""
    if not model.family.PACKS:
        _warn(
            f"{model.backbone.config.model_type} reads in order, which no mask parts: in an update each chain is a row "
            "of its own behind its prompt, exact but not shared; policy.token_budget bounds the memory"
        )


_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
_TABLES = ("train", "eval", "calibration")
_DOING = {"eval": "judging held-out pairs", "calibration": "calibrating the reward"}
"""By table, the work that it is read for."""


def train_rl(config: RlConfig, *, on_progress: ProgressCallback = ignore_progress) -> TrainingResult:
    """Train, or resume training, judge and calibrate the model, and write it. `on_progress` is called after each step,
    and before other long work.

    ConfigError if the run directory holds another run or weights are to be sharded, DataError for a faulty table or too
    many unreadable videos."""
    config = _freeze_rows(config) if config.paradigm == "generative" else config
    if is_trained(config):
        return read_result(config.run.out, already_trained=True)
    accelerator = _new_accelerator()
    model, tables = start_run(
        config,
        tables={name: getattr(config.data, name) for name in _TABLES},
        index=partial(index_pairs, dimensions=_reward_dimensions(config), marks=True),
        main_process_first=accelerator.main_process_first(),
        is_main_process=accelerator.is_main_process,
        paradigm=config.paradigm,
    )
    check_attention(model)
    if accelerator.is_main_process:
        claim_directory(config)
    data = {
        name: PairTable(table, index=index, sampling=model.settings.sampling, dimensions=model.settings.dimensions)
        for name, (table, index) in tables.items()
    }
    logger = RlLogger(config, on_progress=on_progress, is_main_process=accelerator.is_main_process)
    _train(model.to(accelerator.device), data, config=config, accelerator=accelerator, logger=logger)
    return read_result(config.run.out, already_trained=False)


def _train(
    model: DescoreModel,
    data: dict[str, PairTable],
    *,
    config: RlConfig,
    accelerator: Accelerator,
    logger: RlLogger,
) -> None:
    """Train, judge, calibrate and write the model."""
    bfloat16 = config.model.precision == "bfloat16"
    autocast = partial(torch.autocast, accelerator.device.type, dtype=torch.bfloat16, enabled=bfloat16)
    sizes = {str(table.table): len(table) for table in data.values()}
    on_unreadable = UnreadableVideos(config.run.out, share=config.data.max_unreadable, examples=sizes)
    if accelerator.is_main_process:
        limit, served = max_chain_tokens(model, config), model.settings.max_chain_tokens
        warn_of_lengths(config, limit=limit, served=served)
        warn_of_table(config, data["train"])
        warn_of_whole_rows(model)
    shared: dict[str, Any] = {"accelerator": accelerator, "autocast": autocast, "on_unreadable": on_unreadable}
    evaluator = _new_evaluator(model, data, config=config, logger=logger, **shared)
    trainer = RlTrainer(model, config=config, pairs=data["train"], logger=logger, **shared)
    trainer.run(evaluate=evaluator.evaluate if evaluator is not None and "eval" in data else None)
    finalize_pair_run(
        model,
        config,
        data=data,
        evaluator=evaluator,
        source="generated",
        updates={"trained_on": _trained_on(config, pairs=len(data["train"]))},
        origin="whose head was left behind" if config.paradigm == "generative" else "whose head goes on",
        section=lambda: chain_metrics_section(last_metrics(config.run.out)),
        is_main_process=accelerator.is_main_process,
    )
    accelerator.wait_for_everyone()


def _new_evaluator(
    model: DescoreModel,
    data: dict[str, PairTable],
    *,
    config: RlConfig,
    logger: RlLogger,
    **shared: Any,  # noqa: ANN401
) -> "Evaluator | None":
    """None without a table to judge. Its statistics are imported only where there is one."""
    if not data.keys() & _DOING.keys():
        return None
    from descore.training.evaluate import Evaluator

    return Evaluator(
        model=model,
        data=data,
        config=config.evaluate,
        batch_size=config.optim.per_device_train_batch_size,
        num_workers=config.data.dataloader_num_workers,
        on_table=lambda name: logger.report_progress(_DOING[name]),
        **shared,
    )


def _new_accelerator() -> Accelerator:
    """The processes, and the device of this one. Its mixed precision is not used: see `_train`."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.distributed_type in _SHARDED:
        raise ConfigError(
            f"accelerate: found {accelerator.distributed_type.value}; expected whole weights in each process, since "
            "chains are written by them: launch without sharding"
        )
    return accelerator


def _reward_dimensions(config: RlConfig) -> tuple[str, ...]:
    """Those of the checkpoint's head, or of the score that a generative model writes."""
    if config.paradigm == "generative":
        return ANSWER_DIMENSIONS
    assert config.model.checkpoint is not None, "RlConfig refuses it"
    settings = read_settings(find_checkpoint(config.model.checkpoint))
    if settings.trained_on is None:
        message = f"{config.model.checkpoint}: its head was never trained; run descore train cold-start first"
        warnings.warn(message, DescoreWarning, stacklevel=2)
    return settings.dimensions


def _trained_on(config: RlConfig, *, pairs: int) -> str:
    """What the model was trained on, in this run and before."""
    start = config.model.checkpoint
    before = None if start is None else read_settings(find_checkpoint(start)).trained_on
    return f"{pairs:,} pairs" + (f"; before that {before}" if before else "")


def _freeze_rows(config: RlConfig) -> RlConfig:
    """A generative model has neither query nor head to train."""
    frozen = RowConfig(mode="frozen")
    trainable = config.trainable.model_copy(update={"query": frozen, "head": frozen})
    return config.model_copy(update={"trainable": trainable})
