"""What a task asked of the network: counts, and the memory of what it read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mapper.transport.memory import Memory


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Counts of one `traffic()`; safe for threads, and final when the block has ended."""

    requests: int = 0
    """Sent, the failed ones among them."""
    received: int = 0
    """Bytes of bodies."""
    retries: int = 0
    twice: int = 0
    """Bytes of assets that were received again after they had been received."""
    waited: float = 0.0
    """Seconds in waits: for a place, a pause the host asked for, and between tries; summed over
    threads."""
    hosts: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    memory: Memory = field(default_factory=Memory, repr=False)

    def count_request(self) -> None:
        """One more request goes out."""
        with self._lock:
            self.requests += 1

    def count_body(self, size: int) -> None:
        """Bytes came in."""
        with self._lock:
            self.received += size

    def count_retry(self, seconds: float) -> None:
        """A request is made again after a wait."""
        with self._lock:
            self.retries += 1
            self.waited += seconds

    def count_wait(self, seconds: float) -> None:
        """A request waited for its turn."""
        with self._lock:
            self.waited += seconds

    def count_host(self, name: str) -> None:
        """A host is asked."""
        with self._lock:
            self.hosts.add(name)

    def count_range(self, address: str, start: int, end: int) -> None:
        """Bytes `start` to `end` of an unsigned address came in."""
        again = self.memory.note_range(address, start, end)
        with self._lock:
            self.twice += again

    def add(self, inner: "Traffic") -> None:
        """Count what an inner block counted."""
        with self._lock:
            self.requests += inner.requests
            self.received += inner.received
            self.retries += inner.retries
            self.twice += inner.twice
            self.waited += inner.waited
            self.hosts |= inner.hosts


_current: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


def counting() -> Traffic:
    """Where to count: the innermost block, or counts that nobody looks at."""
    return _current.get() or Traffic()


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count what is asked of the network inside, and keep bytes of files that are opened again.

    A context variable carries it: a thread counts here where it runs in a copy of the context
    (`contextvars.copy_context().run`). Blocks within blocks count for both
    and share what is kept.
    """
    outer = _current.get()
    seen = Traffic(memory=outer.memory) if outer is not None else Traffic()
    token = _current.set(seen)
    try:
        yield seen
    finally:
        _current.reset(token)
        if outer is not None:
            outer.add(seen)
