"""What some updates came to: means, each a sum and its count, and plain numbers that are added up.

In: numbers by name. Out: a line for the record, over all processes. It can be stopped and gone on with: a checkpoint
keeps it. Knows numbers; knows nothing of what they mean."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Tally:
    """Sums since the last line."""

    sums: dict[str, list[float]] = field(default_factory=dict)
    """By name, a sum and its count."""
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, total: float, count: float = 1.0) -> None:
        """Put `count` items that come to `total` into a mean."""
        old_total, old_count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = [old_total + float(total), old_count + float(count)]

    def count(self, name: str, number: int) -> None:
        """Put some more to a number."""
        self.counts[name] = self.counts.get(name, 0) + int(number)

    @property
    def line(self) -> dict[str, float]:
        """By name, the means and numbers. A mean of nothing is not 0: it is not there."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        return {**means, **self.counts}

    @classmethod
    def together(cls, tallies: Sequence["Tally"]) -> "Tally":
        """That of all processes."""
        whole = cls()
        for tally in tallies:
            for name, (total, count) in tally.sums.items():
                whole.mean(name, total, count)
            for name, number in tally.counts.items():
                whole.count(name, number)
        return whole


def as_record(tally: Tally) -> dict[str, object]:
    """As JSON keeps it; `Tally(**record)` is the same again."""
    return asdict(tally)
