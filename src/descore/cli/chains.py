"""`descore chains`: collect chains of thought from a teacher or from the model itself, filter and check them.

In: a config and overrides of single keys, or a run's folder. Out: a run folder, and summaries of what came, what it
cost, what is left, and what was kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import check_page, echo, reported_errors, reported_settings_errors
from descore.errors import VideoError

if TYPE_CHECKING:
    from descore.chains.collect import CollectSummary
    from descore.chains.config import CollectConfig
    from descore.chains.estimate import CollectionEstimate

chains_app = typer.Typer(
    name="chains", help="Collect chains of thought to train on, from a teacher.", no_args_is_help=True
)


@chains_app.command()
def collect(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The settings; docs/settings.md lists them.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as num_chains=4.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0.0, help="Money that the run may cost in all; in place of limits.budget."),
    ] = None,
    sees: Annotated[
        Literal["nothing", "label", "comments"] | None,
        typer.Option("--sees", help="What the teacher is shown of people's opinion; in place of the config's sees."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show clips, tokens, cost and hours, and ask nothing.")
    ] = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Ask a teacher for chains of thought about the clips of a table, and keep each answer as it comes.

    The same command goes on with a run that was stopped, and asks nothing twice. If a clip has no answer in the end,
    the exit code is 4."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        from descore.chains.server import require_packages

        require_packages(("yaml",))
        settings = _read(config, [*(overrides or []), *_options(budget, sees)])
        if settings.teacher.kind == "openai":
            require_packages()
        from descore.chains.estimate import estimate_collection
        from descore.chains.folder import refuse_key

        if not dry_run:
            refuse_key(settings)
        estimate = estimate_collection(settings)
        if dry_run or not json:
            _print_estimate(estimate, settings, json=json)
        if dry_run:
            return
        summary = _collect(settings)
        _print_summary(summary, settings, json=json)
        if summary.failed or summary.stopped:
            raise typer.Exit(VideoError.exit_code)


def _options(budget: float | None, sees: str | None) -> Iterator[str]:
    """Options as overrides of the keys that they stand for."""
    if budget is not None:
        yield f"limits.budget={budget}"
    if sees is not None:
        yield f"sees={sees}"


def _read(config: Path, overrides: list[str]) -> "CollectConfig":
    from descore.chains.config import CollectConfig
    from descore.training.config_file import read_config

    return read_config(config, CollectConfig, overrides=overrides)


def _collect(settings: "CollectConfig") -> "CollectSummary":
    """Collect with a progress bar; an interrupted run says how to go on."""
    from descore.chains.collect import collect_chains
    from descore.cli.scoring import BulkDisplay, progress_bar, quiet_transformers

    with progress_bar(time_remaining=True) as bar:
        task = bar.add_task(f"asking {settings.teacher.model}", total=None)
        if settings.teacher.kind == "native":
            quiet_transformers()
        show = BulkDisplay(bar, task, verbs=("asking", "asked"))
        try:
            return collect_chains(settings, on_progress=show)
        except KeyboardInterrupt:
            echo("stopped: the same command goes on from there", err=True)
            raise


def _print_estimate(estimate: "CollectionEstimate", settings: "CollectConfig", *, json: bool) -> None:
    from descore.cli.output import with_count

    if json:
        from descore.evaluation.records import to_line, to_plain

        echo(to_line(to_plain(estimate)))
        return
    asked = ""
    if estimate.missing < estimate.requests:
        asked = f", {estimate.missing:,} of them still to ask" if estimate.missing else ", all answered"
    echo(f"{with_count(estimate.clips, 'clip')}, {with_count(estimate.requests, 'request')}{asked}")
    if estimate.unreadable:
        echo(f"of {estimate.read:,} clips that were read for this estimate, {estimate.unreadable:,} cannot be read")
    if not estimate.missing or settings.teacher.kind == "native":
        return
    echo(f"tokens: about {estimate.tokens_in:,} in, {estimate.tokens_out:,} out")
    if estimate.cost is not None and estimate.most is not None:
        budget = settings.limits.budget
        within = "" if budget is None else f"; the budget is {budget:g}"
        echo(f"cost: about {_money(estimate.cost)}, {_money(estimate.most)} at most{within}")
    else:
        echo("cost: not known; teacher.price_in and teacher.price_out are the prices of a million tokens")
    if estimate.hours is not None:
        echo(f"time: about {_hours(estimate.hours)}")


def _money(amount: float) -> str:
    """An amount with the digits that matter, few or many as it is."""
    return f"{amount:,.2f}" if amount >= 10 else f"{amount:.4f}"


def _hours(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{hours:,.1f} hours" if minutes >= 90 else f"{max(minutes, 1)} min"


def _print_summary(summary: "CollectSummary", settings: "CollectConfig", *, json: bool) -> None:
    if json:
        from descore.evaluation.records import to_line, to_plain

        echo(to_line(to_plain(summary.record)))
        return
    for line in _summary_lines(summary, settings):
        echo(line)


def _summary_lines(summary: "CollectSummary", settings: "CollectConfig") -> Iterator[str]:
    from descore.cli.output import with_count

    yield f"{summary.folder}: {summary.answered:,} of {with_count(summary.requests, 'request')} answered"
    if summary.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.failed.most_common())
        yield f"failed: {kinds}; the first: {summary.first_failure}"
    totals = summary.totals
    if settings.teacher.kind != "native":
        money = f"; cost {_money(totals.cost)}" if settings.teacher.has_prices else ""
        assumed = f", of which {_money(totals.assumed)} are assumed: no server stated them" if totals.assumed else ""
        yield f"tokens: {totals.tokens_in:,} in, {totals.tokens_out:,} out{money}{assumed}"
    if summary.stopped:
        yield f"stopped by {summary.stopped}" if summary.stopped.startswith("the ") else f"stopped: {summary.stopped}"
    if summary.left:
        more = f", about {_money(summary.left_cost)} more" if summary.left_cost else ""
        yield f"left: {with_count(summary.left, 'request')}{more}; the same command goes on"
    if summary.batch is not None:
        for path in summary.batch.written:
            yield f"written: {path}; run it as a batch, and put the output and error files beside it"
        if summary.batch.waiting:
            yield f"waiting for results: {with_count(summary.batch.waiting, 'request')}"
    if summary.filtered is not None:
        from descore.chains.wording import filter_lines

        yield from filter_lines(summary.folder, summary.filtered)


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of descore chains collect.")]


@chains_app.command("filter")
def filter_chains(
    *,
    run: RunFolder,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="filters.KEY=VALUE", help="Overrides, such as filters.choice=all.")
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Filter the chains of a run again, by its own settings or by others. Nothing is asked.

    chains.jsonl is the table for descore train, rejected.jsonl has the others with the reason."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        _filter(run, overrides=overrides or [], json=json)


def _filter(run: Path, *, overrides: list[str], json: bool) -> None:
    from descore.chains.output import filter_folder

    summary = filter_folder(run, overrides=overrides)
    if json:
        from descore.evaluation.records import to_line

        echo(to_line(summary))
        return
    from descore.chains.wording import filter_lines

    for line in filter_lines(run, summary):
        echo(line)


@chains_app.command("check")
def check(
    *,
    path: Annotated[Path, typer.Argument(metavar="RUN|TABLE", help="A run's folder, or any table with chains.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a page: figures, kept and rejected chains, frames.")
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show what came of collecting: kept by step, length, marks, agreement, duplicates, and tests of a leak."""
    with reported_errors(debug=debug):
        from descore.chains.checking import MOST_SHOWN, check_chains

        if out is not None:
            check_page(out)
        checked = check_chains(path, shown=0 if out is None else MOST_SHOWN)
        if out is not None:
            from descore.io import atomic_write
            from descore.report.cards import render_chain_check

            atomic_write(out, render_chain_check(checked))
        if json:
            from descore.evaluation.records import to_line

            echo(to_line(dict(checked.record)))
            return
        from descore.chains.wording import check_lines

        for line in check_lines(checked.record):
            echo(line)
        if out is not None:
            echo(f"written: {out}")


@chains_app.command()
def rounds(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The settings; docs/chains.md explains them.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as rounds=4.")] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Train a model on chains of its own: it writes them, filters keep what agrees with people, it learns from these.

    Each round is chains collect, train sft and train cold-start. The same command goes on where it was stopped."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        from descore.cli.scoring import end_start_up, progress_bar, quiet_transformers
        from descore.training.config_file import read_config

        with progress_bar() as bar:
            task = bar.add_task("opening", total=None)
            quiet_transformers()
            from descore.chains.rounds import RoundsConfig, run_rounds

            settings = read_config(config, RoundsConfig, overrides=overrides or [])
            end_start_up()
            figures = run_rounds(
                settings,
                on_progress=lambda step, done, of: bar.update(task, description=step, completed=done, total=of),
            )
        if json:
            from descore.evaluation.records import to_line

            for one in figures:
                echo(to_line(one))
            return
        from descore.chains.wording import round_lines

        for line in round_lines(figures):
            echo(line)


@chains_app.command("weak-marks")
def weak_marks(
    *,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A table of pairs with rating_a.NAME, rating_b.NAME.")],
    mapping: Annotated[
        list[str], typer.Option("--map", metavar="NAME=DIMENSION", help="Such as VQ=style; once for each rating.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new table: .jsonl, .csv or .parquet.")],
    lowest: Annotated[float, typer.Option("--lowest", help="The lowest rating that people could give.")] = 1.0,
    highest: Annotated[float, typer.Option("--highest", help="The highest.")] = 5.0,
    debug: opt.Debug = False,
) -> None:
    """Make marks for stage 2 of ratings, where nobody marked: thirds of the scale become 0, 1 and 2.

    They are weak: a rating of one quality stands for a whole dimension, and dimensions without one are N/A."""
    with reported_errors(debug=debug), reported_settings_errors(debug=debug):
        from descore.chains.filtering import FilterConfig
        from descore.chains.output import write_weak_marks
        from descore.cli.output import with_count
        from descore.errors import ConfigError
        from descore.types import DIMENSIONS

        pairs = [text.partition("=") for text in mapping]
        names = [name for name, _, _ in pairs]
        for name, sign, dimension in pairs:
            if not name or dimension not in DIMENSIONS:
                expected = f"NAME=DIMENSION, the dimension one of {', '.join(DIMENSIONS)}"
                raise ConfigError(f"--map {name}{sign}{dimension}: expected {expected}")
            if names.count(name) > 1:
                raise ConfigError(f"--map {name}={dimension}: {name} is there twice; map each rating once")
        settings = FilterConfig(
            weak_marks={name: dimension for name, _, dimension in pairs},  # type: ignore[misc]  # pydantic checks it
            rating_range=(lowest, highest),
        )
        echo(f"{out}: {with_count(write_weak_marks(table, settings, out=out), 'pair')} with weak marks")
