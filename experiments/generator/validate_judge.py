"""How often the judge is right on drawn clips whose truth is known, sound and with flaws of the kind that a generator
makes.

    python -m experiments.generator.validate_judge [--clips 200] [--side 64] [--out FILE]

Prints, for every flaw, the share of clips in which the judge sees colour, shape, motion and setting as they are (a clip
in which it finds no shape is wrong in the first three), and in which it finds a shape at all. Then how often it finds
none on backdrops without a shape, and several where there are several; and how often each measure of the picture is
lower for the stronger of two flaws of one clip. Intervals at 95 %, by resampling clips. The limits in the code were
chosen on other clips.

With --out the figures are written as JSON; the committed ones are record/judge_validation.json."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from descore.evaluation.records import to_plain
from descore.stats.bootstrap import Figure, bootstrap_mean, with_exact_interval
from descore.synthetic.degradations import degrade
from descore.synthetic.rendering import render_scene
from descore.synthetic.scene import Count
from experiments.generator.judge import Seen, look
from experiments.generator.world import FRAMES, SIDE, Drawn, Frames, Part, draw, draw_backdrop
from experiments.harness import format_figure, markdown_table, one_line_errors, positive, write_record

Flawed = Callable[[Frames, np.random.Generator], Frames]

ATTRIBUTES = ("colour", "shape", "action", "setting", "found")
LEAST = 0.95
"""Share that is right, of all that the judge claims to measure, under every flaw but the last, which shows where it
ends."""


@one_line_errors()
def main() -> None:
    """Validate, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=positive, default=200, help="drawn clips under each flaw (default 200)")
    parser.add_argument("--side", type=positive, default=SIDE, help=f"width and height in pixels (default {SIDE})")
    parser.add_argument("--out", type=Path, help="where the figures are written as JSON")
    options = parser.parse_args()
    record = validation(clips=options.clips, side=options.side)
    print(tables(record))
    print(f"\n{claim(record)}")
    if options.out:
        write_record(options.out, record)


def validation(*, clips: int, side: int, part: Part = Part.VALIDATION) -> dict[str, Any]:
    """The figures, as plain values."""
    drawn = [draw(part, index, side=side) for index in range(clips)]
    return {
        "clips": clips,
        "side": side,
        "attributes": to_plain({name: _attributes(drawn, flaw) for name, flaw in FLAWS.items()}),
        "others": to_plain(_others(drawn, part=part, side=side)),
        "order": to_plain({row.name: _order(drawn, row) for row in ORDERED}),
    }


def claim(record: Mapping[str, Any]) -> str:
    """Whether all that the judge claims to measure is right as often as it should be."""
    claimed = {
        f"{key}, flaw: {name}": figure["value"]
        for name, figures in list(record["attributes"].items())[:-1]
        for key, figure in figures.items()
    }
    claimed |= {name: figure["value"] for name, figure in (record["others"] | record["order"]).items()}
    least = min(claimed, key=claimed.__getitem__)
    verdict = "is right" if claimed[least] >= LEAST else "is NOT right"
    return f"The judge {verdict} in at least {LEAST:.0%} of each; least: {claimed[least]:.3f} ({least})"


def tables(record: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {
        (name,): [format_figure(figures[key], ".3f") for key in ATTRIBUTES]
        for name, figures in record["attributes"].items()
    }
    singles: dict[tuple[str, ...], list[str]] = {
        (name,): [format_figure(figure, ".3f")] for name, figure in (record["others"] | record["order"]).items()
    }
    return f"{markdown_table(['flaw', *ATTRIBUTES], rows)}\n\n{markdown_table(['share', 'right'], singles)}"


# Flaws of the kind that a generator makes.


def _noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """Deviation of 6 levels, anew in each pixel and frame."""
    return _levels(frames + rng.normal(0, 6, frames.shape))


def _blur(frames: Frames, _: np.random.Generator) -> Frames:
    """A Gaussian of 1 pixel for 64 of picture."""
    deviation = frames.shape[1] / 64
    return _levels(ndimage.gaussian_filter(frames.astype(np.float32), (0, deviation, deviation, 0)))


def _blotches(frames: Frames, rng: np.random.Generator) -> Frames:
    """Smooth blotches of 10 levels' deviation that come and go with every frame."""
    spread = 4 * frames.shape[1] / 64
    smooth = ndimage.gaussian_filter(rng.standard_normal(frames.shape), (0, spread, spread, 0))
    return _levels(frames + 10 * smooth / smooth.std())


def _pale(frames: Frames, _: np.random.Generator) -> Frames:
    """A fifth of all contrast to the middle colour is lost."""
    middle = np.median(frames, axis=(0, 1, 2))
    return _levels(middle + 0.8 * (frames - middle))


def _wobbling(frames: Frames, rng: np.random.Generator) -> Frames:
    """Shapes melt and bend by a pixel or two."""
    return degrade(frames, "wobble", strength=0.1, rng=rng)


def _all(frames: Frames, rng: np.random.Generator) -> Frames:
    """Blur, blotches, noise and pale colours."""
    for flaw in (_pale, _blur, _blotches, _noise):
        frames = flaw(frames, rng)
    return frames


def _twice(frames: Frames, rng: np.random.Generator) -> Frames:
    """The same at twice the strength, beyond what the judge claims."""
    for flaw in (_pale, _pale, _blur, _blur, _blur, _blur, _blotches, _blotches, _noise, _noise):
        frames = flaw(frames, rng)
    return frames


def _levels(frames: np.typing.NDArray[np.floating]) -> Frames:
    rounded: Frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return rounded


FLAWS: Mapping[str, Flawed] = {
    "none": lambda frames, _: frames,
    "noise": _noise,
    "blur": _blur,
    "blotches": _blotches,
    "pale": _pale,
    "wobble": _wobbling,
    "blur, blotches, noise, pale": _all,
    "twice as strong": _twice,
}


def _attributes(drawn: list[Drawn], flaw: Flawed) -> dict[str, Figure]:
    right = [_right(example, look(flaw(example.frames, _rng(number)))) for number, example in enumerate(drawn)]
    return {key: _share([float(row[key]) for row in right]) for key in ATTRIBUTES}


def _right(example: Drawn, seen: Seen) -> dict[str, bool]:
    shape, scene = seen.shape, example.scene
    return {
        "colour": shape is not None and shape.colour is scene.colour,
        "shape": shape is not None and shape.shape is scene.shape and not shape.several,
        "action": shape is not None and shape.action is scene.action,
        "setting": seen.setting is scene.setting,
        "found": shape is not None,
    }


# What is not an attribute.


def _others(drawn: list[Drawn], *, part: Part, side: int) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for name in ("none", "blur, blotches, noise, pale"):
        bare = [FLAWS[name](draw_backdrop(part, index, side=side), _rng(index)) for index in range(len(drawn))]
        pairs = [FLAWS[name](_two(example, index, side=side), _rng(index)) for index, example in enumerate(drawn)]
        seen = [look(frames).shape for frames in pairs]
        figures[f"no shape on a bare backdrop, flaw: {name}"] = _share([float(look(one).shape is None) for one in bare])
        figures[f"several where there are two, flaw: {name}"] = _share(
            [float(shape is not None and shape.several) for shape in seen]
        )
    return figures


def _two(example: Drawn, index: int, *, side: int) -> Frames:
    """The example's scene with two shapes."""
    scene = replace(example.scene, count=Count.TWO)
    return render_scene(scene, rng=_rng(index), frames=FRAMES, height=side, width=side)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A measure of the picture, and a flaw that lowers it the more the stronger it is."""

    measure: str
    degradation: str
    weak: float
    strong: float

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.measure} lower under {self.degradation} of {self.strong:g} than of {self.weak:g}"


ORDERED = (
    Ordered(measure="outline", degradation="wobble", weak=0.05, strong=0.8),
    Ordered(measure="edges", degradation="blur", weak=0.05, strong=0.5),
    Ordered(measure="steadiness", degradation="flicker", weak=0.05, strong=0.5),
    Ordered(measure="texture", degradation="blur", weak=0.05, strong=0.5),
    Ordered(measure="texture", degradation="noise", weak=0.1, strong=0.6),
)


def _order(drawn: list[Drawn], row: Ordered) -> Figure:
    """How often the measure is lower for the stronger flaw of the same clip."""

    def measured(number: int, strength: float) -> float:
        flawed = degrade(drawn[number].frames, row.degradation, strength=strength, rng=_rng(number))
        return _measure(look(flawed), row.measure)

    return _share([float(measured(number, row.strong) < measured(number, row.weak)) for number in range(len(drawn))])


def _measure(seen: Seen, name: str) -> float:
    if name in ("steadiness", "texture"):
        return float(getattr(seen, name))
    return 0.0 if seen.shape is None else float(getattr(seen.shape, name))


def _share(hits: list[float]) -> Figure:
    return with_exact_interval(bootstrap_mean(np.asarray(hits), np.arange(len(hits))))


def _rng(number: int) -> np.random.Generator:
    return np.random.default_rng((64, number))


if __name__ == "__main__":
    main()
