"""Pairs that are written read back equal; a table is whole or not there."""

from dataclasses import replace

import pytest

from descore.data.schema import read_pairs
from descore.data.write import schema_cells, table_writer
from descore.errors import ConfigError, DataError
from descore.types import Pair, SideAnnotations

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_is_written_reads_back(tmp_path, suffix):
    pair = Pair(
        prompt='a "dog", running\nfast', video_a="x.mp4", video_b="é/y.mp4", preference={"overall": "a", "VQ": "tie"},
        group="dogs", source_a="one", source_b=None, aspect="animals",
        a=SideAnnotations(chain="I see.\nA dog.", marks=MARKS, ratings={"VQ": 0.1}),
    )  # fmt: skip
    columns = ("prompt", "video_a", "video_b", "preference", "preference.VQ", "preference.MQ", "chain_a", "marks_a")
    columns += ("rating_a.VQ", "rating_b.VQ", "group", "source_a", "source_b", "aspect")
    out = tmp_path / f"t{suffix}"
    with table_writer(out, columns) as write:
        for _ in range(1030):  # more than a Parquet file takes at a time
            write(schema_cells(pair))
    rows = list(read_pairs(out, resolve=False))
    assert len(rows) == 1030
    assert replace(rows[-1], line=None) == pair


def test_an_error_leaves_nothing_behind(tmp_path):
    def broken_off():
        with table_writer(tmp_path / "t.csv", ["prompt"]) as write:
            write({"prompt": "p"})
            raise DataError("x", 1, "y")

    with pytest.raises(DataError):
        broken_off()
    assert not list(tmp_path.iterdir())


def test_a_table_is_never_overwritten(tmp_path):
    there = tmp_path / "t.csv"
    there.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"), table_writer(there, ["prompt"]):
        pass
    assert there.read_text() == "mine"


def test_a_table_of_an_unknown_kind_or_in_no_place_is_refused(tmp_path):
    kinds = r"t\.json: unknown suffix '\.json'; expected one of \.csv, \.jsonl, \.parquet"
    with pytest.raises(ConfigError, match=kinds), table_writer(tmp_path / "t.json", ["prompt"]):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is no folder"), table_writer(tmp_path / "file" / "t.csv", ["prompt"]):
        pass
