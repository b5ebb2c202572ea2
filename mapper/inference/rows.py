"""Reading the stored layers from north to south, each row once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mapper.area.grid import BLOCK, PixelBox

Stored = tuple[np.ndarray, ...]
"""One array `(band, y, x)` per layer of a coding, in its order, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the pixels of a model's layers come from."""

    read: Callable[[PixelBox], Stored]
    """Any lattice box; what lies beyond the data is nodata."""
    block: int = BLOCK
    """Reading is cheapest in whole multiples of so many rows."""
    origin: int = 0
    """A lattice row at which such a block begins."""

    def boundary(self, row: int) -> int:
        """The first row at or after this one at which a block begins."""
        return -(-(row - self.origin) // self.block) * self.block + self.origin


class RollingRows:
    """The rows that are needed now; those that come again are kept and not read twice."""

    def __init__(self, source: Source, columns: tuple[int, int]) -> None:
        """Over a fixed range of lattice columns."""
        self._source = source
        self._left, self._right = columns
        self._box: PixelBox | None = None
        self._kept: Stored = ()

    def take(self, top: int, bottom: int, last: int) -> Stored:
        """Rows `top` to `bottom` of every layer; later calls never ask for rows above `top`.

        `last` is where the area ends: nothing below it is ever asked for, so nothing is read.
        """
        if self._box is None or self._box.row1 <= top:
            self._load(top, bottom, last)
        elif self._box.row1 < bottom:
            self._extend(top, bottom, last)
        box = self._box
        if box is None:
            return ()
        return tuple(k[:, top - box.row0 : bottom - box.row0] for k in self._kept)

    def _load(self, top: int, bottom: int, last: int) -> None:
        self._box = self._rows(top, self._stop(bottom, last))
        self._kept = self._source.read(self._box)

    def _extend(self, top: int, bottom: int, last: int) -> None:
        box = self._box
        if box is None:
            return
        more = self._rows(box.row1, self._stop(bottom, last))
        fresh = self._source.read(more)
        start = max(0, top - box.row0)
        self._kept = tuple(
            np.concatenate([old[:, start:], new], axis=1)
            for old, new in zip(self._kept, fresh, strict=True)
        )
        self._box = self._rows(box.row0 + start, more.row1)

    def _stop(self, bottom: int, last: int) -> int:
        """Whole blocks, but nothing below the area."""
        return max(bottom, min(self._source.boundary(bottom), last))

    def _rows(self, top: int, bottom: int) -> PixelBox:
        return PixelBox(row0=top, col0=self._left, row1=bottom, col1=self._right)
