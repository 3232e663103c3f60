"""The benchmark of real footage: unseen scenes, the same clip twice, one of them degraded further.

Picture and motion can be judged; what the prompt asks for cannot."""

from functools import partial
from pathlib import Path

from descore.evaluation.benchmarks import DEFAULT_PAIRS, Judgements, generated_judgements
from experiments.footage.clips import Footage
from experiments.footage.examples import footage_pair

NAME = "footage"
TITLE = "Real footage, degraded against pristine"


def footage_judgements(store: Path, *, limit: int | None = None) -> Judgements:
    """The first pairs of a store's test split, DEFAULT_PAIRS without a limit. ConfigError if the folder is no store."""
    draw = partial(footage_pair, Footage.open(store), "test")
    return generated_judgements(NAME, draw, count=DEFAULT_PAIRS if limit is None else limit)
