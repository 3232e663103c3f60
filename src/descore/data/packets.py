"""What a video file's packets say before any is decoded: when each frame is shown, and which packets it needs.

In: one row per packet, in decoding order. Out: a timeline, and runs of packets to decode.
Pure functions; knows nothing of files, decoders or pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from descore.data.sampling import Timeline

TRUSTED_KEYS = frozenset(
    {"h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"}
)
"""Decoders (FFmpeg's names) that need nothing from before a packet flagged as key. GIF, for one, is not among them:
its frames are drawn over what was there before."""

SKIP_WORTHWHILE = 8
"""Packets: a shorter gap is decoded through, since restarting the decoder empties its threads' work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One packet."""

    pts: int | None
    """When its frame is shown, in ticks; None if the container does not say."""
    duration: int
    """How long, in ticks; 0 if the container does not say."""
    key: bool
    """Decoding can start here."""
    hidden: bool
    """Decoded for others' sake, not shown (cut off by an edit list)."""
    spare: bool
    """No other frame is predicted from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All packets of a video stream, in decoding order."""

    rows: Sequence[Row]
    first: int
    """Presentation time of the first frame shown, in ticks: time 0 of the clip."""
    timeline: Timeline | None
    """None if the rows do not tell every frame's time."""


def table_of(rows: Sequence[Row], *, tick: Fraction) -> Table:
    """Order the frames by the times that the packets state, beginning with the first one that can be decoded."""
    start = next((index for index, row in enumerate(rows) if row.key), 0)
    shown = [row for row in rows[start:] if not row.hidden]
    times = [row.pts for row in shown if row.pts is not None]
    if not times or len(times) < len(shown) or len(set(times)) < len(times):
        return Table(rows=rows, first=min(times, default=0), timeline=None)
    key = rows[start]
    # Frames shown before the first key frame, though stored behind it, lean on one that is not in the file.
    first = min(times) if key.hidden or key.pts is None else key.pts
    ticks = sorted(pts - first for pts in times if pts >= first)
    last = next(row for row in shown if row.pts == first + ticks[-1])
    return Table(rows=rows, first=first, timeline=timeline_of(ticks, tick=tick, last=last.duration))


def timeline_of(ticks: Sequence[int], *, tick: Fraction, last: int) -> Timeline:
    """A timeline whose last frame lasts `last` ticks, or as long as the others on average where that is 0."""
    mean = round(ticks[-1] / (len(ticks) - 1)) if len(ticks) > 1 else 1
    return Timeline(ticks=ticks, tick=tick, length=ticks[-1] + max(last or mean, 1))


def needed_packets(table: Table, wanted: set[int], *, decoder: str) -> list[list[int]]:
    """Runs of packets, by number, whose decoding gives the frames shown at the wanted times.

    Each run begins at a key packet, and the decoder starts afresh before it. Spare packets are left out unless they
    are wanted themselves."""
    rows, runs = table.rows, list[range]()
    entry = 0
    for index, row in enumerate(rows):
        if row.pts not in wanted:
            continue
        entry = _entry(rows, index, at_least=entry) if decoder in TRUSTED_KEYS else 0
        if runs and entry < runs[-1].stop + SKIP_WORTHWHILE:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(entry, index + 1))
    return [[index for index in run if not rows[index].spare or rows[index].pts in wanted] for run in runs]


def _entry(rows: Sequence[Row], index: int, *, at_least: int) -> int:
    """The last key packet from which the frame of packet `index` can be decoded."""
    pts = rows[index].pts
    assert pts is not None
    for entry in range(index, at_least, -1):
        key = rows[entry]
        # A frame shown before the key frame, though stored behind it, may lean on what is stored before.
        if key.key and key.pts is not None and key.pts <= pts:
            return entry
    return at_least


def is_spare_h264(packet: memoryview, *, length_bytes: int) -> bool:
    """Whether an H.264 picture, stored with its units' lengths before them, is no other's reference.

    The standard says so in each slice: nal_ref_idc is 0 for all slices of a picture that none is predicted from
    (ITU-T H.264, 7.4.1)."""
    at, slices = 0, 0
    while at + length_bytes < len(packet):
        header = packet[at + length_bytes]
        if 1 <= header & 31 <= 5:
            slices += 1
            if header & 96:
                return False
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return slices > 0
