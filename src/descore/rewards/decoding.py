"""Read videos ahead in other processes, in order.

In: names of videos, and a function that reads one. Out: what it gives, or the VideoError, in the order of the names. A
process that dies costs the clip that it was reading, and no other; it is started anew. `concurrent.futures` cannot say
which clip broke its pool, and `multiprocessing` runs the user's script again in each process, so these are started as
programs of their own. They import no torch, ignore Ctrl-C, and end with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Self, TypeVar

from descore.errors import ConfigError, DescoreError, VideoError
from descore.types import Clip

ReadClip = Callable[[str], Clip]
"""From a video's name to its clip; a function that can be pickled by its name. Raises VideoError."""

MOST_WORKERS = 8

_PATIENCE = 180.0
"""Seconds until a process that answers nothing is ended: far beyond the reader's own limit of `timeout`."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from descore.rewards.decoding import serve; serve({descriptor})"

_Row = TypeVar("_Row")


def default_workers() -> int:
    """All cores that this process may use but one, which is left to the model; at most MOST_WORKERS."""
    # macOS and Windows have no affinity.
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores - 1))


class DecodingPool:
    """Processes that read videos; with no workers, they are read in this process when they are asked for."""

    def __init__(self, *, workers: int, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._count = workers
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        # A thread waits for each process, so that the next clip is handed over while the model thinks.
        self._threads = ThreadPoolExecutor(workers) if workers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes, whatever they are doing."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for worker in self._workers:
                worker.end()
            self._threads.shutdown()

    def read_ahead(
        self, rows: Iterable[_Row], *, read: ReadClip, video_of: Callable[[_Row], str | None], ahead: int
    ) -> Iterator[tuple[_Row, Clip | VideoError | None]]:
        """Each row with its clip, in order. At most `ahead` clips beyond the one that is given are read or kept; rows
        without a video are passed through with None. ConfigError if no process can be started."""
        waiting: deque[tuple[_Row, Future[Clip | VideoError] | None]] = deque()
        for row in rows:
            video = video_of(row)
            waiting.append((row, None if video is None else self.submit(read, video)))
            if len(waiting) > ahead:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)

    def start(self) -> None:
        """Start the processes now, rather than with the first video: while a model is opened, say."""
        if not self._workers:
            self._workers = [_Worker() for _ in range(self._count)]
            for worker in self._workers:
                self._idle.put(worker)

    @property
    def restarts(self) -> int:
        """Processes that had died and were started again."""
        return sum(worker.restarts for worker in self._workers)

    @property
    def alive(self) -> int:
        """Processes that live."""
        return sum(worker.alive for worker in self._workers)

    def submit(self, read: ReadClip, video: str) -> "Future[Clip | VideoError]":
        """Read one video when a process is free; a future that is cancelled before then is not read. ConfigError, from
        the future, if no process can be started."""
        if self._threads is not None:
            self.start()
            return self._threads.submit(self._read_elsewhere, read, video)
        done: Future[Clip | VideoError] = Future()
        done.set_result(_outcome(read, video))
        return done

    def _read_elsewhere(self, read: ReadClip, video: str) -> Clip | VideoError:
        worker = self._idle.get()
        try:
            return worker.read(read, video, patience=self._patience)
        finally:
            self._idle.put(worker)


def _first(waiting: deque[tuple[_Row, "Future[Clip | VideoError] | None"]]) -> tuple[_Row, Clip | VideoError | None]:
    row, future = waiting.popleft()
    return row, None if future is None else future.result()


class _Worker:
    """One process, started again when it has died."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self.restarts = -1
        self._start()

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def _start(self) -> None:
        self._connection, other = Pipe()
        program = _PROGRAM.format(path=sys.path, descriptor=other.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,  # closed by the system when this process ends
            stdout=subprocess.DEVNULL,
            pass_fds=(other.fileno(),),
            process_group=0,  # Ctrl-C is for the process that started it
        )
        other.close()
        self._ready = False
        self.restarts += 1

    def read(self, read: ReadClip, video: str, *, patience: float) -> Clip | VideoError:
        """The clip of a video, or why there is none."""
        self._await_start(patience)
        try:
            self._connection.send((read, video))
            if self._connection.poll(patience):
                return self._connection.recv()  # type: ignore[no-any-return]
            reason = f"the process that decoded it did not answer for {patience:.0f} s and was ended"
        except (EOFError, OSError):
            reason = f"the process that decoded it {self._fate()}"
        self._close()
        if not self._ended.is_set():
            self._start()
        return VideoError(video, f"{reason}; a damaged file, or too little memory")

    def _await_start(self, patience: float) -> None:
        if self._ready and self._process.poll() is not None:  # it died while it was idle: no clip is to blame
            self._close()
            self._start()
        try:
            self._ready = self._ready or (self._connection.poll(patience) and self._connection.recv())
        except (EOFError, OSError):
            self._ready = False
        if not self._ready:
            raise ConfigError(f"a decoding process {self._fate()} at its start; decode without them: --workers 0")

    def _fate(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "hung"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def end(self) -> None:
        """End the process for good."""
        self._ended.set()
        self._process.kill()

    def _close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _outcome(read: ReadClip, video: str) -> Clip | VideoError:
    try:
        return read(video)
    except VideoError as error:
        return error.with_traceback(None)  # which would keep the frames of its calls, and what they hold
    except DescoreError as error:
        return VideoError(video, str(error))


def serve(descriptor: int) -> None:
    """Read videos for the process at the other end of a socket, until it ends. This is a worker's main function."""
    import descore.video.reader  # noqa: F401  # before it is ready

    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(descriptor)
    connection.send(True)
    while True:
        try:
            read, video = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(read, video))


def _end_with_parent() -> None:
    """A worker in the middle of a long video would not notice by itself that nobody waits for it any more."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: the interpreter could not end while a thread holds a buffer
    os._exit(1)
