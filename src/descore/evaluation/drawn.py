"""Benchmarks whose truth is known because we made the clips: splits of the drawn world, and real footage degraded.

In: a row's name, a number, and for footage the folder of its store. Out: clips, and records of their true marks and of
which fits its prompt better. Knows the drawn world; a row is one entry of MAKERS."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from descore.data.schema import OVERALL
from descore.errors import ConfigError
from descore.synthetic import splits
from descore.types import Clip, Pair, Preference, RatedClip, Verdict
from descore.world.footage import Footage
from descore.world.footage_telling import footage_pair

PAIRS = 500
"""Pairs of a benchmark, if nothing else is asked for."""

SIZE = (128, 128)
"""Width and height of drawn frames, in pixels."""

_KEPT = 512  # pairs, of some 800 kB each, that are not made a second time when their clips are opened


class Made(Protocol):
    """A clip and what is true of it."""

    @property
    def clip(self) -> Clip:
        """The clip."""

    @property
    def prompt(self) -> str:
        """What it was generated from."""

    @property
    def verdict(self) -> Verdict:
        """Its true marks and overall."""


class MadePair(Protocol):
    """Two clips of one prompt, and the better one."""

    @property
    def a(self) -> Made:
        """One clip."""

    @property
    def b(self) -> Made:
        """The other."""

    @property
    def preference(self) -> Preference:
        """The one with the better overall."""


Maker = Callable[[int], MadePair]
"""From a number to its pair."""


def _drawn(split: splits.Split, _root: Path | None) -> Maker:
    return partial(splits.pair, split, size=SIZE)


def _footage(root: Path | None) -> Maker:
    if root is None:
        raise ConfigError("footage: where is its store? Name its folder with --root; `descore world footage` makes it")
    return partial(footage_pair, Footage.open(root), "test")


MAKERS: Mapping[str, Callable[[Path | None], Maker]] = {
    "drawn": partial(_drawn, splits.Split.IN_DOMAIN),
    "drawn-combinations": partial(_drawn, splits.Split.COMBINATIONS),
    "drawn-wordings": partial(_drawn, splits.Split.WORDINGS),
    "drawn-generators": partial(_drawn, splits.Split.GENERATORS),
    "footage": _footage,
}
"""By the benchmark's name: from the folder that --root names to what makes its pairs."""


def make_judgements(
    name: str, *, count: int, root: Path | None
) -> tuple[tuple[RatedClip, ...], tuple[Pair, ...], Callable[[str], Clip]]:
    """The first `count` pairs of a benchmark: both clips of each with true marks and overall; the better one; and what
    opens a clip by its name, such as 'drawn:17/a'."""
    make = lru_cache(maxsize=_KEPT)(MAKERS[name](root))
    clips: list[RatedClip] = []
    pairs: list[Pair] = []
    for index in range(count):
        made, group = make(index), f"{name}:{index}"
        clips += [_rated(group, "a", made.a), _rated(group, "b", made.b)]
        pairs.append(
            Pair(
                prompt=made.a.prompt,
                video_a=f"{group}/a",
                video_b=f"{group}/b",
                preference={OVERALL: made.preference},
                group=group,
            )
        )

    def open_clip(video: str) -> Clip:
        number, _, side = video.removeprefix(f"{name}:").partition("/")
        if not number.isdecimal() or side not in ("a", "b"):
            raise ConfigError(f"{video}: no clip of {name}; expected {name}:NUMBER/a or /b")
        made = make(int(number))
        return (made.a if side == "a" else made.b).clip

    return tuple(clips), tuple(pairs), open_clip


def _rated(group: str, side: str, made: Made) -> RatedClip:
    return RatedClip(
        prompt=made.prompt,
        video=f"{group}/{side}",
        group=group,
        ratings={OVERALL: made.verdict.overall},
        marks=made.verdict.marks,
    )
