"""The directory of a training run, and the steps that all stages share: start, index tables, finalize, write the model.

config.yaml, versions.json     settings and environment
metrics.jsonl                  a line for each log
unreadable.jsonl               examples that were left out, if any
tables/                        the examples' texts, mapped into memory
checkpoint-N/                  the state to resume from
evaluation.json                agreement with people on held-out pairs, in stages 1 and 2
model/                         the trained model"""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
from transformers import set_seed

from descore.config_model import SettingsError
from descore.errors import ConfigError, DescoreWarning, how_to_install
from descore.io import atomic_write
from descore.model.modeling import DescoreModel, merge_adapters
from descore.training.config import WITHOUT_EFFECT, ChainSource, TrainingConfig
from descore.training.config_file import differences, read_config, write_config
from descore.training.dataset import ArrowTable, PairTable
from descore.training.metrics import check_journals, last_metrics, unreadable_in, write_versions
from descore.training.model_card import CardTable, render_card
from descore.training.models import (
    dtype_of,
    open_model,
    read_rubric_file,
    remove_unfinished,
    save_trained,
    set_trainable,
)
from descore.types import Paradigm

if TYPE_CHECKING:
    from descore.training.evaluate import Evaluator

CONFIG_FILE, TABLES, MODEL, TENSORBOARD = "config.yaml", "tables", "model", "tensorboard"
EVALUATION_FILE = "evaluation.json"

Tables: TypeAlias = Mapping[str, tuple[Path, Path]]
"""By name (train, eval ...), a table and its Arrow file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The trained model of a run, and its last metrics."""

    model: Path | None
    """Its directory. None: the weights were sharded, and a run of one process is to write it."""
    metrics: dict[str, Any]
    """The last line of metrics.jsonl on training, and the figures of the last evaluation."""
    unreadable: int
    """Examples that were left out."""
    already_trained: bool
    """The run had ended before; nothing was done."""


def read_result(out: Path, *, already_trained: bool) -> TrainingResult:
    """The result of the run in a directory."""
    model = out / MODEL
    return TrainingResult(
        model=model if model.is_dir() else None,
        metrics=last_metrics(out),
        unreadable=unreadable_in(out),
        already_trained=already_trained,
    )


def is_trained(config: TrainingConfig) -> bool:
    """Whether the run directory holds this run's model. ConfigError if it holds another run."""
    return can_resume(config) and (config.run.out / MODEL).is_dir()


def can_resume(config: TrainingConfig) -> bool:
    """Whether the run directory holds a part of this run. ConfigError if it holds anything else."""
    out = config.run.out
    if not (out / CONFIG_FILE).is_file():
        unclaimed = [TABLES, f"{CONFIG_FILE}.partial"]  # what a kill before the directory is claimed leaves
        others = sorted(p.name for p in out.iterdir() if p.name not in unclaimed) if out.is_dir() else []
        if others:
            raise ConfigError(f"run.out: {out} is no run's directory, it holds {others[0]}; choose another")
        return False
    if not config.run.resume:
        raise ConfigError(f"run.out: {out} holds a run, and run.resume is false; choose another")
    try:
        former = read_config(out / CONFIG_FILE, type(config), warn=False)
    except SettingsError as fault:
        reason = f"run.out: {out} holds a run of another stage, or its {CONFIG_FILE} was altered; choose another"
        raise ConfigError(reason) from fault
    unlike = differences(config, former, but=WITHOUT_EFFECT)
    if unlike:
        named = "; ".join(f"{d.key} is {d.there} there, {d.here} here" for d in unlike)
        raise ConfigError(f"run.out: {out} holds another run: {named}; choose another, or set these back")
    check_journals(out)
    return True


def start_run(
    config: TrainingConfig,
    *,
    tables: Mapping[str, Path | None],
    index: Callable[[Path, Path], None],
    main_process_first: AbstractContextManager[Any],
    is_main_process: bool,
    paradigm: Paradigm | None = None,
) -> tuple[DescoreModel, Tables]:
    """The model to train, on the CPU, and the indexed tables. Nothing but these is written.

    `tables`: by name; None is one that is not given. `index` checks a table and writes its Arrow file. `paradigm`: as
    for `open_model`."""
    rubric, resumed = read_rubric_file(config.model.rubric), can_resume(config)
    with main_process_first:
        indexed = index_tables(tables, index, config.run.out, replace=not resumed and is_main_process)
    set_seed(config.optim.seed)
    model = open_model(config, rubric=rubric, paradigm=paradigm)
    set_trainable(model, config.trainable, precision=dtype_of(config.model.precision))
    return model, indexed


def claim_directory(config: TrainingConfig) -> None:
    """Write the settings and versions of the run, by which its directory is recognized from now on."""
    write_config(config, config.run.out / CONFIG_FILE)
    write_versions(config.run.out)
    remove_unfinished(config.run.out)


def index_tables(
    tables: Mapping[str, Path | None], write: Callable[[Path, Path], None], out: Path, *, replace: bool
) -> Tables:
    """By name, the given tables and their Arrow files. `replace` Arrow files that exist."""
    indexed = {name: (table, out / TABLES / f"{name}.arrow") for name, table in tables.items() if table is not None}
    for table, index in indexed.values():
        if replace:
            index.unlink(missing_ok=True)
        write(table, index)
    if replace:
        _warn_of_train_table(indexed)
    return indexed


def _warn_of_train_table(tables: Tables) -> None:
    """Warn if the table that evaluates or calibrates the model has the contents of the one that it is trained on."""
    digests = {name: ArrowTable(index).digest for name, (_, index) in tables.items()}
    for name, digest in digests.items():
        if name != "train" and digest == digests["train"]:
            message = f"data.{name}: {tables[name][0]} is the very table that is trained on; its figures will flatter"
            warnings.warn(message, DescoreWarning, stacklevel=2)


def finalize_pair_run(
    model: DescoreModel,
    config: TrainingConfig,
    *,
    data: Mapping[str, PairTable],
    evaluator: "Evaluator | None",
    source: ChainSource,
    updates: Mapping[str, Any],
    origin: str,
    section: Callable[[], str] = lambda: "",
    is_main_process: bool,
) -> None:
    """Evaluate and calibrate the model, and write it with its card and evaluation.json. Called in each process.

    `evaluator`: None without a table to evaluate or calibrate by. `source`: of the chains that calibrate the reward.
    `updates`: of the model's settings. `origin`, `section`: of the card."""
    settings = model.settings
    if evaluator is not None:
        evaluator.evaluate_unless_done()
        settings = evaluator.calibrate(settings, source=source)
    if not is_main_process:
        return
    model.settings = settings.model_copy(update=dict(updates))
    agreements = [] if evaluator is None else evaluator.agreements()
    records = [_without_nan(asdict(agreement)) for agreement in agreements]
    atomic_write(config.run.out / EVALUATION_FILE, json.dumps(records, indent=1) + "\n")
    tables = [
        CardTable(name=name, file=str(table.table), pairs=len(table), digest=table.rows.digest)
        for name, table in data.items()
    ]
    card = render_card(config, model.settings, tables=tables, agreements=agreements, origin=origin, section=section())
    write_model(model, config, card=card)


def _without_nan(value: Any) -> Any:  # noqa: ANN401
    """The value with null in place of each number that is not known."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def write_model(model: DescoreModel, config: TrainingConfig, *, card: str | None = None) -> None:
    """Write the trained model in the run's precision, with its model card if there is one."""
    if config.run.merge:
        merge_adapters(model.backbone)
    save_trained(model.eval(), config.run.out / MODEL, precision=dtype_of(config.model.precision), card=card)


def need_tensorboard() -> None:
    """ConfigError if it is not installed."""
    if find_spec("tensorboard") is None:
        raise ConfigError(f"run.tensorboard: tensorboard is not installed; {how_to_install('tensorboard')}")
