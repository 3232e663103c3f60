"""Frames are written as video that reads back as it was."""

import numpy as np
import pytest
from PIL import Image
from tests.video.films import SMALL, frame_numbers, grey

from descore.errors import VideoError
from descore.video.encoder import encode_folder, write_mp4
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling


@pytest.fixture
def folder(tmp_path):
    """Frames whose order by name is another than by number."""
    for number in (1, 2, 10):
        Image.fromarray(grey(number)).save(tmp_path / f"x_{number}.png")
    return tmp_path


def test_the_last_frame_is_held(tmp_path):
    frames = np.stack([grey(index) for index in range(7)])
    write_mp4(tmp_path / "film.mp4", frames, fps=8, hold=2)
    clip = read_clip(tmp_path / "film.mp4", sampling=VideoSampling(fps=8, min_pixels=16 * 16, size_multiple=16))
    assert clip.source_frames == 7
    assert clip.duration == pytest.approx(1.0)
    assert frame_numbers(clip)[0] == 0
    assert frame_numbers(clip)[-1] == 6


def test_a_folder_of_frames_is_in_the_order_of_its_numbers(folder):
    clip = read_clip(encode_folder(folder, fps=8), sampling=SMALL)
    assert frame_numbers(clip) == [1, 2, 10]
    assert (clip.source_fps, clip.source_size) == (8, (64, 48))


def test_frames_of_different_sizes_are_refused(folder):
    Image.new("RGB", (32, 48)).save(folder / "x_11.png")
    with pytest.raises(VideoError, match=r"frames of different sizes, such as \(32, 48\) and \(64, 48\)"):
        encode_folder(folder, fps=8)


def test_a_picture_that_cannot_be_read_is_refused(folder):
    (folder / "x_11.png").write_text("words")
    with pytest.raises(VideoError, match="no readable picture"):
        encode_folder(folder, fps=8)


def test_a_folder_without_frames_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no frames")
    with pytest.raises(VideoError, match="no frames; expected"):
        encode_folder(tmp_path, fps=8)
