"""`descore train`: one verb for each stage of training. A config says what is done; overrides change single keys of it.

Knows configs and the bar on standard error; knows nothing of how a model learns."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

if TYPE_CHECKING:
    from descore.training.config import ModelConfig, RunConfig
    from descore.training.metrics import ProgressCallback
    from descore.training.runs import Trained

Metrics = Mapping[str, Any]

_PACKAGES = {"accelerate": "accelerate", "peft": "peft", "pyarrow": "pyarrow", "PyYAML": "yaml"}
"""Package → the module that it brings."""

_CHAINS = (
    "descore score CLIP --prompt TEXT --model {model} shows the chains that it writes; its reward means nothing until "
    "query and head are fitted on pairs"
)
_SCORES = (
    "descore score CLIP --prompt TEXT --model {model} scores a clip; {model}/README.md says how well the model does"
)
_SCORES_AT_ONCE = _SCORES.replace("scores a clip;", "scores a clip at once, as it was trained;")
_CHAINS_READ = 5000
"""Lines of chains.jsonl that the page is made of, the last: more than it shows."""
_THINKING = {
    "rollout_reward": "worth {rollout_reward:.3f}",
    "quality": "quality {quality:.2f}",
    "pair_accuracy": "pairs {pair_accuracy:.0%}",
    "kl": "kl {kl:.2g}",
    "chain_tokens": "{chain_tokens:.0f} tokens",
    "truncated_chains": "cut {truncated_chains}/{chains}",
    "groups_without_spread": "flat {groups_without_spread}/{groups}",
}
"""By metric, how the bar of stage 2 shows it where it is known."""
_WHOLE = "the same command in a single process, without a launcher, writes the model: its weights were sharded"

app = typer.Typer(name="train", help="Train a reward model, stage by stage.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train, on what, and how.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as optim.steps=100.")
]


@app.callback()
def _train() -> None:
    """Train a reward model, stage by stage."""


@app.command()
def sft(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Teach a backbone to write chains: next-token training on chains that were written beforehand.

    A run that was killed goes on from its last checkpoint when the same command is given again."""
    with reported_errors(debug=debug), _faults_one_a_line(debug=debug):
        _need_packages()
        from descore.training.config import SftConfig
        from descore.training.config_model import read_config

        settings = read_config(config, SftConfig, overrides=overrides or [])
        with _bar(settings.model, pulse=_pulse_of_writing) as watch:
            from descore.training.sft import train_sft

            trained = train_sft(settings, watch=watch)
        _close(trained, figures=_tokens_right, held_out=_held_out_tokens, following=_CHAINS)


@app.command("cold-start")
def cold_start(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Teach a backbone to score: Bradley-Terry training on pairs, with the chains of a share of them left out.

    A run that was killed goes on from its last checkpoint when the same command is given again."""
    with reported_errors(debug=debug), _faults_one_a_line(debug=debug):
        _need_packages()
        from descore.training.config import ColdStartConfig
        from descore.training.config_model import read_config

        settings = read_config(config, ColdStartConfig, overrides=overrides or [])
        with _bar(settings.model, pulse=_pulse_of_scoring) as watch:
            from descore.training.cold_start import train_cold_start

            trained = train_cold_start(settings, watch=watch)
        following = _SCORES_AT_ONCE if settings.data.chain_drop == 1 else _SCORES
        _close(trained, figures=_pairs_right, held_out=_held_out_pairs, following=following)


@app.command()
def rl(config: Config, overrides: Overrides = None, debug: opt.Debug = False) -> None:
    """Let a model think better while it scores: chains learn from what they are worth, rewards from pairs.

    A run that was killed goes on from its last checkpoint when the same command is given again."""
    with reported_errors(debug=debug), _faults_one_a_line(debug=debug):
        _need_packages()
        from descore.training.config_model import read_config
        from descore.training.rl.config import RlConfig

        settings = read_config(config, RlConfig, overrides=overrides or [])
        with _bar(settings.model, pulse=_pulse_of_thinking) as watch:
            from descore.training.rl.run import train_rl

            trained = train_rl(settings, watch=_with_page(watch, settings.run, settings.rewards.weights))
        # Of chains that the model itself wrote, the loss is about 0 however well they do.
        _close(trained, figures=_worth_of_chains, held_out=_held_out_pairs, following=_SCORES, loss=False)


def _with_page(watch: "ProgressCallback", run: "RunConfig", weights: Mapping[str, float]) -> "ProgressCallback":
    """A watch that also writes the sampled chains as a page, whenever a checkpoint is written."""
    from descore.io import atomic_write, read_records
    from descore.report.chains import render_chains
    from descore.training.rl.logging import CHAINS_FILE

    def also(step: int, of: int, metrics: Metrics) -> None:
        watch(step, of, metrics)
        file = run.out / CHAINS_FILE
        if "doing" not in metrics and _speaks() and file.is_file() and (step == of or step % run.save_steps == 0):
            last = read_records(file, last=_CHAINS_READ)
            page = render_chains(last, title=run.out.name, weights=weights)
            atomic_write(file.with_suffix(".html"), page)

    return also


def _need_packages() -> None:
    """ConfigError where the packages that only training needs are not there."""
    from descore.errors import ConfigError

    missing = [package for package, module in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}; run pip install 'descore[train]'")


def _speaks() -> bool:
    """Whether this is the one of several processes that a launcher lets speak."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _faults_one_a_line(*, debug: bool) -> Iterator[None]:
    """A config's faults are shown one a line, since there may be many."""
    from descore.errors import ConfigError

    try:
        yield
    except ConfigError as fault:
        from descore.training.config_model import SettingsError

        if debug or not isinstance(fault, SettingsError):
            raise
        typer.echo(fault.page, err=True)
        raise typer.Exit(fault.exit_code) from None


@contextmanager
def _bar(model: "ModelConfig", *, pulse: Callable[[Metrics], str]) -> Iterator["ProgressCallback"]:
    """A bar that shows updates and how they go; transformers' own messages and bars are kept off the terminal."""
    from descore.cli.scoring import progress_bar, quiet_transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # batches are collated in forked workers
    bar = progress_bar()
    bar.disable |= not _speaks()
    with bar:
        task = bar.add_task("opening " + (model.checkpoint or model.backbone or ""), total=None)
        quiet_transformers()

        def watch(step: int, of: int, metrics: Metrics) -> None:
            bar.update(task, completed=step, total=of, description=pulse(metrics))

        yield watch


def _pulse_of_writing(metrics: Metrics) -> str:
    return f"loss {metrics['loss']:.3f}, {_tokens_right(metrics)}" if metrics else "learning to write"


def _pulse_of_scoring(metrics: Metrics) -> str:
    return f"loss {metrics['loss']:.3f}, {_pairs_right(metrics)}" if metrics else "learning to score"


def _pulse_of_thinking(metrics: Metrics) -> str:
    """What the last step came to, short enough for a line with the bar: what chains are worth and how right their marks
    are, pairs in people's order, how far the policy has moved, a chain's length, how many chains were cut off at the
    limit, and how many groups all are worth the same."""
    if "doing" in metrics:
        return str(metrics["doing"])
    shown = {name: text.format(**metrics) for name, text in _THINKING.items() if name in metrics}
    return ", ".join(shown.values()) or "learning to think"


def _close(
    trained: "Trained",
    *,
    figures: Callable[[Metrics], str],
    held_out: Callable[[Metrics], str],
    following: str,
    loss: bool = True,
) -> None:
    """Where the model is, how it came out, what next."""
    if not _speaks():
        return
    metrics, apart = trained.metrics, held_out(trained.metrics)
    told = {"step": "step {step:,}", **({"loss": "loss {loss:.3f}"} if loss else {})}
    came_out = ", ".join([text.format(**metrics) for key, text in told.items() if key in metrics] + [figures(metrics)])
    came_out += f"; held out: {apart}" if apart else ""
    done = "was trained before" if trained.before else "trained"
    typer.echo(f"{done}: {trained.model or 'the last checkpoint has it all'} ({came_out})")
    if trained.unreadable:
        typer.echo(f"left out {trained.unreadable:,} unreadable examples, named in unreadable.jsonl")
    typer.echo("next: " + (following.format(model=trained.model) if trained.model else _WHOLE))


def _tokens_right(metrics: Metrics) -> str:
    return f"{metrics['token_accuracy']:.1%} of tokens right" if "token_accuracy" in metrics else "no token learned"


def _held_out_tokens(metrics: Metrics) -> str:
    if "eval_loss" not in metrics:
        return ""
    return f"loss {metrics['eval_loss']:.3f}, {metrics['eval_token_accuracy']:.1%}"


def _pairs_right(metrics: Metrics) -> str:
    """None of the last updates' pairs may have been decided."""
    return f"{metrics['pair_accuracy']:.1%} of pairs right" if "pair_accuracy" in metrics else "no decided pair"


def _worth_of_chains(metrics: Metrics) -> str:
    """What chains are worth is not known where no pair has marks."""
    worth = f"chains worth {metrics['rollout_reward']:.3f}, " if "rollout_reward" in metrics else ""
    return worth + _pairs_right(metrics)


def _held_out_pairs(metrics: Metrics) -> str:
    from descore.training.evaluate import IN_WORDS

    if "eval_pairs" not in metrics:
        return ""
    asked = {way: words for way, words in IN_WORDS.items() if f"eval_{way}_pairs_scored" in metrics}
    told = [f"{_way_right(metrics, way)} {words}" for way, words in asked.items()]
    scored = metrics["eval_pairs"] - metrics["eval_pairs_without_score"]
    return ", ".join([f"scored {scored:,} of {metrics['eval_pairs']:,}", *told])


def _way_right(metrics: Metrics, way: str) -> str:
    if not metrics[f"eval_{way}_pairs_scored"]:
        return "no score"
    if not metrics[f"eval_{way}_pairs_decided"]:
        return "no decided pair"
    return f"{metrics[f'eval_{way}_pair_accuracy']:.1%} of {metrics[f'eval_{way}_pairs_decided']:,} pairs"
