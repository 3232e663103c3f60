"""Open scorers and judges, and score clips under a progress bar.

In: options as the command line gives them. Out: a scorer, a judge, or results as they come."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from descore.errors import DescoreError
from descore.rubric import check_prompt
from descore.types import Paradigm, Score

if TYPE_CHECKING:
    import torch

    from descore.evaluation.judges import FeatureJudge, ModelJudge
    from descore.scorer import Scorer

Result = Score | DescoreError

_SPEED_PERIOD = 3600.0
"""Seconds of progress that the remaining time is estimated from: a batch may take minutes."""


def open_scorer(
    model: str,
    *,
    paradigm: Paradigm | None = None,
    device: str | None,
    batch_size: int,
    dtype: "torch.dtype | None" = None,
) -> "Scorer":
    """The scorer of a checkpoint. Messages and bars of transformers are turned off."""
    quiet_transformers()
    from descore.scorer import Scorer

    return Scorer.from_pretrained(model, paradigm=paradigm, device=device, batch_size=batch_size, dtype=dtype)


def quiet_transformers() -> None:
    """Turn off the messages and progress bars of transformers."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def open_judge(
    model: str,
    *,
    paradigm: Paradigm | None,
    device: str | None,
    batch_size: int,
    sampling_params: Mapping[str, Any],
) -> "FeatureJudge | ModelJudge":
    """The judge of a name: a hand-made feature, which needs no torch, or a checkpoint.

    sampling_params: fields of `SamplingParams`. Parameters that exclude each other raise ConfigError before a model is
    opened."""
    from descore.evaluation.judges import FEATURES, FeatureJudge

    if model in FEATURES:
        return FeatureJudge(feature=FEATURES[model], batch_size=batch_size)
    from descore.evaluation.judges import ModelJudge
    from descore.scorer import SamplingParams

    params = SamplingParams(**sampling_params)
    params.resolved(paradigm)
    scorer = open_scorer(model, paradigm=paradigm, device=device, batch_size=batch_size)
    return ModelJudge(scorer=scorer, sampling_params=params)


def score_clips(
    requests: Sequence[tuple[str, str]],
    *,
    model: str,
    paradigm: Paradigm | None = None,
    device: str | None = None,
    batch_size: int = 8,
    **sampling_params: Any,  # noqa: ANN401  # fields of `SamplingParams`
) -> Iterator[Result]:
    """Results for (clip, prompt), in order, as they come. The bar is hidden while the caller shows a result."""
    with progress_bar() as bar:
        task = bar.add_task(f"opening {model}", total=None)
        from descore.scorer import SamplingParams

        # What no model can score is refused before a large one is opened.
        SamplingParams(**sampling_params).resolved(paradigm)
        for prompt in {prompt for _, prompt in requests}:
            check_prompt(prompt)
        scorer = open_scorer(model, paradigm=paradigm, device=device, batch_size=batch_size)
        bar.update(task, description="watching and thinking", total=len(requests))
        for result in scorer.score_each(requests, **sampling_params):
            bar.advance(task)
            bar.stop()
            yield result
            bar.start()


def progress_bar(*, time_remaining: bool = False) -> Progress:
    """A progress bar on standard error that is erased at the end. Without a terminal nothing is shown."""
    screen = Console(stderr=True)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
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
