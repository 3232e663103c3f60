"""Other projects' tables become the project's own, label by label and path by path."""

import csv
import json
from pathlib import Path

import pytest

from descore.data.schema import read_pairs
from descore.data.validate import TableCheck
from descore.errors import ConfigError, DataError
from descore.evaluation.convert import LAYOUTS, RATINGS, convert_table, find_layout

ALIGN = """\
path_A,path_B,prompt,VQ,MQ,TA,fps_A
./v/1a.mp4,v/1b.mp4,a dog,A,same,B,24
/abs/2a.mp4,v/2b.mp4,a cat,B,invalid,,30
v/3a.mp4,v/3b.mp4,a cow,invalid,invalid,,30
"""
MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}


def written(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def read(file):
    return list(read_pairs(file, resolve=False))


def test_videoalign(tmp_path):
    source = written(tmp_path / "there" / "train.csv", ALIGN)
    done = convert_table(source, layout="videoalign", out=tmp_path / "here" / "pairs.csv")
    assert (done.rows, done.left_out) == (2, 1)
    assert {label: dict(counts) for label, counts in done.labels.items()} == {
        "VQ": {"a": 1, "b": 1}, "MQ": {"tie": 1}, "TA": {"b": 1},
    }  # fmt: skip
    first, second = read(done.out)
    assert (first.video_a, first.video_b) == ("../there/v/1a.mp4", "../there/v/1b.mp4")
    assert dict(first.preference) == {"VQ": "a", "MQ": "tie", "TA": "b"}
    assert (second.video_a, dict(second.preference)) == ("/abs/2a.mp4", {"VQ": "b"})
    assert done.out.read_text().splitlines()[0] == "prompt,video_a,video_b,preference.VQ,preference.MQ,preference.TA"
    assert not list(TableCheck([done.out], probes={}).findings())


def test_chosen_labels_ratings_and_another_root(tmp_path):
    text = "path_A,path_B,prompt,TA,MOS_A_TA,MOS_B_TA,MOS_A_VQ\n1a.mp4,1b.mp4,a dog,B,2.5,4,1\n"
    source = written(tmp_path / "train.csv", text)
    done = convert_table(source, layout="videoalign", out=tmp_path / "p.jsonl", labels=["TA"], root=tmp_path / "films")
    [row] = read_pairs(done.out)
    assert row.video_b == str(tmp_path / "films" / "1b.mp4")
    assert (dict(row.a.ratings), dict(row.b.ratings)) == ({"TA": 2.5}, {"TA": 4.0})
    assert json.loads(done.out.read_text())["video_a"] == "films/1a.mp4"


@pytest.mark.parametrize("videos", ['["./v/1a.mp4", "v/1b.mp4"]', "['v/1a.mp4', 'v/1b.mp4']"])
def test_the_references_pairs_with_chains(tmp_path, videos):
    source = tmp_path / "train.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["videos", "problem", "durations", "prompt", "CoT_A", "CoT_B", "GSB"])
        for label in ("A", "B", "same", "invalid"):
            writer.writerow([videos, "You judge ...", "5", f"a dog {label}", "I see a.", "I see b.", label])
    done = convert_table(source, layout="descore", out=tmp_path / "pairs.parquet")
    rows = list(read_pairs(done.out, resolve=False))
    assert [dict(row.preference) for row in rows] == [{"overall": choice} for choice in ("a", "b", "tie")]
    assert done.left_out == 1
    assert (rows[0].prompt, rows[0].video_a, rows[0].video_b) == ("a dog A", "v/1a.mp4", "v/1b.mp4")
    assert (rows[0].a.chain, rows[0].b.chain) == ("I see a.", "I see b.")


def test_a_list_that_is_none_is_refused_with_its_line(tmp_path):
    source = written(tmp_path / "t.csv", "videos,prompt,GSB\n\"['a','b']\",p,A\n__import__('os'),p,A\n")
    with pytest.raises(DataError, match=r"t\.csv:3: videos is \"__import__\('os'\)\"; expected a list of two paths"):
        convert_table(source, layout="descore", out=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_genai_bench_in_its_own_folder(tmp_path):
    row = find_layout("genai-bench-video")
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote"]
    text = "prompt,left_video,right_video,left_model,right_model,vote_type\n" + "".join(
        f"a dog {vote},https://hub/main/l/{vote}.mp4,https://hub/main/r/{vote}.mp4,one,two,{vote}\n" for vote in votes
    )
    # The table lies in a folder of the benchmark's, and the films beside that folder.
    source = written(tmp_path / Path(row.table).with_suffix(".csv"), text)
    done = convert_table(source, layout=row.name, out=tmp_path / "pairs.csv", root=tmp_path)
    pairs = read(done.out)
    assert [dict(pair.preference)["overall"] for pair in pairs] == ["a", "b", "tie", "tie"]
    assert (pairs[0].video_a, pairs[0].source_a) == ("videos/l/leftvote.mp4", "one")


def test_a_table_that_lies_where_its_benchmark_has_it(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = find_layout("genai-bench-video")
    source = tmp_path / row.table
    source.parent.mkdir()
    cells = {"prompt": "p", "left_video": "x/main/l.mp4", "right_video": "x/main/r.mp4", "left_model": "one"}
    parquet.write_table(arrow.Table.from_pylist([{**cells, "right_model": "two", "vote_type": "leftvote"}]), source)
    [pair] = read(convert_table(source, layout=row.name, out=tmp_path / "pairs.csv").out)
    assert pair.video_a == "videos/l.mp4"


def test_videogen_rewardbench(tmp_path):
    text = "path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall\nvideos/k/1.mp4,videos/l/1.mp4,k,l,a dog,A,B,same,A\n"
    done = convert_table(written(tmp_path / "v.csv", text), layout="videogen-rewardbench", out=tmp_path / "pairs.csv")
    [pair] = read(done.out)
    assert dict(pair.preference) == {"VQ": "a", "MQ": "b", "TA": "tie", "overall": "a"}
    assert (pair.video_a, pair.source_b) == ("videos/k/1.mp4", "l")


RATED = "prompt,video,rating,rating.VQ,group,source,marks\n"


def rated(folder, *lines):
    return written(folder / "ratings.csv", RATED + "".join(f"{line}\n" for line in lines))


def test_ratings_become_pairs_within_a_prompt(tmp_path):
    source = rated(tmp_path, "p,x.mp4,3,1,g,one,", "p,y.mp4,3.4,,g,two,", "q,z.mp4,1,1,g,,", "p,w.mp4,5,2,h,,")
    done = convert_table(source, layout=RATINGS, out=tmp_path / "pairs.csv", least_difference=0.5)
    rows = list(read_pairs(done.out, resolve=False))
    assert [(r.video_a, r.video_b, dict(r.preference)) for r in rows] == [
        ("x.mp4", "y.mp4", {"overall": "tie"}),  # 0.4 is below the least difference
        ("x.mp4", "w.mp4", {"overall": "b", "VQ": "b"}),
        ("y.mp4", "w.mp4", {"overall": "b"}),
    ]
    assert (rows[1].a.ratings, rows[1].b.ratings) == ({"overall": 3.0, "VQ": 1.0}, {"overall": 5.0, "VQ": 2.0})
    assert (rows[0].source_a, rows[0].source_b, rows[0].group) == ("one", "two", "g")


def test_within_a_group_only(tmp_path):
    source = rated(tmp_path, "p,x.mp4,3,,g,,", "p,y.mp4,4,,h,,", "p,z.mp4,5,,g,,", "q,w.mp4,5,,g,,")
    done = convert_table(source, layout=RATINGS, out=tmp_path / "pairs.csv", within="group", labels=["overall"])
    assert [(pair.video_a, pair.video_b) for pair in read(done.out)] == [("x.mp4", "z.mp4")]


def test_marks_and_several_raters(tmp_path):
    marks = json.dumps(MARKS | {"camera": "N/A"}).replace('"', '""')
    source = rated(tmp_path, f'p,x.mp4,2,,,,"{marks}"', "p,x.mp4,4,,,,", "p,y.mp4,2.5,,,,")
    [row] = read_pairs(convert_table(source, layout=RATINGS, out=tmp_path / "p.jsonl").out)
    assert (dict(row.preference), dict(row.a.ratings)) == ({"overall": "a"}, {"overall": 3.0})
    assert (row.a.marks, row.b.marks) == (MARKS, None)


@pytest.mark.parametrize(
    ("layout", "text", "how", "error", "message"),
    [
        ("videoaling", ALIGN, {}, ConfigError, "unknown layout 'videoaling'; did you mean videoalign\\? Known: "),
        ("genai-bench", ALIGN, {}, ConfigError, "did you mean genai-bench-video\\?"),
        ("videoscore-bench", ALIGN, {}, ConfigError, "unknown layout"),
        ("videoalign", ALIGN, {"labels": ["VX"]}, ConfigError, "no label 'VX'; videoalign has VQ, MQ, TA"),
        ("videoalign", ALIGN, {"least_difference": 1.0}, ConfigError, "videoalign: has preferences; a least"),
        ("videoalign", "path_a,prompt\nx,p\n", {}, DataError, "s.csv:1: no column 'path_A' \\(is it 'path_a'\\?\\)"),
        ("videoalign", ALIGN.replace("same", "Equal"), {}, DataError, "s.csv:2: MQ is 'Equal'; expected A, B, same or"),
        ("videoalign", ALIGN.partition("\n./v")[0] + "\n", {}, DataError, "s.csv:1: no rows"),
        ("descore", ALIGN, {}, DataError, "s.csv:1: no column 'videos', "),
        (RATINGS, RATED + "p,x.mp4,1,,,,\nq,y.mp4,2,,,,\n", {}, DataError, "no two rated clips are of one prompt"),
        (RATINGS, "prompt,video_a,video_b,preference\np,x,y,a\n", {}, ConfigError, "is in the project's schema"),
        (RATINGS, ALIGN, {}, DataError, "s.csv:1: found columns path_A, path_B"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_one_line(tmp_path, layout, text, how, error, message):
    source = written(tmp_path / "s.csv", text)
    with pytest.raises(error, match=message) as fault:
        convert_table(source, layout=layout, out=tmp_path / "out.csv", **how)
    assert "\n" not in str(fault.value)
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_a_table_without_any_label_gives_none(tmp_path):
    source = written(tmp_path / "s.csv", "\n".join(ALIGN.splitlines()[::3]) + "\n")
    with pytest.raises(DataError, match="nothing to convert: none of its pairs has a label"):
        convert_table(source, layout="videoalign", out=tmp_path / "out.csv")


def test_a_file_that_is_not_there(tmp_path):
    for layout in ("videoalign", RATINGS):
        with pytest.raises(ConfigError, match="no such file; expected a table"):
            convert_table(tmp_path / "absent.csv", layout=layout, out=tmp_path / "out.csv")


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=lambda row: row.name)
def test_every_layout_says_what_it_is(row):
    assert row.columns is not None
    assert row.labels
    assert row.how_to_get
    assert row.frames_per_second is None
