"""Only the packets that the sampled frames need are decoded, and the pictures are those of decoding everything."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.video.films import (
    FOUR,
    SMALL,
    TICK,
    frame_numbers,
    gop,
    grey,
    grey_film,
    noise,
    packet,
    write_film,
    write_gif,
)

from descore.video import decoder, packets
from descore.video.decoder import SKIP_WORTHWHILE, needed_packets
from descore.video.packets import PacketTable
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

# Which packets are decoded


def test_decoding_starts_at_the_last_key_frame():
    rows = [
        *gop(0, 30),
        packet(30, key=True),
        packet(33),
        packet(31, non_reference=True),
        packet(32, non_reference=True),
        packet(34),
    ]
    assert needed_packets(PacketTable.of(rows, tick=TICK), {32}, decoder="h264") == [[30, 31, 33]]


def test_a_frame_shown_before_its_key_frame_needs_another():
    rows = [*gop(0, 30), packet(32, key=True), packet(30), packet(31)]
    assert needed_packets(PacketTable.of(rows, tick=TICK), {30}, decoder="h264") == [list(range(32))]


def test_small_gaps_are_decoded_through():
    rows = [*gop(0, SKIP_WORTHWHILE), *gop(SKIP_WORTHWHILE, 1)]
    table = PacketTable.of(rows, tick=TICK)
    assert needed_packets(table, {0, SKIP_WORTHWHILE}, decoder="h264") == [list(range(SKIP_WORTHWHILE + 1))]
    far = PacketTable.of([*gop(0, SKIP_WORTHWHILE + 1), *gop(SKIP_WORTHWHILE + 1, 1)], tick=TICK)
    assert needed_packets(far, {0, SKIP_WORTHWHILE + 1}, decoder="h264") == [[0], [SKIP_WORTHWHILE + 1]]


def test_an_unknown_decoder_gets_all_packets_before():
    table = PacketTable.of(gop(0, 20) + gop(20, 20), tick=TICK)
    assert needed_packets(table, {25}, decoder="gif") == [list(range(26))]


@pytest.mark.slow
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_each_wanted_frame_has_all_that_it_depends_on(lengths, data):
    """A model of a decoder: a frame needs every reference packet from its key packet up to itself."""
    rows, depends = [], {}
    for length in lengths:
        entry = len(rows)
        for k in range(length):
            non_reference = k > 0 and data.draw(st.booleans())
            before = [i for i in range(entry, len(rows)) if not rows[i].non_reference]
            depends[len(rows)] = {*before, len(rows)}
            rows.append(packet(len(rows), key=k == 0, non_reference=non_reference))
    wanted = data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))
    runs = needed_packets(PacketTable.of(rows, tick=TICK), wanted, decoder="h264")
    for pts in wanted:
        assert any(depends[pts] <= set(run) for run in runs)
    assert all(rows[run[0]].key for run in runs)
    assert [i for run in runs for i in run] == sorted({i for run in runs for i in run})


def plain_frames(path, indices, *, sampling):
    """The same frames the slow way: decode all in one thread, then convert those."""
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = [frame for index, frame in enumerate(container.decode(video=0)) if index in indices]
    converter = decoder.FrameConverter(decoder.fit_size(frames[0].width, frames[0].height, sampling=sampling))
    return np.stack([converter.convert(frame) for frame in frames])


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
    decode = packets.VideoFile.decode

    def counted(self, runs):
        decoded.extend(index for run in runs for index in run)
        return decode(self, runs)

    monkeypatch.setattr(packets.VideoFile, "decode", counted)
    read_clip(path, sampling=VideoSampling(min_frames=2, max_frames=2))
    assert decoded == [0, *range(40, 50)]  # frame 49's key frame is 40


def test_frames_times_replace_missing_packet_times(tmp_path, monkeypatch):
    path = grey_film(tmp_path / "film.mp4", bf=3)
    expected = read_clip(path, sampling=SMALL)
    untimed = PacketTable(rows=[packet(0)], first=0, timeline=None)
    monkeypatch.setattr(decoder, "PacketTable", SimpleNamespace(of=lambda rows, tick: untimed))  # noqa: ARG005
    clip = read_clip(path, sampling=SMALL)
    assert np.array_equal(clip.frames, expected.frames)
    assert (clip.times, clip.duration) == (expected.times, expected.duration)


def test_a_file_too_large_to_keep_is_read_twice(tmp_path, monkeypatch):
    path = grey_film(tmp_path / "film.mp4", bf=3)
    expected = read_clip(path, sampling=SMALL)
    monkeypatch.setattr(packets, "KEPT_BYTES", 100)
    assert np.array_equal(read_clip(path, sampling=SMALL).frames, expected.frames)


# Times


def test_variable_frame_rate(tmp_path):
    # Ten frames in the first second, then one each second up to 5 s, which lasts as long as frames do on average.
    ticks = [*range(0, 1000, 100), 1000, 2000, 3000, 4000, 5000]
    path = grey_film(tmp_path / "film.mkv", 15, ticks=ticks, tick=Fraction(1, 1000), rate=10)
    clip = read_clip(path, sampling=VideoSampling(fps=1, min_frames=1, min_pixels=256, size_multiple=16))
    # 5.1 to 5.4 s at 1 fps: 5 times, at 0, 1.25, 2.5, 3.75 and 5 s, when these are shown:
    assert frame_numbers(clip) == [0, 10, 11, 12, 14]
    assert clip.times == (0, 1, 2, 3, 5)
    assert clip.source_frames == 15


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_stream_that_starts_late_starts_at_zero(tmp_path, suffix):
    path = grey_film(tmp_path / f"film.{suffix}", ticks=range(240, 288), tick=Fraction(1, 24))
    clip = read_clip(path, sampling=SMALL)
    assert frame_numbers(clip) == FOUR
    assert clip.times == pytest.approx([index / 24 for index in FOUR], abs=0.0011)


def test_frames_cut_off_by_an_edit_list_are_not_shown(tmp_path):
    # Frames before 0 are decoded for the others' sake: 12 to 47 remain, 1.5 s, and of 36 frames 0, 11.7, 23.3, 35.
    path = grey_film(tmp_path / "film.mp4", ticks=range(-12, 36), tick=Fraction(1, 24), bf=0, g=48)
    clip = read_clip(path, sampling=SMALL)
    assert frame_numbers(clip) == [12, 23, 35, 47]
    assert clip.times == pytest.approx([index / 24 for index in (0, 11, 23, 35)])
    assert clip.source_frames == 36


def test_one_frame(tmp_path):
    clip = read_clip(grey_film(tmp_path / "film.mp4", 1), sampling=SMALL)
    assert frame_numbers(clip) == [0]
    assert clip.times == (0.0,)
    assert clip.duration == pytest.approx(1 / 24)


def test_gif_delays(tmp_path):
    # Shown from 0, 100, 600 and 700 ms; the last one for 300 ms. At 10 fps, ten times, 77.8 ms apart, to 700 ms.
    path = write_gif(tmp_path / "film.gif", [grey(i) for i in range(4)], durations=[100, 500, 100, 300])
    clip = read_clip(path, sampling=VideoSampling(fps=10, min_pixels=256, size_multiple=16))
    assert frame_numbers(clip) == [0, 1, 2, 3]
    assert clip.times == (0.0, 0.1, 0.6, 0.7)
    assert clip.duration == pytest.approx(1.0)
    # At 3 fps three times, 0, 350 and 700 ms.
    few = VideoSampling(fps=3, min_frames=1, min_pixels=256, size_multiple=16)
    assert frame_numbers(read_clip(path, sampling=few)) == [0, 1, 3]


def test_gif_delays_of_zero_are_a_tenth_of_a_second(tmp_path):
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


def test_rotation_is_read_from_the_angle_without_a_matrix():
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
    assert frame_numbers(clip) == FOUR


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
