"""Chains that the model itself writes for real clips, for the lesson in preferring.

A true chain says which harm a real clip has, which the model often cannot see. A reward that is learned behind true
chains alone trusts the chain and looks no more, and is misled by the model's own, which says that all is sound: of
harmed and sound clips of generators for decisions it ordered .75 with chains and .84 without. So half of the real pairs
have the chains that the model writes, and these are not learned by heart."""

from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import TypeAlias

from descore.io import append_records, read_records
from descore.model.modeling import DescoreModel
from descore.scorer import Scorer
from descore.training.collate import TrainingPair

OwnChains: TypeAlias = Mapping[int, tuple[str, str]]
"""Number of a pair: the chains of both clips."""
AT_ONCE = 16
"""Pairs."""


def write_own_chains(
    model: DescoreModel, pair_of: Callable[[int], TrainingPair], numbers: list[int], path: Path
) -> OwnChains:
    """The model's greedy chains of these pairs. They are kept in the file; a stopped run resumes."""
    own = {}
    if path.exists():
        own = {record["number"]: (record["a"], record["b"]) for record in read_records(path)}
    missing = [number for number in numbers if number not in own]
    scorer = Scorer(as_trained(model), name="writer", batch_size=2 * AT_ONCE)
    for begin in range(0, len(missing), AT_ONCE):
        some = missing[begin : begin + AT_ONCE]
        pairs = [pair_of(number) for number in some]
        scores = scorer.score_batch([(side.clip, side.prompt) for pair in pairs for side in (pair.a, pair.b)])
        texts = [score.completions[0].text for score in scores]
        written = dict(zip(some, zip(texts[0::2], texts[1::2], strict=True), strict=True))
        append_records(path, [{"number": number, "a": a, "b": b} for number, (a, b) in written.items()])
        own |= written
    return own


def as_trained(model: DescoreModel) -> DescoreModel:
    """The same weights, to score with: Scorer refuses a model that does not say what it was trained on."""
    trained = copy(model.eval())
    trained.settings = model.settings.model_copy(update={"trained_on": "drawn clips"})
    return trained
