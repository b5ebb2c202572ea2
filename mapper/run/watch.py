"""A run as Prometheus sees it: counters and gauges, made of the run's own events."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from mapper.errors import UsageError
from mapper.events import Event, Listener

_WINDOW = 60.0
"""Seconds that a rate is a mean of."""
_WHERE = ("city", "stage")


@dataclass(slots=True)
class Rate:
    """Something per second, over the last minute or as long as there is anything."""

    clock: Callable[[], float] = time.monotonic
    _began: float = 0.0
    _seen: deque[tuple[float, float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def add(self, amount: float) -> None:
        """So much more, now."""
        self._seen.append((self.clock(), amount))

    def value(self) -> float:
        """Now."""
        now = self.clock()
        while self._seen and self._seen[0][0] <= now - _WINDOW:
            self._seen.popleft()
        return sum(amount for _, amount in self._seen) / max(1.0, min(_WINDOW, now - self._began))


class Watch:
    """A listener that passes every event on, and counts."""

    def __init__(
        self, listener: Listener, run: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`run` names the folder in a label of every metric."""
        self.listener = listener
        self.registry = CollectorRegistry(auto_describe=True)
        self._pixels, self._model = Rate(clock), Rate(clock)
        self._label = run
        self._planned = self._gauge("mapper_steps", "Steps known so far", *_WHERE)
        self._done = self._counter("mapper_steps_done", "Steps done, earlier runs' too", *_WHERE)
        self._failed = self._counter("mapper_steps_failed", "Steps given up", *_WHERE)
        self._retried = self._counter("mapper_retries", "Steps tried again", *_WHERE)
        self._read = self._counter("mapper_read_bytes", "Bytes received from archives", "city")
        self._mapped = self._counter("mapper_pixels", "Pixels predicted", "city")
        self._took = self._counter("mapper_step_seconds", "Seconds of workers", "stage")
        rate = self._gauge("mapper_pixels_per_second", "Pixels predicted, over a minute")
        rate.labels(run).set_function(self._pixels.value)
        busy = self._gauge("mapper_model_busy", "Share of the time that models run, over a minute")
        busy.labels(run).set_function(lambda: self._model.value() / max(1, self._predicting))
        self._workers = self._gauge("mapper_workers", "Workers that fit").labels(run)
        self._predicting = 0

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ("run", *labels), registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ("run", *labels), registry=self.registry)

    def __call__(self, event: Event) -> None:
        """Count, and pass it on."""
        if event.kind == "step":
            self._count(event)
        if event.kind == "workers":
            self._workers.set(event.data["workers"])
            self._predicting = event.data["predicting"]
        self.listener(event)

    def _count(self, event: Event) -> None:
        where = (self._label, event.city, event.stage)
        if event.total:
            self._planned.labels(*where).set(event.total)
            done = self._done.labels(*where)
            # steps of earlier runs are known without an event of their own
            done.inc(max(0.0, event.done - done._value.get()))
        if event.state == "failed":
            self._failed.labels(*where).inc()
        if event.state == "retried":
            self._retried.labels(*where).inc()
        data = event.data
        self._took.labels(self._label, event.stage).inc(data.get("seconds", 0.0))
        self._read.labels(self._label, event.city).inc(data.get("bytes_read", 0))
        pixels = data.get("pixels", 0)
        self._mapped.labels(self._label, event.city).inc(pixels)
        self._pixels.add(pixels)
        self._model.add(data.get("model_seconds", 0.0))


@contextmanager
def watched(listener: Listener, address: str | None, run: str) -> Iterator[Listener]:
    """The listener, with metrics served at `HOST:PORT`; as it is where there is no address.

    Raises: UsageError where the address cannot be listened at.
    """
    if address is None:
        yield listener
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--metrics {address!r} is no address; give one like 127.0.0.1:9464")
    watch = Watch(listener, run)
    try:
        server, thread = start_http_server(int(port), addr=host, registry=watch.registry)
    except OSError as reason:
        raise UsageError(f"--metrics {address}: {reason.strerror or reason}") from reason
    try:
        yield watch
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
