"""Words beside those of the lessons: each is one entry of the tokenizer, with a vector of what it means."""

import pytest
import torch
from experiments.grow_tiny.word_vectors import SIZE, label_vectors, spoken, with_words, word_vectors

from descore.model.small import small_tokenizer

CHAIN = "Subject: asked a duck, shown a duck: right, 2. <0.5 seconds>"


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer([CHAIN] * 20, vocabulary=400)


def pieces(tokenizer, text):
    return [tokenizer.decode(number) for number in tokenizer.encode(text)]


def test_a_word_is_one_entry_before_any_mark(tokenizer):
    more = with_words(tokenizer, ["corgi", "harbour", "duck"])
    assert len(pieces(tokenizer, " corgi")) > 1
    assert pieces(more, " Corgi near a harbour! corgi, corgi")[:1] == [" Corgi"]
    assert pieces(more, " corgi, corgi.") == [" corgi", ",", " corgi", "."]


def test_what_was_learned_is_cut_as_before(tokenizer):
    more = with_words(tokenizer, ["corgi", "duck"])
    assert more.encode(CHAIN) == tokenizer.encode(CHAIN)
    assert " right," in pieces(more, CHAIN)
    assert more.decode(more.encode("Größe, naïve: 片 corgis")) == "Größe, naïve: 片 corgis"


def test_entries_are_known_by_their_words(tokenizer):
    more = with_words(tokenizer, ["corgi"])
    by_entry = dict(zip(map(more.decode, range(len(more))), spoken(more, len(more)), strict=True))
    assert by_entry[" Corgi"] == by_entry[" corgi"] == "corgi"
    assert by_entry[" right,"] == "right"
    assert by_entry["2."] == by_entry["<|video_pad|>"] == ""


def test_vectors_are_near_where_meanings_are():
    """Of three words, two mean much the same; a fourth entry has no word."""
    meaning = {"dog": [1.0, 0.1, 0.0], "puppy": [1.0, 0.0, 0.1], "car": [-1.0, 0.3, 0.3]}
    embed = lambda words: torch.tensor([meaning[word] for word in words])  # noqa: E731
    words = ["dog", "", "puppy", "car"]
    vector_NF, axes_DF = word_vectors(words, embed, width=2, seed=1)
    assert torch.equal(vector_NF, word_vectors(words, embed, width=2, seed=1)[0])
    dog_puppy, dog_car = (torch.cosine_similarity(vector_NF[0], vector_NF[n], dim=0) for n in (2, 3))
    assert dog_puppy > dog_car
    assert not torch.equal(vector_NF[0], vector_NF[2])
    label_LF = label_vectors(["puppy", "car"], embed, axes_DF)
    torch.testing.assert_close(label_LF[0], -label_LF[1])  # of two, without what they have in common
    assert torch.cosine_similarity(label_LF[0], vector_NF[0], dim=0) > 0.5
    assert label_LF.square().mean().sqrt().item() == pytest.approx(SIZE)
    many, _ = word_vectors(["dog", "car", "puppy"] * 2000, embed, width=2, seed=0)
    assert many.square().mean().sqrt().item() == pytest.approx(SIZE, rel=0.02)


def test_a_width_of_more_than_the_words_is_refused():
    with pytest.raises(ValueError, match="1 words; expected at least 2"):
        word_vectors(["dog", ""], torch.ones, width=2, seed=0)
