"""Open scorers and judges, and score clips, tables and folders under a progress bar.

In: options as the command line gives them. Out: a scorer, a judge, or results as they come."""

import gc
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from descore.cli.errors import USAGE_ERROR, echo
from descore.errors import ConfigError, DescoreError
from descore.report.text import one_line
from descore.rubric import check_prompt
from descore.types import Paradigm, Score

if TYPE_CHECKING:
    import torch

    from descore.chains.collect import CollectProgress
    from descore.evaluation.judges import FeatureJudge, ModelJudge
    from descore.rewards.bulk import BulkProgress
    from descore.scorer import Scorer

Result = Score | DescoreError

NATIVE_BATCH = 8
"""Clips that are judged at a time, if no option says otherwise."""
_SPEED_PERIOD = 3600.0
"""Seconds of progress that the remaining time is estimated from: a batch may take minutes."""

_LINE_PERIOD = 30.0
"""Seconds between lines of progress where there is no terminal."""


def open_scorer(
    model: str,
    *,
    paradigm: Paradigm | None = None,
    rubric: str | None = None,
    quantize: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    dtype: "torch.dtype | None" = None,
    engine: str = "native",
    sampling_params: Mapping[str, Any] | None = None,
) -> "Scorer":
    """The scorer of a checkpoint. Messages and bars of transformers are turned off.

    sampling_params: fields of `SamplingParams` that it will score with; what no model can score with raises ConfigError
    before a large one is opened."""
    quiet_transformers()
    from descore.scorer import SamplingParams, Scorer

    if sampling_params is not None:
        SamplingParams(**sampling_params).resolved(paradigm or ("generative" if rubric else None))

    scorer = Scorer.from_pretrained(
        model,
        paradigm=paradigm,
        rubric=rubric,
        device=device,
        dtype=dtype,
        quantization_config=quantize,
        batch_size=batch_size,
        engine=engine,
    )
    end_start_up()
    return scorer


def end_start_up() -> None:
    """Search for garbage as often as Python 3.14 does by itself, but not among what start-up has loaded, which stays.

    A picture whose side data was read is in a cycle with it; start-up's thresholds let thousands of them gather."""
    gc.freeze()
    gc.set_threshold(2_000, 10, 10)


def forget_model() -> None:
    """Free the memory of a model that nobody holds any more, so that there is room for the next one."""
    gc.unfreeze()  # what `end_start_up` set aside: a model is in cycles with its hooks
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def quiet_transformers() -> None:
    """Turn off the messages and progress bars of transformers, what bitsandbytes says of kernels that are not there
    when PEFT imports it, and each try to reach a hub that does not answer."""
    import transformers

    for library in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def open_judge(
    model: str,
    *,
    paradigm: Paradigm | None,
    rubric: str | None = None,
    quantize: str | None = None,
    device: str | None,
    batch_size: int | None,
    sampling_params: Mapping[str, Any],
    engine: str = "native",
) -> "FeatureJudge | ModelJudge":
    """The judge of a name: a hand-made feature, which needs no torch, or a checkpoint.

    sampling_params: fields of `SamplingParams`. Parameters that exclude each other raise ConfigError before a model is
    opened."""
    from descore.evaluation.features import FEATURES
    from descore.evaluation.judges import FeatureJudge

    if model in FEATURES:
        if engine != "native":
            raise ConfigError(f"engine is {engine!r}, and {model} is a hand-made feature, which needs none")
        if rubric is not None or quantize is not None:
            raise ConfigError(
                f"--rubric, --quantize: {model} is a hand-made feature, which has neither text nor weights"
            )
        end_start_up()
        return FeatureJudge(feature=FEATURES[model], batch_size=batch_size or NATIVE_BATCH)
    from descore.evaluation.judges import ModelJudge
    from descore.scorer import SamplingParams

    scorer = open_scorer(
        model,
        paradigm=paradigm,
        rubric=rubric,
        quantize=quantize,
        device=device,
        batch_size=batch_size,
        engine=engine,
        sampling_params=sampling_params,
    )
    return ModelJudge(scorer=scorer, sampling_params=SamplingParams(**sampling_params))


def score_clips(
    requests: Sequence[tuple[str, str]],
    *,
    model: str,
    sampling_params: Mapping[str, Any],
    **opening: Any,  # noqa: ANN401  # options of `open_scorer`, by their names
) -> Iterator[Result]:
    """Results for (clip, prompt), in order, as they come. The bar is hidden while the caller shows a result."""
    with progress_bar() as bar:
        task = bar.add_task(f"opening {model}", total=None)
        for prompt in {prompt for _, prompt in requests}:
            check_prompt(prompt)
        scorer = open_scorer(model, sampling_params=sampling_params, **opening)
        bar.update(task, description="watching and thinking", total=len(requests))
        for result in scorer.score_each(requests, **sampling_params):
            bar.advance(task)
            bar.stop()
            yield result
            bar.start()


def check_bulk_options(sources: Sequence[str], *, prompt: str | None, bulk: Mapping[str, Any]) -> None:
    """Refuse options that do not fit what is scored: several clips, or one table or folder."""
    from descore.rewards.sources import is_source

    many = [name for name in sources if is_source(name)]
    if many and len(sources) > 1:
        raise ConfigError(f"{many[0]}: a table or folder among clips; score it by itself")
    if many:
        return
    given = [name for name, value in bulk.items() if value not in (None, False)]
    if given:
        raise ConfigError(f"--{given[0]}: for a table or a folder; for clips use --json, a line for each")
    if prompt is None:
        raise USAGE_ERROR("Missing option '--prompt' / '-p'")


def check_ranked(names: Sequence[str], *, prompt: str | None, of_table: Mapping[str, Any]) -> None:
    """Refuse options that do not fit what is ranked: clips of one prompt, or one scored table, which has prompts."""
    from descore.data.tables import is_table

    tables = [name for name in names if is_table(name)]
    if tables and len(names) > 1:
        raise ConfigError(f"{tables[0]}: a table among clips; rank it by itself")
    if tables and prompt is not None:
        raise ConfigError(f"{tables[0]}: --prompt is for clips; a scored table has its prompts")
    given = [name for name, value in of_table.items() if value is not None]
    if not tables and given:
        raise ConfigError(f"--{given[0]}: for a scored table; score the clips into one with descore score TABLE")
    if not tables and prompt is None:
        raise USAGE_ERROR("Missing option '--prompt' / '-p'")


def score_source(
    source: str,
    *,
    prompt: str | None,
    out: Path | None,
    limit: int | None,
    workers: int | None,
    replace: bool,
    overwrite: bool,
    json: bool,
    model: str,
    sampling_params: Mapping[str, Any],
    **opening: Any,  # noqa: ANN401  # options of `open_scorer`, by their names
) -> None:
    """Score a table or a folder into a scored table, and print what came of it. Rows without a reward make the exit
    code 4; an interrupted run says how to go on."""
    from descore.cli.output import print_summary
    from descore.rewards.decoding import DecodingPool, default_workers
    from descore.rewards.journal import check_out, default_out
    from descore.rewards.sources import open_source

    with progress_bar(time_remaining=True) as bar:
        task = bar.add_task(f"reading {source}", total=None)
        opened = open_source(source, prompt=prompt, limit=limit, replace=replace)
        target = default_out(opened.path) if out is None else out
        check_out(target, overwrite=overwrite)
        bar.update(task, description=f"opening {model}")
        with DecodingPool(workers=default_workers() if workers is None else workers) as pool:
            pool.start()
            scorer = open_scorer(model, sampling_params=sampling_params, **opening)
            from descore.rewards.bulk import write_scores

            show = BulkDisplay(bar, task)
            try:
                summary = write_scores(
                    opened,
                    target,
                    scorer=scorer,
                    overwrite=overwrite,
                    workers=pool,
                    on_progress=show,
                    **sampling_params,
                )
            except KeyboardInterrupt:
                show.explain_interrupt(overwrite=overwrite)
                raise
    print_summary(summary, json=json)


def parse_engine(text: str, *, cluster: Mapping[str, Any]) -> tuple[str, bool]:
    """The engine of the model, and whether a Ray cluster's actors hold it: "ray" is "native" on a cluster, "ray:vllm"
    is "vllm" on one. ConfigError for the options of a cluster, `cluster`, without one."""
    where, _, engine = text.partition(":")
    on_ray = where == "ray"
    given = [name.replace("_", "-") for name, value in cluster.items() if value is not None]
    if given and not on_ray:
        raise ConfigError(f"--{given[0]}: for a cluster; give --engine ray too")
    return (engine or "native", True) if on_ray else (text, False)


def score_on_ray(
    source: str,
    *,
    cluster: Mapping[str, Any],
    prompt: str | None,
    out: Path | None,
    limit: int | None,
    workers: int | None,
    replace: bool,
    json: bool,
    **rest: Any,  # noqa: ANN401  # of `write_scores_on_ray`, by their names
) -> None:
    """Score a table or a folder on a Ray cluster into a folder of Parquet shards, as `score_source` does in this
    process."""
    from descore.cli.output import print_summary
    from descore.rewards.ray_cluster import RayOptions, check_ray
    from descore.rewards.sources import open_source

    check_ray(cluster["address"])
    if workers == 0:
        raise ConfigError("--workers 0: on a cluster clips are decoded by actors of their own; expected 1 at least")
    options = RayOptions(**{name: value for name, value in cluster.items() if value is not None}, decoders=workers)
    with progress_bar(time_remaining=True) as bar:
        task = bar.add_task(f"reading {source}", total=None)
        opened = open_source(source, prompt=prompt, limit=limit, replace=replace)
        bar.update(task, description="connecting to the cluster, and opening the model there")
        from descore.rewards.ray_bulk import write_scores_on_ray

        show = BulkDisplay(bar, task)
        try:
            summary = write_scores_on_ray(opened, out, options=options, on_progress=show, **rest)
        except KeyboardInterrupt:
            show.explain_interrupt(overwrite=rest["overwrite"])
            raise
    print_summary(summary, json=json)


class BulkDisplay:
    """Shows how far a run is: in a bar, or without a terminal in a line on standard error now and then."""

    def __init__(
        self,
        bar: Progress,
        task: TaskID,
        *,
        period: float = _LINE_PERIOD,
        verbs: tuple[str, str] = ("scoring", "scored"),
    ) -> None:
        """verbs: what is done, and what was done."""
        self._verbs = verbs
        self._bar = bar
        self._task = task
        self._period = period
        self._start: tuple[float, int] | None = None
        self._shown = time.monotonic()
        self._last: BulkProgress | CollectProgress | None = None

    def __call__(self, progress: "BulkProgress | CollectProgress") -> None:
        """Show it."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, progress.done
            # What an earlier run has done says nothing of this one's speed.
            self._bar.reset(self._task, total=progress.total, completed=progress.done)
        self._last = progress
        failed = f" ({progress.failed:,} failed)" if progress.failed else ""
        if not self._bar.disable:
            self._bar.update(
                self._task, description=f"{self._verbs[0]}{failed}", completed=progress.done, total=progress.total
            )
        elif now - self._shown >= self._period:
            self._shown = now
            left = self._left(now, progress)
            echo(f"{self._verbs[1]} {progress.done:,} of {progress.total:,}{failed}{left}", err=True)

    def _left(self, now: float, progress: "BulkProgress | CollectProgress") -> str:
        assert self._start is not None
        begin, before = self._start
        if progress.done <= before:
            return ""
        seconds = (now - begin) * (progress.total - progress.done) / (progress.done - before)
        return f", about {_duration(seconds)} left"

    def explain_interrupt(self, *, overwrite: bool) -> None:
        """Say how to go on."""
        done = "" if self._last is None else f"; {self._last.done:,} of {self._last.total:,} rows are kept"
        command = "the same command, without --overwrite," if overwrite else "the same command"
        echo(f"stopped{done}: {command} goes on from there", err=True)


def _duration(seconds: float) -> str:
    """Seconds as people say them: '40 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _PlainDescription(ProgressColumn):
    """What is done, which may name a file; on one line."""

    def render(self, task: Task) -> Text:
        """Called by rich."""
        return Text(one_line(task.description))


def progress_bar(*, time_remaining: bool = False) -> Progress:
    """A progress bar on standard error that is erased at the end. Without a terminal nothing is shown."""
    screen = Console(stderr=True)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        _PlainDescription(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    return Progress(
        *columns,
        *([TimeRemainingColumn()] if time_remaining else []),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        speed_estimate_period=_SPEED_PERIOD,
        redirect_stdout=False,  # results go to standard output as they are, while the bar is hidden
        redirect_stderr=True,  # a warning is written above the bar
    )
