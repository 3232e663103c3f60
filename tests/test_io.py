"""A journal reads as its whole lines after a kill; an atomic write is whole, or changes nothing."""

import json

import pytest

from descore.errors import ConfigError, DataError
from descore.io import (
    append_records,
    atomic_directory,
    atomic_path,
    atomic_write,
    lock_directory,
    make_directory,
    read_records,
)


class InterruptedWriteError(Exception):
    """In place of whatever ends a write early."""


def write_half(file):
    file.write_text("half")
    raise InterruptedWriteError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.jsonl"


def test_reads_whole_lines_only(path):
    assert read_records(path) == []
    append_records(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')
    assert [record["a"] for record in read_records(path)] == [1, 2]
    append_records(path, [{"a": 4}])
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4]


@pytest.mark.parametrize("rest", [1, 70_000, 140_000])
def test_an_unfinished_line_is_cut_off_whole(path, rest):
    """Also if it is longer than the blocks that are searched for its beginning."""
    append_records(path, [{"a": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * rest)
    append_records(path, [])
    assert path.read_bytes() == whole
    path.write_bytes(b"x" * rest)  # a file without any whole line
    append_records(path, [{"a": 1}])
    assert path.read_bytes() == whole


def test_reads_the_last_so_many_records(path):
    append_records(path, [{"a": number} for number in range(5)])
    with path.open("a") as file:
        file.write("{")
    assert read_records(path, last=2) == [{"a": 3}, {"a": 4}]


def test_a_wrong_line_is_named_by_its_number(path):
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(DataError, match=r"records\.jsonl:2: is not JSON"):
        read_records(path)
    assert read_records(path, last=1) == [{"a": 3}]


def test_nan_is_refused_unless_allowed(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_records(path, [{"loss": float("nan")}])
    append_records(path, [{"loss": float("nan")}], allow_nan=True)
    assert path.read_text() == '{"loss": NaN}\n'


def test_an_atomic_write_replaces_the_file(path):
    atomic_write(path, "one: é\n")
    assert path.read_bytes() == "one: é\n".encode()
    atomic_write(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    assert [inner.name for inner in path.parent.iterdir()] == [path.name]


def test_a_failed_atomic_path_changes_nothing(path):
    path.write_text("before")
    with pytest.raises(InterruptedWriteError), atomic_path(path) as aside:
        write_half(aside)
    assert path.read_text() == "before"
    assert [inner.name for inner in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("there", [False, True])
def test_an_atomic_directory_replaces_what_is_there(tmp_path, there):
    folder = tmp_path / "deep" / "folder"
    if there:
        folder.mkdir(parents=True)
        (folder / "old").write_text("old")
        (folder.parent / "folder.partial").mkdir()  # left by a kill
        (folder.parent / "folder.partial" / "half").write_text("half")
    with atomic_directory(folder) as aside:
        assert not list(aside.iterdir())
        (aside / "inner").mkdir()
        (aside / "inner" / "new").write_text("new")
        assert (folder / "old").exists() == there
    assert [str(inner.relative_to(tmp_path)) for inner in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/folder",
        "deep/folder/inner",
        "deep/folder/inner/new",
    ]


def test_a_failed_atomic_directory_changes_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InterruptedWriteError), atomic_directory(folder) as aside:
        write_half(aside / "half")
    assert list(tmp_path.rglob("*")) == [folder]


def test_atomic_directories_nest(tmp_path):
    """As where a checkpoint with a model card holds what `save_pretrained` wrote."""
    with atomic_directory(tmp_path / "folder") as outer:
        with atomic_directory(outer) as inner:
            (inner / "weights").write_text("weights")
        (outer / "card").write_text("card")
    assert sorted(inner.name for inner in tmp_path.rglob("*")) == ["card", "folder", "weights"]


def test_a_place_that_cannot_be_written_is_one_line(path):
    path.write_text("a file")
    inside = path / "inside"
    for write in (lambda: atomic_write(inside, "x"), lambda: atomic_directory(inside).__enter__()):
        with pytest.raises(ConfigError, match=r"inside: cannot be written \((Not a directory|File exists): "):
            write()
    with pytest.raises(ConfigError, match=r"inside: cannot be made: Not a directory"):
        make_directory(inside)


def test_an_error_of_reading_names_the_file_that_was_read(tmp_path):
    message = r"out: cannot be written \(No such file or directory: .*missing\)"
    with pytest.raises(ConfigError, match=message), atomic_path(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()


def test_a_directory_is_locked_until_released(tmp_path):
    with lock_directory(tmp_path), pytest.raises(ConfigError, match="another process"), lock_directory(tmp_path):
        pass
    with lock_directory(tmp_path):
        pass
