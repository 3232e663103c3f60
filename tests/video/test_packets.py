"""Packets are ordered by the times that they state; what no picture depends on is recognised."""

from tests.video.films import TICK, packet

from descore.video.decoder import needed_packets
from descore.video.packets import PacketTable, is_non_reference_h264


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
