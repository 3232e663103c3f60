"""Rounds of self-collection: a model writes chains, the filters keep what agrees with people, and it learns from these.

    rounds = run_rounds(config)

In: a `RoundsConfig`, which names a config of `chains collect`, of `train sft` and of `train cold-start`. Out, in its
folder: for each round `round-N` with collect/, sft/, cold-start/ and round.json, and the last round's model. This is
rejection sampling as in STaR (Zelikman et al. 2022, arXiv 2203.14465), with people's preference in place of the right
answer. Each step resumes by itself, and a finished round is not done again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import PositiveInt

from descore.chains.checking import check_chains
from descore.chains.collect import CollectProgress, collect_chains
from descore.chains.config import CollectConfig
from descore.chains.records import ChainRun
from descore.config_model import ConfigModel, PathText
from descore.errors import ConfigError
from descore.io import atomic_write, lock_directory, make_directory, read_json_object
from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig, SftConfig
from descore.training.config_file import read_config
from descore.training.metrics import ProgressCallback
from descore.training.runs import TrainingResult
from descore.training.sft import train_sft

PLAN_FILE, ROUND_FILE = "plan.json", "round.json"
RoundProgress = Callable[[str, int, int], object]
"""Called with the step in words, how much of it is done, and of how much."""
_SEEDS = 1000
"""Between the seeds of two rounds, so that no chain is drawn twice."""
_C = TypeVar("_C", bound=ConfigModel)


class RoundsConfig(ConfigModel):
    """Settings of `descore chains rounds`. The three files are complete configs of their commands; what a round decides
    is put over them: the teacher, the models, the training table, the seed of the chains and the folders."""

    start: str
    """The model that writes the first round's chains: a checkpoint that writes chains, or a generative judge."""
    rounds: PositiveInt = 3
    """How many; more can be added to a finished run."""
    collect: PathText
    """Config of `descore chains collect`: the pairs, how many chains for each clip, and the filters."""
    sft: PathText
    """Config of `descore train sft`."""
    cold_start: PathText
    """Config of `descore train cold-start`, with data.eval for the figures of each round."""
    learn_from: Literal["start", "last"] = "start"
    """start: each round trains the start model anew on its chains, so that errors do not add up (STaR). last: it goes
    on with the model of the round before."""
    out: PathText
    """The folder of all rounds."""


def ignore_round_progress(step: str, done: int, of: int) -> None:
    """A RoundProgress that does nothing."""


def run_rounds(config: RoundsConfig, *, on_progress: RoundProgress = ignore_round_progress) -> list[dict[str, Any]]:
    """Do all rounds that are not done, and give the figures of each.

    ConfigError if the folder holds rounds of other settings, or a round's filters keep no chain at all; and the errors
    of the three commands."""
    make_directory(config.out)
    with lock_directory(config.out):
        _check_plan(config)
        figures: list[dict[str, Any]] = []
        writer = config.start
        for number in range(1, config.rounds + 1):
            folder = config.out / f"round-{number}"
            if (folder / ROUND_FILE).is_file():
                figures.append(read_json_object(folder / ROUND_FILE))
            else:
                figures.append(_one_round(config, number, folder, writer, on_progress))
            writer = str(folder / "cold-start" / "model")
        return figures


def _check_plan(config: RoundsConfig) -> None:
    """Write what all rounds have in common, or compare it with what the folder has."""
    files = {name: getattr(config, name) for name in ("collect", "sft", "cold_start")}
    plan: dict[str, Any] = {"start": config.start, "learn_from": config.learn_from}
    for name, file in files.items():
        try:
            plan[name] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: {file} cannot be read as text ({error})") from None
    path, first = config.out / PLAN_FILE, config.out / "round-1"
    begun = (first / ROUND_FILE).is_file() or ChainRun(first / "collect").candidates.is_file()
    if not path.is_file() or not begun:  # an earlier call may have ended before anything came
        atomic_write(path, json.dumps(plan, indent=1) + "\n")
        return
    former = read_json_object(path)
    if unlike := [name for name in plan if plan[name] != former.get(name)]:
        named = ", ".join(str(files.get(name, name)) for name in unlike)
        raise ConfigError(
            f"out: {config.out} holds rounds of other settings ({named}); choose another, or set them back"
        )


def _one_round(
    config: RoundsConfig, number: int, folder: Path, writer: str, on_progress: RoundProgress
) -> dict[str, Any]:
    """Collect, filter, train twice, and write the figures."""
    collected = ChainRun(folder / "collect")
    settings = _collect_settings(config, number, collected, writer)

    def on_answer(progress: CollectProgress) -> None:
        on_progress(f"round {number}: writing chains", progress.done, progress.total)

    summary = collect_chains(settings, on_progress=on_answer).filtered
    if summary is None:
        raise ConfigError(f"round {number}: the model gave no answer; see {collected.candidates}")
    if not summary["couples"]:
        steps = ", ".join(f"{count:,} at {step}" for step, count in summary["rejected"].items() if count)
        raise ConfigError(
            f"round {number}: no chain was kept of {summary['chains']:,} ({steps}); see {collected.rejected}"
        )
    start = config.start if config.learn_from == "start" else writer
    train = {"data.train": collected.table, "model.backbone": None}
    sft = _config(config.sft, SftConfig, {**train, "model.checkpoint": start, "run.out": folder / "sft"})
    wrote = train_sft(sft, on_progress=_training_progress(f"round {number}: learning to write", on_progress))
    cold = {**train, "model.checkpoint": wrote.model, "run.out": folder / "cold-start"}
    scored = train_cold_start(
        _config(config.cold_start, ColdStartConfig, cold),
        on_progress=_training_progress(f"round {number}: learning to score", on_progress),
    )
    figures = {"round": number, "writer": writer} | _figures(collected, summary, scored)
    atomic_write(folder / ROUND_FILE, json.dumps(figures, indent=1) + "\n")
    return figures


def _collect_settings(config: RoundsConfig, number: int, run: ChainRun, writer: str) -> CollectConfig:
    given = read_config(config.collect, CollectConfig, overrides=[f"teacher.model={json.dumps(writer)}"])
    values = {"teacher.kind": "native", "teacher.model": writer, "run.out": run.folder}
    return _config(
        config.collect, CollectConfig, {**values, "teacher.seed": given.teacher.seed + _SEEDS * (number - 1)}
    )


def _config(file: Path, settings: type[_C], changed: Mapping[str, Any]) -> _C:
    texts = [
        f"{key}={json.dumps(value if isinstance(value, int | None) else str(value))}" for key, value in changed.items()
    ]
    return read_config(file, settings, overrides=texts)


def _training_progress(words: str, on_progress: RoundProgress) -> ProgressCallback:
    def on_step(step: int, of: int, _metrics: Mapping[str, Any]) -> None:
        on_progress(words, step, of)

    return on_step


def _figures(run: ChainRun, summary: Mapping[str, Any], scored: TrainingResult) -> dict[str, Any]:
    """Of the chains before and behind the filters, and of the trained model on held-out pairs."""
    checked = check_chains(run.folder, shown=0).record
    names = [name for name in scored.metrics if name.startswith("eval_") and name.endswith("_pair_accuracy")]
    return {
        "chains": summary["chains"],
        "kept": summary["kept"],
        "rows": summary["rows"],
        "rows_kept": summary["rows_kept"],
        "rejected": summary["rejected"],
        "agreement": checked["agreement"],
        "right_marks": checked["right_marks"],
        "leak": checked["leak"]["findings"],
        "held_out": {name.removeprefix("eval_").removesuffix("_pair_accuracy"): scored.metrics[name] for name in names},
        "model": str(scored.model),
    }
