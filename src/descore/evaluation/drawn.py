"""Judgements of clips that are made on demand and whose true marks are known, such as those of the drawn world."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Protocol

from descore.data.schema import OVERALL
from descore.errors import ConfigError
from descore.synthetic import splits
from descore.types import Clip, Pair, Preference, RatedClip, Verdict

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


MAKERS: Mapping[str, Maker] = {
    "drawn": partial(splits.draw_pair, splits.Split.IN_DOMAIN, size=SIZE),
    "drawn-combinations": partial(splits.draw_pair, splits.Split.COMBINATIONS, size=SIZE),
    "drawn-wordings": partial(splits.draw_pair, splits.Split.WORDINGS, size=SIZE),
    "drawn-generators": partial(splits.draw_pair, splits.Split.GENERATORS, size=SIZE),
}
"""By the benchmark's name."""


def make_judgements(
    name: str, maker: Maker, *, count: int
) -> tuple[tuple[RatedClip, ...], tuple[Pair, ...], Callable[[str], Clip]]:
    """The first `count` pairs of a benchmark: both clips of each with true marks and overall; the better one; and what
    opens a clip by its name, such as 'drawn:17/a'."""
    make = lru_cache(maxsize=_KEPT)(maker)
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
