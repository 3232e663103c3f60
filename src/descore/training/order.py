"""The order in which a table's rows are shown, each with the number of the pass that shows it.

In: how many rows there are, a seed, and lengths where rows of one length shall stand together. Out: (epoch, number)s.
The order is drawn from (seed, epoch) alone, so neither workers nor processes nor a restart change it; and each row
carries its epoch to wherever it is read and collated. A data set or collator that were told the epoch would be copies
of their own in worker processes, which read ahead and may outlive an epoch. Knows numbers; knows nothing of rows."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

Key = int | tuple[int, int]
"""A row's number; or the epoch that shows it, and its number."""


class EpochOrder(Sampler[tuple[int, int]]):
    """Each number below `count` once an epoch, in an order of that epoch's own."""

    def __init__(self, count: int, *, seed: int, lengths: Sequence[int] | None = None, together: int = 1) -> None:
        """`lengths`: of each row; rows of about one length then stand together, `together` (an update's) at a time,
        the longest of all first, so that memory that does not suffice shows at once."""
        self.count = count
        self.seed = seed
        self.lengths = lengths
        self.together = together
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this one, the first of which is 0. accelerate and Trainer call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(seed)
        return ((epoch, number) for number in self._numbers(generator))

    def _numbers(self, generator: torch.Generator) -> list[int]:
        if self.lengths is None:
            return torch.randperm(self.count, generator=generator).tolist()
        return list(LengthGroupedSampler(self.together, lengths=self.lengths, generator=generator))
