"""Open a scorer and score clips under a progress bar, for the verbs that score.

In: options as the command line gives them. Out: results as they come. Knows the scorer and the bar on standard error;
knows nothing of how results are shown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from descore.cli.errors import print_error
from descore.errors import VideoError
from descore.types import Paradigm, Score

if TYPE_CHECKING:
    import torch

    from descore.scorer import Scorer


Result = Score | VideoError

_NAMED = 5  # unreadable clips that the closing line names


def open_scorer(
    model: str,
    *,
    paradigm: Paradigm | None = None,
    device: str | None,
    batch_size: int,
    dtype: "torch.dtype | None" = None,
) -> "Scorer":
    """The scorer of a checkpoint; transformers' own messages and bars are kept off the terminal."""
    import transformers

    from descore.scorer import Scorer

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return Scorer.from_pretrained(model, paradigm=paradigm, device=device, batch_size=batch_size, dtype=dtype)


def judge(
    requests: Sequence[tuple[str, str]],
    *,
    model: str,
    paradigm: Paradigm | None = None,
    device: str | None = None,
    batch_size: int = 8,
    **sampling_params: Any,  # noqa: ANN401  # fields of `SamplingParams`
) -> Iterator[Result]:
    """Results for (clip, prompt), in order, as they come. The bar steps aside while the caller shows one."""
    with progress_bar() as bar:
        task = bar.add_task(f"opening {model}", total=None)
        from descore.scorer import SamplingParams

        # Options that do not go together are refused before a large model is opened.
        SamplingParams(**sampling_params).resolved(paradigm)
        scorer = open_scorer(model, paradigm=paradigm, device=device, batch_size=batch_size)
        bar.update(task, description="watching and thinking", total=len(requests))
        for result in scorer.score_each(requests, **sampling_params):
            bar.advance(task)
            bar.stop()
            yield result
            bar.start()


def progress_bar() -> Progress:
    """A bar on standard error that leaves nothing behind, and is not there at all without a terminal."""
    screen = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        redirect_stdout=False,  # results go to standard output as they are, while the bar is away
        redirect_stderr=True,  # a warning is written above the bar
    )


def closing_line(results: Sequence[Result]) -> None:
    """Say on standard error which clips have no score, if any."""
    faults = [result for result in results if isinstance(result, VideoError)]
    if not faults:
        return
    named = "; ".join(str(fault) for fault in faults[:_NAMED])
    more = f"; and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
    counted = f"scored {len(results) - len(faults):,} of {len(results):,}; not scored: " if len(results) > 1 else ""
    print_error(f"{counted}{named}{more}")
