"""The lesson in reading: its texts, their vectors, its pictures, and the losses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiments.grow_tiny.reading import ReadHeads, Readings
from experiments.grow_tiny.texts import Texts, composed_text, texts_to_read, vectors_of
from tests.conftest import noise_clip


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
        assert vectors_of(texts, embed, tmp_path / "v" / "texts.safetensors", at_once=2).shape == (3, 2)
    assert calls == [2, 1]
    vectors_of(["a", "b", "d"], embed, tmp_path / "v" / "texts.safetensors")
    assert calls == [2, 1, 3]


def texts_abcd():
    return Texts(texts=["a", "b", "c", "d"], vector_ND=torch.eye(4))


def test_a_random_text_is_a_near_one_half_of_the_time(monkeypatch):
    monkeypatch.setattr("experiments.grow_tiny.texts.NEAR", 1)
    rng = np.random.default_rng(0)
    drawn = [texts_abcd().random(rng, near_D=torch.tensor([0.0, 0.0, 1.0, 0.0])) for _ in range(4000)]
    assert sum(text == "c" for text, _ in drawn) / 4000 == pytest.approx(0.5 + 0.125, abs=0.03)
    assert {text for text, _ in drawn} == {"a", "b", "c", "d"}
    assert all(vector_D["abcd".index(text)] == 1 for text, vector_D in drawn)


@pytest.fixture
def real_clips():
    """Pictures of one grey each, whose label means the text `c`."""
    window = lambda _split, *, rng, pixels, frames: SimpleNamespace(  # noqa: E731
        finished=lambda: noise_clip(int(rng.integers(1000)), frames=frames, width=32, height=pixels // 32)
    )
    return SimpleNamespace(
        examples=SimpleNamespace(sources=SimpleNamespace(window=window)),
        teacher=SimpleNamespace(features=lambda frames: SimpleNamespace(probability_NL=frames)),
        meanings=SimpleNamespace(of_places=lambda frames: torch.tensor([0.0, 0.6, 0.8, 0.0]) * len(frames)),
    )


def test_a_reading_is_a_text_over_a_picture(real_clips):
    readings = Readings(texts=texts_abcd(), real_clips=real_clips, size=20, side=64)
    assert {reading.picture.frames.shape for reading in map(readings.__getitem__, range(20))} == {(2, 128, 32, 3)}
    for number in range(20):
        assert readings[number].vector_D["abcd".index(readings[number].text)] == 1
        assert readings[number].meaning_D.tolist() == pytest.approx([0, 0.6, 0.8, 0])


def test_a_resumed_lesson_reads_the_same_texts(real_clips):
    readings = Readings(texts=texts_abcd(), real_clips=real_clips, size=10, side=64)
    later = replace(readings, start=4)
    assert [later[n].text for n in range(6)] == [readings[n].text for n in range(4, 10)]
    assert (later[0].picture.frames == readings[4].picture.frames).all()
    assert len(later) == 6


def test_what_fits_costs_nothing():
    """With the identity as map, states are the vectors, and nearness is their first value."""
    heads = ReadHeads(2)
    heads.vectors = torch.nn.ModuleDict({name: torch.nn.Identity() for name in heads.vectors})
    heads.nearness.weight.data, heads.nearness.bias.data = torch.eye(2)[:1], torch.zeros(1)
    states_BF = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fitting, figures = heads(states_BF, {"text_BD": states_BF, "picture_BD": torch.tensor([[1.0, 0.0], [0.0, 0.0]])})
    assert figures == {"loss": 0.5, "text": 0, "picture": 0.5, "nearness": 0}  # a vector of nothing has no direction
    assert fitting.item() == 0.5


def test_nearness_is_off_in_units_of_its_deviation():
    """Nearness is 1 and 0, of variance 1/2; 0 and 0 is said."""
    heads = ReadHeads(2)
    heads.nearness.weight.data, heads.nearness.bias.data = torch.zeros(1, 2), torch.zeros(1)
    rows_BD = torch.eye(384)[:2]
    _, figures = heads(torch.zeros(2, 2), {"text_BD": rows_BD, "picture_BD": rows_BD * torch.tensor([[1.0], [0.0]])})
    assert figures["nearness"] == pytest.approx(0.5 / 0.5)


def test_a_composed_text_names_things_and_more():
    texts = {composed_text(["tench", "A frog"], np.random.default_rng(seed)) for seed in range(300)}
    assert all("a tench" in text or "a frog" in text for text in texts)
    assert {"a frog", "a video of a tench"} <= texts
    for word in (" and ", " the ", ", "):
        assert any(word in text for text in texts)
