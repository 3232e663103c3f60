"""Tables, tables of pairs and folders as sources, and a scored table's columns by type."""

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descore.errors import ConfigError, DataError
from descore.rewards.journal import default_out
from descore.rewards.sources import open_source, rebased


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_of_all_rows_are_kept(tmp_path):
    table = jsonl(tmp_path / "t.jsonl", {"prompt": "p", "video": "a"}, {"prompt": "q", "seed": 3, "video": "b"})
    source = open_source(table)
    assert source.columns == ("prompt", "video", "seed")
    assert [(row.number, row.prompt, row.path) for row in source.rows()] == [
        (0, "p", str(tmp_path / "a")),
        (1, "q", str(tmp_path / "b")),
    ]
    assert source.count == len(list(source.rows())) == 2


def test_a_prompt_for_a_table_without_one(tmp_path):
    [row] = open_source(jsonl(tmp_path / "t.jsonl", {"video": "a", "x": 1}), prompt="p").rows()
    assert list(row.cells.items()) == [("prompt", "p"), ("video", "a"), ("x", 1)]


def test_an_address_and_an_absolute_path_stay(tmp_path):
    videos = ["https://host/a.mp4", "/data/a.mp4"]
    source = open_source(jsonl(tmp_path / "t.jsonl", *({"prompt": "p", "video": video} for video in videos)))
    cells = rebased(source, folder=tmp_path / "else")
    assert [row.path for row in source.rows()] == videos
    assert [cells(row)["video"] for row in source.rows()] == videos


def test_a_relative_path_leads_to_the_same_file_from_elsewhere(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"x")
    source = open_source(jsonl(tmp_path / "t.jsonl", {"prompt": "p", "video": "clips/a.mp4"}))
    [row] = source.rows()
    assert rebased(source, folder=tmp_path)(row)["video"] == "clips/a.mp4"
    moved = rebased(source, folder=tmp_path / "out")(row)["video"]
    assert (tmp_path / "out" / moved).samefile(tmp_path / "clips" / "a.mp4")


def test_a_pair_has_two_rows_with_their_own_videos(tmp_path):
    table = jsonl(tmp_path / "t.jsonl", {"id": 7, "video_b": "b", "prompt": "p", "video_a": "a", "preference": "a"})
    a, b = open_source(table).rows()
    assert list(a.cells.items()) == [
        ("id", 7),
        ("prompt", "p"),
        ("video", "a"),
        ("pair", 1),
        ("side", "a"),
        ("preference", "a"),
    ]
    assert (b.cells["video"], b.cells["side"], b.number) == ("b", "b", 1)


def test_a_pair_table_with_a_pair_column_is_refused(tmp_path):
    table = jsonl(tmp_path / "t.jsonl", {"prompt": "p", "video_a": "a", "video_b": "b", "pair": 3})
    with pytest.raises(DataError, match="has the column 'pair', which a scored table of pairs has; rename it"):
        open_source(table)


def test_a_folder_is_read_in_order_and_hidden_files_are_left_out(tmp_path):
    for name in ("b.MP4", "a/2.webm", "a/10.gif", ".hidden.mp4", ".trash/c.mp4", "note.txt", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    rows = list(open_source(tmp_path, prompt="p").rows())
    assert [row.video for row in rows] == ["b.MP4", "a/10.gif", "a/2.webm"]
    assert [Path(row.path) for row in rows] == [tmp_path / row.video for row in rows]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"\xef\xbb\xbfa ball\r\n", None),
        (b" \n", "no prompt: a.txt is empty"),
        (b"\xff", "no prompt: a.txt cannot be read as UTF-8"),
    ],
)
def test_the_text_beside_a_clip(tmp_path, text, error):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(text)
    [row] = open_source(tmp_path).rows()
    assert (row.prompt, row.error is None) == (("a ball", True) if error is None else ("", False))
    assert error is None or row.error.startswith(error)


def test_parquet_keeps_the_types_of_parquet(tmp_path):
    day = datetime.date(2026, 1, 2)
    table = pa.table({"prompt": ["p"], "video": ["a"], "n": pa.array([3], pa.int16()), "day": [day]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").arrow_schema(out=tmp_path / "s.parquet") == table.schema


def test_parquet_of_json_has_the_types_of_all_rows(tmp_path):
    rows = [{"prompt": "p", "video": "a", "n": 1, "x": None, "tags": ["u"]}, {"prompt": "p", "video": "b", "n": 1.5}]
    schema = open_source(jsonl(tmp_path / "t.jsonl", *rows)).arrow_schema(out=tmp_path / "s.parquet")
    assert [str(schema.field(name).type) for name in ("n", "x", "tags")] == ["double", "string", "list<item: string>"]


@pytest.mark.parametrize("value", ["text", 1 << 70, "\ud83d"])
def test_a_column_of_several_types_is_refused_first(tmp_path, value):
    rows = [{"prompt": "p", "video": "a", "n": 1}, {"prompt": "p", "video": "b", "n": value}]
    source = open_source(jsonl(tmp_path / "t.jsonl", *rows))
    with pytest.raises(ConfigError, match=r"s.parquet: a column cannot be written \(.*\); write a .jsonl table"):
        source.arrow_schema(out=tmp_path / "s.parquet")


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("a/t.csv", "a/t.scores.csv"),
        ("a/t.json", "a/t.scores.jsonl"),
        ("t.PARQUET", "t.scores.PARQUET"),
        ("a", "a.scores.jsonl"),
        ("a/", "a.scores.jsonl"),
    ],
)
def test_scores_stand_beside_their_source(tmp_path, monkeypatch, source, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    assert default_out(Path(source)) == Path(out)


def test_scores_of_the_folder_one_is_in_stand_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_out(Path()).resolve() == tmp_path.parent / f"{tmp_path.name}.scores.jsonl"
