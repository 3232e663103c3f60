"""`descore world sample` writes what the rest of the package reads, and only whole folders."""

import csv
from typing import get_args

import numpy as np
import pytest
from tests.report.test_page import Page

from descore.data.schema import read_pairs
from descore.synthetic.splits import Split, draw_pair
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

COMMAND = ("world", "sample", "--count", 3, "--size", "64x32", "--split", "wordings", "--seed-offset", 5, "--out")
EVERY_FRAME = VideoSampling(fps=4.0, min_frames=8, max_frames=8, min_pixels=32 * 32, max_pixels=64 * 64)


@pytest.fixture(scope="module")
def sample(tmp_path_factory, descore):
    folder = tmp_path_factory.mktemp("world") / "sample"
    result = descore(*COMMAND, folder)
    assert result.exit_code == 0, result.stderr
    assert "3 pairs of the split wordings" in result.stdout
    return folder


def test_the_table_is_one_of_pairs(sample):
    rows = list(read_pairs(sample / "pairs.csv"))
    assert len(rows) == 3
    for number, row in enumerate(rows, start=5):
        truth = draw_pair(Split.WORDINGS, number, size=(64, 32))
        assert row.prompt == row.group == truth.a.prompt
        assert dict(row.preference) == {"overall": truth.preference}
        assert (row.source_a, row.source_b) == (truth.a.generator, truth.b.generator)
        for side, example in ((row.a, truth.a), (row.b, truth.b)):
            assert side.chain == example.chain
            assert side.marks == example.verdict.marks
            assert dict(side.ratings) == {"overall": example.verdict.overall}


def test_the_films_are_the_clips(sample):
    """Frame by frame, in brightness: films hold colour at half the resolution, so coloured noise comes out paler."""
    luma_C = np.array([0.299, 0.587, 0.114])
    for number, row in enumerate(read_pairs(sample / "pairs.csv"), start=5):
        truth = draw_pair(Split.WORDINGS, number, size=(64, 32))
        for video, example in ((row.video_a, truth.a), (row.video_b, truth.b)):
            clip = read_clip(video, sampling=EVERY_FRAME)
            assert clip.times == example.clip.times
            assert np.abs((clip.frames.astype(float) - example.clip.frames) @ luma_C).mean() < 3


def test_a_page_shows_both_clips_of_every_pair(sample):
    page = Page((sample / "contact.html").read_text(encoding="utf-8"))
    assert len(page.all("article")) == 6
    assert len(page.all("img")) == 6 * 8
    assert all(f"Pair {number}" in page.text for number in (5, 6, 7))


def test_nothing_else_is_left(sample):
    assert {path.name for path in sample.iterdir()} == {"clips", "pairs.csv", "contact.html"}
    assert len(list((sample / "clips").iterdir())) == 6
    assert list(sample.parent.iterdir()) == [sample]


def test_the_same_command_writes_the_same_table(sample, tmp_path, descore):
    descore(*COMMAND, tmp_path / "again")
    assert (tmp_path / "again" / "pairs.csv").read_bytes() == (sample / "pairs.csv").read_bytes()


def test_label_noise_turns_preferences_round(sample, tmp_path, descore):
    folder = tmp_path / "noisy"
    descore(*COMMAND, folder, "--label-noise", 1)
    turned = {"a": "b", "b": "a", "tie": "tie"}
    plain, noisy = (
        [row["preference"] for row in csv.DictReader((path / "pairs.csv").read_text().splitlines())]
        for path in (sample, folder)
    )
    assert noisy == [turned[preference] for preference in plain]


def test_loose_prompts_ask_for_the_same_in_other_words(tmp_path, descore):
    rows_of = {}
    for name, options in (("stiff", ()), ("loose", ("--loose",))):
        folder = tmp_path / name
        assert descore("world", "sample", "--count", 2, "--size", "64x32", "--out", folder, *options).exit_code == 0
        rows = csv.DictReader((folder / "pairs.csv").read_text().splitlines())
        rows_of[name] = [(row["prompt"], row["chain_a"].count("not asked")) for row in rows]
    assert all(a[0] != b[0] and a[1] == b[1] for a, b in zip(rows_of["stiff"], rows_of["loose"], strict=True))


def test_new_wordings_are_not_put_loosely(tmp_path, descore):
    result = descore("world", "sample", "--split", "wordings", "--loose", "--out", tmp_path / "loose")
    assert result.exit_code == 3
    assert "--loose" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(sample, descore):
    before = (sample / "pairs.csv").read_bytes()
    result = descore("world", "sample", "--out", sample, "--count", 1)
    assert result.exit_code == 3
    assert "exists already" in result.stderr
    assert (sample / "pairs.csv").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, descore):
    (tmp_path / "file").write_text("")
    result = descore("world", "sample", "--out", tmp_path / "file" / "sample", "--count", 1)
    assert result.exit_code == 3
    assert "cannot be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("size", ["128", "64x63", "16x16", "0x0", "large", "64x64x3", "-64x64"])
def test_a_size_that_cannot_be_is_refused(size, tmp_path, descore):
    result = descore("world", "sample", "--out", tmp_path / "none", f"--size={size}")
    assert result.exit_code == 3
    assert "--size" in result.stderr
    assert not (tmp_path / "none").exists()


def test_the_options_name_every_split():
    from descore.cli.world import SplitName

    assert list(get_args(SplitName)) == [split.value for split in Split]


def test_the_command_is_listed(descore):
    assert "sample" in descore("world", "--help").stdout
