"""Which parts of a drawn clip a chain describes rightly: count, shape, action, speed, camera, flaws and the rest.

    python -m experiments.described [--model tiny] [--clips 128] [--rates 4 24]

Each of the calibration split's clips is shown as `descore.synthetic` draws it (4 frames a second), and as sampled of a
file with more. A model that always says one of two values, such as speeds, is right where this is the commoner: so the
mean over the values is printed, too, which is one half then."""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from math import nan
from statistics import fmean

from descore import Scorer
from descore.synthetic.rendering import DRAWN_FPS
from descore.synthetic.splits import Example, Split, draw_plan, plan_example
from descore.video.sampling import VideoSampling
from experiments.grow_tiny.drawn import SIDE, draw_as_file

DESCRIPTION = re.compile(
    r"I see (?P<count>\w+) (?P<size>\w+) (?P<colour>\w+) (?P<shape>\w+), (?P<style>[^,]+), "
    r"(?P<setting>(?:in|on) .+?) (?P<light>in bright light|at dusk)\. "
    r"(?:It|They) (?P<action>.+?)(?: (?P<speed>slowly|fast))?\. The camera (?P<camera>.+?)\. "
    r"The picture is (?P<picture>.+?)\. The motion is (?P<motion>.+?)\."
)
PARTS = tuple(DESCRIPTION.groupindex)
CHAIN_TOKENS = 80
"""Enough for a description."""

Parts = Mapping[str, str | None]


def main() -> None:
    """Score clips, and print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--rates", type=int, nargs="+", default=[int(DRAWN_FPS), 24], help="frames a second")
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.model, batch_size=16)
    by_rate = {rate: described(scorer, options.clips, rate) for rate in options.rates}
    print(f"{options.model}: {options.clips} drawn clips; share right, its mean over the part's values, clips")
    print(" " * 8 + "".join(f"{f'{rate} a second':>24}" for rate in options.rates))
    for part in PARTS:
        print(f"{part:8}" + "".join(cells(*shares(shown, part)) for shown in by_rate.values()))


def described(scorer: Scorer, clips: int, rate: int) -> list[tuple[Parts, Parts]]:
    """For each clip, the parts of its true description and of the model's."""
    sampling = scorer.model.settings.sampling
    shown = [drawn(number, rate, sampling) for number in range(clips)]
    scores = scorer.score_batch([(each.clip, each.prompt) for each in shown], max_chain_tokens=CHAIN_TOKENS)
    said = [score.thinking or score.completions[0].text or "" for score in scores]
    return [(parts_of(each.chain), parts_of(chain)) for each, chain in zip(shown, said, strict=True)]


def drawn(number: int, rate: int, sampling: VideoSampling) -> Example:
    """A clip of the calibration split, at so many frames a second."""
    planned = plan_example(Split.CALIBRATION, number)
    if rate == DRAWN_FPS:
        return draw_plan(planned, size=(SIDE, SIDE))
    return draw_as_file(planned, rate=rate, sampling=sampling)


def parts_of(chain: str) -> Parts:
    """What a description says of each part: None of what it does not name, or where it cannot be read."""
    found = DESCRIPTION.search(chain)
    return dict.fromkeys(PARTS) if found is None else found.groupdict()


def shares(clips: list[tuple[Parts, Parts]], part: str) -> tuple[int, float, float]:
    """Of the clips that have this part, their number, the share described rightly, and its mean over values; NaN where
    no clip has it."""
    by_value = defaultdict[str, list[bool]](list)
    for true, said in clips:
        if (value := true[part]) is not None:
            by_value[value].append(said[part] == value)
    right = [ok for each in by_value.values() for ok in each]
    if not right:
        return 0, nan, nan
    return len(right), fmean(right), fmean(map(fmean, by_value.values()))


def cells(count: int, share: float, balanced: float) -> str:
    """A part's columns at one rate."""
    return f"{share:>12.3f}{balanced:>7.3f}{count:>5}"


if __name__ == "__main__":
    main()
