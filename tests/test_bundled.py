"""The model that ships with the package: its size, and the bars that it must not fall below."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from descore import Scorer
from descore.maths.agreement import accuracy_without_ties
from descore.world.telling import TEST_SEED, pair

TINY = Path(str(files("descore") / "bundled" / "tiny"))


@pytest.fixture(scope="module")
def tiny():
    return Scorer.from_pretrained("tiny", batch_size=32)


def test_its_size(tiny):
    assert sum(p.numel() for p in tiny.model.parameters()) <= 20_000_000
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 45_000_000


def test_it_says_what_it_is(tiny):
    settings = tiny.model.settings
    assert "drawn clips" in settings.trained_on
    assert settings.dimensions == ("overall",)
    assert settings.reward_std["overall"] > 0


def margins(scorer, pairs, think):
    clips = [(e.clip, e.prompt) for p in pairs for e in (p.a, p.b)]
    reward_a, reward_b = np.array([s.reward for s in scorer.score_batch(clips, think=think)]).reshape(-1, 2).T
    return reward_a - reward_b


def accuracy(scorer, count, think):
    pairs = [pair(TEST_SEED, index) for index in range(count)]
    truth = np.array([{"a": 1, "b": -1, "tie": 0}[p.preference] for p in pairs])
    return accuracy_without_ties(margins(scorer, pairs, think), truth, np.arange(count))


@pytest.mark.slow
def test_with_thinking_at_least_80_percent_of_unseen_pairs_are_right(tiny):
    found = accuracy(tiny, 500, "on")  # the pairs of `make evaluate`
    assert found.n > 400
    assert found.value >= 0.80


@pytest.mark.slow
def test_its_chains_can_be_read(tiny):
    examples = [pair(TEST_SEED, index).a for index in range(64)]
    scores = tiny.score_batch((e.clip, e.prompt) for e in examples)
    assert sum(s.verdict is not None for s in scores) >= 62
