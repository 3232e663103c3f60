"""What prompts and labels mean, as vectors of MiniLM. A clip's is the mean of its labels', each as often as it is
probable (ConSE, Norouzi et al. 2013, arXiv 1312.5650). Of labels at each place, less what all labels have in common, it
is nearer to the clip's prompt than of the labels of whole pictures.

Shapes in names: L labels, P pairs of frames, D width of a vector."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

MEANING = 384
"""D, of MiniLM."""
LIKELY = 10
"""Most probable labels that a clip's vector mixes."""

Embed = Callable[[Sequence[str]], Tensor]
"""From texts to vectors of length 1 (N, D)."""


def in_parts(embed: Embed, texts: Sequence[str], *, at_once: int) -> Tensor:
    """(N, D): the vectors of many texts."""
    return torch.cat([embed(texts[first : first + at_once]) for first in range(0, len(texts), at_once)])


class Meanings:
    """Vectors of length 1."""

    def __init__(self, embed: Embed, labels: Sequence[str]) -> None:
        self.embed, self._label_LD = embed, embed(labels)
        self._own_LD = self._label_LD - self._label_LD.mean(dim=0)
        self.of_prompt = cache(lambda prompt: embed([prompt])[0])

    def of_clip(self, probability_PL: Tensor) -> Tensor:
        """(D,): of a clip with these labels, by pair of frames."""
        best = probability_PL.mean(dim=0).topk(LIKELY)
        return functional.normalize(best.values @ self._label_LD[best.indices], dim=0)

    def of_places(self, probability_PL: Tensor) -> Tensor:
        """(D,): of a clip with these labels by place, without what labels have in common."""
        return functional.normalize(probability_PL.mean(dim=0) @ self._own_LD, dim=0)
