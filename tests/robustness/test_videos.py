"""Odd, cut and damaged videos are read right, or refused in words that say what to do."""

import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import pytest
from PIL import Image

from descore.errors import VideoError
from descore.video import packets
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling
from tests.robustness.zoo import EXPECTED, Refused
from tests.video.films import SMALL, frame_numbers, grey, noise, write_film, write_gif

FILES = Path(__file__).parent / "files" / "videos"


def refused(video, *, sampling=SMALL):
    with pytest.raises(VideoError) as error:
        read_clip(video, sampling=sampling)
    assert "\n" not in str(error.value)
    return error.value.reason


@pytest.mark.parametrize("name", EXPECTED)
def test_each_file_is_read_right_or_refused(name):
    assert EXPECTED[name].fault(FILES / name) is None


def test_the_zoo_lists_what_is_wrong(tmp_path):
    (tmp_path / "still.png").write_bytes((FILES / "seq.avif").read_bytes())
    done = subprocess.run([sys.executable, "-m", "tests.robustness.zoo", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "still.png            read, though it is to be refused as 'a still image'" in done.stdout


# Cut and damaged


@pytest.mark.parametrize("part", range(1, 16))
def test_a_live_recording_that_is_cut_is_refused(part):
    content = (FILES / "live_whole.mkv").read_bytes()
    assert "cut off" in refused(content[: len(content) * part // 16])


def test_flipped_bits_in_matroska_break_its_checksum():
    content = bytearray((FILES / "live_whole.mkv").read_bytes())
    content[len(content) // 2] ^= 1
    assert "checksum" in refused(bytes(content))


def test_a_whole_ogg_file_is_read():
    content = bytearray((FILES / "flip_page.ogv").read_bytes())
    start = 67211  # of the page with one flipped bit, in its middle
    content[(start + content.index(b"OggS", start + 1)) // 2] ^= 16
    clip = read_clip(bytes(content), sampling=SMALL)
    assert (clip.source_frames, round(clip.duration, 2)) == (96, 4.0)


@pytest.mark.parametrize("options", [{"level": 3, "slicecrc": 1}, {"level": 3, "slicecrc": 0}, {"level": 1}])
def test_ffv1_checksums(options):
    file = io.BytesIO()
    write_film(file, noise(12), codec="ffv1", pixels="bgr0", container_format="avi", **options)
    assert read_clip(file.getvalue(), sampling=SMALL).source_frames == 12
    with av.open(io.BytesIO(file.getvalue())) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
        at = packet.pos + 100
    content = bytearray(file.getvalue())
    content[at] ^= 1
    if options.get("slicecrc"):
        assert refused(bytes(content)) == "damaged: the checksums of 1 of 12 frames do not hold"


def test_a_fragmented_file_that_is_whole_is_read():
    content = (FILES / "frag_cut_mehd.mp4").read_bytes()
    at = content.index(b"mehd") + 8
    half = int.from_bytes(content[at : at + 4], "big") // 2
    clip = read_clip(content[:at] + half.to_bytes(4, "big") + content[at + 4 :], sampling=SMALL)
    assert clip.duration == 2.0


def test_letters_of_a_header_in_other_bytes_state_no_length(tmp_path):
    """Compressed pictures hold any four bytes now and then; here a box that nobody reads does."""
    content = write_film(tmp_path / "film.mp4", noise(8, width=64, height=64)).read_bytes()
    inside = b"mehd" + b"\xff" * 12
    read = read_clip(content + (8 + len(inside)).to_bytes(4, "big") + b"free" + inside, sampling=SMALL)
    assert read.times == read_clip(content, sampling=SMALL).times


@pytest.mark.parametrize("part", range(2, 16))
def test_a_transport_stream_that_is_cut_is_refused(tmp_path, part):
    path = write_film(tmp_path / "film.ts", noise(48, width=256, height=192), g=12, bf=0)
    content = path.read_bytes()
    cut = len(content) * part // 16 | 1  # within a packet, whose length is even
    assert refused(content[:cut]).startswith("cut off")


# Whole, though odd


def test_zeros_behind_a_gif_and_extensions_within(tmp_path):
    content = write_gif(tmp_path / "film.gif", [grey(i) for i in range(8)], durations=[100] * 8).read_bytes()
    at = content.index(b"\x21\xf9", len(content) // 2)
    odd = content[:at] + b"\x21\xfe\x02hi\x00" + content[at:] + bytes(64)
    assert frame_numbers(read_clip(odd, sampling=SMALL)) == frame_numbers(read_clip(content, sampling=SMALL))
    assert refused(content[:-1]) == "cut off: the file ends after 8 frames, before its end mark"


def test_three_joined_streams_are_read_in_turn(tmp_path):
    parts = []
    for number in range(3):
        frames = [grey(16 * number + i) for i in range(16)]
        parts.append(write_film(tmp_path / f"{number}.ts", frames, crf=4, g=8, bf=2).read_bytes())
    clip = read_clip(b"".join(parts), sampling=SMALL)
    assert frame_numbers(clip) == [0, 15, 31, 47]
    assert clip.duration == pytest.approx(2.0)


def test_joined_streams_that_are_too_large_to_keep(monkeypatch):
    monkeypatch.setattr(packets, "KEPT_BYTES", 1000)
    assert EXPECTED["joined.ts"].fault(FILES / "joined.ts") is None


def test_animated_webp_with_delays_of_its_own(tmp_path):
    first, *others = [Image.fromarray(grey(i)) for i in range(6)]
    file = tmp_path / "film.webp"
    first.save(file, save_all=True, append_images=others, duration=[100, 200, 0, 50, 50, 500], lossless=True)
    clip = read_clip(file, sampling=VideoSampling(min_frames=6, min_pixels=256, size_multiple=16))
    assert clip.times == (0.0, 0.1, 0.3, 0.4, 0.45, 0.5)  # a delay of 0 is shown as 0.1 s
    assert (clip.duration, frame_numbers(clip)) == (1.0, [0, 1, 2, 3, 4, 5])


def test_a_photograph_with_a_second_picture_is_still(tmp_path):
    picture = Image.fromarray(grey(3))
    picture.save(tmp_path / "film.mpo", save_all=True, append_images=[picture])
    assert "a still image (JPEG)" in refused(tmp_path / "film.mpo")


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


LIGHT, DARK, WHITE = 200, 90, 255
PIXELS = {"grey": (8, 0, 1), "grey of 16 bits": (16, 0, 2), "RGB": (8, 2, 3), "RGBA": (8, 6, 4), "palette": (8, 3, 1)}
"""Bits, colour type, and bytes of a pixel."""


def apng(kind, areas, *, still=False):
    """An animation of 32x32 pixels: a light frame, then dark ones, each of (x, y, width, height, disposal)."""
    bits, colour_type, size = PIXELS[kind]

    def pixels(level, width, height):
        pixel = b"\xff" if kind == "palette" and level == LIGHT else bytes([level]) * size
        pixel = pixel[:3] + b"\xff" if kind == "RGBA" else pixel
        return zlib.compress((b"\0" + pixel * width) * height)

    head = struct.pack(">IIBBBBB", 32, 32, bits, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"acTL", struct.pack(">II", len(areas), 0))]
    if kind == "palette":
        chunks.insert(1, chunk(b"PLTE", bytes([DARK] * 3) * 255 + bytes([LIGHT] * 3)))
    if still:
        chunks.append(chunk(b"IDAT", pixels(DARK, 32, 32)))
    sequence = itertools.count()
    for number, (x, y, width, height, disposal) in enumerate(areas):
        place = struct.pack(">IIIIIHHBB", next(sequence), width, height, x, y, 1, 4, disposal, 0)
        data = pixels(DARK if number else LIGHT, width, height)
        is_first = not number and not still
        picture = chunk(b"IDAT", data) if is_first else chunk(b"fdAT", struct.pack(">I", next(sequence)) + data)
        chunks += [chunk(b"fcTL", place), picture]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def quarters(film):
    """Of each frame, the light in the middle of its quarters."""
    frames = read_clip(film, sampling=VideoSampling(min_frames=4, min_pixels=256, size_multiple=32)).frames
    middles = ((8, 8), (8, 24), (24, 8), (24, 24))
    return [[round(int(frame[at][0]), -1) if frame[at][0] < WHITE else WHITE for at in middles] for frame in frames]


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("kind", PIXELS)
def test_what_an_apng_clears_is_white(kind, first, still):
    areas = [(0, 0, 32, 32, first), (0, 0, 16, 16, 1), (16, 0, 16, 16, 2), (0, 16, 16, 16, 0)]
    behind = WHITE if first else LIGHT
    assert quarters(apng(kind, areas, still=still)) == [
        [LIGHT] * 4,
        [DARK, behind, behind, behind],
        [WHITE, DARK, behind, behind],
        [WHITE, behind, DARK, behind],
    ]


def test_a_cut_apng_that_clears_is_refused():
    content = apng("RGB", [(0, 0, 32, 32, 1), (0, 0, 16, 16, 1), (16, 0, 16, 16, 0), (0, 16, 16, 16, 0)])
    assert "damaged" in refused(content[:-70])


# Cost


def png(edge, *, frames=0):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 16, 6, 0, 0, 0))
    animation = chunk(b"acTL", struct.pack(">II", frames, 0)) if frames else b""
    return b"\x89PNG\r\n\x1a\n" + head + animation + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_a_picture_is_refused_before_a_decoder_opens(monkeypatch):
    monkeypatch.setattr(av, "open", None)
    assert refused(png(16_000)) == "a still image (PNG), not a video"
    assert "3/8 of max_source_pixels" in refused(png(16_000, frames=9))
    assert "3/8 of max_source_pixels" in refused((FILES / "wide_canvas.gif").read_bytes())
    assert "more than max_decode" in refused(png(1000, frames=10**6))
    content = bytearray((FILES / "comfy.webp").read_bytes())
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = b"\xff\x3f\x00\xff\x3f\x00"
    assert "WebP of 16384x16384" in refused(bytes(content))


@pytest.mark.parametrize("kind", ["bmp", "tiff", "ppm", "ico", "tga", "jp2"])
def test_other_still_images(tmp_path, kind):
    Image.fromarray(grey(3)).save(tmp_path / f"still.{kind}")
    assert refused(tmp_path / f"still.{kind}").startswith(("a still image", "not a video"))


def test_a_bomb_within_a_video_is_not_decoded():
    file = io.BytesIO()
    write_film(file, [grey(0)], codec="png", pixels="rgb24", container_format="mov")
    content = file.getvalue().replace(struct.pack(">II", 64, 48), struct.pack(">II", 20_000, 20_000))
    assert "decoded" in (reason := refused(content)) or "max_source_pixels" in reason


def test_no_refusal_is_expected_without_words():
    assert all(right.words for right in EXPECTED.values() if isinstance(right, Refused))
