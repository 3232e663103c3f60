"""`descore world`: pairs of the drawn world as files: clips, a table in the project's schema of pairs, and a page."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from descore.report.cards import CardSection, ClipCard
    from descore.synthetic.splits import Example, ExamplePair, Split
    from descore.types import Preference

world_app = typer.Typer(name="world", help="The drawn world, whose truth is known.", no_args_is_help=True)

SplitName = Literal["train", "calibration", "in_domain", "combinations", "wordings", "generators"]
"""The values of `synthetic.splits.Split`, which --help does not import."""

PAIR_COLUMNS = (
    "prompt",
    "video_a",
    "video_b",
    "preference",
    "chain_a",
    "chain_b",
    "marks_a",
    "marks_b",
    "rating_a",
    "rating_b",
    "group",
    "source_a",
    "source_b",
)

_PAIRS_ON_PAGE = 40
_NOTE = (
    "The prompt, both clips with their true marks, and what a judge who sees everything writes; the letter of the "
    "preferred clip stands on colour."
)


@world_app.callback()
def _world() -> None:
    """The drawn world, whose truth is known."""


@world_app.command("sample")
def draw_sample(
    *,
    split: Annotated[SplitName, typer.Option("--split", help="The last three are out of domain.")] = "in_domain",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pairs to draw.")] = 24,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not exist.")],
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels, even, at least 32.")] = "128x128",
    seed_offset: Annotated[int, typer.Option("--seed-offset", min=0, help="Number of the first pair.")] = 0,
    label_noise: Annotated[
        float, typer.Option("--label-noise", min=0, max=1, help="How often a preference is reversed.")
    ] = 0.0,
    loose: Annotated[
        bool, typer.Option("--loose", help="Loosely worded prompts: parts in any order, some words left out.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Write clips, a table of pairs, and a page that shows them."""
    with reported_errors(debug=debug):
        width_height = _read_size(size)
        _refuse_loose_wordings(split, loose=loose)
        from descore.cli.scoring import progress_bar
        from descore.synthetic.splits import Split

        with progress_bar() as bar:
            task = bar.add_task("drawing", total=count)
            preferences = write_sample(
                out,
                split=Split(split),
                numbers=range(seed_offset, seed_offset + count),
                size=width_height,
                label_noise=label_noise,
                loose=loose,
                on_pair=lambda: bar.advance(task),
            )
        counts = ", ".join(f"{name} {preferences.count(name)}" for name in ("a", "b", "tie"))
        echo(f"{out}: {count:,} pairs of the split {split} ({counts}): pairs.csv, clips/, contact.html")


def _refuse_loose_wordings(split: SplitName, *, loose: bool) -> None:
    if loose and split == "wordings":
        raise ConfigError(
            "--loose: puts training's words loosely, and the split wordings has none of them; leave it out"
        )


def _read_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    sides = tuple(int(side) for side in match.groups()) if match else ()
    if len(sides) != 2 or min(sides) < 32 or any(side % 2 for side in sides):
        raise ConfigError(f"--size: found {text}, expected WIDTHxHEIGHT, both even and at least 32, such as 128x128")
    return sides[0], sides[1]


def write_sample(
    out: Path,
    *,
    split: "Split",
    numbers: Sequence[int],
    size: tuple[int, int],
    label_noise: float = 0.0,
    loose: bool = False,
    on_pair: Callable[[], object] = lambda: None,
) -> "list[Preference]":
    """The preferences, in order. size: width and height in pixels. loose: as in `write_prompt`. on_pair: called after
    each pair.

    A folder that exists, or cannot be made, raises ConfigError."""
    from descore.io import atomic_directory
    from descore.synthetic.splits import draw_pair

    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    rows: list[dict[str, str]] = []
    sections: list[CardSection] = []
    preferences: list[Preference] = []
    with atomic_directory(out) as aside:
        (aside / "clips").mkdir()
        for number in numbers:
            drawn = draw_pair(split, number, size=size, label_noise=label_noise, loose=loose)
            preferences.append(drawn.preference)
            rows.append(_write_pair(aside, number, drawn))
            if len(sections) < _PAIRS_ON_PAGE:
                sections.append(_section(number, drawn))
            on_pair()
        _write_table(aside / "pairs.csv", rows)
        (aside / "contact.html").write_text(_page(sections, split=split, of=len(rows)), encoding="utf-8")
    return preferences


def _write_pair(folder: Path, number: int, drawn: "ExamplePair[Example]") -> dict[str, str]:
    from descore.synthetic.rendering import DRAWN_FPS
    from descore.video.encoder import write_mp4

    row: dict[str, str] = {"prompt": drawn.a.prompt, "preference": drawn.preference, "group": drawn.a.prompt}
    for letter, example in (("a", drawn.a), ("b", drawn.b)):
        name = f"clips/{number:05d}-{letter}.mp4"
        # Noise and blur are part of the truth: what the encoder adds must stay far below them.
        write_mp4(folder / name, example.clip.frames, fps=round(DRAWN_FPS), options={"crf": "8"})
        row |= {f"{key}_{letter}": value for key, value in _cells(name, example).items()}
    return row


def _cells(video: str, example: "Example") -> dict[str, str]:
    from descore.rubric import marks_json

    return {
        "video": video,
        "chain": example.chain,
        "marks": marks_json(example.verdict.marks),
        "rating": f"{example.verdict.overall:.2f}",
        "source": example.generator,
    }


def _write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, PAIR_COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _section(number: int, drawn: "ExamplePair[Example]") -> "CardSection":
    from descore.report.cards import CardSection

    cards = [_card(letter, example, drawn.preference) for letter, example in (("a", drawn.a), ("b", drawn.b))]
    return CardSection(title=f"Pair {number}", prompt=drawn.a.prompt, cards=cards, compact=True)


def _card(letter: str, example: "Example", preference: "Preference") -> "ClipCard":
    from descore.report.cards import ClipCard

    return ClipCard(
        clip=example.clip,
        title=f"generator: {example.generator}",
        badge=letter.upper(),
        emphasized=preference == letter,
        text=example.chain.split("\n")[0],
        verdict=example.verdict,
    )


def _page(sections: "Sequence[CardSection]", *, split: "Split", of: int) -> str:
    from descore.report.cards import render_cards

    shown = f" The first {len(sections)} of {of:,} pairs." if len(sections) < of else ""
    title = f"The drawn world: {split.value.replace('_', '-')}"
    return render_cards(sections, title=title, generator="descore world sample", note=_NOTE + shown)
