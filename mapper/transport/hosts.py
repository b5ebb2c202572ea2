"""One host as all threads of a process see it: how many ask at once, and whether it may be asked.

A gate bounds the requests at once, a pause holds everybody back for as long as the host asked
(Retry-After), and a circuit breaker leaves a host alone that has only failed of late.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from queue import Empty, SimpleQueue

from mapper.errors import ReadError
from mapper.transport.policy import NetworkPolicy

_LONGEST_SLEEP = 1.0
"""Seconds after which a waiting request looks again, whether it was woken or not."""
_IDLE = 10.0
"""Seconds after which a thread without work ends."""


class Breaker:
    """Opens after `limit` failures in a row; `pause` seconds later admits one request on trial.

    Not safe for threads by itself: `Host` holds a lock around it. Times are any steady seconds.
    """

    def __init__(self, limit: int, pause: float) -> None:
        """Closed at first."""
        self._limit = limit
        self._pause = pause
        self._failures = 0
        self._open_until: float | None = None
        self._trial = False

    @property
    def is_open(self) -> bool:
        """Whether the host is left alone, a request on trial included."""
        return self._open_until is not None

    def admit(self, now: float) -> bool:
        """Whether one more request may be made; where it may on trial, it is the only one."""
        if self._open_until is None:
            return True
        if self._trial or now < self._open_until:
            return False
        self._trial = True
        return True

    def seconds_left(self, now: float) -> float:
        """How long until a request on trial; 0 where one may be made or is being made."""
        return max(0.0, (self._open_until or now) - now)

    def succeed(self) -> None:
        """The host answered."""
        self._failures = 0
        self._open_until = None
        self._trial = False

    def fail(self, now: float) -> None:
        """The host did not answer, or said that it cannot."""
        self._failures += 1
        if self._failures >= self._limit:
            self._open_until = now + self._pause

    def leave(self) -> None:
        """The request on trial has ended, whatever it told."""
        self._trial = False


class Host:
    """Gate, pause, breaker and worker threads of one host."""

    def __init__(self, name: str, policy: NetworkPolicy) -> None:
        """A host that nobody has asked yet."""
        self.name = name
        self.policy = policy
        self._changed = threading.Condition()
        self._running = 0
        self._paused_until = 0.0
        self._breaker = Breaker(policy.breaker_failures, policy.breaker_pause_s)
        self._crew = _Crew(policy.per_host, name)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a place at the gate, and hold it.

        Raises: ReadError where the breaker stays open for longer than the policy waits.
        """
        on_trial = self._enter()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if on_trial:
                    self._breaker.leave()
                self._changed.notify_all()

    def _enter(self) -> bool:
        open_since: float | None = None
        with self._changed:
            while not self._admit(now := time.monotonic()):
                open_since = (open_since or now) if self._breaker.is_open else None
                left = _LONGEST_SLEEP
                if open_since is not None:
                    left = open_since + self.policy.breaker_wait_s - now
                    if left <= 0:
                        raise ReadError(self._left_alone())
                self._changed.wait(min(left, self._next_look(now)))
            self._running += 1
            return self._breaker.is_open

    def _admit(self, now: float) -> bool:
        if now < self._paused_until or self._running >= self.policy.per_host:
            return False
        return self._breaker.admit(now)

    def _next_look(self, now: float) -> float:
        known = [self._paused_until - now, self._breaker.seconds_left(now)]
        return min([seconds for seconds in known if seconds > 0] + [_LONGEST_SLEEP])

    def _left_alone(self) -> str:
        return (
            f"host {self.name} is left alone after {self.policy.breaker_failures} failures in a "
            f"row and did not come back in {self.policy.breaker_wait_s:g} s; run again later"
        )

    def succeeded(self) -> None:
        """Tell that the host answered."""
        with self._changed:
            self._breaker.succeed()
            self._changed.notify_all()

    def failed(self) -> None:
        """Tell that it did not."""
        with self._changed:
            self._breaker.fail(time.monotonic())
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Hold back every request to the host, because it asked for that."""
        with self._changed:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def start(self, job: Callable[[], None]) -> None:
        """Run a job on one of the host's own threads; another host's faults do not delay it."""
        self._crew.do(job)


class _Crew:
    """Up to `most` daemon threads, so that a waiting request does not delay the program's end."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = f"fetch {name}"
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._hands = 0
        self._pending = 0

    def do(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.put(job)
            self._pending += 1
            if self._pending > self._hands and self._hands < self._most:
                self._hands += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except Empty:
                with self._lock:
                    if not self._jobs.empty():
                        continue
                    self._hands -= 1
                return
            try:
                job()
            finally:
                with self._lock:
                    self._pending -= 1


@lru_cache(maxsize=256)
def _host(name: str, policy: NetworkPolicy) -> Host:
    return Host(name, policy)


_finding = threading.Lock()


def find_host(name: str, policy: NetworkPolicy) -> Host:
    """The one record that this process keeps of a host under a policy."""
    with _finding:
        return _host(name, policy)


def _forget() -> None:
    """A forked child has none of the threads and may hold any lock."""
    global _finding
    _finding = threading.Lock()
    _host.cache_clear()


os.register_at_fork(after_in_child=_forget)
