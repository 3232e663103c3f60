"""`descore pairs`, and `descore rank` and `descore report` of a scored table: the best of N, preference pairs, a page.

In: a scored table. Out: the first prompts on standard output, everything in a file; failures on standard error."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError, VideoError

if TYPE_CHECKING:
    from rich.console import Console

    from descore.rewards.ranking import Lead, LeftOut, RankedTable, Ranking

MAX_REPORTED = 12
"""Prompts of a scored table whose best and worst clips a page shows."""
_MAX_PROMPTS = 10
"""Prompts that are shown without --out or --json."""
_MAX_NAMED = 4
"""Clips left out that a line names."""
_PROMPT = 100
"""Letters of a prompt that are shown."""
_RULES: Mapping[str, str] = {
    "equal": "of equal clips",
    "min_margin": "by --min-margin",
    "min_probability": "by --min-probability",
    "per_prompt": "by --per-prompt",
}

Table = Annotated[Path, typer.Argument(metavar="TABLE", help="A scored table: what descore score TABLE has written.")]
PairsFile = Annotated[
    Path,
    typer.Option("--out", "-o", help="Where the pairs go: .jsonl, .csv or .parquet, with paths relative to it."),
]


def pairs(
    *,
    table: Table,
    out: PairsFile,
    form: Annotated[
        Literal["trl", "diffusers", "descore"],
        typer.Option(
            "--format",
            help="'trl': prompt, chosen, rejected, margin, probability. 'diffusers': prompt, chosen_video, "
            "rejected_video. 'descore': the table of pairs that descore train reads, with chains and marks.",
        ),
    ] = "trl",
    strategy: Annotated[
        Literal["best-worst", "neighbours", "all"],
        typer.Option(
            "--strategy", help="The best against the worst; each clip against the next one; or every two clips."
        ),
    ] = "best-worst",
    per_prompt: Annotated[
        int | None,
        typer.Option("--per-prompt", min=1, help="At most so many pairs of a prompt. Default: 1 for best-worst."),
    ] = None,
    min_margin: Annotated[
        float, typer.Option("--min-margin", min=0.0, help="The least difference, in units of the reward.")
    ] = 0.0,
    min_probability: Annotated[
        float, typer.Option("--min-probability", min=0.5, help="The least probability that the chosen is preferred.")
    ] = 0.5,
    by: opt.RankedBy = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of 'descore': decides which clip of a pair is a.")] = 0,
    debug: opt.Debug = False,
) -> None:
    """Choose preference pairs from a scored table, for DPO or to train a reward model on."""
    with reported_errors(debug=debug):
        from descore.cli.output import with_count
        from descore.data.write import check_target
        from descore.rewards.pairs import preference_pairs, write_pairs
        from descore.rewards.ranking import require_scored
        from descore.rewards.scored import read_scored

        require_scored(table)
        check_target(out)
        selection = preference_pairs(
            read_scored(table, resolve=False),
            strategy=strategy,
            per_prompt=per_prompt,
            min_margin=min_margin,
            min_probability=min_probability,
            by=by,
            file=table,
        )
        name_left_out(selection.left_out)
        write_pairs(selection, table, out=out, form=form, seed=seed)
        echo(f"{out}: {with_count(len(selection.pairs), 'pair')} of {with_count(selection.prompts, 'prompt')}")
        dropped = [f"{count:,} {_RULES[rule]}" for rule, count in selection.dropped.items()]
        if dropped:
            echo(f"dropped: {', '.join(dropped)}")
        if selection.single:
            echo(f"without a pair: {with_count(selection.single, 'prompt')} with a single clip")
        if form == "descore":
            echo("next: name it as data.train of a configuration, and run descore train cold-start")


def rank_table(table: Path, *, keep: int, by: str | None, out: Path | None, json: bool) -> None:
    """Rank the clips of a scored table. Clips without a reward come first, on standard error, and make the exit
    code 4."""
    from descore.cli.output import console
    from descore.data.write import check_target
    from descore.rewards.pairs import write_best
    from descore.rewards.ranking import rank, require_scored
    from descore.rewards.scored import read_scored

    require_scored(table)
    if out is not None:
        check_target(out)
    ranked = rank(read_scored(table, resolve=False), keep=keep, by=by, file=table)
    failed = name_left_out(ranked.left_out)
    if out is not None:
        write_best(ranked, table, out=out)
    if json:
        _print_records(ranked)
    else:
        _show_ranked(console(), ranked, table=table, out=out)
    if failed:
        raise typer.Exit(VideoError.exit_code)


def report_table(tables: Sequence[Path], *, out: Path, column: str | None) -> None:
    """Write the page of a scored table."""
    from descore.cli.output import with_count
    from descore.io import atomic_write
    from descore.report.cards import render_scored
    from descore.rewards.overview import read_overview

    if len(tables) > 1:
        raise ConfigError(f"found {', '.join(map(str, tables))}; a page shows one scored table, or folders of runs")
    overview = read_overview(tables[0], prompts=MAX_REPORTED, column=column)
    page = render_scored(overview).encode()
    atomic_write(out, page)
    name_left_out(overview.left_out)
    shown = f"{len(overview.prompts):,} of {with_count(overview.of_prompts, 'prompt')} with frames"
    echo(f"{out}: {with_count(overview.rows, 'clip')}, {shown}, {len(page) / 1e6:.1f} MB; open it in a browser")


def name_left_out(left_out: Sequence["LeftOut"]) -> bool:
    """Name the clips that are not ranked, on standard error; whether any of them has no reward."""
    from descore.cli.errors import print_error
    from descore.cli.output import name_first, with_count

    for failed, what in ((True, "without a reward"), (False, "left out")):
        some = [f"{one.video or one.prompt}: {one.reason}" for one in left_out if one.failed == failed]
        if some:
            named = name_first(some, limit=_MAX_NAMED)
            print_error(f"{with_count(len(some), 'clip')} {what}: {named}", kind="error" if failed else "warning")
    return any(one.failed for one in left_out)


def _print_records(ranked: "RankedTable") -> None:
    from descore.evaluation.records import to_line, to_plain

    for one in ranked.left_out:
        echo(to_line({"prompt": one.prompt, "video": one.video, "left_out": one.reason}))
    for ranking in ranked.rankings:
        echo(to_line(to_plain(_record(ranking, ranked))))


def _record(ranking: "Ranking", ranked: "RankedTable") -> dict[str, Any]:
    leads = [*ranking.leads, *[None] * (len(ranking.places) - len(ranking.leads))]
    return {
        "prompt": ranking.prompt,
        "group": ranking.group or None,
        "clips": ranking.clips,
        "by": ranked.by,
        "model": ranked.model,
        "deviation_of": ranked.deviation,
        "clear_winner": None if ranking.lead is None else ranking.lead.clear,
        "places": [
            {
                "video": clip.name,
                "value": clip.value,
                "reward": clip.reward,
                "score": clip.score,
                "std": clip.std,
                "samples": clip.samples,
                "lead": None if lead is None else _lead_record(lead),
            }
            for clip, lead in zip(ranking.places, leads, strict=True)
        ],
    }


def _lead_record(lead: "Lead") -> dict[str, Any]:
    names = ("margin", "deviations", "probability", "low", "high", "clear")
    return {name: getattr(lead, name) for name in names}


def _show_ranked(screen: "Console", ranked: "RankedTable", *, table: Path, out: Path | None) -> None:
    from descore.cli.output import with_count
    from descore.report.text import one_line

    clips = sum(ranking.clips for ranking in ranked.rankings)
    model = f" of {ranked.model}" if ranked.model and ranked.by == "reward" else ""
    heading = (
        f"{table}: {with_count(clips, 'clip')} of {with_count(len(ranked.rankings), 'prompt')}, by {ranked.by}{model}"
    )
    screen.print(one_line(heading), style="bold")
    for ranking in ranked.rankings[:_MAX_PROMPTS]:
        _show_ranking(screen, ranking)
    hidden = len(ranked.rankings) - _MAX_PROMPTS
    if hidden > 0 and out is None:
        screen.print(f"\nand {with_count(hidden, 'more prompt')}: all of them with --out best.jsonl, or --json")
    elif hidden > 0:
        screen.print(f"\nand {with_count(hidden, 'more prompt')}")
    screen.print()
    for line in _summary(ranked):
        screen.print(line)
    if out is not None:
        screen.print(f"Written: {out}", soft_wrap=True)


def _summary(ranked: "RankedTable") -> list[str]:
    from descore.cli.output import with_count

    leads = [ranking.lead for ranking in ranked.rankings if ranking.lead is not None]
    clear = sum(lead.clear for lead in leads)
    single = len(ranked.rankings) - len(leads)
    unknown = sum(lead.low is None for lead in leads)
    lines = [f"Clear winners: {clear:,} of {with_count(len(leads), 'prompt')} with two clips or more."] if leads else []
    if single:
        lines.append(f"A single clip, and nothing to rank it against: {with_count(single, 'prompt')}.")
    if unknown and not all(lead.probability is None for lead in leads):
        lines.append("With single chains only equal clips tie; descore score --samples 4 says how sure a lead is.")
    if leads:
        whose = "the checkpoint's calibration" if ranked.deviation == "checkpoint" else "this table's values"
        lines.append(f"Deviations are those of {whose}.")
    return lines


def _show_ranking(screen: "Console", ranking: "Ranking") -> None:
    from rich.padding import Padding
    from rich.text import Text

    from descore.cli.output import with_count
    from descore.report.text import one_line, signed

    prompt = one_line(ranking.prompt)
    prompt = prompt if len(prompt) <= _PROMPT else f"{prompt[: _PROMPT - 1]}…"
    group = f" [{one_line(ranking.group)}]" if ranking.group and ranking.group != ranking.prompt else ""
    screen.print()
    screen.print(Text.assemble(prompt, (f"{group}  {with_count(ranking.clips, 'clip')}", "dim")))
    for place, clip in enumerate(ranking.places):
        spread = "" if clip.std is None else f" ± {clip.std:.2f}"
        value = (signed(clip.value) + spread, "bold")
        # A path is not broken into lines, so that it can be copied.
        row = Text.assemble((f"  {place + 1}  ", "dim"), value, f"  {one_line(clip.name)}")
        screen.print(row, soft_wrap=True)
        if place < len(ranking.leads):
            screen.print(Padding(_lead_text(ranking.leads[place]), (0, 0, 0, 5), expand=False))


def _lead_text(lead: "Lead") -> Any:  # noqa: ANN401  # Rich is imported when a verb runs
    from rich.text import Text

    from descore.stats.uncertainty import LEVEL

    deviations = "" if lead.deviations is None else f" ({lead.deviations:.2f} deviations)"
    probability = "" if lead.probability is None else f", preferred with probability {lead.probability:.2f}"
    text = Text(f"ahead by {lead.margin:.3f}{deviations}{probability}", style="dim")
    if not lead.clear:
        interval = "equal"
        if lead.low is not None:
            interval = f"its {LEVEL * 100:.0f} % interval includes 0 ({lead.low:+.2f} to {lead.high:+.2f})"
        text.append(f"; no clear winner: {interval}", style="bold yellow")
    return text
