"""Pairs and ratings from the project's own tables, and pairs made of ratings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.data.schema import PairColumns, clip_columns_of, pairs_within, parse_clip, read_pairs
from descore.data.tables import Cells, columns_of, read_rows
from descore.errors import ConfigError, DataError
from descore.types import Pair, RatedClip, SideAnnotations

MARKS = {"subject": 2, "dynamics": 1, "camera": "N/A", "environment": 0, "style": 2}


def table(folder, name, *lines):
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def read_clips(file):
    columns = clip_columns_of(columns_of(file), file=str(file))
    for line, row in read_rows(file, columns=columns.required):
        yield parse_clip(Cells(file=str(file), line=line, row=row), columns=columns)


def test_the_least_table_of_pairs(tmp_path):
    file = table(
        tmp_path, "pairs.csv", "prompt,video_a,video_b,preference", "a dog,x.mp4,sub/y.mp4,a", "a cat,x.mp4,/z.mp4,tie"
    )
    rows = list(read_pairs(file))
    assert [row.line for row in rows] == [2, 3]
    assert rows[0] == Pair(
        prompt="a dog",
        video_a=str(tmp_path / "x.mp4"),
        video_b=str(tmp_path / "sub" / "y.mp4"),
        preference={"overall": "a"},
        group="a dog",
        line=2,
    )
    assert (rows[1].video_b, rows[1].preference) == ("/z.mp4", {"overall": "tie"})


def test_a_table_of_pairs_with_every_column(tmp_path):
    row = {
        "prompt": "a dog",
        "video_a": "x.mp4",
        "video_b": "y.mp4",
        "preference.VQ": "b",
        "preference.MQ": None,
        "chain_a": "I see a dog.",
        "marks_a": MARKS,
        "rating_a.VQ": 2,
        "rating_b.VQ": 3.5,
        "group": "dogs",
        "source_a": "one",
        "source_b": "two",
        "aspect": "animals",
    }
    file = table(tmp_path, "pairs.jsonl", json.dumps(row))
    (pair,) = read_pairs(file, resolve=False)
    assert pair == Pair(
        prompt="a dog",
        video_a="x.mp4",
        video_b="y.mp4",
        preference={"VQ": "b"},
        group="dogs",
        source_a="one",
        source_b="two",
        aspect="animals",
        a=SideAnnotations(chain="I see a dog.", marks={**MARKS, "camera": None}, ratings={"VQ": 2.0}),
        b=SideAnnotations(ratings={"VQ": 3.5}),
        line=1,
    )


def test_one_source_for_both(tmp_path):
    file = table(tmp_path, "p.csv", "prompt,video_a,video_b,preference,source", "p,x,y,a,model")
    (row,) = read_pairs(file)
    assert (row.source_a, row.source_b) == ("model", "model")


def test_columns_and_label_values_of_another_table(tmp_path):
    columns = PairColumns(
        prompt="text", video_a="left", video_b="right", preference={"vote": "vote"},
        values={"L": "a", "R": "b", "none": "tie", "?": None},
    )  # fmt: skip
    file = table(tmp_path, "p.csv", "text,left,right,vote", "p,x,y,L", "p,x,y,R", "p,x,y,none", "p,x,y,?", "p,x,y,")
    preferences = [dict(row.preference) for row in read_pairs(file, columns=columns)]
    assert preferences == [{"vote": "a"}, {"vote": "b"}, {"vote": "tie"}, {}, {}]


def test_a_table_of_ratings(tmp_path):
    file = table(
        tmp_path, "r.csv", "prompt,video,rating,rating.style,source,aspect,group,marks",
        f'p,x.mp4,3.5,,gen,Actions,g,"{json.dumps(MARKS).replace(chr(34), chr(34) * 2)}"', "p,y.mp4,,1,,,,",
    )  # fmt: skip
    first, second = read_clips(file)
    assert first == RatedClip(
        prompt="p",
        video="x.mp4",
        group="g",
        ratings={"overall": 3.5},
        marks={**MARKS, "camera": None},
        source="gen",
        aspect="Actions",
    )
    assert (second.ratings, second.group, second.marks) == ({"style": 1.0}, "p", None)


@pytest.mark.parametrize(
    ("read", "lines", "message"),
    [
        (read_pairs, ["prompt,video_a,video_b,preference", "p,x,y,same?"], "2: preference is 'same\\?'; expected a, b"),
        (read_pairs, ["prompt,video_a,video_b,preference", "p,,y,a"], "2: video_a is empty; expected a text"),
        (read_pairs, ["prompt,video_a,video_b,choice", "p,x,y,a"], "1: no column 'preference' or 'preference.NAME'"),
        (read_pairs, ["promt,video_a,preference", "p,x,a"], "1: no column 'prompt' \\(is it 'promt'\\?\\), 'video_b'"),
        (read_clips, ["prompt,video", "p,x"], "1: no column 'rating' or 'rating.NAME'; expected one for each label"),
        (read_clips, ["prompt,video,rating", "p,x,good"], "2: rating is 'good'; expected a number"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_refused(tmp_path, read, lines, message):
    with pytest.raises(DataError, match=message):
        list(read(table(tmp_path, "t.csv", *lines)))


def clip(video, prompt="p", **ratings):
    return RatedClip(prompt=prompt, video=video, group=prompt, ratings=ratings, source=f"of {video}")


def test_pairs_are_made_within_a_prompt():
    clips = [clip("x", VQ=3.0, TA=1.0), clip("y", VQ=3.4), clip("z", prompt="q", VQ=1.0), clip("w", VQ=1.0, TA=1.0)]
    pairs = pairs_within(clips, least_difference=0.5)
    assert [(p.video_a, p.video_b, dict(p.preference)) for p in pairs] == [
        ("x", "y", {"VQ": "tie"}),  # 0.4 is below the least difference
        ("x", "w", {"VQ": "a", "TA": "tie"}),
        ("y", "w", {"VQ": "a"}),
    ]
    assert (pairs[0].source_a, pairs[0].source_b, pairs[0].group) == ("of x", "of y", "p")


def test_a_least_difference_is_attained_in_spite_of_rounding():
    # 0.3 - 0.1 is 0.19999999999999998 in floats
    assert pairs_within([clip("x", VQ=0.3), clip("y", VQ=0.1)], least_difference=0.2)[0].preference["VQ"] == "a"


def test_a_least_difference_below_zero_is_refused():
    with pytest.raises(ConfigError, match="least_difference is -1; expected 0 or more"):
        pairs_within([], least_difference=-1)


@given(
    ratings=st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 10)), max_size=9),
    least=st.sampled_from([0.0, 1.0, 2.5]),
)
def test_pairs_against_a_plain_loop(ratings, least):
    clips = [clip(str(i), prompt=prompt, VQ=float(rating)) for i, (prompt, rating) in enumerate(ratings)]
    expected = set()
    for i, (prompt, a) in enumerate(ratings):
        for j, (other, b) in enumerate(ratings):
            if i < j and prompt == other:
                preference = "tie" if a == b or abs(a - b) < least else "a" if a > b else "b"
                expected.add((str(i), str(j), preference))
    pairs = pairs_within(clips, least_difference=least)
    assert {(p.video_a, p.video_b, p.preference["VQ"]) for p in pairs} == expected
    assert len(pairs) == len(expected)
