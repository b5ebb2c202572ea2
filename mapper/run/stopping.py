"""A signal ends a run in good order: what is being done is finished and written down."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

GRACE = 20.0
"""Seconds for what has begun: SLURM kills 30 seconds after it asked, and so does Kubernetes."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Stop:
    """Whether a signal came, and how long there is still time."""

    grace: float = GRACE
    number: int = 0
    """Of the signal; 0 while none came."""
    _since: float = 0.0
    _told: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int) -> None:
        """A signal came."""
        self.number, self._since = number, time.monotonic()
        self._told.set()

    @property
    def asked(self) -> bool:
        """Nothing more is to be begun."""
        return self._told.is_set()

    @property
    def over(self) -> bool:
        """Nothing more is waited for."""
        return self.asked and time.monotonic() - self._since > self.grace


@contextmanager
def drained(grace: float = GRACE) -> Iterator[Stop]:
    """Let the first signal ask for a good end; the second ends the process at once.

    Only the main thread of a process hears signals; elsewhere none changes anything.
    """
    stop = Stop(grace=grace)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)
            return
        stop.ask(number)

    before: dict[signal.Signals, Any] = {s: signal.signal(s, heard) for s in _SIGNALS}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
