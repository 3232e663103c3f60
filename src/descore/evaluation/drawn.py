"""Benchmarks that need no files: splits of the drawn world, where the truth is known because it was drawn.

In: a split and a number. Out: clips, and records of their true marks and of which fits its prompt better.
Knows the drawn world; a split is one row of SPLITS."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from descore.data.pairs import OVERALL
from descore.errors import ConfigError
from descore.types import Clip, Pair, RatedClip
from descore.world.telling import TEST_SEED, PairExample, pair

PAIRS = 500
"""Pairs of a split, if nothing else is asked for."""

_KEPT = 512  # pairs, of some 200 kB each, that are not drawn a second time when their clips are opened


@lru_cache(maxsize=_KEPT)
def _test_pair(index: int) -> PairExample:
    return pair(TEST_SEED, index)


SPLITS: Mapping[str, Callable[[int], PairExample]] = {"drawn": _test_pair}
"""By the benchmark's name, the pair of a number."""


def draw_judgements(split: str, *, count: int) -> tuple[tuple[RatedClip, ...], tuple[Pair, ...]]:
    """The first `count` pairs of a split: both clips of each with true marks and overall, and the better one."""
    drawn = {f"{split}:{index}": SPLITS[split](index) for index in range(count)}
    clips = tuple(clip for name, example in drawn.items() for clip in _rated(name, example))
    pairs = tuple(
        Pair(
            prompt=example.a.prompt,
            video_a=f"{name}/a",
            video_b=f"{name}/b",
            preference={OVERALL: example.preference},
            group=name,
        )
        for name, example in drawn.items()
    )
    return clips, pairs


def open_drawn(video: str) -> Clip:
    """The clip of a name such as 'drawn:17/a'."""
    split, _, place = video.partition(":")
    index, _, side = place.partition("/")
    if split not in SPLITS or not index.isdecimal() or side not in ("a", "b"):
        raise ConfigError(f"{video}: no drawn clip; expected {next(iter(SPLITS))}:NUMBER/a or /b")
    example = SPLITS[split](int(index))
    return (example.a if side == "a" else example.b).clip


def _rated(name: str, example: PairExample) -> tuple[RatedClip, RatedClip]:
    a, b = (
        RatedClip(
            prompt=told.prompt,
            video=f"{name}/{side}",
            group=name,
            ratings={OVERALL: told.verdict.overall},
            marks=told.verdict.marks,
        )
        for side, told in (("a", example.a), ("b", example.b))
    )
    return a, b
