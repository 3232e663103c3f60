import pytest

from descore.chains.source import read_chain_source
from descore.errors import DataError

PAIRS = "prompt,video_a,video_b,preference,note\na ball,a.mp4,b.mp4,a,x\na cat,c.mp4,a.mp4,tie,y\n"


def read(folder, text, **options):
    table = folder / "table.csv"
    table.write_text(text)
    return read_chain_source(table, **options)


def test_a_pair_has_two_clips_and_keeps_its_cells(tmp_path):
    source = read(tmp_path, PAIRS)
    assert source.kind == "pairs"
    assert [(c.row, c.side, c.video) for c in source.clips] == [
        (0, "a", "a.mp4"),
        (0, "b", "b.mp4"),
        (1, "a", "c.mp4"),
        (1, "b", "a.mp4"),
    ]
    assert source.clips[0].path == str(tmp_path / "a.mp4")
    assert source.rows[1].record.preference == {"overall": "tie"}
    assert source.rows[1].cells["note"] == "y"


def test_rated_clips_and_clips_alone_have_one_clip(tmp_path):
    rated = read(tmp_path, "prompt,video,rating.motion\na ball,a.mp4,3\n")
    assert (rated.kind, rated.rows[0].record.ratings) == ("rated clips", {"motion": 3.0})
    alone = read(tmp_path, "prompt,video\na ball,a.mp4\n")
    assert (alone.kind, alone.rows[0].record.ratings, alone.clips[0].side) == ("clips", {}, None)


def test_a_limit_takes_the_first_rows(tmp_path):
    assert len(read(tmp_path, PAIRS, limit=1).rows) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prompt,clip\na ball,a.mp4\n", "table.csv:1: no column video, nor video_a and video_b"),
        ("prompt,video_a,video_b\na ball,a.mp4,b.mp4\n", "no column 'preference'"),
        ("prompt,video\na ball,a.mp4\n,b.mp4\n", "table.csv:3: prompt is empty"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_line(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        read(tmp_path, text)
