"""What the scoring verbs do with results: JSON lines for programs, or a screen for people; then the exit code.

Knows records and how they are shown; knows nothing of models."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from descore.cli.scoring import Result, closing_line
from descore.cli.screen import console, show_comparison, show_fault, show_ranking, show_score
from descore.errors import VideoError
from descore.evaluation.records import to_line, to_record
from descore.stats.agreement import preference_probability
from descore.types import Comparison, Score


def show_each(results: Iterable[Result], *, clips: Sequence[str], prompt: str, model: str, json: bool) -> None:
    """One by one, as they come."""
    screen, seen = console(), []
    for clip, result in zip(clips, results, strict=True):
        seen.append(result)
        if json:
            _print_line(to_record(result, video=clip, prompt=prompt, model=model))
        elif isinstance(result, Score):
            show_score(screen, result, name=clip)
        elif len(clips) > 1:  # of a single clip, the closing line says it all
            show_fault(screen, result, name=clip)
    _close(seen)


def show_ranked(results: Sequence[Result], *, clips: Sequence[str], prompt: str, model: str, json: bool) -> None:
    """Best first; equals in the order given; what has no score last."""
    ranked = sorted(zip(clips, results, strict=True), key=lambda named: _worth(named[1]), reverse=True)
    if json:
        for clip, result in ranked:
            _print_line(to_record(result, video=clip, prompt=prompt, model=model))
    else:
        show_ranking(console(), ranked)
    _close(results)


def show_compared(results: Sequence[Result], *, clips: tuple[str, str], prompt: str, model: str, json: bool) -> None:
    """One object {a, b, probability}, or both clips and the preference. Without both scores, no probability."""
    comparison = _compared(results)
    screen = console()
    if json:
        a, b = (to_record(r, video=c, prompt=prompt, model=model) for c, r in zip(clips, results, strict=True))
        _print_line({"a": a, "b": b, "probability": None if comparison is None else comparison.probability})
    else:
        for clip, result in zip(clips, results, strict=True):
            if isinstance(result, Score):
                show_score(screen, result, name=clip)
            else:
                show_fault(screen, result, name=clip)
        if comparison is not None:
            show_comparison(screen, comparison, names=clips)
    _close(results)


def _compared(results: Sequence[Result]) -> Comparison | None:
    a, b = results
    if isinstance(a, VideoError) or isinstance(b, VideoError):
        return None
    return Comparison(a=a, b=b, probability=preference_probability(a.reward, b.reward))


def _worth(result: Result) -> float:
    return result.reward if isinstance(result, Score) else -math.inf


def _print_line(record: dict[str, Any]) -> None:
    typer.echo(to_line(record))


def _close(results: Sequence[Result]) -> None:
    closing_line(results)
    if any(isinstance(result, VideoError) for result in results):
        raise typer.Exit(VideoError.exit_code)
