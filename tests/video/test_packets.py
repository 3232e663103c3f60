"""Packets are ordered by the times that they state; what no picture depends on is recognised."""

import av
import numpy as np
import pytest
from tests.video.films import TICK, frame_numbers, grey_film, packet

from descore.video import containers
from descore.video.decoder import needed_packets
from descore.video.packets import PacketTable, is_non_reference_h264
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling


def test_times_are_ordered_and_begin_at_zero():
    # Stored I P B B, shown I B B P, from 1000 on.
    table = PacketTable.of(
        [packet(1000, key=True), packet(1003), packet(1001, non_reference=True), packet(1002, non_reference=True)],
        tick=TICK,
    )
    assert list(table.timeline.ticks) == [0, 1, 2, 3]
    assert table.first == 1000
    assert table.timeline.length == 4


def test_frames_before_the_first_key_frame_do_not_count():
    # 0 and 1 come before the key frame; 2 is stored behind it but shown before, so it depends on what is missing.
    table = PacketTable.of([packet(0), packet(1), packet(3, key=True), packet(2), packet(4)], tick=TICK)
    assert table.first == 3
    assert list(table.timeline.ticks) == [0, 1]


def test_hidden_frames_are_not_shown_but_decoding_starts_there():
    table = PacketTable.of(
        [packet(-2, key=True, hidden=True), packet(-1, hidden=True), packet(0), packet(1)], tick=TICK
    )
    assert table.first == 0
    assert needed_packets(table, {1}, decoder="h264") == [[0, 1, 2, 3]]


def test_missing_or_repeated_times_give_no_timeline():
    assert PacketTable.of([packet(0, key=True), packet(None)], tick=TICK).timeline is None
    assert PacketTable.of([packet(0, key=True), packet(0)], tick=TICK).timeline is None


def test_last_frame_lasts_what_it_says_or_else_the_mean():
    assert PacketTable.of([packet(0, key=True), packet(10, duration=7)], tick=TICK).timeline.length == 17
    assert PacketTable.of([packet(0, key=True), packet(10, duration=0)], tick=TICK).timeline.length == 20
    assert PacketTable.of([packet(5, key=True, duration=0)], tick=TICK).timeline.length == 1


def unit(kind, reference, payload=b"xx"):
    body = bytes([reference << 5 | kind]) + payload
    return len(body).to_bytes(4, "big") + body


def test_non_reference_h264_pictures():
    def non_reference(*units):
        return is_non_reference_h264(memoryview(b"".join(units)), length_bytes=4)

    assert non_reference(unit(6, 0), unit(1, 0))  # a message, then a slice that is no reference
    assert non_reference(unit(1, 0), unit(1, 0))
    assert not non_reference(unit(1, 2))
    assert not non_reference(unit(1, 0), unit(1, 2))
    assert not non_reference(unit(5, 3))
    assert not non_reference(unit(7, 3), unit(8, 3))  # no slice at all: parameters, which others need
    assert not non_reference()
    assert not non_reference(b"\0\0\0")


def test_non_reference_hevc_pictures():
    def non_reference(*units, layers=1):
        """Units by type and temporal layer, counted from 1."""
        bodies = [bytes([kind << 1, layer]) + b"slice" for kind, layer in units]
        content = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        return containers.is_non_reference_hevc(memoryview(content), length_bytes=4, layers=layers)

    assert non_reference((39, 1), (0, 1))  # a message, then a slice that is no reference
    assert non_reference((8, 1), (8, 1))
    assert not non_reference((1, 1))
    assert not non_reference((0, 1), (1, 1))
    assert not non_reference((19, 1))  # a key frame
    assert not non_reference((16, 1))
    assert not non_reference((32, 1), (33, 1))  # no slice at all: parameters, which others need
    assert not non_reference((0, 1), layers=2)  # pictures of the second layer may need it
    assert non_reference((0, 2), layers=2)
    assert not non_reference((0, 1), layers=0)  # not stated
    assert not non_reference()


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="FFmpeg was built without libx265")
def test_hevc_frames_are_the_same_without_the_others(tmp_path, monkeypatch):
    """48 frames, of which the coder makes several non-reference; each that is sampled is itself."""
    film = grey_film(tmp_path / "film.mp4", codec="libx265", **{"x265-params": "log-level=none:bframes=3:b-pyramid=1"})
    sampling = VideoSampling(fps=5, min_pixels=16 * 16, size_multiple=16)
    own, left_out = containers.is_non_reference_hevc, []

    def counted(packet, **how):
        left_out.append(own(packet, **how))
        return left_out[-1]

    monkeypatch.setattr(containers, "is_non_reference_hevc", counted)
    clip = read_clip(film, sampling=sampling)
    assert sum(left_out) > 8
    assert frame_numbers(clip) == [round(seconds * 24) for seconds in clip.times]
    monkeypatch.setattr(containers, "is_non_reference_hevc", lambda *_, **__: False)
    assert np.array_equal(clip.frames, read_clip(film, sampling=sampling).frames)
