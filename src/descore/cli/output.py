"""Print scores: JSON lines for programs, text on a Rich console for people at any width.

In: results of the scorer. Out: standard output, failures on standard error, and the exit code."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderHook
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from descore.cli.errors import echo, print_error
from descore.cli.scoring import Result
from descore.errors import DescoreError, VideoError
from descore.evaluation.records import error_text, to_line, to_record
from descore.report.text import chain_prose, clip_facts, completion_warnings, mark_word, one_line, plain, signed
from descore.rubric import mark_text
from descore.types import DIMENSIONS, Comparison, Mark, Score, Verdict, preference_probability

if TYPE_CHECKING:
    from descore.rewards.bulk import ScoringSummary

MARK_STYLES: Mapping[Mark, str] = {2: "green", 1: "yellow", 0: "red", None: "dim"}

_MIN_TABLE_WIDTH = 64
"""Columns, below which the ranking is a list."""
_MAX_NAMED = 5
"""Failed clips that an error line names."""
_SHORT = {"subject": "subj", "dynamics": "dyn", "camera": "cam", "environment": "env", "style": "sty"}


class _PipedConsole(Console):
    def on_broken_pipe(self) -> None:
        """Let the error through to `reported_errors`, where Rich would exit with 1."""
        raise  # Rich calls this while it handles a BrokenPipeError


def console() -> Console:
    """Standard output. Colours only on a terminal; file names and numbers are not highlighted."""
    screen = _PipedConsole(highlight=False, markup=False, emoji=False)
    screen.push_render_hook(_PlainTexts())
    return screen


class _PlainTexts(RenderHook):
    """Makes `plain` of every text that a console prints, whoever wrote it."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich with what is printed."""
        return [_PlainText(renderable) for renderable in renderables]


class _PlainText:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def print_scores(results: Iterable[Result], *, clips: Sequence[str], prompt: str, model: str, json: bool) -> None:
    """Print each result when it comes, and keep none. Clips without a score make the exit code 4."""
    screen, errors = console(), list[str]()
    for clip, result in zip(clips, results, strict=True):
        errors += [str(result)] if isinstance(result, DescoreError) else []
        if json:
            _print_json(to_record(result, video=clip, prompt=prompt, model=model))
        elif isinstance(result, Score):
            show_score(screen, result, name=clip)
        elif len(clips) > 1:  # for a single clip, the error line is enough
            show_failure(screen, result, name=clip)
    _exit_on_failures(errors, of=len(clips))


def print_ranking(results: Iterable[Result], *, clips: Sequence[str], prompt: str, model: str, json: bool) -> None:
    """Print the best clip first, equal ones in the order given, and clips without a score last. Until then results are
    kept without their frames."""
    kept = [result.without_frames() if isinstance(result, Score) else result for result in results]
    ranked = sorted(zip(clips, kept, strict=True), key=lambda named: _sort_key(named[1]), reverse=True)
    if json:
        for clip, result in ranked:
            _print_json(to_record(result, video=clip, prompt=prompt, model=model))
    else:
        show_ranking(console(), ranked)
    _exit_on_failures(_errors_of(kept), of=len(kept))


def print_comparison(results: Sequence[Result], *, clips: tuple[str, str], prompt: str, model: str, json: bool) -> None:
    """Print an object {a, b, probability}, or both clips and the preference. Without both scores there is no
    probability."""
    comparison = _compare(results)
    if json:
        a, b = (to_record(r, video=c, prompt=prompt, model=model) for c, r in zip(clips, results, strict=True))
        _print_json({"a": a, "b": b, "probability": None if comparison is None else comparison.probability})
    else:
        screen = console()
        for clip, result in zip(clips, results, strict=True):
            if isinstance(result, Score):
                show_score(screen, result, name=clip)
            else:
                show_failure(screen, result, name=clip)
        if comparison is not None:
            _show_preference(screen, comparison, names=clips)
    _exit_on_failures(_errors_of(results), of=len(results))


def print_summary(summary: "ScoringSummary", *, json: bool) -> None:
    """Print what a run of bulk scoring has scored: failures first, on standard error, and then the table. Rows without
    a reward make the exit code 4."""
    if summary.failed:
        kinds = [f"{count:,} {kind}" for kind, count in summary.kinds.most_common(_MAX_NAMED)]
        named = [f"{video}: {reason}" for video, reason in summary.failures]
        more = summary.failed - len(named)
        first = name_first(named) + (f"; and {more:,} more" if more else "")
        counts = f"scored {summary.scored:,} of {summary.total:,}; {summary.failed:,} failed"
        print_error(f"{counts} ({', '.join(kinds)}): {first}")
    if json:
        _print_json(_summary_record(summary))
    else:
        echo(_summary_text(summary))
    if summary.failed:
        raise typer.Exit(VideoError.exit_code)


def _summary_text(summary: "ScoringSummary") -> str:
    facts = [f"scored {summary.scored:,} of {summary.total:,}"]
    if summary.mean_reward is not None:
        facts.append(f"mean reward {signed(summary.mean_reward)}")
    if summary.truncated:
        facts.append(f"{with_count(summary.truncated, 'chain')} cut off")
    share = summary.model_seconds / summary.seconds if summary.seconds else 0.0
    now = f"{summary.computed:,} now in {summary.seconds:.1f} s, {share:.0%} of it the model's"
    facts.append(now if summary.computed else "none of them now")
    return f"{one_line(str(summary.out))}: {'; '.join(facts)}"


def _summary_record(summary: "ScoringSummary") -> dict[str, Any]:
    names = ("total", "scored", "failed", "truncated", "mean_reward", "computed", "seconds", "model_seconds")
    return {
        "out": str(summary.out),
        **{name: getattr(summary, name) for name in names},
        "kinds": dict(summary.kinds),
        "failures": [{"video": video, "error": reason} for video, reason in summary.failures],
    }


def name_first(items: Sequence[str], *, limit: int = _MAX_NAMED, separator: str = "; ") -> str:
    """The first items, and how many more there are: 'x; y; and 3 more'."""
    more = f"{separator}and {len(items) - limit:,} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def with_count(count: int, noun: str) -> str:
    """A count with its noun: '1 fault', '1,200 faults'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show_score(screen: Console, score: Score, *, name: str) -> None:
    """Show prompt, clip, chain, marks, numbers and warnings of one score."""
    typical = score.typical
    blocks: list[RenderableType] = [_clip_facts(score)]
    if typical.text:
        blocks += [
            Text(),
            Padding(Text(chain_prose(typical) or "(nothing but the answer)"), (0, 0, 0, 2), expand=False),
        ]
    if typical.verdict is not None:
        blocks += [Text(), _marks(typical.verdict)]
    blocks += [Text(), _numbers(score), *(Text(f"! {text}", style="bold yellow") for text in _warnings(score))]
    screen.print(_heading(name), Padding(Group(*blocks), (0, 0, 1, 1), expand=False))


def show_failure(screen: Console, error: DescoreError, *, name: str) -> None:
    """Show a clip without a score in its place."""
    screen.print(_heading(name))
    screen.print(
        Padding(Text(f"not scored: {one_line(error_text(error))}", style="bold red"), (0, 0, 1, 1), expand=False)
    )


def show_ranking(screen: Console, ranked: Sequence[tuple[str, Result]]) -> None:
    """Show names and results in the given order, as a table or, on a narrow terminal, as a list."""
    rows = [_ranking_row(place, name, result) for place, (name, result) in enumerate(ranked, start=1)]
    if screen.width < _MIN_TABLE_WIDTH:
        for row in rows:
            screen.print(Text("  ").join([row[0], row[1], row[-1]]))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "reward", "score", "overall", *(_SHORT[name] for name in DIMENSIONS)):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("clip", overflow="fold")
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    if legend := _ranking_legend(ranked):
        screen.print(Text(f"\n{legend}", style="dim"))


def _show_preference(screen: Console, comparison: Comparison, *, names: tuple[str, str]) -> None:
    a, b = map(one_line, names)
    if comparison.a.reward == comparison.b.reward:  # a generative model's rewards have two digits
        screen.print(Text(f"{a} and {b} have the same reward: neither is preferred"))
        return
    a_wins = comparison.probability >= 0.5
    probability = comparison.probability if a_wins else 1 - comparison.probability
    winner, loser = (a, b) if a_wins else (b, a)
    screen.print(
        Text.assemble((winner, "bold"), f" is preferred to {loser} with probability ", (f"{probability:.3f}", "bold"))
    )


def _compare(results: Sequence[Result]) -> Comparison | None:
    a, b = results
    if isinstance(a, DescoreError) or isinstance(b, DescoreError):
        return None
    return Comparison(a=a, b=b, probability=preference_probability(a.reward, b.reward))


def _sort_key(result: Result) -> float:
    return result.reward if isinstance(result, Score) else -math.inf


def _print_json(record: dict[str, Any]) -> None:
    echo(to_line(record))


def _errors_of(results: Iterable[Result]) -> list[str]:
    return [str(result) for result in results if isinstance(result, DescoreError)]


def _exit_on_failures(errors: Sequence[str], *, of: int) -> None:
    """Name the clips without a score on standard error, and leave with exit code 4; nothing where all have one."""
    if not errors:
        return
    scored = f"scored {of - len(errors):,} of {of:,}; not scored: " if of > 1 else ""
    print_error(scored + name_first(tuple(dict.fromkeys(errors))))  # clips that are judged together fail together
    raise typer.Exit(VideoError.exit_code)


def _heading(name: str) -> RenderableType:
    return Rule(Text(one_line(name), style="bold", overflow="ellipsis"), align="left", style="dim")


def _clip_facts(score: Score) -> Table:
    clip = score.clip
    width, height = clip.size
    times = " ".join(f"{time:.2f}" for time in clip.times)
    rows = {
        "prompt": plain(score.prompt),
        "source": clip_facts(clip),
        "frames": f"{len(clip.times)} of {clip.source_frames:,}, at {width}x{height}, from seconds {times}",
    }
    return key_value_grid(rows.items())


def key_value_grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns without lines: dim titles, and values that wrap."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, value in rows:
        grid.add_row(title, Text(value))
    return grid


def _marks(verdict: Verdict) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for name in DIMENSIONS:
        mark, unknown = verdict.marks[name], name in verdict.unknown
        style = _mark_style(mark, unknown=unknown)
        grid.add_row(
            name, Text(_mark_sign(mark, unknown=unknown), style), Text(mark_word(mark, unknown=unknown), style)
        )
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _mark_sign(mark: Mark, *, unknown: bool) -> str:
    return "?" if mark is None and unknown else mark_text(mark)


def _mark_style(mark: Mark, *, unknown: bool) -> str:
    return "magenta" if mark is None and unknown else MARK_STYLES[mark]


def _ranked_mark(verdict: Verdict, name: str) -> Text:
    mark, unknown = verdict.marks[name], name in verdict.unknown
    return Text(_mark_sign(mark, unknown=unknown), _mark_style(mark, unknown=unknown))


def _ranked_overall(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text("–")
    return Text(f"({verdict.overall:.2f})", "dim") if verdict.is_partial else Text(f"{verdict.overall:.2f}")


def _ranking_legend(ranked: Sequence[tuple[str, Result]]) -> str:
    """What the signs of the table mean that are not explained by themselves; empty where it has none of them."""
    verdicts = [result.verdict for _, result in ranked if isinstance(result, Score) and result.verdict is not None]
    signs = {
        "? the chain says that it cannot be known": any(verdict.unknown for verdict in verdicts),
        "(overall) is without the subject or the dynamics, which cannot be known": any(v.is_partial for v in verdicts),
    }
    return "; ".join(text for text, there in signs.items() if there)


def _numbers(score: Score) -> Text:
    parts: list[tuple[str, str]] = []
    if score.verdict is not None:
        parts.append(("overall", f"{score.verdict.overall:.2f} of 5"))
    deviation = "" if score.std is None else f" ± {score.std:.3f} ({len(score.completions)} samples)"
    parts.append(("reward", signed(score.reward) + deviation))
    if len(score.rewards) > 1:
        parts += [(one_line(name), signed(reward)) for name, reward in score.rewards.items()]
    if score.score is not None:
        parts.append(("score", signed(score.score, digits=2)))
    line = Text()
    for title, value in parts:
        line.append(f"{title} ", style="dim").append(value, style="bold").append("   ")
    line.rstrip()
    return line


def _warnings(score: Score) -> list[str]:
    """What a reader must know before the score is trusted."""
    warnings = completion_warnings(score.typical)
    others = sum(completion.truncated for completion in score.completions) - score.typical.truncated
    if others:
        warnings.append(f"the thinking of {others} other samples was cut off")
    if score.left_out:
        chains = len(score.completions) + len(score.left_out)
        warnings.append(f"{len(score.left_out)} of {chains} chains left out: {one_line(score.left_out[0])}")
    return warnings


def _ranking_row(place: int, name: str, result: Result) -> list[Text]:
    """Place, reward, score, overall, a mark for each dimension, and the clip."""
    if isinstance(result, DescoreError):
        blank = [Text("–", style="dim")] * (4 + len(DIMENSIONS))
        return [*blank, Text.assemble(one_line(name), (f"  not scored: {one_line(error_text(result))}", "bold red"))]
    verdict = result.verdict
    deviation = "" if result.std is None else f" ±{result.std:.2f}"
    row = [
        Text(str(place), style="dim"),
        Text(signed(result.reward) + deviation, style="bold"),
        Text(signed(result.score, digits=2)),
        _ranked_overall(verdict),
    ]
    if verdict is None:
        row += [Text("–", style="dim")] * len(DIMENSIONS)
    else:
        row += [_ranked_mark(verdict, name) for name in DIMENSIONS]
    truncated = (" ! cut off", "bold yellow") if result.truncated else ""
    return [*row, Text.assemble(one_line(name), truncated)]
