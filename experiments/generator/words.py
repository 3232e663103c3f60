"""Prompts as word numbers, for the generator's own text encoder.

The vocabulary is that of the world's prompts for training. Other words are read as UNKNOWN."""

import re

import torch
from torch import Tensor

from descore.synthetic.prompts import WORDINGS
from descore.synthetic.scene import Colour, Count, Setting, Shape
from experiments.generator.world import ACTIONS

NOTHING, UNKNOWN = 0, 1
"""Numbers of the empty place behind a prompt, of which the prompt of a generator without one consists, and of a word
that is not known."""

LENGTH = 24
"""Words of a prompt that are read; the longest of the world's has 21."""

_WORD = re.compile(r"[a-z0-9]+(?:-[a-z]+)*")


def _vocabulary() -> dict[str, int]:
    values = (*Shape, *Colour, Count.ONE, *ACTIONS, *Setting)
    texts = ["an", "a video of", *(text for value in values for text in WORDINGS[value].known)]
    words = sorted({word for text in texts for word in _WORD.findall(text)})
    return {word: number for number, word in enumerate(words, start=UNKNOWN + 1)}


NUMBERS = _vocabulary()
"""The number of each word."""


def read_prompts(prompts: list[str]) -> Tensor:
    """Word numbers (B, LENGTH), int64, NOTHING behind the last word."""
    numbers_BL = torch.full((len(prompts), LENGTH), NOTHING)
    for row_L, prompt in zip(numbers_BL, prompts, strict=True):
        numbers = [NUMBERS.get(word, UNKNOWN) for word in _WORD.findall(prompt.lower())][:LENGTH]
        row_L[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return numbers_BL
