"""Tables of every format give the same rows; an error is one line with file and line."""

import json
import sys
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.data.tables import Cells, columns_of, is_table, nearest, read_rows, value_at
from descore.errors import ConfigError, DataError

ROWS = [{"prompt": 'a "red" ball,\nrolling', "score": "1"}, {"prompt": "猫", "score": "2"}]


def write(folder, suffix, rows):
    """The rows as a table of that kind; in CSV, each text cell is quoted."""
    file = folder / f"table{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == ".csv":
        quoted = [[f'"{str(cell).replace(chr(34), chr(34) * 2)}"' for cell in row.values()] for row in rows]
        file.write_text("\n".join(",".join(cells) for cells in [list(rows[0]), *quoted]) + "\n", encoding="utf-8")
    elif suffix == ".json":
        file.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    else:
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    file = write(tmp_path, suffix, ROWS)
    assert [row for _, row in read_rows(file)] == ROWS
    assert columns_of(file) == ("prompt", "score")


# Where the second row begins: in CSV behind a header and a cell of two lines, in JSON on the fifth line of the indented
# array, in JSON Lines on the second line. Parquet has no lines: rows are counted.
@pytest.mark.parametrize(
    ("suffix", "lines"), [(".csv", [2, 4]), (".json", [2, 6]), (".jsonl", [1, 2]), (".parquet", [1, 2])]
)
def test_rows_have_the_line_that_they_begin_on(tmp_path, suffix, lines):
    assert [line for line, _ in read_rows(write(tmp_path, suffix, ROWS))] == lines


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, suffix):
    file = write(tmp_path, suffix, ROWS)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert columns_of(file) == ("prompt", "score")


def test_rows_are_read_lazily(tmp_path):
    file = tmp_path / "long.csv"
    file.write_bytes(b"n\n1\n2\n\xff\n")
    assert [row["n"] for _, row in islice(read_rows(file), 2)] == ["1", "2"]


FAULTS = {
    "latin.csv": (b"prompt\nok\ncaf\xe9\n", "latin.csv:3: byte 0xe9 is not UTF-8; save the table as UTF-8"),
    "utf16.csv": ("a,b\n".encode("utf-16"), "utf16.csv:1: byte 0xff is not UTF-8"),
    "latin.json": (b'[{"a": "b"},\n {"a": "\xe9"}]', "latin.json:2: byte 0xe9 is not UTF-8"),
    "empty.csv": (b"", "empty.csv:1: the file is empty"),
    "header.csv": (b"a,b\n", "header.csv:1: no rows"),
    "empty.jsonl": (b"\n\n", "empty.jsonl:1: no rows"),
    "long.csv": (b"a,b\n1,2\n1,2,3\n", "long.csv:3: 3 cells; expected 2, one for each column: quote a cell"),
    "short.csv": (b"a,b\n1\n", "short.csv:2: 1 cells; expected 2"),
    "quote.csv": (b'a,b\n1,"2\n3,4\n', "quote.csv:2: no CSV (unexpected end of data); check the quotes"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "twice.csv:1: column 'a' is there twice"),
    "bad.jsonl": (b'{"a": 1}\n{"a": }\n', "bad.jsonl:2: is not JSON: Expecting value at character 7"),
    "list.jsonl": (b"[1]\n", "list.jsonl:1: found list, expected an object"),
    "object.json": (b'{"a": 1}', "object.json:1: expected an array of objects"),
    "open.json": (b'[{"a": 1},\n{"a": 2}', "open.json:2: is not JSON"),
    "bad.json": (b'[{"a": 1},\n\n{"a": x}]', "bad.json:3: is not JSON: Expecting value at character 7"),
    "fake.parquet": (b"no parquet at all", "fake.parquet:1: no readable Parquet"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_file_and_line(tmp_path, name):
    content, message = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    text = str(caught.value).removeprefix(f"{tmp_path}/")
    assert text.startswith(message)
    assert "\n" not in text


def test_all_missing_columns_are_named_with_similar_ones(tmp_path):
    file = write(tmp_path, ".csv", [{"promt": "p", "Video_A": "a", "other": "x"}])
    with pytest.raises(
        DataError, match="1: no column 'prompt' \\(is it 'promt'\\?\\), 'video_a' \\(is it 'Video_A'\\?\\)"
    ) as caught:
        next(read_rows(file, columns=("prompt", "video_a", "other")))
    assert str(caught.value).endswith("found promt, Video_A, other")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "pairs.xlsx").touch()
    kinds = r"unknown suffix '\.xlsx'; expected one of \.csv, \.tsv, \.jsonl, \.json, \.parquet"
    with pytest.raises(ConfigError, match=kinds):
        read_rows(tmp_path / "pairs.xlsx")
    with pytest.raises(ConfigError, match="no such file"):
        read_rows(tmp_path / "absent.csv")
    with pytest.raises(ConfigError, match="not a file"):
        read_rows(tmp_path)
    assert is_table("x.CSV")
    assert not is_table("x.mp4")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    file = write(tmp_path, ".parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow; run pip install '.\[tables\]'"):
        next(read_rows(file))


def test_a_value_lies_in_a_column_or_behind_a_path():
    row = {"a.b": 1, "c": {"d e": {"f": 2}, "g": [3, 4]}}
    assert [value_at(row, path) for path in ("a.b", "c.d e.f", "c.g.1", "c.g.2", "c.x", "x.y", "a.b.c")] == [
        1, 2, 4, None, None, None, None,
    ]  # fmt: skip


def test_the_nearest_name_ignores_case():
    assert nearest("ovrall", ["VQ", "Overall"]) == "Overall"
    assert nearest("VQ", ["xyz"]) is None


CELLS = Cells(
    file="t.csv",
    line=7,
    row={
        "word": " a ",
        "empty": " ",
        "nan": float("nan"),
        "number": "1.5",
        "inf": "inf",
        "nested": {"x": 1},
        "marks": '{"subject": 2, "dynamics": 1.0, "camera": "N/A", "environment": null, "style": 0}',
        "few": {"subject": 2},
        "odd": {"subject": 3, "dynamics": 1, "camera": 1, "environment": 1, "style": 1},
    },
)


def test_cells_are_read_by_type():
    assert CELLS.text("word") == "a"
    assert [CELLS.text(name) for name in ("empty", "nan", "absent", None)] == [None] * 4
    assert CELLS.number("number") == 1.5
    assert CELLS.number("empty") is None
    assert CELLS.choice("word", {"a": 10}) == 10
    assert CELLS.choice("empty", {"a": 10}) is None
    assert CELLS.marks("marks") == {"subject": 2, "dynamics": 1, "camera": None, "environment": None, "style": 0}
    assert CELLS.marks("absent") is None


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: CELLS.required("empty"), "t.csv:7: empty is empty; expected a text"),
        (lambda: CELLS.text("nested"), "t.csv:7: nested is a dict; expected a single value"),
        (lambda: CELLS.number("word"), "t.csv:7: word is 'a'; expected a number"),
        (lambda: CELLS.number("inf"), "t.csv:7: inf is 'inf'; expected a number"),
        (lambda: CELLS.choice("word", {"b": 1, "c": 2, "d": 3}), "t.csv:7: word is 'a'; expected b, c or d"),
        (lambda: CELLS.marks("word"), "t.csv:7: word is not JSON: Expecting value at character 2"),
        (lambda: CELLS.marks("few"), "t.csv:7: few has subject; expected a mark for each of subject, dynamics,"),
        (lambda: CELLS.marks("odd"), 't.csv:7: odd.subject is 3; expected 0, 1, 2 or "N/A"'),
    ],
)
def test_a_cell_of_another_type_is_refused(read, message):
    with pytest.raises(DataError) as caught:
        read()
    assert str(caught.value).startswith(message)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), suffix=st.sampled_from([".csv", ".json", ".jsonl"])
)
def test_any_text_comes_back(tmp_path_factory, rows, suffix):
    file = write(tmp_path_factory.mktemp("any"), suffix, [{"x": x, "y": y} for x, y in rows])
    assert [(row["x"], row["y"]) for _, row in read_rows(file)] == rows
