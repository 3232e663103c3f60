import pytest

from descore.chains.ledger import Ledger, Prices
from descore.errors import DataError

PRICES = Prices(tokens_in=1.0, tokens_out=10.0)


def ledger(folder, budget=None):
    return Ledger(folder / "ledger.jsonl", prices=PRICES, budget=budget)


def test_what_is_under_way_is_reserved(tmp_path):
    """A million tokens in cost 1, out 10: a request of 200,000 and 30,000 is 0.5."""
    book = ledger(tmp_path, budget=1.0)
    first, second = (book.reserve(key, tokens_in=200_000, tokens_out=30_000) for key in "ab")
    assert book.left == pytest.approx(0)
    assert book.reserve("c", tokens_in=1, tokens_out=1) is None
    assert book.settle(first, tokens_in=100_000, tokens_out=0) == pytest.approx(0.1)
    assert book.left == pytest.approx(0.4)
    assert book.settle_unknown(second) == pytest.approx(0.5)
    totals = book.totals
    assert (totals.requests, totals.tokens_in, totals.tokens_out) == (2, 100_000, 0)
    assert (totals.cost, totals.assumed) == pytest.approx((0.6, 0.5))


def test_a_ledger_goes_on_where_it_was(tmp_path):
    book = ledger(tmp_path, budget=2.0)
    book.settle(book.reserve("a", tokens_in=100_000, tokens_out=0), tokens_in=50_000, tokens_out=0)
    book.reserve("b", tokens_in=200_000, tokens_out=30_000)
    again = ledger(tmp_path, budget=2.0)
    assert (again.totals, again.reserved, again.under_way) == (book.totals, 0.5, 1)
    assert again.places() == [("b", 1)]
    again.abandon()
    assert (again.under_way, again.totals.cost, again.totals.assumed) == (0, 0.55, 0.5)
    assert again.reserve("c", tokens_in=0, tokens_out=0) == 2
    assert ledger(tmp_path).totals.cost == 0.55


def test_a_line_that_is_none_names_its_place(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"ledger\.jsonl:1: is no line of a ledger"):
        ledger(tmp_path)
