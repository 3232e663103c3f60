from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from descore.video.packets import SKIP_WORTHWHILE, Row, is_non_reference_h264, needed_packets, table_of

TICK = Fraction(1, 24)


def row(pts, *, key=False, hidden=False, non_reference=False, duration=1):
    return Row(pts=pts, duration=duration, key=key, hidden=hidden, non_reference=non_reference)


def gop(start, length, *, key=True):
    return [row(start + k, key=key and k == 0) for k in range(length)]


def test_times_are_ordered_and_begin_at_zero():
    # Stored I P B B, shown I B B P, from 1000 on.
    table = table_of(
        [row(1000, key=True), row(1003), row(1001, non_reference=True), row(1002, non_reference=True)], tick=TICK
    )
    assert list(table.timeline.ticks) == [0, 1, 2, 3]
    assert table.first == 1000
    assert table.timeline.length == 4


def test_frames_before_the_first_key_frame_do_not_count():
    # 0 and 1 come before the key frame; 2 is stored behind it but shown before, so it leans on what is missing.
    table = table_of([row(0), row(1), row(3, key=True), row(2), row(4)], tick=TICK)
    assert table.first == 3
    assert list(table.timeline.ticks) == [0, 1]


def test_hidden_frames_are_not_shown_but_decoding_starts_there():
    table = table_of([row(-2, key=True, hidden=True), row(-1, hidden=True), row(0), row(1)], tick=TICK)
    assert table.first == 0
    assert needed_packets(table, {1}, decoder="h264") == [[0, 1, 2, 3]]


def test_missing_or_repeated_times_give_no_timeline():
    assert table_of([row(0, key=True), row(None)], tick=TICK).timeline is None
    assert table_of([row(0, key=True), row(0)], tick=TICK).timeline is None


def test_last_frame_lasts_what_it_says_or_else_the_mean():
    assert table_of([row(0, key=True), row(10, duration=7)], tick=TICK).timeline.length == 17
    assert table_of([row(0, key=True), row(10, duration=0)], tick=TICK).timeline.length == 20
    assert table_of([row(5, key=True, duration=0)], tick=TICK).timeline.length == 1


def test_decoding_starts_at_the_last_key_frame_and_spares_are_left_out():
    rows = [*gop(0, 30), row(30, key=True), row(33), row(31, non_reference=True), row(32, non_reference=True), row(34)]
    assert needed_packets(table_of(rows, tick=TICK), {32}, decoder="h264") == [[30, 31, 33]]


def test_frame_shown_before_the_key_frame_needs_the_one_before():
    rows = [*gop(0, 30), row(32, key=True), row(30), row(31)]
    assert needed_packets(table_of(rows, tick=TICK), {30}, decoder="h264") == [list(range(32))]


def test_small_gaps_are_decoded_through():
    rows = [*gop(0, SKIP_WORTHWHILE), *gop(SKIP_WORTHWHILE, 1)]
    table = table_of(rows, tick=TICK)
    assert needed_packets(table, {0, SKIP_WORTHWHILE}, decoder="h264") == [list(range(SKIP_WORTHWHILE + 1))]
    far = table_of([*gop(0, SKIP_WORTHWHILE + 1), *gop(SKIP_WORTHWHILE + 1, 1)], tick=TICK)
    assert needed_packets(far, {0, SKIP_WORTHWHILE + 1}, decoder="h264") == [[0], [SKIP_WORTHWHILE + 1]]


def test_unknown_decoder_is_given_everything_up_to_the_last_frame():
    table = table_of(gop(0, 20) + gop(20, 20), tick=TICK)
    assert needed_packets(table, {25}, decoder="gif") == [list(range(26))]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_every_wanted_frame_has_all_that_it_leans_on(lengths, data):
    """A model of a decoder: a frame needs every non-spare packet from its key packet up to itself."""
    rows, leans = [], {}
    for length in lengths:
        entry = len(rows)
        for k in range(length):
            non_reference = k > 0 and data.draw(st.booleans())
            before = [i for i in range(entry, len(rows)) if not rows[i].non_reference]
            leans[len(rows)] = {*before, len(rows)}
            rows.append(row(len(rows), key=k == 0, non_reference=non_reference))
    wanted = data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))
    runs = needed_packets(table_of(rows, tick=TICK), wanted, decoder="h264")
    for pts in wanted:
        assert any(leans[pts] <= set(run) for run in runs)
    assert all(rows[run[0]].key for run in runs)
    assert [i for run in runs for i in run] == sorted({i for run in runs for i in run})


def unit(kind, reference, payload=b"xx"):
    body = bytes([reference << 5 | kind]) + payload
    return len(body).to_bytes(4, "big") + body


def test_spare_h264_pictures():
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
