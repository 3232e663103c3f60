"""`descore train`: a verb for each stage of training.

In: a config and overrides of single keys. Out: a progress bar on standard error, and a summary of the run."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors, reported_settings_errors

if TYPE_CHECKING:
    from descore.training.config import ModelConfig, RunConfig
    from descore.training.metrics import ProgressCallback
    from descore.training.runs import TrainingResult

_REQUIRED_PACKAGES = {"accelerate": "accelerate", "peft": "peft", "pyarrow": "pyarrow", "PyYAML": "yaml"}
"""Package → a module of it."""

_NEXT_AFTER_SFT = (
    "descore score CLIP --prompt TEXT --model {model} shows the chains that it writes; its reward means nothing until "
    "query and head are fitted on pairs"
)
_NEXT_WITH_CHAINS = (
    "descore score CLIP --prompt TEXT --model {model} scores a clip; {model}/README.md says how well the model does"
)
_NEXT_WITHOUT_CHAINS = _NEXT_WITH_CHAINS.replace("scores a clip;", "scores a clip at once, as it was trained;")
_PAGE_CHAINS = 5000
"""The last lines of chains.jsonl, from which the page selects the chains that it shows."""
_RL_PROGRESS = {
    "rollout_reward": "reward {rollout_reward:.3f}",
    "quality": "quality {quality:.2f}",
    "pair_accuracy": "pairs {pair_accuracy:.0%}",
    "kl": "kl {kl:.2g}",
    "chain_tokens": "{chain_tokens:.0f} tokens",
    "truncated_chains": "cut {truncated_chains}/{chains}",
    "groups_without_spread": "flat {groups_without_spread}/{groups}",
}
"""Metric → its text beside the progress bar of stage 2."""
_NEXT_IF_SHARDED = (
    "the same command in a single process, without a launcher, writes the model: its weights were sharded"
)

train_app = typer.Typer(name="train", help="Train a reward model, stage by stage.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The settings; docs/settings.md lists them.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as optim.max_steps=100.")
]


@train_app.command()
def sft(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Train a backbone to write chains: next-token prediction on reference chains.

    The same command resumes a run from its last checkpoint."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        _require_packages()
        from descore.training.config import SftConfig
        from descore.training.config_file import read_config

        settings = read_config(config, SftConfig, overrides=overrides or [])
        with _training_bar(settings.model, describe=_describe_sft_step) as on_progress:
            from descore.training.sft import train_sft

            trained = train_sft(settings, on_progress=on_progress)
        _print_summary(trained, figures=_token_accuracy, held_out=_held_out_tokens, next_step=_NEXT_AFTER_SFT)


@train_app.command("cold-start")
def cold_start(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Train a model to score: Bradley-Terry loss on pairs, a share of which is seen without chains.

    The same command resumes a run from its last checkpoint."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        _require_packages()
        from descore.training.config import ColdStartConfig
        from descore.training.config_file import read_config

        settings = read_config(config, ColdStartConfig, overrides=overrides or [])
        with _training_bar(settings.model, describe=_describe_cold_start_step) as on_progress:
            from descore.training.cold_start import train_cold_start

            trained = train_cold_start(settings, on_progress=on_progress)
        next_step = _NEXT_WITHOUT_CHAINS if _scores_at_once(trained) else _NEXT_WITH_CHAINS
        _print_summary(trained, figures=_pair_accuracy, held_out=_held_out_pairs, next_step=next_step)


@train_app.command()
def rl(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Train chains and rewards together: GRPO on rollout rewards, and a Bradley-Terry loss on the rewards of the same
    chains.

    The same command resumes a run from its last checkpoint."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        _require_packages()
        from descore.training.config_file import read_config
        from descore.training.rl.config import RlConfig

        settings = read_config(config, RlConfig, overrides=overrides or [])
        with _training_bar(settings.model, describe=_describe_rl_step) as on_progress:
            from descore.training.rl.run import train_rl

            trained = train_rl(
                settings, on_progress=_with_chains_page(on_progress, settings.run, settings.rewards.weights)
            )
        # The policy loss of the model's own chains is about 0 however good they are.
        _print_summary(
            trained, figures=_chain_rewards, held_out=_held_out_pairs, next_step=_NEXT_WITH_CHAINS, loss=False
        )


def _scores_at_once(trained: "TrainingResult") -> bool:
    from descore.model.checkpoint import read_settings

    return trained.model is not None and read_settings(trained.model).paradigm == "discriminative"


def _with_chains_page(
    on_progress: "ProgressCallback", run: "RunConfig", weights: Mapping[str, float]
) -> "ProgressCallback":
    """The callback, extended: whenever a checkpoint is written, the sampled chains are written as a page."""
    from descore.io import atomic_write, read_records
    from descore.report.page import render_chains
    from descore.training.rl.logging import CHAINS_FILE

    def callback(step: int, of: int, metrics: Mapping[str, Any]) -> None:
        on_progress(step, of, metrics)
        file, saves = run.out / CHAINS_FILE, step == of or step % run.save_steps == 0
        if saves and "doing" not in metrics and _is_main_process() and file.is_file():
            page = render_chains(read_records(file, last=_PAGE_CHAINS), title=run.out.name, weights=weights)
            atomic_write(file.with_suffix(".html"), page)

    return callback


def _require_packages() -> None:
    """ConfigError if a package that only training needs is missing."""
    from descore.errors import ConfigError, how_to_install

    missing = [package for package, module in _REQUIRED_PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}; {how_to_install('train')}")


def _is_main_process() -> bool:
    """Whether this is rank 0 of the processes that a launcher started, which alone prints."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _training_bar(
    model: "ModelConfig", *, describe: Callable[[Mapping[str, Any]], str]
) -> Iterator["ProgressCallback"]:
    """A progress bar of updates, with a description of their metrics; messages of transformers are turned off."""
    from descore.cli.scoring import end_start_up, progress_bar, quiet_transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # batches are collated in forked workers
    bar = progress_bar()
    bar.disable |= not _is_main_process()
    with bar:
        task = bar.add_task("opening " + (model.checkpoint or model.backbone or ""), total=None)
        quiet_transformers()
        end_start_up()

        def on_progress(step: int, of: int, metrics: Mapping[str, Any]) -> None:
            bar.update(task, completed=step, total=of, description=describe(metrics))

        yield on_progress


def _describe_sft_step(metrics: Mapping[str, Any]) -> str:
    return f"loss {metrics['loss']:.3f}, {_token_accuracy(metrics)}" if metrics else "learning to write"


def _describe_cold_start_step(metrics: Mapping[str, Any]) -> str:
    return f"loss {metrics['loss']:.3f}, {_pair_accuracy(metrics)}" if metrics else "learning to score"


def _describe_rl_step(metrics: Mapping[str, Any]) -> str:
    """The known metrics of the last step, short enough to stand beside the bar. cut: chains at the token limit; flat:
    groups whose chains all have the same reward."""
    if "doing" in metrics:
        return str(metrics["doing"])
    return ", ".join(text.format(**metrics) for name, text in _RL_PROGRESS.items() if name in metrics) or (
        "learning to think"
    )


def _print_summary(
    trained: "TrainingResult",
    *,
    figures: Callable[[Mapping[str, Any]], str],
    held_out: Callable[[Mapping[str, Any]], str],
    next_step: str,
    loss: bool = True,
) -> None:
    """Print where the model is, its last metrics, and the next command."""
    if not _is_main_process():
        return
    metrics = trained.metrics
    known = {"step": "step {step:,}", **({"loss": "loss {loss:.3f}"} if loss else {})}
    parts = [text.format(**metrics) for key, text in known.items() if key in metrics] + [figures(metrics)]
    evaluation = held_out(metrics)
    summary = ", ".join(parts) + (f"; held out: {evaluation}" if evaluation else "")
    state = "was trained before" if trained.already_trained else "trained"
    echo(f"{state}: {trained.model or 'the last checkpoint has it all'} ({summary})")
    if trained.unreadable:
        echo(f"left out {trained.unreadable:,} unreadable examples, named in unreadable.jsonl")
    echo("next: " + (next_step.format(model=trained.model) if trained.model else _NEXT_IF_SHARDED))


def _token_accuracy(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['token_accuracy']:.1%} of tokens right" if "token_accuracy" in metrics else "no token learned"


def _held_out_tokens(metrics: Mapping[str, Any]) -> str:
    if "eval_loss" not in metrics:
        return ""
    return f"loss {metrics['eval_loss']:.3f}, {metrics['eval_token_accuracy']:.1%}"


def _pair_accuracy(metrics: Mapping[str, Any]) -> str:
    """The last updates may have had no decided pair."""
    return f"{metrics['pair_accuracy']:.1%} of pairs right" if "pair_accuracy" in metrics else "no decided pair"


def _chain_rewards(metrics: Mapping[str, Any]) -> str:
    """Without reference marks, chains have no rollout reward."""
    reward = f"rollout reward {metrics['rollout_reward']:.3f}, " if "rollout_reward" in metrics else ""
    return reward + _pair_accuracy(metrics)


def _held_out_pairs(metrics: Mapping[str, Any]) -> str:
    """How many held-out pairs have a score, and the accuracy with each source of chains that was evaluated."""
    from descore.training.model_card import SOURCE_IN_WORDS

    if "eval_pairs" not in metrics:
        return ""
    scored = metrics["eval_pairs"] - metrics["eval_pairs_without_score"]
    accuracies = [
        f"{_held_out_accuracy(metrics, source)} {words}"
        for source, words in SOURCE_IN_WORDS.items()
        if f"eval_{source}_pairs_scored" in metrics
    ]
    return ", ".join([f"scored {scored:,} of {metrics['eval_pairs']:,}", *accuracies])


def _held_out_accuracy(metrics: Mapping[str, Any], source: str) -> str:
    if not metrics[f"eval_{source}_pairs_scored"]:
        return "no score"
    if not metrics[f"eval_{source}_pairs_decided"]:
        return "no decided pair"
    return f"{metrics[f'eval_{source}_pair_accuracy']:.1%} of {metrics[f'eval_{source}_pairs_decided']:,} pairs"
