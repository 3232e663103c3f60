"""The benchmark of real footage: unseen scenes, the same clip twice, one of them degraded further.

Picture and motion can be judged; what the prompt asks for cannot."""

from functools import partial
from pathlib import Path

from descore.evaluation.benchmarks import Judgements
from descore.evaluation.drawn import PAIRS, make_judgements
from experiments.footage.clips import Footage
from experiments.footage.examples import footage_pair

NAME = "footage"
TITLE = "Real footage, degraded against pristine"


def footage_judgements(store: Path, *, limit: int | None = None) -> Judgements:
    """The first pairs of the test split of a store, PAIRS without a limit. ConfigError if the folder is no store."""
    maker = partial(footage_pair, Footage.open(store), "test")
    clips, pairs, open_clip = make_judgements(NAME, maker, count=PAIRS if limit is None else limit)
    return Judgements(clips=clips, pairs=pairs, open=open_clip)
