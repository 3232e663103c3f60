"""The lesson in reading: its texts, their vectors, its pictures, and the losses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiments.grow_tiny.reading import ReadHeads, Readings
from experiments.grow_tiny.texts import Texts, texts_to_read, vectors_of
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
        assert vectors_of(texts, embed, tmp_path / "v" / "texts.npy", at_once=2).shape == (3, 2)
    assert calls == [2, 1]
    vectors_of(texts[:2], embed, tmp_path / "v" / "texts.npy")
    assert calls == [2, 1, 2]


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
        meanings=SimpleNamespace(of_clip=lambda frames: torch.tensor([0.0, 0.6, 0.8, 0.0]) * len(frames)),
    )


def test_a_reading_is_a_text_over_a_picture(real_clips):
    readings = Readings(texts=texts_abcd(), real_clips=real_clips, size=20, side=64)
    assert {reading.picture.frames.shape for reading in map(readings.__getitem__, range(20))} == {(2, 128, 32, 3)}
    nearness = {"a": 0, "b": 0.6, "c": 0.8, "d": 0}
    for number in range(20):
        assert readings[number].nearness == pytest.approx(nearness[readings[number].text])


def test_a_resumed_lesson_reads_the_same_texts(real_clips):
    readings = Readings(texts=texts_abcd(), real_clips=real_clips, size=10, side=64)
    later = replace(readings, start=4)
    assert [later[n].text for n in range(6)] == [readings[n].text for n in range(4, 10)]
    assert (later[0].picture.frames == readings[4].picture.frames).all()
    assert len(later) == 6


def test_what_fits_costs_nothing():
    """With the identity as map, states at right angles have cosine 0; nearness is the first value of a state. Mean
    squares weigh ten and twenty times."""
    heads = ReadHeads(2)
    for layer, weight in ((heads.map, torch.eye(2)), (heads.nearness, torch.eye(2)[:1])):
        layer.weight.data, layer.bias.data = weight, torch.zeros(len(weight))
    fitting, _ = heads(torch.eye(2), {"cosine_BB": torch.eye(2), "nearness_B": torch.tensor([1.0, 0.0])})
    assert fitting.item() == pytest.approx(0)
    off, figures = heads(torch.eye(2), {"cosine_BB": torch.full((2, 2), 0.5), "nearness_B": torch.tensor([1.0, 1.0])})
    assert off.item() == pytest.approx(10 * 0.25 + 20 * 0.5)
    assert (figures["texts"], figures["picture"]) == (0.25, 0.5)
    assert (figures["texts_mean"], figures["picture_mean"]) == (0, 0)
