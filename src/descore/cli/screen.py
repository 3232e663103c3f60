"""Results for people, on a terminal.

In: records. Out: lines on a Rich console, at any width. Knows records and Rich; knows nothing of models or files."""

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from descore.errors import VideoError
from descore.report.text import MARK_WORDS, facts, flags, mark_sign, one_line, plain, prose, signed
from descore.types import DIMENSIONS, Comparison, Mark, Score

MARK_STYLES: Mapping[Mark, str] = {2: "green", 1: "yellow", 0: "red", None: "dim"}

_NARROW = 64  # columns, below which the ranking is a list
_SHORT = {"subject": "subj", "dynamics": "dyn", "camera": "cam", "environment": "env", "style": "sty"}


def console() -> Console:
    """Standard output. Colours only on a terminal; file names and numbers are not coloured by guess."""
    return Console(highlight=False, markup=False, emoji=False)


def show_score(screen: Console, score: Score, *, name: str) -> None:
    """All that is known of one clip."""
    typical = score.typical
    blocks: list[RenderableType] = [_facts(score)]
    if typical.thinking:
        blocks += [Text(), Padding(Text(prose(typical) or "(nothing but the answer)"), (0, 0, 0, 2), expand=False)]
    if typical.verdict is not None:
        blocks += [Text(), _marks(typical.verdict.marks)]
    blocks += [Text(), _numbers(score)]
    blocks += [Text(f"! {flag}", style="bold yellow") for flag in flags(typical)]
    others = sum(sample.truncated for sample in score.samples) - typical.truncated
    if others:
        blocks.append(Text(f"! the thinking of {others} other samples was cut off", style="bold yellow"))
    if score.left_out:
        said = f"! {len(score.left_out)} of {len(score.samples) + len(score.left_out)} chains left out: "
        blocks.append(Text(said + one_line(score.left_out[0]), style="bold yellow"))
    screen.print(_heading(name), Padding(Group(*blocks), (0, 0, 1, 1), expand=False))


def show_fault(screen: Console, fault: VideoError, *, name: str) -> None:
    """A clip without a score, in its place."""
    screen.print(_heading(name))
    screen.print(Padding(Text(f"not scored: {one_line(fault.reason)}", style="bold red"), (0, 0, 1, 1), expand=False))


def show_ranking(screen: Console, ranked: Sequence[tuple[str, Score | VideoError]]) -> None:
    """Best first; what could not be scored comes last."""
    if screen.width < _NARROW:
        for place, (name, result) in enumerate(ranked, start=1):
            screen.print(Text("  ").join(_listed(place, name, result)))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "reward", "score", "overall"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in DIMENSIONS:
        table.add_column(_SHORT[name], justify="right", no_wrap=True)
    table.add_column("clip", overflow="fold")
    for place, (name, result) in enumerate(ranked, start=1):
        table.add_row(*_ranked_row(place, name, result))
    screen.print(table)


def show_comparison(screen: Console, comparison: Comparison, *, names: tuple[str, str]) -> None:
    """Which of two is preferred, and how surely."""
    if comparison.a.reward == comparison.b.reward:  # a generative model's rewards have two digits
        screen.print(Text(f"{one_line(names[0])} and {one_line(names[1])} have the same reward: neither is preferred"))
        return
    ahead = comparison.probability >= 0.5
    share = comparison.probability if ahead else 1 - comparison.probability
    screen.print(
        Text.assemble(
            (one_line(names[0] if ahead else names[1]), "bold"),
            f" is preferred to {one_line(names[1] if ahead else names[0])} with probability ",
            (f"{share:.3f}", "bold"),
        )
    )


def _heading(name: str) -> RenderableType:
    return Rule(Text(one_line(name), style="bold", overflow="ellipsis"), align="left", style="dim")


def _facts(score: Score) -> Table:
    clip = score.clip
    width, height = clip.size
    times = " ".join(f"{time:.2f}" for time in clip.times)
    rows = {
        "prompt": plain(score.prompt),
        "source": facts(clip),
        "frames": f"{len(clip.times)} of {clip.source_frames:,}, at {width}x{height}, from seconds {times}",
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, value in rows.items():
        grid.add_row(title, Text(value))
    return grid


def _marks(marks: Mapping[str, Mark]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for name in DIMENSIONS:
        style = MARK_STYLES[marks[name]]
        grid.add_row(name, Text(mark_sign(marks[name]), style=style), Text(MARK_WORDS[marks[name]], style=style))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _numbers(score: Score) -> Text:
    parts: list[tuple[str, str]] = []
    if score.verdict is not None:
        parts.append(("overall", f"{score.verdict.overall:.2f} of 5"))
    spread = "" if score.std is None else f" ± {score.std:.3f} ({len(score.samples)} samples)"
    parts.append(("reward", signed(score.reward) + spread))
    if len(score.rewards) > 1:
        parts += [(one_line(name), signed(reward)) for name, reward in score.rewards.items()]
    if score.score is not None:
        parts.append(("score", signed(score.score, digits=2)))
    line = Text()
    for title, value in parts:
        line.append(f"{title} ", style="dim").append(value, style="bold").append("   ")
    line.rstrip()
    return line


def _listed(place: int, name: str, result: Score | VideoError) -> list[Text]:
    """The place, the reward and the clip of the table's row."""
    row = _ranked_row(place, name, result)
    return [row[0], row[1], row[-1]]


def _ranked_row(place: int, name: str, result: Score | VideoError) -> list[Text]:
    if isinstance(result, VideoError):
        blank = [Text("–", style="dim")] * (4 + len(DIMENSIONS))
        return [*blank, Text.assemble(one_line(name), (f"  not scored: {one_line(result.reason)}", "bold red"))]
    verdict = result.verdict
    spread = "" if result.std is None else f" ±{result.std:.2f}"
    row = [
        Text(str(place), style="dim"),
        Text(signed(result.reward) + spread, style="bold"),
        Text(signed(result.score, digits=2)),
        Text("–" if verdict is None else f"{verdict.overall:.2f}"),
    ]
    marks = {} if verdict is None else verdict.marks
    for dimension in DIMENSIONS:
        sign = mark_sign(marks[dimension]) if dimension in marks else "–"
        row.append(Text(sign, style=MARK_STYLES[marks.get(dimension)]))
    cut = (" ! cut off", "bold yellow") if result.truncated else ""
    return [*row, Text.assemble(one_line(name), cut)]
