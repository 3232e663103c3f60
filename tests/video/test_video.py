import io
import os
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tests.video.films import bytes_of, grey, grey_film, noise, which, write_film, write_gif, write_sound

from descore.errors import ConfigError, VideoError
from descore.types import Clip
from descore.video import decoder as decoding
from descore.video import packets as film
from descore.video.packets import Table
from descore.video.reader import VideoSampling, read_clip

SMALL = VideoSampling(min_pixels=16 * 16, size_multiple=16)

# 48 frames at 24 fps last 2 s: 4 frames at 2 fps, at 0, 47/3, 94/3 and 47 frames from the start.
FOUR = [0, 15, 31, 47]

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
    assert which(clip) == FOUR
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


# What is taken, and whether the packets that were left out mattered


def plain_frames(path, indices, *, sampling):
    """The same frames the slow way: decode all in one thread, then paint those."""
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = [frame for index, frame in enumerate(container.decode(video=0)) if index in indices]
    converter = decoding.FrameConverter(decoding.fit_size(frames[0].width, frames[0].height, sampling=sampling))
    return np.stack([converter.paint(frame) for frame in frames])


@pytest.mark.parametrize(
    "bits",
    [{"bf": 3, "g": 250}, {"bf": 3, "g": 10}, {"bf": 0, "g": 10}, {"x264-params": "open-gop=1:bframes=3:keyint=10"}],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_are_those_of_decoding_everything(tmp_path, bits, suffix):
    path = write_film(tmp_path / f"film.{suffix}", noise(50), **bits)
    for count in (2, 5, 17):
        sampling = VideoSampling(min_frames=count, max_frames=count, min_pixels=256, size_multiple=16)
        clip = read_clip(path, sampling=sampling)
        indices = [int(49 * k / (count - 1) + 0.1) for k in range(count)]  # a tenth of a frame early is near enough
        assert [round(24 * t) for t in clip.times] == indices
        assert np.array_equal(clip.frames, plain_frames(path, indices, sampling=sampling))


def test_few_packets_are_decoded(tmp_path, monkeypatch):
    path = write_film(tmp_path / "film.mp4", noise(50), bf=0, g=10, sc_threshold=0)
    decoded = []
    decode = film.VideoFile.decode

    def counted(self, runs):
        decoded.extend(index for run in runs for index in run)
        return decode(self, runs)

    monkeypatch.setattr(film.VideoFile, "decode", counted)
    read_clip(path, sampling=VideoSampling(min_frames=2, max_frames=2))
    assert decoded == [0, *range(40, 50)]  # frame 49's key frame is 40


def test_without_times_in_the_packets_the_frames_own_times_serve(tmp_path, monkeypatch):
    path = grey_film(tmp_path / "film.mp4", bf=3)
    expected = read_clip(path, sampling=SMALL)
    monkeypatch.setattr(decoding, "table_of", lambda rows, tick: Table(rows=rows, first=0, timeline=None))  # noqa: ARG005
    clip = read_clip(path, sampling=SMALL)
    assert np.array_equal(clip.frames, expected.frames)
    assert (clip.times, clip.duration) == (expected.times, expected.duration)


def test_a_file_too_large_to_keep_is_read_twice(tmp_path, monkeypatch):
    path = grey_film(tmp_path / "film.mp4", bf=3)
    expected = read_clip(path, sampling=SMALL)
    monkeypatch.setattr(film, "KEPT_BYTES", 100)
    assert np.array_equal(read_clip(path, sampling=SMALL).frames, expected.frames)


# Times


def test_variable_frame_rate(tmp_path):
    # Ten frames in the first second, then one each second up to 5 s, which lasts as long as frames do on average.
    ticks = [*range(0, 1000, 100), 1000, 2000, 3000, 4000, 5000]
    path = grey_film(tmp_path / "film.mkv", 15, ticks=ticks, tick=Fraction(1, 1000), rate=10)
    clip = read_clip(path, sampling=VideoSampling(fps=1, min_frames=1, min_pixels=256, size_multiple=16))
    # 5.1 to 5.4 s at 1 fps: 5 times, at 0, 1.25, 2.5, 3.75 and 5 s, when these are shown:
    assert which(clip) == [0, 10, 11, 12, 14]
    assert clip.times == (0, 1, 2, 3, 5)
    assert clip.source_frames == 15


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_stream_that_starts_late_starts_at_zero(tmp_path, suffix):
    path = grey_film(tmp_path / f"film.{suffix}", ticks=range(240, 288), tick=Fraction(1, 24))
    clip = read_clip(path, sampling=SMALL)
    assert which(clip) == FOUR
    assert clip.times == pytest.approx([index / 24 for index in FOUR], abs=0.0011)


def test_frames_cut_off_by_an_edit_list_are_not_shown(tmp_path):
    # Frames before 0 are decoded for the others' sake: 12 to 47 remain, 1.5 s, and of 36 frames 0, 11.7, 23.3, 35.
    path = grey_film(tmp_path / "film.mp4", ticks=range(-12, 36), tick=Fraction(1, 24), bf=0, g=48)
    clip = read_clip(path, sampling=SMALL)
    assert which(clip) == [12, 23, 35, 47]
    assert clip.times == pytest.approx([index / 24 for index in (0, 11, 23, 35)])
    assert clip.source_frames == 36


def test_one_frame(tmp_path):
    clip = read_clip(grey_film(tmp_path / "film.mp4", 1), sampling=SMALL)
    assert which(clip) == [0]
    assert clip.times == (0.0,)
    assert clip.duration == pytest.approx(1 / 24)


def test_gif_delays(tmp_path):
    # Shown from 0, 100, 600 and 700 ms; the last one for 300 ms. At 10 fps, ten times, 77.8 ms apart, to 700 ms.
    path = write_gif(tmp_path / "film.gif", [grey(i) for i in range(4)], durations=[100, 500, 100, 300])
    clip = read_clip(path, sampling=VideoSampling(fps=10, min_pixels=256, size_multiple=16))
    assert which(clip) == [0, 1, 2, 3]
    assert clip.times == (0.0, 0.1, 0.6, 0.7)
    assert clip.duration == pytest.approx(1.0)
    # At 3 fps three times, 0, 350 and 700 ms.
    few = VideoSampling(fps=3, min_frames=1, min_pixels=256, size_multiple=16)
    assert which(read_clip(path, sampling=few)) == [0, 1, 3]


def test_gif_delays_of_nothing_are_a_tenth_of_a_second_as_in_browsers(tmp_path):
    path = write_gif(tmp_path / "film.gif", [grey(i) for i in range(4)], durations=[100] * 4)
    path.write_bytes(path.read_bytes().replace(b"\x21\xf9\x04", b"\x21\xf9\x04").replace(b"\x0a\x00", b"\x00\x00"))
    assert read_clip(path, sampling=SMALL).times == pytest.approx((0, 0.1, 0.2, 0.3))


# Pictures


def corner_film(path, **how):
    """White in the upper left quarter, black elsewhere, 64 x 32."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255
    return write_film(path, [picture] * 4, **how)


@pytest.mark.parametrize(
    ("rotation", "size", "corner"),
    [
        ((0,), (64, 32), "upper left"),
        ((90,), (32, 64), "lower left"),  # turned counterclockwise, the upper left comes to the lower left
        ((180,), (64, 32), "lower right"),
        ((-90,), (32, 64), "upper right"),
        ((0, True), (64, 32), "upper right"),  # mirrored left to right
        ((0, False, True), (64, 32), "lower left"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_rotation(tmp_path, rotation, size, corner, suffix):
    clip = read_clip(corner_film(tmp_path / f"film.{suffix}", rotation=rotation), sampling=SMALL)
    assert clip.size == clip.source_size == size
    frame = clip.frames[0, :, :, 0].astype(int)
    rows, columns = frame.shape[0] // 2, frame.shape[1] // 2
    quarters = {
        "upper left": frame[:rows, :columns],
        "upper right": frame[:rows, columns:],
        "lower left": frame[rows:, :columns],
        "lower right": frame[rows:, columns:],
    }
    assert {name for name, quarter in quarters.items() if quarter.mean() > 200} == {corner}
    assert sum(quarter.mean() < 30 for quarter in quarters.values()) == 3


def test_rotation_is_read_from_the_angle_if_the_matrix_cannot_be():
    from descore.video.decoder import _quarter_turns

    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for degrees in (0, 90, 180, 270, -90):
        assert np.array_equal(_quarter_turns(degrees).apply(picture), np.rot90(picture, degrees // 90))


def test_pixels_that_are_not_square(tmp_path):
    # 32 x 48 stored, each pixel twice as wide as high: 64 x 48 shown.
    path = grey_film(tmp_path / "film.mp4", size=(32, 48), tags={"sample_aspect_ratio": Fraction(2, 1)})
    clip = read_clip(path, sampling=SMALL)
    assert clip.source_size == clip.size == (64, 48)


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_odd_sizes(tmp_path, pixels):
    path = grey_film(tmp_path / "film.mkv", size=(97, 61), codec="ffv1", pixels=pixels)
    clip = read_clip(path, sampling=VideoSampling(min_pixels=256))
    assert clip.source_size == (97, 61)
    assert clip.size == (96, 64)
    assert which(clip) == FOUR


@pytest.mark.parametrize(
    ("codec", "pixels", "tags"),
    [
        ("libx264", "yuv420p", {}),
        ("libx264", "yuv420p", {"color_range": 1}),
        ("libx264", "yuv420p", {"color_range": 2}),
        ("mjpeg", "yuvj420p", {}),
        ("libx264", "yuv420p", {"colorspace": 1}),  # BT.709
        ("libx264", "yuv420p10le", {"color_range": 2}),
        ("ffv1", "bgr0", {}),
    ],
)
def test_colours_come_back(tmp_path, codec, pixels, tags):
    colours = [(0, 0, 0), (255, 255, 255), (200, 40, 30), (20, 180, 60), (30, 50, 210)]
    rgb = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = tmp_path / "film.mkv"
    with av.open(path, "w") as out:
        stream = out.add_stream(codec, rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = pixels
        stream.options = {"crf": "4"} if codec == "libx264" else {"qmax": "1", "qmin": "1"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for pixels_HWC in rgb:
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
            space = "ITU709" if tags.get("colorspace") == 1 else None
            full = tags.get("color_range", 2 if pixels.startswith("yuvj") else 1)
            converted = frame.reformat(format=pixels, dst_colorspace=space, dst_color_range=full)
            out.mux(stream.encode(converted))
        out.mux(stream.encode())
    clip = read_clip(path, sampling=VideoSampling(fps=24, min_pixels=256, size_multiple=16))
    found = clip.frames.mean(axis=(1, 2))
    # Eight bits of limited range and the encoder cost up to 4 levels; the wrong range or matrix costs 16 and more.
    assert np.abs(found - np.array(colours)).max() < 6


def test_transparent_parts_are_white(tmp_path):
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[:, 16:] = (255, 0, 0, 255)  # the left half is black, but cannot be seen
    half = picture.copy()
    half[:, 16:, 3] = 128
    path = write_film(tmp_path / "film.mov", [picture, half], codec="qtrle", pixels="argb")
    clip = read_clip(path, sampling=VideoSampling(min_pixels=256, size_multiple=16))
    assert clip.frames[0, 0, 0].tolist() == [255, 255, 255]
    assert clip.frames[0, 0, 31].tolist() == [255, 0, 0]
    assert clip.frames[0, :, :, 0].min() >= 250  # no dark seam between: no hidden black has bled in
    assert clip.frames[1, 0, 31].tolist() == [255, 127, 127]  # half red, half white


def test_transparent_gif_is_on_white(tmp_path):
    images = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(2)]
    for index, image in enumerate(images):
        image.paste((200, 0, 0, 255), (16, 8 * index, 32, 8 * index + 8))
    path = tmp_path / "film.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, disposal=2)
    clip = read_clip(path, sampling=VideoSampling(min_pixels=256, size_multiple=16))
    assert clip.frames[1, 31, 0].tolist() == [255, 255, 255]
    assert clip.frames[1, 2, 30].tolist() == [255, 255, 255]  # the first frame's mark is gone
    assert clip.frames[1, 12, 30].tolist() == [200, 0, 0]


def test_size_and_scaling(tmp_path):
    # Left half black, right half white: after scaling still so, with nothing beyond the bounds and no ringing seam.
    picture = np.zeros((360, 640, 3), np.uint8)
    picture[:, 320:] = 255
    clip = read_clip(write_film(tmp_path / "film.mp4", [picture] * 2), sampling=VideoSampling())
    assert clip.size == (576, 320)
    assert clip.source_size == (640, 360)
    assert clip.frames[0, :, :280].max() < 10
    assert clip.frames[0, :, 296:].min() > 245


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
    assert refused(tmp_path / f"still.{kind}").startswith("a still image or text")


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
    for edge, reason in {
        8_000: "pictures of 8000x8000 pixels, more than max_source_pixels (35651584)",
        30_000: "the file states no picture size, or an impossible one",  # FFmpeg itself hides so large a one
    }.items():
        content[at : at + 8] = edge.to_bytes(4, "little") * 2
        path.write_bytes(content)
        assert refused(path) == reason
    small = VideoSampling(max_source_pixels=64 * 47)
    assert "more than max_source_pixels" in refused(grey_film(tmp_path / "film.mp4"), sampling=small)


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
        assert which(clip) == [0, 7, 15, 23], name
        assert clip.times == pytest.approx([0, 7 / 12, 15 / 12, 23 / 12])
        assert (clip.source, clip.duration, clip.source_frames) == ("<array>", 2.0, 24)
        assert (clip.source_fps, clip.source_size) == (12.0, (64, 48))


def test_frames_are_scaled_like_those_of_files():
    clip = read_clip(np.stack([grey(i, width=640, height=360) for i in range(4)]), sampling=VideoSampling(), fps=2)
    assert clip.size == (576, 320)
    assert which(clip) == [0, 1, 2, 3]


def test_images():
    images = [Image.fromarray(grey(i)) for i in range(24)]
    assert which(read_clip(images, sampling=SMALL, fps=12)) == [0, 7, 15, 23]
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
        ([np.zeros((32, 32, 3), np.uint8)], "found ndarray"),
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
    assert which(read_clip(tmp_path / "film%03d.png", sampling=SMALL)) == FOUR
    assert which(read_clip(io.BytesIO(bytes_of()).getvalue(), sampling=SMALL)) == FOUR
