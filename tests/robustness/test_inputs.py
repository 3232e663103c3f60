"""Inputs of other forms than the usual: accepted where it is safe, and else refused with the line to write."""

import io

import numpy as np
import pytest

from descore import VideoError, VideoSampling, read_clip
from descore.data.schema import path_resolver, read_pairs
from descore.data.tables import read_rows
from descore.errors import DataError
from descore.report.charts import Point, Series, reliability_chart
from descore.report.text import one_line
from tests.test_architecture import CLIP

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 3), np.uint8)


def frames_of(video, **given):
    return read_clip(video, sampling=VideoSampling(), **given).frames


@pytest.mark.parametrize("control", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_bidi_controls_do_not_reach_the_terminal(control):
    assert one_line(f"clip{control}4pm.exe") == "clip\ufffd4pm.exe"


def test_an_address_in_a_table_keeps_its_slashes():
    assert path_resolver("folder/pairs.csv")("https://example.org/a.mp4") == "https://example.org/a.mp4"
    assert path_resolver("folder/pairs.csv")("a.mp4") == "folder/a.mp4"


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_named(tmp_path, separator, name):
    table = tmp_path / "pairs.csv"
    table.write_text(separator.join(["prompt", "video_a", "video_b", "preference"]) + "\n")
    with pytest.raises(DataError, match=f"found {name} between the columns, expected commas"):
        list(read_pairs(table))


def test_a_table_with_tabs_is_read_by_its_suffix(tmp_path):
    table = tmp_path / "clips.tsv"
    table.write_text('prompt\tvideo\na ball, red\ta.mp4\n"a\tdog"\tb.mp4\n')
    assert [row for _, row in read_rows(table)] == [
        {"prompt": "a ball, red", "video": "a.mp4"},
        {"prompt": "a\tdog", "video": "b.mp4"},
    ]
    table.write_text("prompt,video\na ball,a.mp4\n")
    with pytest.raises(DataError, match="found commas between the columns, expected tabs"):
        list(read_rows(table))
    table.write_text("prompt\tvideo\na ball\n")
    with pytest.raises(DataError, match=r"tsv:2: 1 cells; expected 2, one for each column: is a tab missing\?"):
        list(read_rows(table))


def table_with(tmp_path, preference):
    table = tmp_path / "pairs.csv"
    table.write_text(f"prompt,video_a,video_b,preference\np,a.mp4,b.mp4,{preference}\n")
    return table


@pytest.mark.parametrize(("cell", "label"), [("A", "a"), ("B", "b"), ("Tie", "tie")])
def test_a_label_in_capitals_is_read(tmp_path, cell, label):
    [pair] = read_pairs(table_with(tmp_path, cell))
    assert pair.preference == {"overall": label}


@pytest.mark.parametrize("cell", ["same", "Equal", "draw"])
def test_another_word_for_a_tie_gets_a_hint(tmp_path, cell):
    with pytest.raises(DataError, match="expected a, b or tie; write 'tie'"):
        list(read_pairs(table_with(tmp_path, cell)))


@pytest.mark.parametrize("open_video", [lambda: io.BytesIO(CLIP.read_bytes()), lambda: CLIP.open("rb"), CLIP.as_uri])
def test_open_files_and_file_addresses_are_read(open_video):
    assert (frames_of(open_video()) == frames_of(CLIP)).all()


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ("https://example.org/a.mp4", "urllib.request.urlretrieve"),
        ("file://server/a.mp4", "expected file:///PATH"),
        (io.StringIO("text"), r"open\(path, 'rb'\)"),
        (io.BytesIO(b""), r"file.seek\(0\)"),
    ],
)
def test_other_addresses_and_files_say_what_to_write(video, message):
    with pytest.raises(VideoError, match=message):
        frames_of(video)


def test_a_closed_file_is_a_video_error():
    file = io.BytesIO(b"x")
    file.close()
    with pytest.raises(VideoError, match="closed"):
        frames_of(file)


@pytest.mark.parametrize("form", [list, lambda f: f[None], lambda f: list(f.transpose(0, 3, 1, 2))])
def test_lists_of_arrays_and_a_batch_of_one_are_read(form):
    assert (frames_of(form(FRAMES), fps=8) == frames_of(FRAMES, fps=8)).all()


def test_a_list_of_tensors_is_read():
    torch = pytest.importorskip("torch")
    assert (frames_of(list(torch.from_numpy(FRAMES)), fps=8) == frames_of(FRAMES, fps=8)).all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.stack([FRAMES, FRAMES]), "a batch of 2 videos"),
        (FRAMES.transpose(3, 0, 1, 2), r"swapaxes\(0, 1\)"),
        ([FRAMES[0], FRAMES[1, :16]], "different shapes"),
    ],
)
def test_other_shapes_say_what_to_write(frames, message):
    with pytest.raises(VideoError, match=message):
        frames_of(frames, fps=8)


def test_a_bin_of_few_pairs_is_not_joined():
    points = tuple(Point(x=x, y=0.5, joined=x != 0.7) for x in (0.6, 0.7, 0.8))
    drawn = reliability_chart([Series(name="run", style=0, points=points)], title="Reliability")
    [line] = [part for part in drawn.split("<") if part.startswith("polyline")]
    assert line.count(",") == 2
