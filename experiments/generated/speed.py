"""How many clips a second one core harms, and how many examples and pairs it makes.

    python -m experiments.generated.speed --store runs/generated [--footage runs/footage] [--pixels 16384]

Processor time of this process is counted, so that a busy machine does not slow it down on paper."""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from descore.errors import DescoreError
from experiments.footage.clips import Footage
from experiments.generated.clips import FRAMES, PIXELS, Generated, Sources
from experiments.generated.examples import Examples
from experiments.generated.fields import Frames
from experiments.generated.harms import HARMS, harmed
from experiments.generated.words import Words

TIMES = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Print milliseconds a clip for each harm, and clips a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/generated"))
    parser.add_argument("--footage", type=Path, help="store of films and photographs")
    parser.add_argument("--pixels", type=int, default=PIXELS, help="most pixels of a frame")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        footage = Footage.open(options.footage) if options.footage else None
        sources = Sources(Generated.open(options.store), footage)
        frames_THWC = full_clip(sources, options.pixels)
    except DescoreError as fault:
        raise SystemExit(str(fault)) from None
    seconds = {name: seconds_of(partial(_harm, frames_THWC, name)) for name in HARMS}
    for name, each in seconds.items():
        print(f"{name}: {1000 * each:.1f} ms")
    count, height, width = frames_THWC.shape[:3]
    mean = sum(seconds.values()) / len(seconds)
    print(f"harms of {count} frames of {width}x{height}: {1 / mean:.0f} clips a second, mean over {len(HARMS)} harms")
    examples = Examples(sources, Words.open(sources.generated), "train", pixels=options.pixels)
    for name, make in (("examples", examples.example), ("pairs", examples.pair)):
        print(f"{name}: {1 / seconds_of(make, times=40):.0f} a second")


def full_clip(sources: Sources, pixels: int) -> Frames:
    """A clip of as many frames as there can be."""
    for seed in range(1000):
        window = sources.window("train", rng=np.random.default_rng(seed), pixels=pixels)
        if len(window.clip.frames) == FRAMES:
            break
    return window.clip.frames


def _harm(frames_THWC: Frames, name: str, seed: int) -> Frames:
    return harmed(frames_THWC, name, strength=0.6, seed=seed)


def seconds_of(make: Callable[[int], object], *, times: int = TIMES) -> float:
    """Mean processor time of a call, which takes a number; the first, which warms up, is not counted."""
    make(0)
    start = time.process_time()
    for number in range(1, times + 1):
        make(number)
    return (time.process_time() - start) / times


if __name__ == "__main__":
    main()
