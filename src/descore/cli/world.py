"""`descore world`: pairs of the drawn world as files."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

world_app = typer.Typer(name="world", help="The drawn world, whose truth is known.", no_args_is_help=True)

SplitName = Literal["train", "calibration", "in_domain", "combinations", "wordings", "generators"]
"""The values of `synthetic.splits.Split`, which --help does not import."""


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
        from descore.cli.world_sample import write_sample
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
        typer.echo(f"{out}: {count:,} pairs of the split {split} ({counts}): pairs.csv, clips/, contact.html")


def _refuse_loose_wordings(split: SplitName, *, loose: bool) -> None:
    from descore.errors import ConfigError

    if loose and split == "wordings":
        raise ConfigError(
            "--loose: puts training's words loosely, and the split wordings has none of them; leave it out"
        )


def _read_size(text: str) -> tuple[int, int]:
    from descore.errors import ConfigError

    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    sides = tuple(int(side) for side in match.groups()) if match else ()
    if len(sides) != 2 or min(sides) < 32 or any(side % 2 for side in sides):
        raise ConfigError(f"--size: found {text}, expected WIDTHxHEIGHT, both even and at least 32, such as 128x128")
    return sides[0], sides[1]
