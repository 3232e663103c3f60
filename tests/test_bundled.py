"""The model that ships with the package: its size, and the bars that it must not fall below."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from descore import Scorer
from descore.stats.agreement import accuracy_without_ties
from descore.synthetic.splits import Split, draw_pair

TINY = Path(str(files("descore") / "bundled" / "tiny"))


@pytest.fixture(scope="module")
def tiny():
    return Scorer.from_pretrained("tiny", batch_size=32)


def test_its_size(tiny):
    assert sum(p.numel() for p in tiny.model.parameters()) <= 20_000_000
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 45_000_000


def test_it_says_what_it_is(tiny):
    settings = tiny.model.settings
    assert "drawn scenes" in settings.trained_on
    assert settings.dimensions == ("overall",)
    assert settings.reward_std["overall"] > 0


@pytest.fixture(scope="module")
def in_domain():
    return [draw_pair(Split.IN_DOMAIN, index, size=(128, 128)) for index in range(200)]


def accuracy(scorer, pairs, think):
    clips = [(made.clip, made.prompt) for two in pairs for made in (two.a, two.b)]
    reward_a, reward_b = np.array([s.reward for s in scorer.score_batch(clips, think=think)]).reshape(-1, 2).T
    truth = np.array([{"a": 1, "b": -1, "tie": 0}[two.preference] for two in pairs])
    return accuracy_without_ties(reward_a - reward_b, truth, np.arange(len(pairs)))


@pytest.mark.slow
def test_with_thinking_most_unseen_pairs_are_right(tiny, in_domain):
    found = accuracy(tiny, in_domain, "on")  # the first pairs of `make evaluate`
    assert found.n > 150
    assert found.value >= 0.75


@pytest.mark.slow
def test_without_thinking_it_looks_too(tiny, in_domain):
    assert accuracy(tiny, in_domain, "off").low > 0.5


@pytest.mark.slow
def test_its_chains_can_be_read(tiny, in_domain):
    scores = tiny.score_batch((two.a.clip, two.a.prompt) for two in in_domain[:64])
    assert sum(s.verdict is not None for s in scores) >= 62
