"""`descore world`: the drawn world as files, for people to look at and for programs that want a table.

Knows options and messages; knows nothing of how a scene is drawn."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

app = typer.Typer(name="world", help="The drawn world, whose truth is known.", no_args_is_help=True)


class SplitChoice(StrEnum):
    """The splits by name, so that --help need not load the world."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    IN_DOMAIN = "in_domain"
    COMBINATIONS = "combinations"
    WORDINGS = "wordings"
    GENERATORS = "generators"


Split = Annotated[SplitChoice, typer.Option("--split", help="The last three are out of domain.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Pairs to draw.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not exist.")]
Size = Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels, even, at least 32.")]
Offset = Annotated[int, typer.Option("--seed-offset", min=0, help="Number of the first pair.")]
Noise = Annotated[float, typer.Option("--label-noise", min=0, max=1, help="How often a preference is turned round.")]
Loose = Annotated[bool, typer.Option("--loose", help="Prompts loosely put: parts in any order, some lack words.")]


@app.callback()
def _world() -> None:
    """The drawn world, whose truth is known."""


@app.command()
def sample(
    *,
    split: Split = SplitChoice.IN_DOMAIN,
    count: Count = 24,
    out: Out,
    size: Size = "128x128",
    seed_offset: Offset = 0,
    label_noise: Noise = 0.0,
    loose: Loose = False,
    debug: opt.Debug = False,
) -> None:
    """Write clips, a table of pairs, and a page that shows them."""
    with reported_errors(debug=debug):
        width_height = _read_size(size)
        _refuse_loose_wordings(split, loose=loose)
        from descore.cli.scoring import progress_bar
        from descore.cli.world_sample import write_sample
        from descore.synthetic.splits import Split as WorldSplit

        with progress_bar() as bar:
            task = bar.add_task("drawing", total=count)
            preferences = write_sample(
                out,
                split=WorldSplit(split.value),
                numbers=range(seed_offset, seed_offset + count),
                size=width_height,
                label_noise=label_noise,
                loose=loose,
                tick=lambda: bar.advance(task),
            )
        counted = ", ".join(f"{name} {preferences.count(name)}" for name in ("a", "b", "tie"))
        typer.echo(f"{out}: {count:,} pairs of the split {split.value} ({counted}): pairs.csv, clips/, contact.html")


def _refuse_loose_wordings(split: SplitChoice, *, loose: bool) -> None:
    from descore.errors import ConfigError

    if loose and split is SplitChoice.WORDINGS:
        raise ConfigError(
            "--loose: puts training's words loosely, and the split wordings has none of them; leave it out"
        )


def _read_size(text: str) -> tuple[int, int]:
    from descore.errors import ConfigError

    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    sides = tuple(int(side) for side in found.groups()) if found else ()
    if len(sides) != 2 or min(sides) < 32 or any(side % 2 for side in sides):
        raise ConfigError(f"--size: found {text}, expected WIDTHxHEIGHT, both even and at least 32, such as 128x128")
    return sides[0], sides[1]
