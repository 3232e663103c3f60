"""What a server counts, for Prometheus: its queue, the sizes of batches, seconds by part, and errors by kind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from descore.serving.problems import Kind

WorkPart = Literal["fetch", "decode", "wait", "score", "request"]

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the buckets of batch sizes, in clips."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._clips = Gauge("descore_queue_clips", "Clips in the server, by state.", ["state"], registry=self._registry)
        self._sizes = Histogram(
            "descore_batch_size", "Clips of a batch.", ["model"], buckets=SIZES, registry=self._registry
        )
        self._seconds = Histogram(
            "descore_seconds", "Seconds by part of the work.", ["part"], buckets=SECONDS, registry=self._registry
        )
        self._requests = Counter(
            "descore_requests", "Requests, by route and status.", ["route", "status"], registry=self._registry
        )
        self._errors = Counter("descore_errors", "Errors, by kind.", ["kind"], registry=self._registry)
        self._scores = Counter("descore_scores", "Clips that got a reward.", ["model"], registry=self._registry)

    def watch(self, state: str, count: Callable[[], int]) -> None:
        """Ask this function for the clips in a state whenever the page is read."""
        self._clips.labels(state).set_function(count)

    def batch(self, size: int, *, model: str, scored: int) -> None:
        """Count a batch, and the clips of it that got a reward."""
        self._sizes.labels(model).observe(size)
        self._scores.labels(model).inc(scored)

    def waited(self, seconds: float) -> None:
        """Count the seconds that a clip waited for its batch."""
        self._seconds.labels("wait").observe(seconds)

    @contextmanager
    def timed(self, part: WorkPart) -> Iterator[None]:
        """Count the seconds of the block."""
        start = perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(part).observe(perf_counter() - start)

    def error(self, kind: Kind) -> None:
        """Count an error."""
        self._errors.labels(kind).inc()

    def request(self, route: str, status: int) -> None:
        """Count a request. route: as it is written in the API, so that there are few."""
        self._requests.labels(route, str(status)).inc()

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
