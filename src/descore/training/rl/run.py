"""Dual-objective reinforcement learning (stage 2): chains get better by what they are worth, while the rewards behind
the very same chains stay true to people's preferences.

    trained = train_rl(config)

In: an `RlConfig`. Out: a run directory (see `running`) with `chains.jsonl`, `evaluation.json` and a model that a Scorer
opens. Each step writes chains for some pairs, rates them, and learns from them; a run that is killed goes on from its
last checkpoint to the same weights. Knows the run; knows nothing of how a chain is rated or becomes a gradient."""

import warnings
from collections.abc import Sequence
from functools import partial

import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from transformers import set_seed

from descore.errors import ConfigError, DescoreWarning
from descore.model.checkpoint import ANSWER_DIMENSIONS, CheckpointSettings, find_checkpoint, read_settings
from descore.model.modeling import DescoreModel
from descore.training.cold_start import EVALUATION_FILE, write_evaluation
from descore.training.config import ChainSource, RowConfig
from descore.training.config_file import write_config
from descore.training.evaluate import JudgedPair, Judging, calibrated, figures, judge_pairs, quick_metrics, record
from descore.training.metrics import ProgressCallback, UnreadableVideos, last_metrics, write_versions
from descore.training.model_card import how_chains_came_out, write_card
from descore.training.models import dtype_of, open_model, read_rubric_file, set_trainable
from descore.training.pair_dataset import PairTable, index_pairs
from descore.training.rl.config import RlConfig
from descore.training.rl.logging import RlRecords
from descore.training.rl.rollout import limit_of
from descore.training.rl.trainer import Loop
from descore.training.runs import (
    CONFIG_FILE,
    MODEL,
    Tables,
    Trained,
    finish,
    index_tables,
    refuse_another_run,
    tables_of,
    trained_in,
)


def warn_of_lengths(config: RlConfig, *, limit: int, served: int) -> None:
    """Where the limit of a rollout's chains leaves nothing of the length reward, or not all of it; where it is above
    what the trained model may write.

    limit: tokens of a chain in a rollout. served: tokens of a chain of the trained model."""
    rewards = config.rewards
    if rewards.length and limit <= rewards.length_none_below:
        _warn(
            f"rewards.length is never paid: chains are cut off at {limit:,} tokens, it is 0 up to "
            f"{rewards.length_none_below:,}; raise rollout.max_completion_length or lower rewards.length_none_below"
        )
    elif rewards.length and limit < rewards.length_full_from:
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
    """Where no pair has what chains, or what rewards, are to learn from."""
    marked = _has_any(pairs, ["marks_a", "marks_b"])
    decided, named = _is_decided(pairs), f"{pairs.table}: none of {len(pairs):,} pairs"
    # A generative model's chains are told apart by people's order too; every table has a label at least.
    if config.paradigm == "descore" and not marked:
        _warn(f"{named} has marks, so the policy learns from none of its chains; give marks_a and marks_b")
    if _learns_pairs(config) and config.loss.kind == "bradley-terry" and not decided:
        _warn(
            f"{named} is decided, so rewards learn from none of them; give an a or b as preference, or loss.kind=ties"
        )


def _learns_pairs(config: RlConfig) -> bool:
    return config.paradigm == "descore" and config.loss.bt_weight > 0


def _is_decided(pairs: PairTable) -> bool:
    """Whether any pair is, in any dimension."""
    labels = (pairs.rows.column(f"preference.{name}") for name in pairs.dimensions)
    return any(pc.any(pc.not_equal(column, 0)).as_py() for column in labels)


def _has_any(pairs: PairTable, names: Sequence[str]) -> bool:
    return any(pairs.rows.column(name).null_count < len(pairs) for name in names)


def _warn(said: str) -> None:
    warnings.warn(said, DescoreWarning, stacklevel=4)


_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
_TABLES = ("train", "eval", "calibration")
_DOING = {"eval": "judging held-out pairs", "calibration": "calibrating the reward"}
"""What a run does with a table that it does not learn from."""


def train_rl(config: RlConfig, *, watch: ProgressCallback = lambda *_: None) -> Trained:
    """Train, or go on training, judge and calibrate the model, and write it. `watch` is told after each step; and,
    as "doing" beside the metrics, of what else takes long.

    ConfigError if the run directory holds another run or weights are to be sharded, DataError for a faulty table or too
    many unreadable videos."""
    config = _without_rows(config) if config.paradigm == "generative" else config
    out, rubric = config.run.out, read_rubric_file(config.model.rubric)
    begun = refuse_another_run(config)
    if begun and (out / MODEL).is_dir():
        return trained_in(out, before=True)
    accelerator, named = _accelerator(), {name: getattr(config.data, name) for name in _TABLES}
    index = partial(index_pairs, dimensions=_dimensions(config), marks=True)
    with accelerator.main_process_first():
        tables = index_tables(named, index, out, anew=not begun and accelerator.is_main_process)
    set_seed(config.optim.seed)
    model = open_model(config, rubric=rubric, paradigm=config.paradigm)
    set_trainable(model, config.trainable, precision=dtype_of(config.model.precision))
    if accelerator.is_main_process:
        write_config(config, out / CONFIG_FILE)
        write_versions(out)
    model = model.to(accelerator.device)
    _Run(config, model=model, tables=tables, accelerator=accelerator, watch=watch).run()
    return trained_in(out, before=False)


class _Run:
    """A model, its tables and its processes."""

    def __init__(
        self,
        config: RlConfig,
        *,
        model: DescoreModel,
        tables: Tables,
        accelerator: Accelerator,
        watch: ProgressCallback,
    ) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        sampling, dimensions = model.settings.sampling, model.settings.dimensions
        self.data = {
            name: PairTable(table, index=index, sampling=sampling, dimensions=dimensions)
            for name, (table, index) in tables.items()
        }
        bfloat16 = config.model.precision == "bfloat16"
        self.autocast = partial(torch.autocast, accelerator.device.type, dtype=torch.bfloat16, enabled=bfloat16)
        sizes = {str(table.table): len(table) for table in self.data.values()}
        self.on_unreadable = UnreadableVideos(config.run.out, share=config.data.max_unreadable, examples=sizes)
        self.records = RlRecords(config, watch=watch, is_main_process=accelerator.is_main_process)
        self.judged: list[JudgedPair] = []
        """What the last evaluation found."""

    def run(self) -> None:
        """Learn, judge, calibrate and write."""
        is_main_process = self.accelerator.is_main_process
        if is_main_process:
            self._warn()
        loop = Loop(
            self.model,
            config=self.config,
            pairs=self.data["train"],
            accelerator=self.accelerator,
            autocast=self.autocast,
            on_unreadable=self.on_unreadable,
            records=self.records,
        )
        loop.run(judge=self.judge)
        if "eval" in self.data and not self.judged:  # the run was killed behind its last checkpoint
            self.judge()
        trained_on = _trained_on(self.config, pairs=len(self.data["train"]))
        settings = self._calibrated().model_copy(update={"trained_on": trained_on})
        if is_main_process:
            self._write(settings)
        self.accelerator.wait_for_everyone()

    def _warn(self) -> None:
        """Of what somebody should look at before hours have passed."""
        limit, served = limit_of(self.model, self.config), self.model.settings.max_chain_tokens
        warn_of_lengths(self.config, limit=limit, served=served)
        warn_of_table(self.config, self.data["train"])

    def judge(self) -> dict[str, float]:
        """Judge the eval table with the config's chain sources."""
        self.judged = self._judge_table("eval", self.config.evaluate.chain_sources)
        return quick_metrics(self.judged, dimensions=self.model.settings.dimensions)

    def _judge_table(self, name: str, chain_sources: Sequence[ChainSource]) -> list[JudgedPair]:
        """All pairs of a table, judged by all processes together. Each of them gets the whole."""
        self.records.tell(_DOING[name])
        self.model.eval()
        judging = Judging(
            batch_size=self.config.optim.per_device_train_batch_size,
            workers=self.config.data.dataloader_num_workers,
            generated_pairs=self.config.evaluate.generated_pairs,
            autocast=self.autocast,
            on_unreadable=self.on_unreadable,
            processes=self.accelerator.num_processes,
            process=self.accelerator.process_index,
        )
        with torch.no_grad():
            mine = [record(*pair) for pair in judge_pairs(self.model, self.data[name], chain_sources, judging)]
        return sorted(gather_object(mine), key=lambda pair: pair.number)

    def _calibrated(self) -> CheckpointSettings:
        """The settings with the reward's mean and deviation behind chains of the model's own, if a table tells them."""
        settings, name = self.model.settings, "calibration" if "calibration" in self.data else "eval"
        if name not in self.data:
            return settings
        known = name == "eval" and "generated" in self.config.evaluate.chain_sources
        judged = self.judged if known else self._judge_table(name, ["generated"])
        return calibrated(settings, judged, source="generated")

    def _write(self, settings: CheckpointSettings) -> None:
        """The model with its card, and what was found on held-out pairs."""
        self.model.settings, found = settings, figures(self.judged, dimensions=settings.dimensions)
        write_evaluation(self.config.run.out / EVALUATION_FILE, found)
        tables = tables_of(self.data)
        generative = settings.paradigm == "generative"
        origin = "whose head was left behind" if generative else "whose head goes on"
        section = how_chains_came_out(last_metrics(self.config.run.out))
        card = write_card(self.config, settings, tables=tables, found=found, origin=origin, section=section)
        finish(self.model, self.config, card=card)


def _accelerator() -> Accelerator:
    """Processes and the device of this one. Its own precision is not asked: see `_Run.autocast`."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.distributed_type in _SHARDED:
        raise ConfigError(
            f"accelerate: found {accelerator.distributed_type.value}; expected whole weights in each process, since "
            "chains are written by them: launch without sharding"
        )
    return accelerator


def _dimensions(config: RlConfig) -> tuple[str, ...]:
    """What rewards there are: those of the checkpoint's head, or the one that is written."""
    if config.paradigm == "generative":
        return ANSWER_DIMENSIONS
    assert config.model.checkpoint is not None, "RlConfig refuses it"
    settings = read_settings(find_checkpoint(config.model.checkpoint))
    if settings.trained_on is None:
        said = f"{config.model.checkpoint}: its head was never trained; run descore train cold-start first"
        warnings.warn(said, DescoreWarning, stacklevel=2)
    return settings.dimensions


def _trained_on(config: RlConfig, *, pairs: int) -> str:
    """What the model learned from, and what its start had learned from before."""
    start = config.model.checkpoint
    before = None if start is None else read_settings(find_checkpoint(start)).trained_on
    return f"{pairs:,} pairs" + (f"; before that {before}" if before else "")


def _without_rows(config: RlConfig) -> RlConfig:
    """A generative model has neither query nor head that could learn."""
    frozen = RowConfig(mode="frozen")
    trainable = config.trainable.model_copy(update={"query": frozen, "head": frozen})
    return config.model_copy(update={"trainable": trainable})
