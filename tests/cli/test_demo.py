"""`descore demo`, end to end on a micro model."""

from importlib.resources import files

import pytest
from tests.report.test_page import Page

from descore.cli.world import REAL
from descore.video.reader import VideoSampling, read_clip


@pytest.mark.slow
def test_the_demo_writes_its_page_and_its_clips(descore, model, tmp_path):
    result = descore("demo", "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 0
    path = tmp_path / "out" / "descore-demo.html"
    assert f"The page: {path}" in "".join(result.stdout.splitlines())
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("article")) == 8
    assert len(page.all("img")) > 8
    written = sorted(path.name for path in (tmp_path / "out" / "clips").iterdir())
    assert written == [
        "as-asked.mp4",
        "other-thing.mp4",
        "rabbit-blurred.mp4",
        "squirrel-blurred.mp4",
        "stands-still.mp4",
        "wrong-colour.mp4",
    ]
    for shown in (*written, *REAL, "of 6 pairs in the true order", "sound and blurred"):
        assert shown in " ".join(result.stdout.split())


def test_a_folder_that_cannot_be_made_is_an_error(descore, model, tmp_path):
    (tmp_path / "file").write_text("")
    result = descore("demo", "--model", model, "--out", tmp_path / "file")
    assert result.exit_code == 3
    assert "choose another folder with --out" in result.stderr


@pytest.mark.parametrize("name", REAL)
def test_bundled_clips_are_small_readable_and_attributed(name):
    folder = files("descore") / "bundled" / "clips"
    clip = read_clip(str(folder / name), sampling=VideoSampling())
    assert clip.source_size == (320, 180)
    assert len((folder / name).read_bytes()) < 120_000
    readme = (folder / "README.md").read_text()
    assert name in readme
    assert "CC BY 3.0" in readme
