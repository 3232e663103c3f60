"""The study as one self-contained page: curves of best of N, curves of the training runs, and strips of clips.

    python -m experiments.generator.page --best-of runs/best_of --runs runs/grpo-think runs/dpo-think --out study.html

In: the folders of `best_of` and of `tune`. Out: a page of HTML with charts as SVG and sheets as pictures inside it, the
same for the same records."""

import argparse
import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from descore.errors import ConfigError
from descore.io import atomic_write
from experiments.generator.best_of import RECORD
from experiments.generator.curves import TRUTH
from experiments.generator.progress import TunedRun, change, read_run
from experiments.harness import one_line_errors

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 240, 52, 10, 12, 40
COLOURS = ("#1b6ca8", "#c1440e", "#3d8b37", "#7b3fa0", "#8a6d00", "#00838f", "#555555", "#b0006d")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
SHEETS = 6
"""Pictures of each part at most."""

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#222}"
    "figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}figcaption{font-weight:600}"
    "svg text{font:11px system-ui,sans-serif;fill:#444}img{max-width:100%;image-rendering:pixelated}"
    f"ul.key{{list-style:none;padding:0;margin:.2rem 0;font-size:13px;max-width:{WIDTH}px}}"
    "ul.key li{display:inline-block;margin-right:1rem}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart."""

    name: str
    values: Sequence[float]
    """One for each place of the horizontal axis; nan is left out."""
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


def chart(lines: Sequence[Line], *, places: Sequence[str], title: str, axis: str) -> Markup:
    """A chart with a line for each, whose places along the horizontal axis are equally far apart."""
    known = [value for line in lines for value in (*line.values, *line.lows, *line.highs) if math.isfinite(value)]
    if not known:
        return Markup("")
    low, high = min(known), max(known)
    high = high if high > low else low + 1

    def x(place: int) -> float:
        return LEFT + place / max(1, len(places) - 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    every = max(1, len(places) // 8)
    ticks = [
        f'<text x="{x(k):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{escape(place)}</text>'
        for k, place in enumerate(places)
        if k % every == 0
    ]
    ticks += [
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
        for value in (low, (low + high) / 2, high)
    ]
    ticks.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axis)}</text>')
    drawn = [_drawn(line, number, x, y) for number, line in enumerate(lines)]
    entry = Markup('<li style="color:{}">{} {}</li>')
    key = Markup("").join(entry.format(_colour(k), _sample(k), line.name) for k, line in enumerate(lines))
    picture = (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(ticks + drawn)}</svg>'
    )
    return Markup('<figure><figcaption>{}</figcaption>{}<ul class="key">{}</ul></figure>').format(
        title, Markup(picture), key
    )


def best_of_section(folder: Path) -> Markup:
    """Truth against N by each reward, and each reward beside the truth."""
    record = json.loads(_read(folder / RECORD))
    curves: Mapping[str, Any] = record["curves"]
    places = [str(row["n"]) for row in curves[TRUTH][TRUTH]]
    lines = [_figures(name, of[TRUTH], "mean") for name, of in curves.items()]
    attainable = [row["gain"]["value"] for row in curves[TRUTH][TRUTH]]
    beside = [
        chart(
            [
                Line(
                    name="reward, of its rise to the largest N",
                    values=_shares(of[name], [of[name][-1]["gain"]["value"]] * len(places)),
                ),
                Line(name="truth, of what the best choice gains", values=_shares(of[TRUTH], attainable)),
            ],
            places=places,
            title=f"Chosen by {name}",
            axis="N",
        )
        for name, of in curves.items()
        if name != TRUTH
    ]
    about = (
        f"{record['prompts']} prompts, {record['seeds']} seeds of generation, {record['clips']} clips of each. "
        "Bars are intervals at 95 %."
    )
    return Markup("<h2>Best of N</h2><p>{}</p>{}{}{}").format(
        about,
        chart(lines, places=places, title="Truth of the clip that is chosen", axis="N"),
        Markup("").join(beside),
        pictures(sorted((folder / "sheets").glob("*.png"))[:SHEETS]),
    )


def _truth_line(run: TunedRun) -> Line:
    changes = [change(run, 0, index) for index in range(len(run.looks))]
    return Line(
        name=f"truth, {run.truths()[0]:.3f} at the start",
        values=[figure.value for figure in changes],
        lows=[figure.low for figure in changes],
        highs=[figure.high for figure in changes],
    )


def runs_section(runs: Sequence[tuple[Path, TunedRun]]) -> Markup:
    """Each run over its updates, and its first and last sheets."""
    parts = [Markup("<h2>Training</h2>")]
    for folder, run in runs:
        places = [str(look["update"]) for look in run.looks]
        diversity = [
            Line(name=name, values=[look["diversity"][name] for look in run.looks])
            for name in run.looks[0]["diversity"]
        ]
        watched = [name for name in run.looks[0]["rewards"] if name != run.reward]
        charts = [
            chart([_truth_line(run)], places=places, title="Change of the truth, intervals at 95 %", axis="update"),
            chart(
                [
                    Line(name=f"{run.reward}, followed", values=run.rewards()),
                    *(
                        Line(name=f"{name}, watched", values=[look["rewards"][name] for look in run.looks])
                        for name in watched
                    ),
                ],
                places=places,
                title="Rewards",
                axis="update",
            ),
            chart(diversity, places=places, title="Diversity", axis="update"),
            chart(
                [Line(name="KL", values=[look["kl"] for look in run.looks])],
                places=places,
                title="KL from the start",
                axis="update",
            ),
        ]
        sheets = sorted((folder / "sheets").glob("*.png"))
        parts.append(
            Markup("<h3>{}</h3>{}{}").format(
                run.name, Markup("").join(charts), pictures([*sheets[:1], *sheets[1:][-1:]])
            )
        )
    return Markup("").join(parts)


def pictures(files: Sequence[Path]) -> Markup:
    """Pictures inside the page, each with its name."""
    shown = [
        Markup('<figure><figcaption>{}</figcaption><img alt="{}" src="data:image/png;base64,{}"></figure>').format(
            file.stem, file.stem, base64.b64encode(file.read_bytes()).decode()
        )
        for file in files
    ]
    return Markup("").join(shown)


def page(*, best_of: Path | None, runs: Sequence[Path]) -> str:
    """The page."""
    sections = [best_of_section(best_of)] if best_of else []
    sections += [runs_section([(folder, read_run(folder)) for folder in runs])] if runs else []
    title = "A generator under a reward"
    head = Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>{}</title><style>{}</style></head><body><h1>{}</h1>"
    ).format(title, Markup(_STYLE), title)
    return str(head + Markup("").join(sections) + Markup("</body></html>\n"))


@one_line_errors()
def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--best-of", type=Path, help="folder of best_of")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="folders of tune")
    parser.add_argument("--out", type=Path, default=Path("study.html"))
    options = parser.parse_args()
    if not options.best_of and not options.runs:
        parser.error("nothing to show; expected --best-of or --runs")
    atomic_write(options.out, page(best_of=options.best_of, runs=options.runs))
    print(options.out)


def _drawn(line: Line, number: int, x: Any, y: Any) -> str:  # noqa: ANN401  # two functions of a place
    points = [(k, value) for k, value in enumerate(line.values) if math.isfinite(value)]
    path = " ".join(f"{x(k):.1f},{y(value):.1f}" for k, value in points)
    bars = [
        f'<line x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke-width="1" opacity=".5"/>'
        for k, (low, high) in enumerate(zip(line.lows, line.highs, strict=True))
        if math.isfinite(low) and math.isfinite(high)
    ]
    dash = _dash(number)
    dots = [f'<circle cx="{x(k):.1f}" cy="{y(value):.1f}" r="2.5" fill="{_colour(number)}"/>' for k, value in points]
    curve = f'<polyline points="{path}" fill="none" stroke-width="1.8" stroke-dasharray="{dash}"/>'
    return f'<g stroke="{_colour(number)}">{"".join(bars)}{curve}{"".join(dots)}</g>'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> str:
    return DASHES[number // len(COLOURS) % len(DASHES)]


def _sample(number: int) -> Markup:
    """A piece of a line, for the key."""
    line = Markup('<line x2="26" y1="4" y2="4" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>')
    return Markup('<svg width="26" height="8">{}</svg>').format(line.format(_colour(number), _dash(number)))


def _figures(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> Line:
    values, lows, highs = ([_number(row[key][end]) for row in rows] for end in ("value", "low", "high"))
    return Line(name=name, values=values, lows=lows, highs=highs)


def _shares(rows: Sequence[Mapping[str, Any]], whole: Sequence[float | None]) -> list[float]:
    """Gains as shares; nan where there is nothing to gain, as for a single clip."""
    gains = [_number(row["gain"]["value"]) for row in rows]
    return [gain / _number(most) if _number(most) > 0 else math.nan for gain, most in zip(gains, whole, strict=True)]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _read(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected the record of experiments.generator.best_of")
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
