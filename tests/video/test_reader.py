"""Any video is read into the right clip, or refused in one line."""

import io
import os
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tests.video.films import (
    FOUR,
    SMALL,
    bytes_of,
    frame_numbers,
    grey,
    grey_film,
    noise,
    write_film,
    write_gif,
    write_sound,
)

from descore.errors import ConfigError, VideoError
from descore.types import Clip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

KINDS = {
    "h264 with B-frames.mp4": {"bf": 3},
    "h264 in fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {"bf": 3},  # whole milliseconds
    "h264.avi": {},  # no presentation times
    "h264.ts": {"bf": 3},  # starts at 83 ms or later, no duration
    "h264.flv": {},
    "h264 raw.264": {},  # no times at all
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=none"},
    "hevc 10 bit.mkv": {"codec": "libx265", "pixels": "yuv420p10le", "x265-params": "log-level=none"},
    "vp9.webm": {"codec": "libvpx-vp9", "cpu-used": 8, "crf": 20, "b": 0},
    "vp8 with hidden frames.webm": {"codec": "libvpx", "auto-alt-ref": 1, "lag-in-frames": 16, "cpu-used": 8, "crf": 4},
    "av1.mp4": {"codec": "libsvtav1", "preset": 12, "crf": 20},
    "mpeg4.avi": {"codec": "mpeg4", "qmin": 1, "qmax": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b": "2M"},
    "prores 10 bit.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "mjpeg full range.mkv": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "rgb.mkv": {"codec": "ffv1", "pixels": "bgr0"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_takes_the_right_frames_of(tmp_path, kind):
    how = dict(KINDS[kind])
    if how.get("codec", "libx264") == "libx264":
        how |= {"crf": 10, "g": 12}
    clip = read_clip(grey_film(tmp_path / kind.replace(" ", "-"), **how), sampling=SMALL)
    assert frame_numbers(clip) == FOUR
    # AVI and MPEG count time in whole frames, Matroska and FLV in milliseconds.
    assert clip.times == pytest.approx([index / 24 for index in FOUR], abs=0.0011)
    assert clip.duration == pytest.approx(2, abs=0.0011)
    assert clip.source_fps == pytest.approx(24, abs=0.02)
    assert (clip.source_frames, clip.source_size, clip.size) == (48, (64, 48), (64, 48))
    assert clip.frames.dtype == np.uint8


def test_a_path_as_text_and_the_same_bytes_give_the_same_clip(tmp_path):
    path = grey_film(tmp_path / "film.mp4")
    by_path, by_text = read_clip(path, sampling=SMALL), read_clip(str(path), sampling=SMALL)
    by_bytes = read_clip(path.read_bytes(), sampling=SMALL)
    assert (by_path.source, by_text.source, by_bytes.source) == (str(path), str(path), "<bytes>")
    for clip in (by_text, by_bytes):
        assert np.array_equal(clip.frames, by_path.frames)
        assert clip.times == by_path.times


# What cannot be read


def refused(video, *, sampling=SMALL, fps=None):
    with pytest.raises(VideoError) as error:
        read_clip(video, sampling=sampling, fps=fps)
    assert "\n" not in str(error.value)
    assert str(error.value) == f"{error.value.source}: {error.value.reason}"
    return error.value.reason


def test_missing_empty_and_odd_paths(tmp_path):
    assert refused(tmp_path / "none.mp4") == "no such file"
    assert refused(tmp_path) == "not a file"
    (tmp_path / "empty.mp4").touch()
    assert refused(tmp_path / "empty.mp4") == "the file is empty"
    assert refused(b"") == "no bytes at all"
    assert "download it first" in refused("https://example.org/film.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refused(tmp_path / "pipe.mp4") == "not a file"
    assert refused("film\0.mp4") == "no such file"


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "list.m3u8", "list.ffconcat", "noise.mp4", "picture.mp4"])
def test_what_is_no_video(tmp_path, name):
    grey_film(tmp_path / "real.ts")
    content = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nfile://{tmp_path}/real.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile real.ts\n",
    }
    path = tmp_path / name
    path.write_text(content.get(name, "no film in here\n" * 100))
    if name == "noise.mp4":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    if name == "picture.mp4":
        path.write_bytes(bytes_of()[:40] + bytes(1000))
    reason = refused(path)
    assert reason.startswith(("not a video", "a still image or text"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp"])
def test_still_images(tmp_path, kind):
    Image.fromarray(grey(3)).save(tmp_path / f"still.{kind}")
    assert refused(tmp_path / f"still.{kind}").startswith("a still image")


def test_sound_only(tmp_path):
    assert "holds audio" in refused(write_sound(tmp_path / "sound.m4a"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi", "ts", "flv", "gif", "264", "mpg"])
def test_cut_off(tmp_path, suffix):
    codec = {"webm": "libvpx-vp9", "mpg": "mpeg2video"}.get(suffix, "libx264")
    path = tmp_path / f"film.{suffix}"
    if suffix == "gif":
        write_gif(path, noise(30), durations=[100] * 30)
    else:
        how = {"mp4": {"container": {"movflags": "faststart"}}, "ts": {"bf": 0}, "264": {"bf": 0}}.get(suffix, {})
        # Large frames, so that a cut falls into one: between two, a transport stream would be whole.
        write_film(path, noise(48, width=256, height=192), codec=codec, g=12, **how)
    content = path.read_bytes()
    # A transport or raw stream does not state its end, so a last frame that lost only its last bytes may pass.
    for part in (0.35, 0.6) if suffix in ("ts", "264") else (0.35, 0.6, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        reason = refused(path)
        assert reason.startswith(("cut off", "damaged")), reason
        assert any(char.isdigit() for char in reason), reason  # it says how much there was


def test_cut_off_between_two_frames(tmp_path):
    path = grey_film(tmp_path / "film.mp4", container={"movflags": "faststart"}, bf=0)
    with av.open(path) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[29]])
    assert refused(path).startswith("cut off: the file ends after 30 frames")


def test_cut_off_before_the_index(tmp_path):
    path = grey_film(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut off" in refused(path)


def test_damage_in_the_middle(tmp_path):
    path = write_film(tmp_path / "film.mp4", noise(48), g=48, bf=0, sc_threshold=0)
    content = bytearray(path.read_bytes())
    with av.open(path) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
        content[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
    path.write_bytes(content)
    assert "sampled frames could be decoded" in refused(path)


def test_picture_beyond_all_bounds(tmp_path):
    path = grey_film(tmp_path / "film.avi", codec="ffv1", pixels="bgr0")
    content = bytearray(path.read_bytes())
    at = content.index(b"strf") + 8 + 4
    for edge in (8_000, 30_000):
        content[at : at + 8] = edge.to_bytes(4, "little") * 2
        path.write_bytes(content)
        assert "beyond max_source_pixels (35651584)" in refused(path)
    small = VideoSampling(max_source_pixels=64 * 47)
    assert "pictures of 64x48 pixels, more than max_source_pixels" in refused(
        grey_film(tmp_path / "film.mp4"), sampling=small
    )


def test_too_much_to_decode(tmp_path):
    sampling = VideoSampling(max_decode=64 * 48 * 47)
    assert refused(grey_film(tmp_path / "film.mp4"), sampling=sampling) == (
        "48 frames of 64x48 pixels, more than max_decode (144384) in all"
    )


def test_too_long_a_wait(tmp_path):
    assert "not read within 1e-06 s" in refused(grey_film(tmp_path / "film.mp4"), sampling=VideoSampling(timeout=1e-6))


def test_strip(tmp_path):
    path = write_film(tmp_path / "film.mkv", [np.zeros((2, 402, 3), np.uint8)], codec="ffv1", pixels="bgr0")
    assert "over 200 times" in refused(path)


def test_picture_that_changes_its_size(tmp_path):
    with (tmp_path / "film.264").open("wb") as joined:
        for number, size in enumerate([(64, 48), (96, 48)]):
            joined.write(grey_film(tmp_path / f"{number}.264", 12, size=size).read_bytes())
    assert "size changes from 64x48 to 96x48" in refused(tmp_path / "film.264")


def test_faults_leave_the_terminal_alone_and_no_file_open(tmp_path):
    good = grey_film(tmp_path / "good.mp4", container={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-300])
    (tmp_path / "text.mp4").write_text("no film in here")
    grey_film(tmp_path / "good.mkv")
    code = """
import os, sys
from pathlib import Path
from descore.video.reader import VideoSampling, read_clip
from descore.errors import VideoError
assert "torch" not in sys.modules
before = len(os.listdir("/proc/self/fd"))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_clip(path, sampling=VideoSampling())
    except VideoError:
        pass
assert len(os.listdir("/proc/self/fd")) == before
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Frames from memory


def stack(count=24):
    return np.stack([grey(i) for i in range(count)])


def test_arrays_and_tensors_in_every_layout():
    # 24 frames at 12 fps last 2 s: frames 0, 23/3, 46/3, 23.
    frames = stack()
    layouts = {
        "channels last": frames,
        "channels first": frames.transpose(0, 3, 1, 2),
        "floats": frames.astype(np.float32) / 255,
        "half precision": (frames / 255).astype(np.float16),
        "a tensor": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "a tensor of floats": torch.from_numpy(frames).float() / 255,
        "bfloat16": (torch.from_numpy(frames).float() / 255).bfloat16().requires_grad_(),
    }
    for name, layout in layouts.items():
        clip = read_clip(layout, sampling=SMALL, fps=12)
        assert frame_numbers(clip) == [0, 7, 15, 23], name
        assert clip.times == pytest.approx([0, 7 / 12, 15 / 12, 23 / 12])
        assert (clip.source, clip.duration, clip.source_frames) == ("<array>", 2.0, 24)
        assert (clip.source_fps, clip.source_size) == (12.0, (64, 48))


def test_frames_are_scaled_like_those_of_files():
    clip = read_clip(np.stack([grey(i, width=640, height=360) for i in range(4)]), sampling=VideoSampling(), fps=2)
    assert clip.size == (576, 320)
    assert frame_numbers(clip) == [0, 1, 2, 3]


def test_images():
    images = [Image.fromarray(grey(i)) for i in range(24)]
    assert frame_numbers(read_clip(images, sampling=SMALL, fps=12)) == [0, 7, 15, 23]
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert read_clip([clear], sampling=SMALL, fps=1).frames.min() == 255
    assert read_clip((images[0].convert("L"),), sampling=SMALL, fps=1).source == "<images>"


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (np.zeros((4, 32, 32), np.uint8), "expected (T, H, W, 3)"),
        (np.zeros((4, 32, 32, 4), np.uint8), "expected (T, H, W, 3)"),
        (np.zeros((0, 32, 32, 3), np.uint8), "nothing in them"),
        (np.zeros((4, 32, 32, 3), np.int64), "type int64"),
        (np.full((4, 32, 32, 3), 255.0), "floats from 255 to 255"),
        (np.full((4, 32, 32, 3), np.nan), "floats from nan"),
        (np.zeros((1, 2, 500, 3), np.uint8), "over 200 times"),
        ([], "an empty one"),
        ([np.zeros((32, 32, 3), np.uint8), object()], "found ndarray"),
        ([Image.new("RGB", (32, 32)), Image.new("RGB", (32, 48))], "different sizes"),
        (object(), "expected a path"),
    ],
)
def test_frames_that_cannot_be_read(frames, reason):
    assert reason in refused(frames, fps=8)


@pytest.mark.parametrize("fps", [None, 0, -1.0, float("nan"), float("inf")])
def test_frames_need_their_rate(fps):
    with pytest.raises(ConfigError, match="fps"):
        read_clip(stack(), sampling=SMALL, fps=fps)


def test_a_file_has_its_own_times(tmp_path):
    with pytest.raises(ConfigError, match="states its own times"):
        read_clip(grey_film(tmp_path / "film.mp4"), sampling=SMALL, fps=8)
    with pytest.raises(ConfigError, match="states its own times"):
        read_clip(b"anything", sampling=SMALL, fps=8)


def test_a_clip_that_fits_is_given_back_as_it_is(tmp_path):
    clip = read_clip(grey_film(tmp_path / "film.mp4"), sampling=SMALL)
    assert read_clip(clip, sampling=SMALL) is clip
    assert "expected multiples of 28" in refused(clip, sampling=VideoSampling(size_multiple=28))
    assert "at most 1024 pixels" in refused(clip, sampling=VideoSampling(min_pixels=1, max_pixels=1024))
    assert "expected at most 3" in refused(clip, sampling=VideoSampling(max_frames=3, min_frames=1, size_multiple=16))
    with pytest.raises(ConfigError, match="a clip has its times"):
        read_clip(clip, sampling=SMALL, fps=2)
    assert isinstance(clip, Clip)


def test_film_in_a_file_with_a_misleading_name(tmp_path):
    shutil.copy(grey_film(tmp_path / "film.mp4"), tmp_path / "film%03d.png")
    assert frame_numbers(read_clip(tmp_path / "film%03d.png", sampling=SMALL)) == FOUR
    assert frame_numbers(read_clip(io.BytesIO(bytes_of()).getvalue(), sampling=SMALL)) == FOUR
