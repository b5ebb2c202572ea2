"""What tells a good map from a broken one without a reference: seams, and how sure it is."""

from dataclasses import dataclass, field

import numpy as np

from mapper.area.grid import PixelBox

_FEWEST = 1000
"""Pairs of pixels across borders of tiles; of fewer no index is made."""


@dataclass(slots=True)
class _Pairs:
    """Neighbouring pixels that both have a class, and those whose classes differ."""

    all: int = 0
    differing: int = 0

    def add(self, one: np.ndarray, other: np.ndarray, nodata: int) -> None:
        both = (one != nodata) & (other != nodata)
        self.all += int(both.sum())
        self.differing += int((both & (one != other)).sum())

    @property
    def rate(self) -> float:
        return self.differing / self.all if self.all else 0.0


@dataclass(slots=True)
class SeamCounter:
    """Changes of class from pixel to pixel, on the borders of tiles and elsewhere.

    Windows are predicted with their surroundings, so a border of tiles is a line like any other:
    the index is about 1. Where something of a tile enters its labels, it is more.
    """

    tile: int
    """Side of a tile, pixels; borders lie on its multiples on the lattice."""
    nodata: int
    _border: _Pairs = field(default_factory=_Pairs)
    _inside: _Pairs = field(default_factory=_Pairs)
    _above: np.ndarray | None = None
    """The last row of the strip before."""

    def add(self, values: np.ndarray, box: PixelBox) -> None:
        """Count a strip `(y, x)` of classes; strips come from north to south, without a gap."""
        for row in range(len(values)):
            place = self._pairs(box.row0 + row)
            above = values[row - 1] if row else self._above
            if above is not None:
                place.add(above, values[row], self.nodata)
        columns = np.arange(box.col0 + 1, box.col1)
        border = columns % self.tile == 0
        left, right = values[:, :-1], values[:, 1:]
        self._border.add(left[:, border], right[:, border], self.nodata)
        self._inside.add(left[:, ~border], right[:, ~border], self.nodata)
        self._above = values[-1].copy()

    def _pairs(self, row: int) -> _Pairs:
        return self._border if row % self.tile == 0 else self._inside

    @property
    def index(self) -> float | None:
        """Changes a pair on borders, for each elsewhere; None where there is too little to say."""
        if self._border.all < _FEWEST or not self._inside.differing:
            return None
        return round(self._border.rate / self._inside.rate, 4)


@dataclass(slots=True)
class ConfidenceMean:
    """Mean confidence of the pixels that have one."""

    steps: int
    """Stored values of a confidence of 1."""
    nodata: int
    _sum: int = 0
    _count: int = 0

    def add(self, values: np.ndarray) -> None:
        """Count a strip of stored confidences."""
        known = values[values != self.nodata]
        self._sum += int(known.sum(dtype=np.int64))
        self._count += known.size

    @property
    def value(self) -> float | None:
        """From 0 to 1; None where no pixel has one."""
        return round(self._sum / self.steps / self._count, 6) if self._count else None
