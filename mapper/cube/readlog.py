"""How much of the files is decoded for what is wanted of them: the read amplification."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock

import rasterio


@dataclass(slots=True)
class ReadLog:
    """Pixels of source files that were wanted, and those of the blocks that hold them."""

    wanted: int = 0
    decoded: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, wanted: int, decoded: int) -> None:
        """Count a window."""
        with self._lock:
            self.wanted += wanted
            self.decoded += decoded

    @property
    def amplification(self) -> float:
        """Decoded pixels for each that was wanted; 1 where nothing was read."""
        return self.decoded / self.wanted if self.wanted else 1.0


_LOG: ContextVar[ReadLog | None] = ContextVar("mapper_reads", default=None)


@contextmanager
def read_log() -> Iterator[ReadLog]:
    """Count the windows that are read from here on, threads of this context included."""
    log = ReadLog()
    token = _LOG.set(log)
    try:
        yield log
    finally:
        _LOG.reset(token)


def note_read(
    dataset: rasterio.DatasetReader, index: int, window: tuple[int, int, int, int]
) -> None:
    """Count a window of a file: row, column, height and width."""
    log = _LOG.get()
    if log is None:
        return
    row, col, height, width = window
    block_height, block_width = dataset.block_shapes[index - 1]
    rows = -(-(row + height) // block_height) - row // block_height
    cols = -(-(col + width) // block_width) - col // block_width
    # blocks at the border of a file are stored whole
    log.add(height * width, rows * block_height * cols * block_width)
