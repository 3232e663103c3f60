"""Every video opened once, several at a time: what it is, or why it cannot be read.

In: paths. Out: a `Look` or the VideoError of each, in order, as they come. Knows files, the reader of videos and
threads; knows nothing of tables."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from descore.data.sampling import VideoSampling
from descore.data.video import read_clip
from descore.errors import VideoError

_ENDS = VideoSampling(min_frames=2, max_frames=2, min_pixels=32 * 32, max_pixels=64 * 64)
"""The first frame and the last: a file that gives both, and whose packets could all be read, is rarely damaged."""

_AHEAD = 4
"""Videos for each thread that wait or are being read; more would only take memory."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a video is."""

    content: bytes
    """16 bytes of the SHA-256 of the file: equal files have equal ones, whatever they are called."""
    seconds: float
    """How long it lasts."""
    size: tuple[int, int]
    """Width and height as displayed, in pixels."""


def look_at(path: str) -> Look | VideoError:
    """Open a file, read all its packets, and decode its first and last frame."""
    try:
        clip = read_clip(path, sampling=_ENDS)
    except VideoError as fault:
        return fault
    with Path(path).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()[:16]
    return Look(content, clip.duration, clip.source_size)


def look_at_each(paths: Iterable[str], *, workers: int) -> Iterator[tuple[str, Look | VideoError]]:
    """Each path and what is found there, in order. Paths are taken only as fast as they are looked at."""
    todo = iter(paths)
    waiting: deque[tuple[str, Future[Look | VideoError]]] = deque()
    # Threads, not processes: FFmpeg decodes and SHA-256 hashes without the interpreter's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        waiting.extend((path, pool.submit(look_at, path)) for path in islice(todo, _AHEAD * workers))
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()
            waiting.extend((path, pool.submit(look_at, path)) for path in islice(todo, 1))
    finally:
        pool.shutdown(cancel_futures=True)
