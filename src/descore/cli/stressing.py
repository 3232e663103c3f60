"""Run a stress test under a progress bar, and show what came out: failures first.

In: options as the command line gives them. Out: a table for people or JSON lines for programs, stress.json, and the
exit code. Knows stress tests and the terminal; knows nothing of what a change does or how it is counted."""

import hashlib
import json as json_text
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from descore.cli.errors import print_error
from descore.cli.scoring import open_scorer, progress_bar
from descore.cli.screen import console
from descore.errors import ConfigError, VideoError
from descore.evaluation.benchmarks import Judgements, find_benchmark, load
from descore.evaluation.judges import FEATURES, SAMPLING, FeatureJudge, ModelJudge
from descore.evaluation.records import to_line, to_plain
from descore.evaluation.runs import RUN_FILE, Judge
from descore.evaluation.stress import Findings, Row
from descore.evaluation.stress import stress as run_stress
from descore.io import write_whole
from descore.report.text import one_line, signed, way_in_words
from descore.scorer import SamplingParams
from descore.types import Paradigm, RatedClip, Think
from descore.video.sampling import VideoSampling

STRESS_FILE = "stress.json"
SCHEMA = 1

DRAWN_PAIRS = 12
"""Drawn where no clips are given: some 300 chains, minutes on two cores."""

_NONE = "–"
_NAMED = 4  # failed clips that a line names
_NARROW = 72  # columns, below which the table is a list
_HISTORY = 3600.0  # seconds of progress that the time left is estimated from: a batch may take minutes


def run_and_show(
    clips: Sequence[str],
    *,
    prompt: str | None,
    benchmark: str | None,
    root: Path | None,
    limit: int | None,
    model: str,
    paradigm: Paradigm | None,
    think: Think | None,
    seed: int,
    batch_size: int,
    device: str | None,
    out: Path | None,
    json: bool,
) -> None:
    """The body of `descore stress`."""
    with progress_bar() as bar:
        bar.columns = (*bar.columns, TimeRemainingColumn())
        bar.speed_estimate_period = _HISTORY
        task = bar.add_task("reading the prompts", total=None)
        source, judgements = _clips_of(clips, prompt=prompt, benchmark=benchmark, root=root, limit=limit)
        bar.update(task, description=f"opening {model}")
        judge, sampling = _judge(model, paradigm=paradigm, think=think, seed=seed, batch_size=batch_size, device=device)
        config = {"schema": SCHEMA, **judge.config, "seed": seed, **source, "asked": _digest(judgements)}
        if out is not None:
            _make(out, config)
        bar.update(task, description="changing and scoring")
        found = run_stress(
            judge,
            judgements,
            sampling=sampling,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if out is not None:
        write_whole(out / STRESS_FILE, _file(config, found))
    _show(found, config, out=out, json=json)


def _clips_of(
    clips: Sequence[str], *, prompt: str | None, benchmark: str | None, root: Path | None, limit: int | None
) -> tuple[dict[str, Any], Judgements]:
    """The clips that are meant, and the options that say so."""
    if clips:
        if benchmark is not None:
            raise ConfigError(f"found clips and --benchmark {benchmark}; give one of the two")
        if prompt is None or not prompt.strip():
            raise ConfigError("clips without a prompt; give the text that they were generated from with --prompt")
        rated = tuple(RatedClip(prompt=prompt, video=clip, group=prompt) for clip in dict.fromkeys(clips))
        return {"benchmark": None, "limit": None}, Judgements(clips=rated, pairs=(), open=lambda video: video)
    if prompt is not None:
        raise ConfigError("--prompt without clips; name the clips, or leave it out: a benchmark has its own prompts")
    if benchmark is None:
        benchmark, limit = "drawn", limit or DRAWN_PAIRS
    row = find_benchmark(benchmark)
    return {"benchmark": row.name, "limit": limit}, load(row, root=root, limit=limit)


def _digest(judgements: Judgements) -> str:
    """A short name for the clips and their prompts."""
    told = [(clip.video, clip.prompt) for clip in judgements.clips]
    return hashlib.sha256(json_text.dumps(told).encode()).hexdigest()[:16]


def _judge(
    model: str, *, paradigm: Paradigm | None, think: Think | None, seed: int, batch_size: int, device: str | None
) -> tuple[Judge, VideoSampling]:
    """The judge, and how it reads clips."""
    if model in FEATURES:
        return FeatureJudge(feature=FEATURES[model], batch_size=batch_size), SAMPLING
    params = SamplingParams(think=think, seed=seed)
    params.resolved(paradigm)
    scorer = open_scorer(model, paradigm=paradigm, device=device, batch_size=batch_size)
    return ModelJudge(scorer=scorer, sampling_params=params), scorer.model.settings.sampling


def _make(out: Path, config: Mapping[str, Any]) -> None:
    """The folder. A run beside it must be of the same model, and an earlier test of the same options."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ConfigError(f"{out}: cannot be made: {fault.strerror}; choose another folder with --out") from fault
    for name, keys in {RUN_FILE: ("digest", "paradigm", "think"), STRESS_FILE: tuple(config)}.items():
        there = _read(out / name)
        odd = [] if there is None else [key for key in keys if there.get(key) != config[key]]
        if there is not None and odd:
            told = "; ".join(f"{key} is {there.get(key)!r} there, {config[key]!r} here" for key in odd)
            raise ConfigError(f"{out / name}: of other options ({told}); choose another --out, or the same options")


def _read(path: Path) -> dict[str, Any] | None:
    """What is there already, if anything."""
    if not path.is_file():
        return None
    try:
        found = json_text.loads(path.read_bytes())
    except ValueError as fault:  # neither JSON nor UTF-8
        raise ConfigError(f"{path}: is not JSON ({fault}); choose another --out, or remove it") from None
    return found if isinstance(found, dict) else {}


def _file(config: Mapping[str, Any], found: Findings) -> bytes:
    text = json_text.dumps({**config, **to_plain(found)}, indent=1, allow_nan=False)
    return (text + "\n").encode("ascii")


def _show(found: Findings, config: Mapping[str, Any], *, out: Path | None, json: bool) -> None:
    """Clips without a score come first, on standard error, and make the exit code 4."""
    _complain_of_failures(found)
    if json:
        for row in found.rows:
            typer.echo(to_line(to_plain(row)))
    else:
        _show_for_people(console(), found, config, out=out)
    if found.failures or any(row.failures for row in found.rows):
        raise typer.Exit(VideoError.exit_code)


def _complain_of_failures(found: Findings) -> None:
    if found.failures:
        print_error(f"scored {found.scored:,} of {found.clips:,}; not scored: {_named(found.failures)}")
    for row in found.rows:
        if row.failures:
            print_error(f"{row.perturbation}: {len(row.failures):,} clips not scored: {_named(row.failures)}")


def _named(failures: Sequence[Mapping[str, str]]) -> str:
    named = "; ".join(f"{failure['video']}: {failure['error']}" for failure in failures[:_NAMED])
    return named + (f"; and {len(failures) - _NAMED:,} more" if len(failures) > _NAMED else "")


def _show_for_people(screen: Console, found: Findings, config: Mapping[str, Any], *, out: Path | None) -> None:
    over = f", on {config['benchmark']}" if config["benchmark"] else ""
    screen.print(Text(one_line(f"{config['model']}{way_in_words(config)}{over}"), style="bold"))
    if not found.failures:
        screen.print(f"scored {found.scored:,} of {found.clips:,}")
    screen.print()
    _show_rows(screen, found.rows)
    screen.print(Text(f"\n{_LEGEND.format(tolerance=found.tolerance)}", style="dim"))
    wrong = [row.perturbation for row in found.rows if _is_wrong(row)]
    screen.print(Text(f"\nNot as expected for most clips: {', '.join(wrong) or 'nothing'}."))
    if out is not None:
        screen.print(Text(f"Written: {out / STRESS_FILE}\nNext: descore report {out}"), soft_wrap=True)


_TITLES = ("change", "should be", "as expected", "shift", "left out")
_LEGEND = (
    "As expected: the share of clips whose reward fell (lower), or shifted by at most {tolerance} deviations (same), "
    "with the number of clips and, below, the 95 % interval drawn by prompt. Shift: the mean, in deviations of the "
    "unchanged clips' rewards. Left out: clips that a change has nothing to say of, such as those that do not move."
)


def _is_wrong(row: Row) -> bool:
    return row.n > 0 and row.figure.value < 0.5


def _show_rows(screen: Console, rows: Sequence[Row]) -> None:
    if screen.width < _NARROW:
        for row in rows:
            figure, shift, left_out = (cell.replace("\n", ", ") for cell in _cells(row))
            told = f"  {row.expected}: {figure}\n  shift {shift}" + (f"\n  left out {left_out}" if left_out else "")
            screen.print(Text.assemble(f"{row.perturbation}\n", (told, "bold red" if _is_wrong(row) else "")))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in _TITLES[:2]:
        table.add_column(title)
    for title in _TITLES[2:]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        figure, shift, left_out = _cells(row)
        table.add_row(
            Text.assemble(row.perturbation, "\n", (row.why, "dim")),
            row.expected,
            Text(figure, style="bold red" if _is_wrong(row) else ""),
            shift,
            left_out,
        )
    screen.print(table)


def _cells(row: Row) -> tuple[str, str, str]:
    figure = row.figure
    shift = _NONE if math.isnan(row.shift) else signed(row.shift, digits=2)
    left_out = f"{row.left_out:,}" if row.left_out else ""
    if not row.n:
        return _NONE, shift, left_out
    told = f"{figure.value:.2f} ({figure.n:,})"
    if not math.isnan(figure.low):
        told += f"\n{figure.low:.2f}–{figure.high:.2f}"
    return told, shift, left_out
