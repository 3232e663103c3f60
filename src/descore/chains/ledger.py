"""Tokens and money: what a run has cost, what is under way, and whether another request fits the budget.

    place = ledger.reserve(key, tokens_in=900, tokens_out=2048)     # None: the budget has no room
    ledger.settle(place, tokens_in=870, tokens_out=412)

A line for each reservation and each settlement is on the disk before the request is sent and after it came in. A
request whose end is not known (a timeout, a stream that was cut, a killed run) counts as if it had cost all that was
reserved for it: the server may have billed that much."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from descore.errors import DataError
from descore.io import append_records, read_records

_PER = 1_000_000
"""Tokens that a price is for."""
_ROUNDING = 1e-9
"""Sums of floats that differ by less are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Of one request."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / _PER


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """A reservation, or, with `settled`, how it ended."""

    id: int
    key: str
    tokens_in: int
    tokens_out: int
    reserved: float | None = None
    settled: float | None = None
    exact: bool = True
    """Whether the server stated the tokens. False: they are those that were reserved."""


@dataclass(slots=True)
class Totals:
    """What a run has cost so far."""

    requests: int = 0
    """That were sent, repeated ones included."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    assumed: float = 0.0
    """The part of the cost that no server stated."""

    def add(self, line: LedgerLine) -> None:
        """Count a settlement."""
        cost = line.settled or 0.0
        self.requests += 1
        self.cost += cost
        if line.exact:
            self.tokens_in += line.tokens_in
            self.tokens_out += line.tokens_out
        else:
            self.assumed += cost


_LINES = TypeAdapter(LedgerLine)


class Ledger:
    """The ledger of a run's folder."""

    def __init__(self, path: Path, *, prices: Prices, budget: float | None) -> None:
        """What earlier sessions left without an end is under way. DataError for a line that is none of a ledger."""
        self.path, self.prices, self.budget = path, prices, budget
        self.totals = Totals()
        lines = {line.id: line for line in _read(path)}  # a settlement takes its reservation's place
        self._open = {line.id: line for line in lines.values() if line.settled is None}
        for line in lines.values():
            if line.settled is not None:
                self.totals.add(line)
        self._next = max(lines, default=-1) + 1

    @property
    def reserved(self) -> float:
        """Money of what is under way."""
        return sum(line.reserved or 0.0 for line in self._open.values())

    @property
    def under_way(self) -> int:
        """Requests that have no end yet."""
        return len(self._open)

    @property
    def left(self) -> float | None:
        """What the budget still has, without what is under way; None without a budget."""
        return None if self.budget is None else self.budget - self.totals.cost - self.reserved

    def fits(self, tokens_in: int, tokens_out: int) -> bool:
        """Whether the budget has room for a request of so many tokens."""
        return self.left is None or self.prices.cost(tokens_in, tokens_out) <= self.left + _ROUNDING

    def reserve(self, key: str, *, tokens_in: int, tokens_out: int) -> int | None:
        """Reserve the most that a request may take; None if the budget has no room for it."""
        if not self.fits(tokens_in, tokens_out):
            return None
        line = LedgerLine(
            id=self._next,
            key=key,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            reserved=self.prices.cost(tokens_in, tokens_out),
        )
        append_records(self.path, [_record(line)])
        self._open[line.id] = line
        self._next += 1
        return line.id

    def cost_of(self, place: int, tokens: tuple[int, int] | None) -> float:
        """What a request under way costs, by its tokens in and out; None: not known, and all that is reserved."""
        return self._open[place].reserved or 0.0 if tokens is None else self.prices.cost(*tokens)

    def settle(self, place: int, *, tokens_in: int, tokens_out: int) -> float:
        """End a reservation with the tokens that the server stated, and return their cost. A request that the server
        refused took none."""
        cost = self.prices.cost(tokens_in, tokens_out)
        return self._settle(place, tokens_in=tokens_in, tokens_out=tokens_out, cost=cost, exact=True)

    def settle_unknown(self, place: int) -> float:
        """End a reservation whose cost no server stated: all of it counts."""
        line = self._open[place]
        cost = line.reserved or 0.0
        return self._settle(place, tokens_in=line.tokens_in, tokens_out=line.tokens_out, cost=cost, exact=False)

    def abandon(self) -> None:
        """End all that a killed session left under way: what it cost is not known."""
        for place in list(self._open):
            self.settle_unknown(place)

    def places(self) -> list[tuple[str, int]]:
        """Key and place of all that is under way."""
        return [(line.key, place) for place, line in self._open.items()]

    def open_key(self, place: int) -> str | None:
        """The key of what is under way at a place; None if nothing is."""
        return self._open[place].key if place in self._open else None

    def _settle(self, place: int, *, tokens_in: int, tokens_out: int, cost: float, exact: bool) -> float:
        key = self._open[place].key
        line = LedgerLine(id=place, key=key, tokens_in=tokens_in, tokens_out=tokens_out, settled=cost, exact=exact)
        append_records(self.path, [_record(line)])
        del self._open[place]
        self.totals.add(line)
        return cost


def _record(line: LedgerLine) -> Mapping[str, Any]:
    kind = {"reserved": line.reserved} if line.settled is None else {"settled": line.settled, "exact": line.exact}
    return {"id": line.id, "key": line.key, "tokens_in": line.tokens_in, "tokens_out": line.tokens_out, **kind}


def _read(path: Path) -> list[LedgerLine]:
    lines = []
    for number, record in enumerate(read_records(path), start=1):
        try:
            lines.append(_LINES.validate_python(record))
        except ValidationError:
            raise DataError(str(path), number, "is no line of a ledger; choose another run.out") from None
    return lines
