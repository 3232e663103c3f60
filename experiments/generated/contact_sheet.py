"""Draw what each harm does, to look at: for every harm a picture with several clips, sound and at three strengths.

    python -m experiments.generated.contact_sheet --store runs/generated --out runs/harms [--harm melt ...] [--seed 0]

Each row is one clip at one strength, its frames from left to right as a viewer gets them, encoded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from descore.errors import DescoreError
from descore.io import make_directory
from experiments.footage.clips import Footage
from experiments.generated.clips import Generated, Sources, Window
from experiments.generated.harms import HARMS, harmed, measured
from experiments.generated.store import Frames, Split

STRENGTHS = 0.0, 0.15, 0.3, 0.6, 1.0
SHOWN = 7
"""Frames in a row."""
_LABEL, _GAP = 64, 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Write HARM.webp for each harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/generated"))
    parser.add_argument("--footage", type=Path, help="store of films and photographs, to show some of them")
    parser.add_argument("--split", choices=("train", "choose"), default="train")
    parser.add_argument("--out", type=Path, default=Path("runs/harms"))
    parser.add_argument("--harm", nargs="+", choices=tuple(HARMS), default=tuple(HARMS))
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        footage = Footage.open(options.footage) if options.footage else None
        sources = Sources(Generated.open(options.store), footage)
        make_directory(options.out)
        for number, name in enumerate(options.harm):
            windows = random_windows(sources, options.split, options.clips, seed=options.seed + 100 * number)
            sheet = contact_sheet(windows, name, seed=options.seed)
            sheet.save(options.out / f"{name}.webp", quality=90)
            print(options.out / f"{name}.webp")
    except DescoreError as fault:
        raise SystemExit(str(fault)) from None


def random_windows(sources: Sources, split: Split, count: int, *, seed: int) -> list[Window]:
    """So many windows of a split."""
    return [sources.window(split, rng=np.random.default_rng([seed, number])) for number in range(count)]


def contact_sheet(windows: Sequence[Window], name: str, *, seed: int) -> Image.Image:
    """A row for each window and strength, with the strength and what is `measured`."""
    rows = [
        _strip(window, harmed(window.clip.frames, name, strength=strength, seed=seed + number), f"{name} {strength}")
        for number, window in enumerate(windows)
        for strength in STRENGTHS
    ]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + _GAP for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    return sheet


def _strip(window: Window, frames_THWC: Frames, title: str) -> Image.Image:
    change = measured(window.clip.frames, frames_THWC)
    shown_THWC = window.finished(frames_THWC).frames
    chosen = np.linspace(0, len(shown_THWC) - 1, SHOWN).round().astype(int)
    height, width = shown_THWC.shape[1:3]
    strip = Image.new("RGB", (_LABEL + SHOWN * (width + _GAP), height), "white")
    name, _, strength = title.partition(" ")
    ImageDraw.Draw(strip).text((2, 4), f"{name}\n{strength}\n\n{change:.0f}\n\n{len(shown_THWC)} fr", fill="black")
    for place, index in enumerate(chosen):
        strip.paste(Image.fromarray(shown_THWC[index]), (_LABEL + place * (width + _GAP), 0))
    return strip


if __name__ == "__main__":
    main()
