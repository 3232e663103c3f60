"""What prompts and labels mean, as vectors of MiniLM. A clip's is the mean of its labels', each as often as it is
probable (ConSE, Norouzi et al. 2013, arXiv 1312.5650).

Shapes in names: L labels, P pairs of frames, D width of a vector."""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor
from torch.nn import functional

MEANING = 384
"""D, of MiniLM."""
LIKELY = 10
"""Most probable labels that a clip's vector mixes."""

Embed = Callable[[Sequence[str]], Tensor]
"""From texts to vectors of length 1 (N, D)."""


class Meanings:
    """Vectors of length 1."""

    def __init__(self, embed: Embed, labels: Sequence[str]) -> None:
        self.embed, self._label_LD = embed, embed(labels)
        self.of_prompt = cache(lambda prompt: embed([prompt])[0])

    def of_clip(self, probability_PL: Tensor) -> Tensor:
        """(D,): of a clip with these labels, by pair of frames."""
        best = probability_PL.mean(dim=0).topk(LIKELY)
        return functional.normalize(best.values @ self._label_LD[best.indices], dim=0)
