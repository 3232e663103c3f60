"""A journal that a kill cut off in the middle of a line reads as its whole lines, and goes on behind them."""

import json

import pytest

from descore.errors import DataError
from descore.io import append, read_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.jsonl"


def test_whole_lines_only(path):
    assert read_lines(path) == []
    append(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')
    assert [record["a"] for record in read_lines(path)] == [1, 2]
    append(path, [{"a": 4}])
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4]


@pytest.mark.parametrize("rest", [1, 70_000, 140_000])
def test_a_line_of_any_length_is_cut_off_to_its_last_byte(path, rest):
    """Longer than the blocks that are looked through for its beginning."""
    append(path, [{"a": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * rest)
    append(path, [])
    assert path.read_bytes() == whole
    path.write_bytes(b"x" * rest)  # and where there is no whole line at all
    append(path, [{"a": 1}])
    assert path.read_bytes() == whole


def test_the_last_so_many(path):
    append(path, [{"a": number} for number in range(5)])
    with path.open("a") as file:
        file.write("{")
    assert read_lines(path, last=2) == [{"a": 3}, {"a": 4}]


def test_a_wrong_line_is_named_by_its_number(path):
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(DataError, match=r"records\.jsonl:2: is not JSON"):
        read_lines(path)
    assert read_lines(path, last=1) == [{"a": 3}]


def test_what_is_not_a_number_is_refused_unless_asked_for(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(path, [{"loss": float("nan")}])
    append(path, [{"loss": float("nan")}], nan=True)
    assert path.read_text() == '{"loss": NaN}\n'
