"""The lesson in reading: its texts, their vectors, and the loss on their cosines."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiments.grow_tiny.reading import CosineHead
from experiments.grow_tiny.texts import Readings, texts_to_read, vectors_of


def test_texts_name_things_in_sentences():
    words = SimpleNamespace(prompts={"train": ("a cat reads",), "test": ("a secret",)})
    held_out = SimpleNamespace(name="a held-out duck")
    cut_outs = SimpleNamespace(rows={"train": (SimpleNamespace(name="a frog"),), "test": (held_out,)})
    texts = texts_to_read(words, cut_outs, ["tench", "Airedale"])
    assert texts[:4] == ["a cat reads", "a tench", "a video of an airedale", "a photo of a frog"]
    assert len(texts) == len(set(texts)) > 500
    assert "a secret" not in texts


def test_vectors_are_kept(tmp_path):
    texts, calls = ["a", "b", "c"], []

    def embed(some):
        calls.append(len(some))
        return torch.ones(len(some), 2)

    for _ in range(2):
        assert vectors_of(texts, embed, tmp_path / "v" / "texts.npy", at_once=2).shape == (3, 2)
    assert calls == [2, 1]
    vectors_of(texts[:2], embed, tmp_path / "v" / "texts.npy")
    assert calls == [2, 1, 2]


def test_a_resumed_lesson_reads_the_same_texts():
    readings = Readings(texts=["a", "b", "c"], vector_ND=torch.eye(3), size=10)
    later = Readings(texts=["a", "b", "c"], vector_ND=torch.eye(3), size=10, start=4)
    assert [later[n][0] for n in range(6)] == [readings[n][0] for n in range(4, 10)]
    assert len(later) == 6


def test_another_text_is_a_near_one_half_of_the_time(monkeypatch):
    monkeypatch.setattr("experiments.grow_tiny.texts.NEAR", 1)
    readings = Readings(texts=["a", "b", "c", "d"], vector_ND=torch.eye(4), size=10)
    rng = np.random.default_rng(0)
    drawn = [readings.another(torch.tensor([0.0, 0.0, 1.0, 0.0]), rng) for _ in range(4000)]
    assert drawn.count("c") / 4000 == pytest.approx(0.5 + 0.125, abs=0.03)
    assert set(drawn) == {"a", "b", "c", "d"}


def test_cosines_that_fit_cost_nothing():
    """With the identity as map, states at right angles have cosine 0; the loss weighs ten times the mean square."""
    head = CosineHead(2)
    head.map.weight.data, head.map.bias.data = torch.eye(2), torch.zeros(2)
    fitting, _ = head(torch.eye(2), {"cosine_BB": torch.eye(2)})
    off, figures = head(torch.eye(2), {"cosine_BB": torch.full((2, 2), 0.5)})
    assert fitting.item() == pytest.approx(0)
    assert off.item() == pytest.approx(2.5)
    assert figures["loss"] == pytest.approx(0.25)
