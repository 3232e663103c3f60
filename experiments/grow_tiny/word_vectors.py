"""Words that the model knows beside those of its lessons, and the vectors that all begin with and keep.

Words that mean much the same are so near each other before anything is learned, also those that no lesson has. The
vectors are MiniLM's of the tokenizer's entries, brought to the model's width along their principal axes.

Shapes in names: N entries of the tokenizer, L labels, D = 384 values of a vector of MiniLM, F width of the model."""

import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from descore.model.small import MARKED, PIECES, with_special_tokens
from experiments.grow_tiny.meanings import Embed, in_parts

SIZE = 0.3
"""Root of the mean square of the vectors' values."""
P_OWN = 0.15
"""Share of a random part in a vector's square, by which `dog` and `dog,` differ."""
_AT_ONCE = 512
_SPACE = "Ġ"  # of byte-level pieces
_MARKED = re.compile(r" ?[A-Za-z]+[.,:]")


def with_words(tokenizer: Any, words: Sequence[str]) -> Any:  # noqa: ANN401
    """The tokenizer with an entry for each of these words that it cuts, behind a space, and for each with a capital.

    A mark behind a word is then apart from it, but where both together are an entry that was learned."""
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    entries: dict[str, int] = spec["model"]["vocab"]
    marked = [text for text in (entry.replace(_SPACE, " ") for entry in entries) if _MARKED.fullmatch(text)]
    for word in words:
        for form in (word, word.capitalize()):
            entries.setdefault(f"{_SPACE}{form}", len(entries))
    spec["model"]["ignore_merges"] = True  # an entry is looked up as a whole before it is joined of its pieces
    pieces = PIECES.replace(MARKED, "|".join(map(re.escape, marked)))
    spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pieces
    return with_special_tokens(Tokenizer.from_str(json.dumps(spec)))


def spoken(tokenizer: Any, count: int) -> list[str]:  # noqa: ANN401
    """Words of each of the first entries of a tokenizer, without the marks around them; empty where there are none."""
    texts = (tokenizer.decode([number]).strip(" .,:\n").lower() for number in range(count))
    return [text if text.isalpha() else "" for text in texts]


def word_vectors(words: Sequence[str], embed: Embed, *, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors (N, F) of these words, and random ones for the empty; and the axes (D, F). ValueError for fewer than F
    words."""
    numbers = [number for number, word in enumerate(words) if word]
    if len(numbers) < width:
        raise ValueError(f"{len(numbers)} words; expected at least {width}, the width of the model")
    known_ND = in_parts(embed, [words[number] for number in numbers], at_once=_AT_ONCE)
    centred_ND = known_ND - known_ND.mean(dim=0)
    axes_DF = torch.linalg.eigh(centred_ND.T @ centred_ND).eigenvectors[:, -width:]
    own_NF = torch.randn(len(words), width, generator=torch.Generator().manual_seed(seed))
    vector_NF = own_NF.clone()
    vector_NF[numbers] = P_OWN**0.5 * own_NF[numbers] + (1 - P_OWN) ** 0.5 * _to_size(centred_ND @ axes_DF)
    return SIZE * vector_NF, axes_DF


def label_vectors(labels: Sequence[str], embed: Embed, axes_DF: Tensor) -> Tensor:
    """(L, F): labels among words, without what they have in common."""
    label_LD = embed(labels)
    vector_LF = (label_LD - label_LD.mean(dim=0)) @ axes_DF
    return SIZE * vector_LF / vector_LF.square().mean().sqrt()


def _to_size(x_NF: Tensor) -> Tensor:
    """Of each row, the root of the mean square is 1."""
    return x_NF / x_NF.square().mean(dim=1, keepdim=True).sqrt()
